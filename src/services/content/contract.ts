/** Content-addressed blobs: written once under their digest, kept while referenced or leased (OCI image-layout). */
import type { Digest } from '#types/digest.ts';

export interface StoredBlob {
  readonly digest: Digest;
  readonly sizeBytes: number;
}

export interface WriteBlobOptions {
  /** The digest the bytes must have. */
  readonly expected?: Digest;
  /** Fails when more bytes than this arrive. */
  readonly limitBytes?: number;
  /** Keeps the blob from collection until disposed. */
  readonly lease?: Lease;
}

/** Names blobs that must stay while something is in flight. */
export interface Lease extends Disposable {
  readonly digests: Set<Digest>;
}

/** The blob store of one data root. */
export interface ContentStore {
  lease(): Lease;
  /** Stores a stream; nothing remains when it fails. Throws `invalid` for another digest than expected or too many bytes. */
  write(source: AsyncIterable<Uint8Array>, options?: WriteBlobOptions, signal?: AbortSignal): Promise<StoredBlob>;
  /** Where a blob lies. */
  path(digest: Digest): string;
  has(digest: Digest): boolean;
  /** Bytes of a blob; undefined when it is not there. */
  size(digest: Digest): number | undefined;
  /** Streams a blob; throws `notFound` when it is not there. */
  read(digest: Digest): AsyncIterable<Buffer>;
  /** Removes a blob unless a lease holds it. */
  delete(digest: Digest): Promise<void>;
  /** Removes every blob that is neither referenced nor leased; returns what was freed. */
  gc(referenced: ReadonlySet<Digest>): Promise<{ deleted: Digest[]; sizeBytes: number }>;
}
