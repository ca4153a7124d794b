/**
 * What is known of images at registries: the indexes they were pulled by, and under which digests and in which
 * repositories their layers are stored, so that a push can mount or skip instead of uploading.
 */
import type { Database, Migration } from '#system/database/database.ts';
import type { Digest } from '#types/digest.ts';

const MIGRATION: Migration = {
  name: 'registry-records',
  steps: [
    `CREATE TABLE image_indexes (digest TEXT NOT NULL, media_type TEXT NOT NULL, bytes BLOB NOT NULL, image TEXT NOT NULL REFERENCES images (id) ON DELETE CASCADE, PRIMARY KEY (digest, image)) STRICT;
     CREATE TABLE registry_layers (diff_id TEXT NOT NULL, digest TEXT NOT NULL, size_bytes INTEGER NOT NULL, repository TEXT NOT NULL, used INTEGER NOT NULL, PRIMARY KEY (diff_id, digest, repository)) STRICT;`,
  ],
};

/** Places remembered of one layer, as in docker. */
const PLACES_LIMIT = 50;

/** Where a layer lies at a registry. */
export interface LayerPlace {
  readonly digest: Digest;
  readonly sizeBytes: number;
  /** `registry/path`. */
  readonly repository: string;
}

export interface StoredManifest {
  readonly digest: Digest;
  readonly mediaType: string;
  readonly bytes: Buffer;
}

/** The records of one data root. */
export class RegistryRecords {
  readonly #database: Database;

  constructor(database: Database) {
    this.#database = database;
    database.migrate(MIGRATION);
    // Layers that are gone are of no use to a push.
    database.run('DELETE FROM registry_layers WHERE diff_id NOT IN (SELECT diff_id FROM image_layer_blobs)');
  }

  /** Remembers that a layer lies in a repository. */
  addPlace(diffId: Digest, place: LayerPlace): void {
    this.#database.transaction(() => {
      this.#database.run(
        'INSERT INTO registry_layers (diff_id, digest, size_bytes, repository, used) VALUES (?, ?, ?, ?, ?) ON CONFLICT (diff_id, digest, repository) DO UPDATE SET used = excluded.used',
        diffId,
        place.digest,
        place.sizeBytes,
        place.repository,
        Date.now(),
      );
      this.#database.run(
        'DELETE FROM registry_layers WHERE diff_id = ? AND rowid NOT IN (SELECT rowid FROM registry_layers WHERE diff_id = ? ORDER BY used DESC LIMIT ?)',
        diffId,
        diffId,
        PLACES_LIMIT,
      );
    });
  }

  /** Forgets a place that turned out not to hold the layer. */
  removePlace(diffId: Digest, place: LayerPlace): void {
    this.#database.run(
      'DELETE FROM registry_layers WHERE diff_id = ? AND digest = ? AND repository = ?',
      diffId,
      place.digest,
      place.repository,
    );
  }

  /** Where a layer lies, last used first. */
  places(diffId: Digest): LayerPlace[] {
    return this.#database
      .all(
        'SELECT digest, size_bytes, repository FROM registry_layers WHERE diff_id = ? ORDER BY used DESC, repository',
        diffId,
      )
      .map((row) => ({
        digest: String(row['digest']) as Digest,
        sizeBytes: Number(row['size_bytes']),
        repository: String(row['repository']),
      }));
  }

  /** Keeps the exact bytes of an index an image was chosen from. */
  addIndex(image: Digest, index: StoredManifest): void {
    this.#database.run(
      'INSERT INTO image_indexes (digest, media_type, bytes, image) VALUES (?, ?, ?, ?) ON CONFLICT (digest, image) DO NOTHING',
      index.digest,
      index.mediaType,
      index.bytes,
      image,
    );
  }

  /** Indexes an image was chosen from, as they were added. */
  indexes(image: Digest): StoredManifest[] {
    return this.#database
      .all('SELECT digest, media_type, bytes FROM image_indexes WHERE image = ? ORDER BY rowid', image)
      .map((row) => ({
        digest: String(row['digest']) as Digest,
        mediaType: String(row['media_type']),
        bytes: Buffer.from(row['bytes'] as Uint8Array),
      }));
  }

  /** A manifest or index by digest, whichever image it belongs to. */
  manifest(digest: Digest): StoredManifest | undefined {
    const row =
      this.#database.get('SELECT digest, media_type, bytes FROM image_indexes WHERE digest = ?', digest) ??
      this.#database.get('SELECT digest, media_type, bytes FROM image_manifests WHERE digest = ?', digest);
    if (row === undefined) return undefined;
    return {
      digest,
      mediaType: String(row['media_type']),
      bytes: Buffer.from(row['bytes'] as Uint8Array),
    };
  }
}
