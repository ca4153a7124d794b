/** Content-addressed blobs: written once under their digest, kept while referenced or leased (OCI image-layout). */
import type { FileGrowth } from '#system/disk/growing-file.ts';
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

/** What is known of a blob before its bytes come. With a digest, what an earlier attempt left is continued. */
export interface IngestOptions {
  readonly expected?: { readonly digest: Digest; readonly sizeBytes: number };
  readonly lease?: Lease;
  /** Takes the place of a blob that is there already (and whose bytes turned out to be bad). */
  readonly replace?: boolean;
  /** The caller takes the digest of the file itself and gives it to `commit`. */
  readonly hashedElsewhere?: boolean;
}

/**
 * A blob being written. `append` bytes, then `commit`; disposing without commit keeps a blob of known digest for the
 * next attempt (within the store's limits) and drops any other. Others may read `path` as far as `growth` says.
 */
export interface Ingest extends AsyncDisposable {
  readonly path: string;
  readonly growth: FileGrowth;
  /** Bytes taken so far, those of an earlier attempt included: where to go on. */
  readonly offset: number;
  /** Takes bytes; the buffer must not be changed afterwards. Throws `invalid` beyond the expected size. */
  append(chunk: Uint8Array): Promise<void>;
  /** Waits until everything appended is in the file, and says so through `growth`. */
  flush(): Promise<void>;
  /**
   * Verifies digest and size and gives the blob its name, durably. A wrong one is dropped: it cannot be continued.
   * `digest` is for a blob begun without one; where hashing is the caller's, it is believed.
   */
  commit(digest?: Digest): Promise<StoredBlob>;
  /** Drops everything at dispose. */
  discard(): void;
}

/** The blob store of one data root. */
export interface ContentStore {
  lease(): Lease;
  /** Stores a stream; nothing remains when it fails. Throws `invalid` for another digest than expected or too many bytes. */
  write(source: AsyncIterable<Uint8Array>, options?: WriteBlobOptions, signal?: AbortSignal): Promise<StoredBlob>;
  /** Begins or continues a blob. One at a time for a digest: a second caller throws `conflict`. */
  ingest(options?: IngestOptions, signal?: AbortSignal): Promise<Ingest>;
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
