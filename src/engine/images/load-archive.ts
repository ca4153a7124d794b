/**
 * An image archive read once: small files stay in memory, large ones become blobs while they come, and what looks like
 * a layer is extracted at the same time, before the archive says what it is. No path of the archive ever touches the
 * host's file system. Disposing drops what no image took.
 */
import { createHash } from 'node:crypto';
import { createReadStream } from 'node:fs';
import type { Ingest } from '#services/content/contract.ts';
import type { ImageStore, LayerHold } from '#services/images/store.ts';
import type { TarCodec } from '#services/images/tar-codec.ts';
import type { StagedLayer } from '#services/snapshots/contract.ts';
import { type Digest, digestHex, digestOf, isDigest } from '#types/digest.ts';
import { errorMessage, GantryError } from '#types/errors.ts';
import { cleanRelative } from '#types/path.ts';
import { type StoredLayerSource, stageBlob } from './layer.ts';

/** Files in one archive. */
export const ARCHIVE_ENTRY_LIMIT = 100_000;
/** Bytes of one JSON document in an archive. */
export const ARCHIVE_JSON_LIMIT_BYTES: number = 16 * 1024 * 1024;
/** Symlinks followed for one name; old archives link shared layers. */
const LINK_LIMIT = 16;
/** Files up to this size are kept in memory, as long as all of them together are not more than the second. */
const SMALL_FILE_BYTES = 256 * 1024;
const SMALL_FILES_BYTES = 16 * 1024 * 1024;
/** Blobs being extracted or on their way to the disk while the archive is read on. */
const PENDING_MAX = 8;
/** Layers waiting for a thread; each keeps a file open. */
const STAGED_AHEAD_MAX = 64;
/** Where a tar header says that it is one. */
const MAGIC_OFFSET = 257;

interface BlobFile {
  readonly stored: StoredLayerSource;
  /** The layer it seems to be; a failure shows when an image wants it. */
  readonly staging: Promise<StagedLayer> | undefined;
}

type ArchiveFile = { readonly bytes: Buffer; readonly digest: Digest } | BlobFile;

/** The digest that the extracting thread took; where extraction failed, the file is read for it. */
async function digestOfLayer(file: Ingest, staging: Promise<StagedLayer> | undefined): Promise<Digest | undefined> {
  if (staging === undefined) return undefined;
  await file.flush();
  file.growth.complete();
  const staged = await staging.catch(() => undefined);
  if (staged?.fileDigest !== undefined) return staged.fileDigest;
  const hash = createHash('sha256');
  for await (const chunk of createReadStream(file.path)) hash.update(chunk as Buffer);
  return `sha256:${hash.digest('hex')}` as Digest;
}

function looksLikeLayer(start: Buffer): boolean {
  if (start.toString('latin1', MAGIC_OFFSET, MAGIC_OFFSET + 5) === 'ustar') return true;
  const magic = start.toString('hex', 0, 6);
  return magic.startsWith('1f8b08') || magic.startsWith('28b52ffd');
}

async function* joined(first: Buffer, rest: AsyncIterator<Buffer>): AsyncGenerator<Buffer> {
  yield first;
  for (let next = await rest.next(); next.done !== true; next = await rest.next()) yield next.value;
}

/** See the head of the file. */
export class LoadArchive implements AsyncDisposable {
  readonly #images: ImageStore;
  readonly #hold: LayerHold;
  readonly #files = new Map<string, ArchiveFile>();
  readonly #links = new Map<string, string>();
  readonly #pending = new Set<Promise<void>>();
  /** Every layer that was begun, whatever became of its file. */
  readonly #stagings = new Set<Promise<StagedLayer>>();
  readonly #taken = new Set<StagedLayer>();
  #waiting = 0;
  #smallBytes = 0;

  constructor(images: ImageStore, hold: LayerHold) {
    this.#images = images;
    this.#hold = hold;
  }

  /** Reads the archive to its end. */
  async read(tar: TarCodec, source: AsyncIterable<Buffer>, signal?: AbortSignal): Promise<void> {
    let count = 0;
    for await (const { entry, content } of tar.read(tar.decompress(source, signal))) {
      signal?.throwIfAborted();
      count += 1;
      if (count > ARCHIVE_ENTRY_LIMIT)
        throw new GantryError('invalid', `invalid archive: more than ${ARCHIVE_ENTRY_LIMIT} entries`);
      const path = cleanRelative(entry.path);
      if (entry.type === 'file') await this.#take(path, { content, sizeBytes: entry.sizeBytes }, signal);
      else if (entry.type === 'symlink') {
        const directory = path.slice(0, Math.max(0, path.lastIndexOf('/')));
        const target = entry.linkPath.startsWith('/') ? entry.linkPath : `${directory}/${entry.linkPath}`;
        this.#links.set(path, cleanRelative(target));
      } else if (entry.type === 'link') this.#links.set(path, cleanRelative(entry.linkPath));
    }
    await Promise.all(this.#pending);
  }

  async #take(
    path: string,
    file: { content: AsyncIterable<Buffer>; sizeBytes: number },
    signal?: AbortSignal,
  ): Promise<void> {
    if (file.sizeBytes <= SMALL_FILE_BYTES && this.#smallBytes + file.sizeBytes <= SMALL_FILES_BYTES) {
      const chunks: Buffer[] = [];
      // Copied: a chunk is part of a larger one that must not be kept for it.
      for await (const chunk of file.content) chunks.push(Buffer.from(chunk));
      const bytes = Buffer.concat(chunks);
      this.#smallBytes += bytes.length;
      this.#files.set(path, { bytes, digest: digestOf(bytes) });
      return;
    }
    const known = this.#knownBlob(path);
    if (known !== undefined) return this.#takeKnown(path, known, file.content);
    await this.#takeBlob(path, file.content, signal);
  }

  /** A layer blob of that name that is here already. */
  #knownBlob(path: string): StoredLayerSource | undefined {
    const digest = `sha256:${path.slice(path.lastIndexOf('/') + 1)}`;
    if (!isDigest(digest) || !this.#images.isLayerBlob(digest)) return undefined;
    const sizeBytes = this.#images.content.size(digest);
    return sizeBytes === undefined ? undefined : { digest, sizeBytes };
  }

  /** Reads over a blob that is here under its digest; its bytes must be the same. */
  async #takeKnown(path: string, stored: StoredLayerSource, content: AsyncIterable<Buffer>): Promise<void> {
    this.#hold.lease.digests.add(stored.digest);
    const hash = createHash('sha256');
    for await (const chunk of content) hash.update(chunk);
    const digest = `sha256:${hash.digest('hex')}`;
    if (digest !== stored.digest) throw new GantryError('invalid', `invalid archive: ${path} has digest ${digest}`);
    this.#files.set(path, { stored, staging: undefined });
  }

  async #takeBlob(path: string, content: AsyncIterable<Buffer>, signal?: AbortSignal): Promise<void> {
    const iterator = content[Symbol.asyncIterator]();
    const first = await iterator.next();
    if (first.done === true) return;
    const stages = this.#canStage(first.value);
    const ingest = await this.#images.content.ingest({ lease: this.#hold.lease, hashedElsewhere: stages });
    let staging: Promise<StagedLayer> | undefined;
    try {
      if (stages) staging = this.#stage(ingest, signal);
      for await (const chunk of joined(first.value, iterator)) await ingest.append(chunk);
    } catch (error) {
      await ingest[Symbol.asyncDispose]();
      throw error;
    }
    await this.#finish(path, ingest, staging);
  }

  #canStage(start: Buffer): boolean {
    return this.#images.snapshots.stagesAhead && this.#waiting < STAGED_AHEAD_MAX && looksLikeLayer(start);
  }

  #stage(ingest: Ingest, signal?: AbortSignal): Promise<StagedLayer> {
    const { path, growth } = ingest;
    const staging = this.#images.snapshots.stage({ path, growth, hashFile: true }, signal);
    this.#stagings.add(staging);
    this.#waiting += 1;
    const settled = (): void => {
      this.#waiting -= 1;
    };
    staging.then(settled, settled);
    return staging;
  }

  /** Lets a blob reach the disk while the archive is read on. */
  async #finish(path: string, ingest: Ingest, staging: Promise<StagedLayer> | undefined): Promise<void> {
    const finishing = (async () => {
      await using file = ingest;
      const stored = await file.commit(await digestOfLayer(file, staging));
      this.#files.set(path, { stored, staging });
    })();
    finishing.catch(() => {});
    this.#pending.add(finishing);
    finishing.then(
      () => this.#pending.delete(finishing),
      () => {},
    );
    while (this.#pending.size >= PENDING_MAX) await Promise.race(this.#pending);
  }

  #find(path: string): ArchiveFile {
    let name = cleanRelative(path);
    for (let hop = 0; hop < LINK_LIMIT; hop += 1) {
      const file = this.#files.get(name);
      if (file !== undefined) return file;
      const next = this.#links.get(name);
      if (next === undefined) break;
      name = next;
    }
    throw new GantryError('system', `open ${path}: no such file or directory`);
  }

  has(path: string): boolean {
    return this.#files.has(cleanRelative(path)) || this.#links.has(cleanRelative(path));
  }

  /** The digest of a file's bytes. */
  digest(path: string): Digest {
    const file = this.#find(path);
    return 'bytes' in file ? file.digest : file.stored.digest;
  }

  /** The bytes of a document. */
  async bytes(path: string): Promise<Buffer> {
    const file = this.#find(path);
    if ('bytes' in file) return file.bytes;
    if (file.stored.sizeBytes > ARCHIVE_JSON_LIMIT_BYTES)
      throw new GantryError('invalid', `invalid archive: ${path} is too large`);
    const chunks: Buffer[] = [];
    for await (const chunk of this.#images.content.read(file.stored.digest)) chunks.push(chunk);
    return Buffer.concat(chunks);
  }

  async json(path: string): Promise<unknown> {
    try {
      return JSON.parse((await this.bytes(path)).toString('utf8'));
    } catch (error) {
      throw new GantryError('invalid', `invalid archive: failed to decode ${path}: ${errorMessage(error)}`, {
        cause: error,
      });
    }
  }

  /** The path of a blob of an OCI layout; its name must be its digest. */
  blobPath(digest: unknown): string {
    if (typeof digest !== 'string' || !isDigest(digest) || !digest.startsWith('sha256:')) {
      throw new GantryError('invalid', 'invalid checksum digest format');
    }
    const path = `blobs/sha256/${digestHex(digest)}`;
    const actual = this.digest(path);
    if (actual !== digest) throw new GantryError('invalid', `invalid archive: ${path} has digest ${actual}`);
    return path;
  }

  /** A file as a blob of the content store. */
  async stored(path: string): Promise<StoredLayerSource> {
    const file = this.#find(path);
    if ('stored' in file) return file.stored;
    const source = async function* (): AsyncGenerator<Buffer> {
      yield file.bytes;
    };
    const stored = await this.#images.content.write(source(), { lease: this.#hold.lease });
    this.#files.set(`\0${stored.digest}`, { stored, staging: undefined });
    return stored;
  }

  /** A file's layer, extracted: once from what was done while reading, then from its blob. */
  async staged(path: string, signal?: AbortSignal): Promise<StagedLayer> {
    const file = this.#find(path);
    if ('stored' in file && file.staging !== undefined) {
      const staged = await file.staging;
      if (!this.#taken.has(staged)) {
        this.#taken.add(staged);
        return staged;
      }
    }
    const options = signal === undefined ? {} : { signal };
    const again = stageBlob(this.#images, await this.stored(path), options);
    this.#stagings.add(again);
    return again;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await Promise.allSettled(this.#pending);
    for (const staging of this.#stagings) {
      const staged = await staging.catch(() => undefined);
      staged?.[Symbol.dispose]();
    }
  }

  /** Deletes the blobs that became no layer. Call when the hold is over. */
  async dropBlobs(): Promise<void> {
    for (const file of this.#files.values()) {
      if ('stored' in file && !this.#images.isLayerBlob(file.stored.digest))
        await this.#images.content.delete(file.stored.digest);
    }
  }
}
