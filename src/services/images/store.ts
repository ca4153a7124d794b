/**
 * The image store: configs, references, parents and where each layer's bytes lie.
 *
 * The database is the truth; maps mirror it so that resolving costs no query. Config and manifest bytes are
 * rows (small, and written in the same transaction as what points at them); layer bytes are blobs in the
 * content store, kept as they came. An image row exists only while all of its layers exist as snapshots.
 */
import { createGunzip, createZstdDecompress } from 'node:zlib';
import type { ContentStore, Lease } from '#services/content/contract.ts';
import type { Snapshotter } from '#services/snapshots/contract.ts';
import { now } from '#system/clock/clock.ts';
import type { Database, Migration, Row } from '#system/database/database.ts';
import { chainIds, type Digest, digestOf } from '#types/digest.ts';
import { errorMessage, GantryError } from '#types/errors.ts';
import {
  canonicalName,
  familiarString,
  parseAnyReference,
  parseReference,
  type Reference,
  storedString,
  withDefaultTag,
  withTag,
} from '#types/reference.ts';
import { ImageAudit } from './audit.ts';
import { Collection } from './collection.ts';
import { parseImageConfig } from './config.ts';
import type { Image, ImageConfig, Images } from './contract.ts';
import { LayerBlobRows } from './layer-blobs.ts';

const MIGRATION: Migration = {
  name: 'images',
  steps: [
    `CREATE TABLE images (id TEXT PRIMARY KEY, config BLOB NOT NULL, parent TEXT, last_tag_time TEXT NOT NULL) STRICT;
     CREATE TABLE image_references (name TEXT PRIMARY KEY, image TEXT NOT NULL REFERENCES images (id)) STRICT;
     CREATE TABLE image_manifests (digest TEXT PRIMARY KEY, media_type TEXT NOT NULL, bytes BLOB NOT NULL, image TEXT NOT NULL REFERENCES images (id) ON DELETE CASCADE) STRICT;
     CREATE TABLE image_layer_blobs (diff_id TEXT PRIMARY KEY, digest TEXT NOT NULL, compression TEXT NOT NULL, size_bytes INTEGER NOT NULL, tar_size_bytes INTEGER NOT NULL) STRICT;`,
  ],
};

const ZERO_TIME = '0001-01-01T00:00:00Z';

export type LayerCompression = 'none' | 'gzip' | 'zstd';

/** The bytes a layer came as. */
export interface LayerBlob {
  readonly digest: Digest;
  readonly compression: LayerCompression;
  readonly sizeBytes: number;
  /** Bytes of the tar once uncompressed. */
  readonly tarSizeBytes: number;
}

interface ImageRecord {
  readonly id: Digest;
  readonly config: ImageConfig;
  readonly configBytes: Buffer;
  readonly chain: readonly Digest[];
  parent: Digest | undefined;
  lastTagTime: string;
  /** Stored reference strings. */
  readonly references: Set<string>;
}

/** Keeps layers and blobs that no image names yet. */
export class LayerHold implements Disposable {
  readonly layers: Set<Digest> = new Set();
  readonly lease: Lease;
  readonly #release: (hold: LayerHold) => void;

  constructor(lease: Lease, release: (hold: LayerHold) => void) {
    this.lease = lease;
    this.#release = release;
  }

  [Symbol.dispose](): void {
    this.lease[Symbol.dispose]();
    this.#release(this);
  }
}

/** The error for an image that is not there. */
export function noSuchImage(reference: string): GantryError {
  return new GantryError('notFound', `No such image: ${reference}`);
}

/** Images of one data root. */
export class ImageStore implements Images {
  readonly #database: Database;
  readonly #content: ContentStore;
  readonly #blobs: LayerBlobRows;
  readonly #snapshots: Snapshotter;
  readonly #images = new Map<Digest, ImageRecord>();
  readonly #references = new Map<string, Digest>();
  readonly #holds = new Set<LayerHold>();
  /** What nobody needs, and its removal. */
  readonly collection: Collection;
  /** Rows that are no image any more, and why; a check of the store tells of them. */
  readonly #damaged = new Map<string, string>();

  constructor(database: Database, content: ContentStore, snapshots: Snapshotter) {
    this.#database = database;
    this.#content = content;
    this.#snapshots = snapshots;
    database.migrate(MIGRATION);
    this.#blobs = new LayerBlobRows(database);
    this.collection = new Collection({
      database,
      content,
      snapshots,
      blobs: this.#blobs,
      roots: { isIncomplete: () => this.#damaged.size > 0, images: () => this.#rootsOfImages(), holds: this.#holds },
    });
    for (const row of database.all('SELECT id, config, parent, last_tag_time FROM images')) this.#load(row);
    for (const row of database.all('SELECT name, image FROM image_references')) {
      const id = String(row['image']) as Digest;
      this.#references.set(String(row['name']), id);
      this.#images.get(id)?.references.add(String(row['name']));
    }
  }

  get content(): ContentStore {
    return this.#content;
  }

  get snapshots(): Snapshotter {
    return this.#snapshots;
  }

  #load(row: Row): void {
    const configBytes = Buffer.from(row['config'] as Uint8Array);
    const id = String(row['id']) as Digest;
    let config: ImageConfig;
    try {
      config = parseImageConfig(configBytes);
    } catch (error) {
      // One damaged row must not keep the daemon from starting.
      this.#damaged.set(id, errorMessage(error));
      return;
    }
    this.#images.set(id, {
      id,
      config,
      configBytes,
      chain: chainIds(config.rootfs.diff_ids),
      parent: row['parent'] === null ? undefined : (String(row['parent']) as Digest),
      lastTagTime: String(row['last_tag_time']),
      references: new Set(),
    });
  }

  /** Protects layers and blobs while an image is being made: `using hold = images.hold()`. */
  hold(): LayerHold {
    const hold = new LayerHold(this.#content.lease(), (ended) => {
      this.#holds.delete(ended);
      this.collection.dropUnused(ended.layers);
    });
    this.#holds.add(hold);
    return hold;
  }

  *#rootsOfImages(): Generator<{ chain: readonly Digest[]; diffIds: readonly Digest[] }> {
    for (const { chain, config } of this.#images.values()) yield { chain, diffIds: config.rootfs.diff_ids };
  }

  resolve(reference: string): Image {
    const parsed = parseAnyReference(reference);
    if (parsed.kind === 'digest') {
      const image = this.get(parsed.digest as Digest);
      if (image === undefined) throw noSuchImage(parsed.digest);
      return image;
    }
    const named = this.#references.get(storedString(parsed.reference));
    const id = named ?? this.search(reference);
    const image = id === undefined ? undefined : this.get(id);
    if (image === undefined) throw noSuchImage(familiarString(withDefaultTag(parsed.reference)));
    return image;
  }

  /** The image a reference names exactly. */
  named(reference: Reference): Digest | undefined {
    return this.#references.get(storedString(reference));
  }

  /** The one image whose ID starts with `prefix` (hex, or `sha256:` and hex); undefined when none or several do. */
  search(prefix: string): Digest | undefined {
    const wanted = prefix.startsWith('sha256:') ? prefix : `sha256:${prefix}`;
    if (!/^sha256:[0-9a-f]+$/.test(wanted)) return undefined;
    let found: Digest | undefined;
    for (const id of this.#images.keys()) {
      if (!id.startsWith(wanted)) continue;
      if (found !== undefined) return undefined;
      found = id;
    }
    return found;
  }

  get(id: Digest): Image | undefined {
    const record = this.#images.get(id);
    return record === undefined ? undefined : this.#view(record);
  }

  list(): Image[] {
    return [...this.#images.values()].map((record) => this.#view(record));
  }

  /** References of an image, sorted as docker does. */
  references(id: Digest): Reference[] {
    const names = [...(this.#images.get(id)?.references ?? [])].sort();
    return names.map((name) => parseReference(name));
  }

  /** All references under one repository name. */
  referencesByName(reference: Reference): { reference: Reference; image: Digest }[] {
    const name = canonicalName(reference);
    const found: { reference: Reference; image: Digest }[] = [];
    for (const [stored, image] of [...this.#references].sort(([a], [b]) => (a < b ? -1 : 1))) {
      const candidate = parseReference(stored);
      if (canonicalName(candidate) === name) found.push({ reference: candidate, image });
    }
    return found;
  }

  children(id: Digest): Digest[] {
    return [...this.#images.values()].filter((record) => record.parent === id).map((record) => record.id);
  }

  /** The bytes the ID is the digest of. */
  configBytes(id: Digest): Buffer {
    const record = this.#images.get(id);
    if (record === undefined) throw noSuchImage(id);
    return record.configBytes;
  }

  /** ChainIDs of an image's layers, lowest first. */
  chain(id: Digest): readonly Digest[] {
    return this.#images.get(id)?.chain ?? [];
  }

  #view(record: ImageRecord): Image {
    const references = [...record.references].sort().map((name) => parseReference(name));
    return {
      id: record.id,
      config: record.config,
      topLayer: record.chain.at(-1),
      parent: record.parent,
      repoTags: references.filter((reference) => reference.digest === undefined).map(familiarString),
      repoDigests: references.filter((reference) => reference.digest !== undefined).map(familiarString),
      sizeBytes: record.chain.reduce((sum, chainId) => sum + (this.#snapshots.layer(chainId)?.sizeBytes ?? 0), 0),
      lastTagTime: record.lastTagTime,
    };
  }

  async create(configBytes: Buffer, options: { tags?: readonly string[]; parent?: Digest } = {}): Promise<Image> {
    const config = parseImageConfig(configBytes);
    const id = digestOf(configBytes);
    const chain = chainIds(config.rootfs.diff_ids);
    for (const chainId of chain) {
      if (this.#snapshots.layer(chainId) === undefined) throw new GantryError('system', 'layer does not exist');
    }
    const tags = (options.tags ?? []).map((tag) => withDefaultTag(parseReference(tag)));
    // The parent may have been removed while the child was made; its layers are held, its name is gone.
    const parent = options.parent !== undefined && this.#images.has(options.parent) ? options.parent : undefined;
    this.#database.run(
      'INSERT INTO images (id, config, parent, last_tag_time) VALUES (?, ?, ?, ?) ON CONFLICT (id) DO UPDATE SET config = excluded.config',
      id,
      configBytes,
      parent ?? null,
      ZERO_TIME,
    );
    this.#damaged.delete(id);
    if (!this.#images.has(id)) {
      this.#images.set(id, { id, config, configBytes, chain, parent, lastTagTime: ZERO_TIME, references: new Set() });
    } else {
      const record = this.#images.get(id) as ImageRecord;
      // Bytes that went bad in the database are bad in memory too.
      if (!record.configBytes.equals(configBytes)) this.#images.set(id, { ...record, config, configBytes, chain });
      if (parent !== undefined) this.setParent(id, parent);
    }
    for (const tag of tags) this.addReference(tag, id);
    return this.get(id) as Image;
  }

  setParent(id: Digest, parent: Digest): void {
    const record = this.#images.get(id);
    if (record === undefined || id === parent) return;
    this.#database.run('UPDATE images SET parent = ? WHERE id = ?', parent, id);
    record.parent = parent;
  }

  /** Makes an image one without parent. */
  clearParent(id: Digest): void {
    this.#database.run('UPDATE images SET parent = NULL WHERE id = ?', id);
    const record = this.#images.get(id);
    if (record !== undefined) record.parent = undefined;
  }

  tag(image: Digest, repository: string, tag: string): void {
    const reference = parseReference(repository);
    this.addReference(tag === '' ? withDefaultTag(reference) : withTag(reference, tag), image);
  }

  /** Points a reference at an image, taking it from another one if need be. */
  addReference(reference: Reference, image: Digest): void {
    const record = this.#images.get(image);
    if (record === undefined) throw noSuchImage(image);
    if (reference.domain === 'docker.io' && reference.path === 'library/sha256') {
      throw new GantryError('invalid', 'refusing to create an ambiguous tag using digest algorithm as name');
    }
    const stored = storedString(reference);
    const time = now();
    this.#database.transaction(() => {
      this.#database.run(
        'INSERT INTO image_references (name, image) VALUES (?, ?) ON CONFLICT (name) DO UPDATE SET image = excluded.image',
        stored,
        image,
      );
      this.#database.run('UPDATE images SET last_tag_time = ? WHERE id = ?', time, image);
    });
    const previous = this.#references.get(stored);
    if (previous !== undefined) this.#images.get(previous)?.references.delete(stored);
    this.#references.set(stored, image);
    record.references.add(stored);
    record.lastTagTime = time;
  }

  /** Removes a reference; throws `reference does not exist`. */
  removeReference(reference: Reference): void {
    const stored = storedString(reference);
    const image = this.#references.get(stored);
    if (image === undefined) throw new GantryError('notFound', 'reference does not exist');
    this.#database.removal(() => this.#database.run('DELETE FROM image_references WHERE name = ?', stored));
    this.#references.delete(stored);
    this.#images.get(image)?.references.delete(stored);
  }

  /** Removes an image and what only it needed; returns the ChainIDs of removed layers, top first. */
  async remove(id: Digest): Promise<Digest[]> {
    const record = this.#images.get(id);
    if (record === undefined) throw noSuchImage(id);
    this.#database.removal(() => {
      this.#database.run('DELETE FROM image_references WHERE image = ?', id);
      this.#database.run('DELETE FROM images WHERE id = ?', id);
      this.#database.run('UPDATE images SET parent = NULL WHERE parent = ?', id);
    });
    for (const name of record.references) this.#references.delete(name);
    this.#images.delete(id);
    for (const other of this.#images.values()) if (other.parent === id) other.parent = undefined;
    return this.collection.removeUnused(record.chain);
  }

  /** A check of all rows, for `gantry system fsck`. */
  audit(): ImageAudit {
    return new ImageAudit(this.#database, this, {
      damaged: this.#damaged,
      forgetReference: (name) => {
        this.#images.get(this.#references.get(name) as Digest)?.references.delete(name);
        this.#references.delete(name);
      },
    });
  }

  /** Remembers other bytes for a layer than those known. */
  replaceLayerBlob(diffId: Digest, blob: LayerBlob): void {
    this.#blobs.set(diffId, blob);
  }

  /** Remembers the bytes a layer came as. What is remembered already stays, unless its blob is gone. */
  setLayerBlob(diffId: Digest, blob: LayerBlob): void {
    const known = this.#blobs.get(diffId);
    if (known === undefined || !this.#content.has(known.digest)) this.#blobs.set(diffId, blob);
  }

  /** Makes several changes of this store and its snapshotter one: all of them are there after a crash, or none. */
  atomically<T>(work: () => T): T {
    return this.#database.transaction(work);
  }

  /** Remembers several layers' bytes in one transaction. */
  setLayerBlobs(blobs: readonly { readonly diffId: Digest; readonly blob: LayerBlob }[]): void {
    this.#database.transaction(() => {
      for (const { diffId, blob } of blobs) this.setLayerBlob(diffId, blob);
    });
  }

  /** Whether a stored layer consists of this blob. */
  isLayerBlob(digest: Digest): boolean {
    return this.#blobs.names(digest);
  }

  layerBlob(diffId: Digest): LayerBlob | undefined {
    return this.#blobs.get(diffId);
  }

  /** Blobs of all layers. */
  layerBlobs(): { diffId: Digest; blob: LayerBlob }[] {
    return this.#blobs.list();
  }

  /** The uncompressed tar of a layer, hashing to its diffID. */
  openLayer(diffId: Digest): AsyncIterable<Buffer> {
    const blob = this.layerBlob(diffId);
    if (blob === undefined) throw new GantryError('notFound', `content of layer ${diffId}: not found`);
    return decompressLayer(this.#content.read(blob.digest), blob.compression);
  }

  /** Keeps a registry's manifest for an image. */
  setManifest(image: Digest, mediaType: string, bytes: Buffer): Digest {
    const digest = digestOf(bytes);
    this.#database.run(
      'INSERT INTO image_manifests (digest, media_type, bytes, image) VALUES (?, ?, ?, ?) ON CONFLICT (digest) DO NOTHING',
      digest,
      mediaType,
      bytes,
      image,
    );
    return digest;
  }

  manifests(image: Digest): { digest: Digest; mediaType: string; bytes: Buffer }[] {
    return this.#database
      .all('SELECT digest, media_type, bytes FROM image_manifests WHERE image = ?', image)
      .map((row) => ({
        digest: String(row['digest']) as Digest,
        mediaType: String(row['media_type']),
        bytes: Buffer.from(row['bytes'] as Uint8Array),
      }));
  }
}

const DECOMPRESS_CHUNK_BYTES = 256 * 1024;

/** Undoes the compression a layer is stored with. */
export async function* decompressLayer(
  source: AsyncIterable<Buffer>,
  compression: LayerCompression,
): AsyncGenerator<Buffer> {
  if (compression === 'none') {
    yield* source;
    return;
  }
  const stream =
    compression === 'gzip'
      ? createGunzip({ chunkSize: DECOMPRESS_CHUNK_BYTES })
      : createZstdDecompress({ chunkSize: DECOMPRESS_CHUNK_BYTES });
  const { pipeline } = await import('node:stream/promises');
  const piped = pipeline(source, stream);
  piped.catch(() => {});
  yield* stream as AsyncIterable<Buffer>;
  await piped;
}
