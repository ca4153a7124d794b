/**
 * One blob on its way into the store: bytes are hashed as they come and written in large pieces while the next ones
 * arrive. A file of known digest is named after it, so that a later attempt finds and continues it.
 */
import { createHash, type Hash } from 'node:crypto';
import { type FileHandle, open, rm } from 'node:fs/promises';
import { FileGrowth } from '#system/disk/growing-file.ts';
import { passBytes } from '#system/kernel/buffers.ts';
import type { Digest } from '#types/digest.ts';
import { GantryError } from '#types/errors.ts';
import type { Ingest, IngestOptions, StoredBlob } from './contract.ts';

/** Bytes gathered before a write; as many again may be on their way to the file. */
const PIECE_BYTES = 1024 * 1024;
const READ_CHUNK_BYTES = 256 * 1024;

export interface IngestPlace {
  readonly path: string;
  /** Gives the finished file its final name. */
  readonly publish: (digest: Digest) => Promise<void>;
  /** The file is no longer being written. */
  readonly release: () => void;
}

/** See the contract. */
export class FileIngest implements Ingest {
  readonly path: string;
  readonly growth: FileGrowth = new FileGrowth();
  readonly #place: IngestPlace;
  readonly #options: IngestOptions;
  readonly #file: FileHandle;
  readonly #hash: Hash = createHash('sha256');
  #offset = 0;
  /** Chunks are copied together: those that wait for a write would outlive the cheap collections. */
  #piece: Buffer | undefined;
  #other: Buffer | undefined;
  #gathered = 0;
  #writing: Promise<void> = Promise.resolve();
  #keep: boolean;
  #done = false;

  private constructor(place: IngestPlace, options: IngestOptions, file: FileHandle) {
    this.path = place.path;
    this.#place = place;
    this.#options = options;
    this.#file = file;
    this.#keep = options.expected !== undefined;
  }

  /** Opens the file, hashing what an earlier attempt left in it. */
  static async open(place: IngestPlace, options: IngestOptions, signal?: AbortSignal): Promise<FileIngest> {
    const file = await open(place.path, options.expected === undefined ? 'wx+' : 'a+', 0o600);
    const ingest = new FileIngest(place, options, file);
    try {
      await ingest.#rehash(signal);
    } catch (error) {
      await file.close();
      throw error;
    }
    return ingest;
  }

  async #rehash(signal?: AbortSignal): Promise<void> {
    const { expected } = this.#options;
    if (expected === undefined) return;
    const { size } = await this.#file.stat();
    if (size > expected.sizeBytes) {
      await this.#file.truncate(0);
      return;
    }
    const buffer = Buffer.allocUnsafeSlow(READ_CHUNK_BYTES);
    while (this.#offset < size) {
      signal?.throwIfAborted();
      const { bytesRead } = await this.#file.read(buffer, 0, buffer.length, this.#offset);
      if (bytesRead === 0) break;
      this.#hash.update(buffer.subarray(0, bytesRead));
      this.#offset += bytesRead;
    }
    this.growth.grow(this.#offset);
  }

  get offset(): number {
    return this.#offset;
  }

  async append(chunk: Uint8Array): Promise<void> {
    const limit = this.#options.expected?.sizeBytes ?? Number.POSITIVE_INFINITY;
    if (this.#offset + chunk.length > limit) {
      this.#keep = false;
      throw new GantryError('invalid', `content is larger than ${limit} bytes`);
    }
    if (this.#options.hashedElsewhere !== true) this.#hash.update(chunk);
    this.#offset += chunk.length;
    passBytes(chunk.length);
    for (let at = 0; at < chunk.length; ) {
      const count = Math.min(PIECE_BYTES - this.#gathered, chunk.length - at);
      this.#piece ??= Buffer.allocUnsafeSlow(PIECE_BYTES);
      this.#piece.set(chunk.subarray(at, at + count), this.#gathered);
      at += count;
      this.#gathered += count;
      if (this.#gathered === PIECE_BYTES) await this.#write(this.#offset - (chunk.length - at));
    }
  }

  /** Waits for the write before and begins the next; a failure shows at the next one. */
  async #write(end: number): Promise<void> {
    await this.#writing;
    const piece = this.#piece?.subarray(0, this.#gathered) ?? Buffer.alloc(0);
    [this.#piece, this.#other] = [this.#other, this.#piece];
    this.#gathered = 0;
    this.#writing = (async () => {
      await writeWhole(this.#file, [piece]);
      this.growth.grow(end);
    })();
    this.#writing.catch(() => {});
  }

  async flush(): Promise<void> {
    if (this.#gathered > 0) await this.#write(this.#offset);
    await this.#writing;
  }

  async commit(wanted: Digest | undefined = this.#options.expected?.digest): Promise<StoredBlob> {
    await this.flush();
    const digest = this.#digest(wanted);
    const sizeBytes = this.#offset;
    this.#keep = false;
    if (wanted !== undefined && digest !== wanted) {
      throw new GantryError('invalid', `unexpected commit digest ${digest}, expected ${wanted}: failed precondition`);
    }
    const { expected, lease } = this.#options;
    if (expected !== undefined && sizeBytes !== expected.sizeBytes)
      throw new GantryError('invalid', `unexpected commit size ${sizeBytes}, expected ${expected.sizeBytes}`);
    lease?.digests.add(digest);
    this.growth.complete();
    await this.#file.datasync();
    await this.#place.publish(digest);
    this.#done = true;
    await this.#file.close();
    this.#place.release();
    return { digest, sizeBytes };
  }

  #digest(wanted: Digest | undefined): Digest {
    if (this.#options.hashedElsewhere !== true) return `sha256:${this.#hash.digest('hex')}` as Digest;
    if (wanted === undefined) throw new Error('a blob hashed elsewhere is committed without its digest');
    return wanted;
  }

  discard(): void {
    this.#keep = false;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    if (this.#done) return;
    this.#done = true;
    this.growth.abandon();
    try {
      if (this.#keep) await this.flush().catch(() => {});
      else await this.#writing.catch(() => {});
      await this.#file.close().catch(() => {});
      if (!this.#keep || this.#offset === 0) await rm(this.path, { force: true });
    } finally {
      this.#place.release();
    }
  }
}

async function writeWhole(file: FileHandle, pieces: readonly Uint8Array[]): Promise<void> {
  let rest = [...pieces];
  while (rest.length > 0) {
    let { bytesWritten } = await file.writev(rest);
    while (rest.length > 0 && bytesWritten >= (rest[0] as Uint8Array).length) {
      bytesWritten -= (rest[0] as Uint8Array).length;
      rest.shift();
    }
    if (bytesWritten > 0) rest = [(rest[0] as Uint8Array).subarray(bytesWritten), ...rest.slice(1)];
  }
}
