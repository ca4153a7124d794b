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
  /** Takes the place of a blob that is there already (and whose bytes turned out to be bad). */
  readonly replace?: boolean;
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
  /**
   * Removes every blob that is neither referenced nor leased; returns what was freed. `referenced` is asked at the
   * moment of each removal, so that a live answer makes collecting safe beside running work.
   */
  gc(referenced: BlobReferences): Promise<{ deleted: Digest[]; sizeBytes: number }>;
  /** Whether a lease holds a blob. */
  isLeased(digest: Digest): boolean;
  /** What lies in the store's directories: blobs, names that are none, and unfinished writes nobody works on. */
  list(): Promise<{ blobs: Digest[]; strangers: string[]; leftovers: string[] }>;
  /** Removes strangers and leftovers of `list`. */
  discard(path: string): Promise<void>;
}

/** Tells whether something still needs a blob. */
export interface BlobReferences {
  has(digest: Digest): boolean;
}
