/**
 * Uploads in progress: a file and a row each, so that a push can be resumed after a restart, with a hash kept running
 * beside so that finishing costs no second reading. One writer at a time; what is accepted is bounded in number, per
 * user, in size and in age.
 */
import { createHash, type Hash, randomUUID } from 'node:crypto';
import { createReadStream, rmSync, statSync } from 'node:fs';
import { open } from 'node:fs/promises';
import { type Digest, digestHex } from '#types/digest.ts';
import { DistributionError } from '#types/distribution-error.ts';
import type { RepositoryName } from './contract.ts';
import type { RegistryStore } from './store.ts';

/** Uploads at once; each is a file and a row. */
const MAX_UPLOADS = 1000;
/** Uploads of one user at once: far above what a client's parallel pushes need. */
const MAX_UPLOADS_PER_USER = 200;
/** An upload idle for this long gives way to a new one when the table is full. */
const EVICTABLE_IDLE_MS = 10 * 60_000;
const READ_CHUNK_BYTES = 256 * 1024;

export interface UploadLimits {
  /** Largest blob. */
  readonly maxBlobBytes: number;
  /** An upload that got no bytes for this long is removed. */
  readonly maxIdleMs: number;
}

export interface AppendOptions {
  /** Most bytes the upload may have. */
  readonly limitBytes: number;
  /** Thrown when it would have more. */
  readonly beyondLimit: DistributionError;
}

/** One upload. */
export interface Upload {
  readonly id: string;
  readonly repository: RepositoryName;
  readonly user: string;
  /** Bytes accepted so far. */
  offset: number;
  touchedAtMs: number;
  isBusy: boolean;
  /** Hash of the first `hashedBytes`; behind `offset` after a restart. */
  hash: Hash;
  hashedBytes: number;
}

/** The uploads of one registry; only the serving process has this. */
export class Uploads {
  readonly #store: RegistryStore;
  readonly #limits: UploadLimits;
  readonly #now: () => number;
  readonly #uploads = new Map<string, Upload>();

  /** Takes up what an earlier process left; files without a row and rows without a file go. */
  constructor(store: RegistryStore, limits: UploadLimits, now: () => number) {
    this.#store = store;
    this.#limits = limits;
    this.#now = now;
    const { database, files } = store;
    const sql =
      'SELECT u.id AS id, u.user AS user, r.name AS name FROM uploads u JOIN repositories r ON r.id = u.repository';
    for (const row of database.all(sql)) {
      const id = String(row['id']);
      const stat = statSync(files.uploadPath(id), { throwIfNoEntry: false });
      if (stat === undefined) database.run('DELETE FROM uploads WHERE id = ?', id);
      else {
        const upload = newUpload(id, String(row['name']) as RepositoryName, String(row['user']));
        this.#uploads.set(id, { ...upload, offset: stat.size, touchedAtMs: stat.mtimeMs });
      }
    }
    for (const id of files.uploadIds()) if (!this.#uploads.has(id)) rmSync(files.uploadPath(id), { force: true });
  }

  get count(): number {
    return this.#uploads.size;
  }

  /** Bytes of unfinished uploads into repositories that `matches`. */
  pendingBytes(matches: (name: RepositoryName) => boolean): number {
    let bytes = 0;
    for (const upload of this.#uploads.values()) if (matches(upload.repository)) bytes += upload.offset;
    return bytes;
  }

  /** Begins an upload. Throws TOOMANYREQUESTS. */
  async start(repository: RepositoryName, user: string): Promise<Upload> {
    this.#makeRoom(user);
    const upload = { ...newUpload(randomUUID(), repository, user), touchedAtMs: this.#now() };
    const file = await open(this.#path(upload), 'wx', 0o600);
    await file.close();
    this.#store.database.transaction(() => {
      const id = this.#store.ensureRepository(repository);
      const sql = 'INSERT INTO uploads (id, repository, user, started_at) VALUES (?, ?, ?, ?)';
      this.#store.database.run(sql, upload.id, id, user, this.#now());
    });
    this.#uploads.set(upload.id, upload);
    return upload;
  }

  #makeRoom(user: string): void {
    const own = [...this.#uploads.values()].filter((upload) => upload.user === user);
    if (own.length < MAX_UPLOADS_PER_USER && this.#uploads.size < MAX_UPLOADS) return;
    const candidates = own.length >= MAX_UPLOADS_PER_USER ? own : [...this.#uploads.values()];
    const [oldest] = candidates.filter((upload) => !upload.isBusy).toSorted((a, b) => a.touchedAtMs - b.touchedAtMs);
    if (oldest === undefined || oldest.touchedAtMs > this.#now() - EVICTABLE_IDLE_MS) {
      throw new DistributionError('TOOMANYREQUESTS', { message: 'too many uploads in progress' });
    }
    this.cancel(oldest);
  }

  /** The upload of this ID in this repository; throws BLOB_UPLOAD_UNKNOWN. */
  find(repository: RepositoryName, id: string): Upload {
    const upload = this.#uploads.get(id);
    if (upload === undefined || upload.repository !== repository) throw new DistributionError('BLOB_UPLOAD_UNKNOWN');
    return upload;
  }

  /** Appends a body. What arrived before a failure stays, so that the client can go on from there. */
  async append(
    upload: Upload,
    source: AsyncIterable<Uint8Array>,
    options: AppendOptions,
    signal?: AbortSignal,
  ): Promise<void> {
    using _busy = this.#take(upload);
    await using file = await open(this.#path(upload), 'r+');
    for await (const chunk of source) {
      signal?.throwIfAborted();
      if (upload.offset + chunk.length > options.limitBytes) throw options.beyondLimit;
      if (upload.offset + chunk.length > this.#limits.maxBlobBytes) {
        throw new DistributionError('DENIED', {
          message: `requested access to the resource is denied: the blob is larger than ${this.#limits.maxBlobBytes} bytes`,
        });
      }
      let written = 0;
      while (written < chunk.length) {
        written += (await file.write(chunk, written, chunk.length - written, upload.offset + written)).bytesWritten;
      }
      if (upload.hashedBytes === upload.offset) {
        upload.hash.update(chunk);
        upload.hashedBytes += chunk.length;
      }
      upload.offset += chunk.length;
      upload.touchedAtMs = this.#now();
    }
  }

  /** Verifies the bytes and makes them a blob of the repository. The upload is gone afterwards, whatever the outcome. */
  async finish(upload: Upload, digest: Digest, signal?: AbortSignal): Promise<{ digest: Digest; sizeBytes: number }> {
    using _busy = this.#take(upload);
    const path = this.#path(upload);
    try {
      const actual = await this.#hashOf(upload, digest, signal);
      if (actual !== digestHex(digest)) throw new DistributionError('DIGEST_INVALID', { detail: { digest } });
      await using file = await open(path, 'r+');
      await file.sync();
      this.#store.database.transaction(() => {
        this.#store.addBlob(upload.repository, { path, digest, sizeBytes: upload.offset });
        this.#store.database.run('DELETE FROM uploads WHERE id = ?', upload.id);
      });
      this.#uploads.delete(upload.id);
      return { digest, sizeBytes: upload.offset };
    } catch (error) {
      this.#forget(upload);
      throw error;
    }
  }

  async #hashOf(upload: Upload, digest: Digest, signal: AbortSignal | undefined): Promise<string> {
    const algorithm = digest.slice(0, digest.indexOf(':'));
    if (algorithm === 'sha256' && upload.hashedBytes === upload.offset) return upload.hash.copy().digest('hex');
    const hash = createHash(algorithm);
    for await (const chunk of createReadStream(this.#path(upload), { highWaterMark: READ_CHUNK_BYTES, signal }))
      hash.update(chunk);
    return hash.digest('hex');
  }

  /** Forgets an upload, if it is still there; throws when a request is writing to it. */
  cancel(upload: Upload): void {
    if (!this.#uploads.has(upload.id)) return;
    this.#take(upload);
    this.#forget(upload);
  }

  #forget(upload: Upload): void {
    this.#uploads.delete(upload.id);
    // The file first: on a full disk that makes the room the row's removal needs.
    rmSync(this.#path(upload), { force: true });
    this.#store.database.run('DELETE FROM uploads WHERE id = ?', upload.id);
  }

  /** Removes uploads that have been idle too long; returns how many. */
  expire(): number {
    const before = this.#now() - this.#limits.maxIdleMs;
    const old = [...this.#uploads.values()].filter((upload) => !upload.isBusy && upload.touchedAtMs < before);
    for (const upload of old) this.#forget(upload);
    return old.length;
  }

  #take(upload: Upload): Disposable {
    if (upload.isBusy)
      throw new DistributionError('BLOB_UPLOAD_INVALID', { message: 'another request is using this upload' });
    upload.isBusy = true;
    return {
      [Symbol.dispose]: () => {
        upload.isBusy = false;
      },
    };
  }

  #path(upload: Upload): string {
    return this.#store.files.uploadPath(upload.id);
  }
}

function newUpload(id: string, repository: RepositoryName, user: string): Upload {
  return { id, repository, user, offset: 0, touchedAtMs: 0, isBusy: false, hash: createHash('sha256'), hashedBytes: 0 };
}
