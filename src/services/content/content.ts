/**
 * Content-addressed blobs in OCI layout (`blobs/sha256/…`, image-spec image-layout.md) under the data root.
 *
 * A blob is written to a temporary name while it is hashed, fsynced and renamed, so a name in `blobs/` always
 * has the content it says. A lease keeps what is in flight from being collected; leases never outlive the
 * process (nothing in flight does), so they are held in memory only.
 */
import { createHash, randomUUID } from 'node:crypto';
import { createReadStream, existsSync, renameSync, statSync } from 'node:fs';
import { mkdir, open, readdir, rename, rm, unlink } from 'node:fs/promises';
import { join } from 'node:path';
import { hasCode } from '#system/kernel/errno.ts';
import { type Digest, digestHex, isDigest } from '#types/digest.ts';
import { GantryError } from '#types/errors.ts';
import type { BlobReferences, ContentStore, Lease, StoredBlob, WriteBlobOptions } from './contract.ts';

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

/** The blob store of one data root. */
export class Content implements ContentStore {
  readonly #blobs: string;
  readonly #ingest: string;
  readonly #trash: string;
  readonly #leases = new Set<BlobLease>();
  /** Unfinished writes of this process. */
  readonly #writing = new Set<string>();

  private constructor(directory: string) {
    this.#blobs = join(directory, 'blobs', 'sha256');
    this.#ingest = join(directory, 'ingest');
    this.#trash = join(directory, 'blobs', 'trash');
  }

  /** Opens (creating) the store and drops what a crash left half written. */
  static async open(directory: string): Promise<Content> {
    const content = new Content(directory);
    await mkdir(content.#blobs, { recursive: true, mode: 0o700 });
    await rm(content.#ingest, { recursive: true, force: true });
    await mkdir(content.#ingest, { recursive: true, mode: 0o700 });
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
    const name = randomUUID();
    const temporary = join(this.#ingest, name);
    this.#writing.add(name);
    const hash = createHash('sha256');
    let sizeBytes = 0;
    try {
      await using file = await open(temporary, 'wx', 0o600);
      for await (const chunk of source) {
        signal?.throwIfAborted();
        sizeBytes += chunk.length;
        if (sizeBytes > (options.limitBytes ?? Number.POSITIVE_INFINITY)) {
          throw new GantryError('invalid', `content is larger than ${options.limitBytes} bytes`);
        }
        hash.update(chunk);
        await writeWhole(file, chunk);
      }
      const digest = `sha256:${hash.digest('hex')}` as Digest;
      if (options.expected !== undefined && options.expected !== digest) {
        throw new GantryError(
          'invalid',
          `unexpected commit digest ${digest}, expected ${options.expected}: failed precondition`,
        );
      }
      options.lease?.digests.add(digest);
      if (this.has(digest) && options.replace !== true) {
        await unlink(temporary);
        return { digest, sizeBytes };
      }
      await file.sync();
      await rename(temporary, this.path(digest));
      await syncDirectory(this.#blobs);
      return { digest, sizeBytes };
    } catch (error) {
      await rm(temporary, { force: true });
      throw error;
    } finally {
      this.#writing.delete(name);
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
    return createReadStream(this.path(digest), { highWaterMark: READ_CHUNK_BYTES });
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
      leftovers: ingests.filter((name) => !this.#writing.has(name)).map((name) => join(this.#ingest, name)),
    };
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

async function writeWhole(
  file: { write(bytes: Uint8Array, offset: number): Promise<{ bytesWritten: number }> },
  chunk: Uint8Array,
): Promise<void> {
  let offset = 0;
  while (offset < chunk.length) offset += (await file.write(chunk, offset)).bytesWritten;
}

async function syncDirectory(directory: string): Promise<void> {
  await using handle = await open(directory, 'r');
  await handle.sync();
}
