/**
 * Content-addressed blobs in OCI layout (`blobs/sha256/…`, image-spec image-layout.md) under the data root.
 *
 * A blob is written in `ingest/` while it is hashed, fsynced and renamed, so a name in `blobs/` always has the
 * content it says. A half-written one of known digest stays there for a while, to be continued. A lease keeps what is
 * in flight from being collected; leases never outlive the process (nothing in flight does), so they are held in
 * memory only.
 */
import { randomUUID } from 'node:crypto';
import { createReadStream, existsSync, renameSync, statSync } from 'node:fs';
import { mkdir, open, readdir, rename, rm, stat } from 'node:fs/promises';
import { join } from 'node:path';
import { passBytes } from '#system/kernel/buffers.ts';
import { hasCode } from '#system/kernel/errno.ts';
import { type Digest, digestHex, isDigest } from '#types/digest.ts';
import { GantryError } from '#types/errors.ts';
import type {
  BlobReferences,
  ContentStore,
  Ingest,
  IngestOptions,
  Lease,
  StoredBlob,
  WriteBlobOptions,
} from './contract.ts';
import { FileIngest } from './ingest.ts';

class BlobLease implements Lease {
  readonly digests: Set<Digest> = new Set();
  readonly #release: (lease: BlobLease) => void;

  constructor(release: (lease: BlobLease) => void) {
    this.#release = release;
  }

  [Symbol.dispose](): void {
    this.#release(this);
  }
}

/** Chunk size when reading blobs. */
const READ_CHUNK_BYTES = 256 * 1024;
/** Prefix of half-written blobs of known digest, which the next attempt continues. */
const PARTIAL = 'partial-';
/** Half-written blobs are kept this long after their last byte came, and this much of them altogether. */
const PARTIAL_MAX_AGE_MS = 24 * 60 * 60 * 1000;
const PARTIAL_MAX_BYTES = 8 * 1024 * 1024 * 1024;

/** The blob store of one data root. */
export class Content implements ContentStore {
  readonly #blobs: string;
  readonly #ingest: string;
  readonly #trash: string;
  readonly #leases = new Set<BlobLease>();
  /** Names of files being written in `ingest/`. */
  readonly #active = new Set<string>();

  private constructor(directory: string) {
    this.#blobs = join(directory, 'blobs', 'sha256');
    this.#ingest = join(directory, 'ingest');
    this.#trash = join(directory, 'blobs', 'trash');
  }

  /** Opens (creating) the store and drops what a crash left half written and cannot be continued. */
  static async open(directory: string): Promise<Content> {
    const content = new Content(directory);
    await mkdir(content.#blobs, { recursive: true, mode: 0o700 });
    await mkdir(content.#ingest, { recursive: true, mode: 0o700 });
    await content.#collectPartials();
    await rm(content.#trash, { recursive: true, force: true });
    await mkdir(content.#trash, { recursive: true, mode: 0o700 });
    return content;
  }

  /** Starts a lease; `using lease = content.lease()`. */
  lease(): Lease {
    const lease = new BlobLease((ended) => this.#leases.delete(ended));
    this.#leases.add(lease);
    return lease;
  }

  /** Stores a stream; nothing remains when it fails. */
  async write(
    source: AsyncIterable<Uint8Array>,
    options: WriteBlobOptions = {},
    signal?: AbortSignal,
  ): Promise<StoredBlob> {
    const { expected, limitBytes = Number.POSITIVE_INFINITY, lease, replace = false } = options;
    await using ingest = await this.ingest({ replace, ...(lease === undefined ? {} : { lease }) });
    for await (const chunk of source) {
      signal?.throwIfAborted();
      if (ingest.offset + chunk.length > limitBytes)
        throw new GantryError('invalid', `content is larger than ${limitBytes} bytes`);
      await ingest.append(chunk);
    }
    return await ingest.commit(expected);
  }

  /** Begins or continues a blob. */
  async ingest(options: IngestOptions = {}, signal?: AbortSignal): Promise<Ingest> {
    const { expected } = options;
    if (expected !== undefined) this.path(expected.digest);
    const name = expected === undefined ? randomUUID() : `${PARTIAL}${digestHex(expected.digest)}`;
    if (this.#active.has(name))
      throw new GantryError('conflict', `content ${expected?.digest} is being written already`);
    this.#active.add(name);
    const release = (): void => void this.#active.delete(name);
    const path = join(this.#ingest, name);
    const publish = (digest: Digest): Promise<void> => this.#publish(path, digest, options.replace === true);
    try {
      return await FileIngest.open({ path, publish, release }, options, signal);
    } catch (error) {
      release();
      throw error;
    }
  }

  async #publish(path: string, digest: Digest, replace: boolean): Promise<void> {
    if (this.has(digest) && !replace) {
      await rm(path, { force: true });
      return;
    }
    await rename(path, this.path(digest));
    await syncDirectory(this.#blobs);
  }

  /** Drops half-written blobs that nobody continued in time, oldest first where there are too many. */
  async #collectPartials(): Promise<void> {
    const kept: { path: string; name: string; sizeBytes: number; modifiedMs: number }[] = [];
    for (const name of await readdir(this.#ingest)) {
      if (this.#active.has(name)) continue;
      const path = join(this.#ingest, name);
      const found = await stat(path).catch(() => undefined);
      if (found === undefined) continue;
      const recent = Date.now() - found.mtimeMs < PARTIAL_MAX_AGE_MS;
      if (name.startsWith(PARTIAL) && recent && !this.has(`sha256:${name.slice(PARTIAL.length)}` as Digest))
        kept.push({ path, name, sizeBytes: found.size, modifiedMs: found.mtimeMs });
      else await rm(path, { recursive: true, force: true });
    }
    let sizeBytes = kept.reduce((sum, each) => sum + each.sizeBytes, 0);
    for (const oldest of kept.sort((a, b) => a.modifiedMs - b.modifiedMs)) {
      if (sizeBytes <= PARTIAL_MAX_BYTES) break;
      sizeBytes -= oldest.sizeBytes;
      if (!this.#active.has(oldest.name)) await rm(oldest.path, { force: true });
    }
  }

  /** Where a blob lies. */
  path(digest: Digest): string {
    if (!isDigest(digest) || !digest.startsWith('sha256:')) {
      throw new GantryError('invalid', `content digest ${digest}: unsupported algorithm`);
    }
    return join(this.#blobs, digestHex(digest));
  }

  has(digest: Digest): boolean {
    return existsSync(this.path(digest));
  }

  /** Bytes of a blob; undefined when it is not there. */
  size(digest: Digest): number | undefined {
    return statSync(this.path(digest), { throwIfNoEntry: false })?.size;
  }

  /** Streams a blob; throws `notFound` when it is not there. */
  read(digest: Digest): AsyncIterable<Buffer> {
    if (!this.has(digest)) throw new GantryError('notFound', `content digest ${digest}: not found`);
    return counted(createReadStream(this.path(digest), { highWaterMark: READ_CHUNK_BYTES }));
  }

  /** Removes a blob unless a lease holds it. */
  async delete(digest: Digest): Promise<void> {
    if (this.isLeased(digest)) return;
    await this.#remove(digest);
  }

  /** Removes every blob that is neither referenced nor leased; returns what was freed. */
  async gc(referenced: BlobReferences): Promise<{ deleted: Digest[]; sizeBytes: number }> {
    const deleted: Digest[] = [];
    let sizeBytes = 0;
    for (const name of await readdir(this.#blobs)) {
      const digest = `sha256:${name}`;
      if (!isDigest(digest) || referenced.has(digest) || this.isLeased(digest)) continue;
      sizeBytes += this.size(digest) ?? 0;
      await this.#remove(digest);
      deleted.push(digest);
    }
    await this.#collectPartials();
    return { deleted, sizeBytes };
  }

  /** Whether a lease holds a blob. */
  isLeased(digest: Digest): boolean {
    for (const lease of this.#leases) if (lease.digests.has(digest)) return true;
    return false;
  }

  /** What lies in the store's directories. */
  async list(): Promise<{ blobs: Digest[]; strangers: string[]; leftovers: string[] }> {
    const blobs: Digest[] = [];
    const strangers: string[] = [];
    for (const name of await readdir(this.#blobs)) {
      const digest = `sha256:${name}`;
      if (isDigest(digest)) blobs.push(digest);
      else strangers.push(join(this.#blobs, name));
    }
    const ingests = await readdir(this.#ingest);
    return {
      blobs,
      strangers,
      leftovers: ingests.filter((name) => this.#isLeftover(name)).map((name) => join(this.#ingest, name)),
    };
  }

  /** Nobody writes it, and nobody could continue it. */
  #isLeftover(name: string): boolean {
    return !this.#active.has(name) && !name.startsWith(PARTIAL);
  }

  /** Removes strangers and leftovers of `list`. */
  async discard(path: string): Promise<void> {
    await rm(path, { recursive: true, force: true });
  }

  /**
   * Takes a blob's name away in the same stretch in which it was found unneeded: a removal that happened later, on
   * a pool thread, could take the file from a writer who has just found it there.
   */
  async #remove(digest: Digest): Promise<void> {
    const target = join(this.#trash, randomUUID());
    try {
      renameSync(this.path(digest), target);
    } catch (error) {
      if (hasCode(error, 'ENOENT')) return;
      throw error;
    }
    await rm(target, { recursive: true, force: true });
  }
}

async function* counted(stream: AsyncIterable<Buffer>): AsyncGenerator<Buffer> {
  for await (const chunk of stream) {
    passBytes(chunk.length);
    yield chunk;
  }
}

async function syncDirectory(directory: string): Promise<void> {
  await using handle = await open(directory, 'r');
  await handle.sync();
}
