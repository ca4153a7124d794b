/**
 * What a registry keeps: repositories hold manifests (by digest), tags naming them, and links to blobs.
 *
 * Life of a blob: its bytes arrive in an upload; finishing checks the digest and links the blob to the repository;
 * a manifest that names it keeps it. A linked blob that no manifest names is kept for a grace time after it was last
 * pushed, mounted or asked for, so that a push in progress never loses what it has been told is there. After that
 * the collector removes the link, and with the last link the bytes.
 */
import type { Digest } from '#types/digest.ts';

/** A name of the distribution-spec's grammar, without host: `team/app`. */
export type RepositoryName = string & { readonly __brand: 'RepositoryName' };

/** What a caller may do with a repository. */
export type Action = 'pull' | 'push' | 'delete';

/** A descriptor as manifests carry it (image-spec descriptor.md). */
export interface Descriptor {
  readonly mediaType: string;
  readonly digest: Digest;
  readonly sizeBytes: number;
  readonly artifactType?: string;
  readonly annotations?: Readonly<Record<string, string>>;
  readonly platform?: Readonly<Record<string, unknown>>;
  readonly urls?: readonly string[];
}

/** A manifest as it was pushed. */
export interface StoredManifest {
  readonly digest: Digest;
  readonly mediaType: string;
  readonly bytes: Buffer;
  /** Milliseconds since the epoch. */
  readonly pushedAtMs: number;
}

/** A tag and what it names. */
export interface TagRecord {
  readonly name: string;
  readonly digest: Digest;
  readonly mediaType: string;
  readonly pushedAtMs: number;
}

/** One page of names, in byte order. */
export interface Page {
  readonly names: readonly string[];
  readonly hasMore: boolean;
}

export interface PageRequest {
  /** Names after this one. */
  readonly last: string;
  readonly limit: number;
}
