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
import { chainIds, type Digest, digestOf, parseDigest } from '#types/digest.ts';
import { GantryError } from '#types/errors.ts';
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
import { parseImageConfig } from './config.ts';
import type { Image, ImageConfig, Images } from './contract.ts';

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
  readonly #snapshots: Snapshotter;
  readonly #images = new Map<Digest, ImageRecord>();
  readonly #references = new Map<string, Digest>();
  readonly #holds = new Set<LayerHold>();

  constructor(database: Database, content: ContentStore, snapshots: Snapshotter) {
    this.#database = database;
    this.#content = content;
    this.#snapshots = snapshots;
    database.migrate(MIGRATION);
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
    const config = parseImageConfig(configBytes);
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
    const hold = new LayerHold(this.#content.lease(), (ended) => this.#holds.delete(ended));
    this.#holds.add(hold);
    return hold;
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
    this.#database.transaction(() => {
      this.#database.run(
        'INSERT INTO images (id, config, parent, last_tag_time) VALUES (?, ?, ?, ?) ON CONFLICT (id) DO NOTHING',
        id,
        configBytes,
        options.parent ?? null,
        ZERO_TIME,
      );
    });
    if (!this.#images.has(id)) {
      const parent = options.parent;
      this.#images.set(id, { id, config, configBytes, chain, parent, lastTagTime: ZERO_TIME, references: new Set() });
    } else if (options.parent !== undefined) {
      this.setParent(id, options.parent);
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
    this.#database.run('DELETE FROM image_references WHERE name = ?', stored);
    this.#references.delete(stored);
    this.#images.get(image)?.references.delete(stored);
  }

  /** Removes an image and what only it needed; returns the ChainIDs of removed layers, top first. */
  async remove(id: Digest): Promise<Digest[]> {
    const record = this.#images.get(id);
    if (record === undefined) throw noSuchImage(id);
    this.#database.transaction(() => {
      this.#database.run('DELETE FROM image_references WHERE image = ?', id);
      this.#database.run('DELETE FROM images WHERE id = ?', id);
      this.#database.run('UPDATE images SET parent = NULL WHERE parent = ?', id);
    });
    for (const name of record.references) this.#references.delete(name);
    this.#images.delete(id);
    for (const other of this.#images.values()) if (other.parent === id) other.parent = undefined;
    return this.#removeUnusedLayers(record.chain);
  }

  async #removeUnusedLayers(chain: readonly Digest[]): Promise<Digest[]> {
    const removed: Digest[] = [];
    for (const chainId of [...chain].reverse()) {
      if (this.#layerInUse(chainId)) break;
      const layer = this.#snapshots.layer(chainId);
      if (layer === undefined) continue;
      try {
        await this.#snapshots.removeLayer(chainId);
      } catch (error) {
        if (error instanceof GantryError && error.kind === 'conflict') break;
        throw error;
      }
      removed.push(chainId);
      await this.#removeUnusedBlob(layer.diffId);
    }
    return removed;
  }

  #layerInUse(chainId: Digest): boolean {
    for (const hold of this.#holds) if (hold.layers.has(chainId)) return true;
    for (const record of this.#images.values()) if (record.chain.includes(chainId)) return true;
    return false;
  }

  async #removeUnusedBlob(diffId: Digest): Promise<void> {
    // The same tar may be a layer elsewhere, over another parent.
    if (this.#snapshots.layers().some((layer) => layer.diffId === diffId)) return;
    const blob = this.layerBlob(diffId);
    if (blob === undefined) return;
    this.#database.run('DELETE FROM image_layer_blobs WHERE diff_id = ?', diffId);
    await this.#content.delete(blob.digest);
  }

  /** After a crash or a failed load: removes layers and blobs that no image, hold or snapshot needs. */
  async collect(): Promise<void> {
    const layers = this.#snapshots.layers();
    const parents = new Set(layers.map((layer) => layer.parent));
    for (const top of layers.filter((layer) => !parents.has(layer.chainId))) {
      const chain: Digest[] = [];
      for (let at = this.#snapshots.layer(top.chainId); at !== undefined; ) {
        chain.unshift(at.chainId);
        at = at.parent === undefined ? undefined : this.#snapshots.layer(at.parent);
      }
      await this.#removeUnusedLayers(chain);
    }
    const referenced = new Set<Digest>();
    const diffIds = new Set(this.#snapshots.layers().map((layer) => layer.diffId));
    for (const row of this.#database.all('SELECT diff_id, digest FROM image_layer_blobs')) {
      if (diffIds.has(String(row['diff_id']) as Digest)) referenced.add(String(row['digest']) as Digest);
      else this.#database.run('DELETE FROM image_layer_blobs WHERE diff_id = ?', String(row['diff_id']));
    }
    await this.#content.gc(referenced);
  }

  /** Remembers the bytes a layer came as. */
  setLayerBlob(diffId: Digest, blob: LayerBlob): void {
    this.#database.run(
      'INSERT INTO image_layer_blobs (diff_id, digest, compression, size_bytes, tar_size_bytes) VALUES (?, ?, ?, ?, ?) ON CONFLICT (diff_id) DO NOTHING',
      diffId,
      blob.digest,
      blob.compression,
      blob.sizeBytes,
      blob.tarSizeBytes,
    );
  }

  /** Remembers several layers' bytes in one transaction. */
  setLayerBlobs(blobs: readonly { readonly diffId: Digest; readonly blob: LayerBlob }[]): void {
    this.#database.transaction(() => {
      for (const { diffId, blob } of blobs) this.setLayerBlob(diffId, blob);
    });
  }

  /** Whether a stored layer consists of this blob. */
  isLayerBlob(digest: Digest): boolean {
    return this.#database.get('SELECT 1 FROM image_layer_blobs WHERE digest = ?', digest) !== undefined;
  }

  layerBlob(diffId: Digest): LayerBlob | undefined {
    const row = this.#database.get(
      'SELECT digest, compression, size_bytes, tar_size_bytes FROM image_layer_blobs WHERE diff_id = ?',
      diffId,
    );
    if (row === undefined) return undefined;
    return {
      digest: parseDigest(String(row['digest'])),
      compression: String(row['compression']) as LayerCompression,
      sizeBytes: Number(row['size_bytes']),
      tarSizeBytes: Number(row['tar_size_bytes']),
    };
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
