/** The rows that tell which blob each layer came as, by diffID. They say nothing of whether the blob is there. */
import type { Database, Row } from '#system/database/database.ts';
import { type Digest, isDigest, parseDigest } from '#types/digest.ts';
import type { LayerBlob, LayerCompression } from './store.ts';

const COLUMNS = 'diff_id, digest, compression, size_bytes, tar_size_bytes';

function layerBlobOf(row: Row): LayerBlob {
  return {
    digest: parseDigest(String(row['digest'])),
    compression: String(row['compression']) as LayerCompression,
    sizeBytes: Number(row['size_bytes']),
    tarSizeBytes: Number(row['tar_size_bytes']),
  };
}

/** Rows of one database. */
export class LayerBlobRows {
  readonly #database: Database;

  constructor(database: Database) {
    this.#database = database;
  }

  get(diffId: Digest): LayerBlob | undefined {
    const row = this.#database.get(`SELECT ${COLUMNS} FROM image_layer_blobs WHERE diff_id = ?`, diffId);
    return row === undefined ? undefined : layerBlobOf(row);
  }

  /** All of them; rows that name no blob are a matter of the audit. */
  list(): { diffId: Digest; blob: LayerBlob }[] {
    return this.#database
      .all(`SELECT ${COLUMNS} FROM image_layer_blobs`)
      .filter((row) => isDigest(String(row['digest'])) && isDigest(String(row['diff_id'])))
      .map((row) => ({ diffId: String(row['diff_id']) as Digest, blob: layerBlobOf(row) }));
  }

  /** Whether a layer came as this blob. */
  names(digest: Digest): boolean {
    return this.#database.get('SELECT 1 FROM image_layer_blobs WHERE digest = ?', digest) !== undefined;
  }

  set(diffId: Digest, blob: LayerBlob): void {
    this.#database.run(
      `INSERT OR REPLACE INTO image_layer_blobs (${COLUMNS}) VALUES (?, ?, ?, ?, ?)`,
      diffId,
      blob.digest,
      blob.compression,
      blob.sizeBytes,
      blob.tarSizeBytes,
    );
  }

  delete(diffId: Digest): void {
    this.#database.run('DELETE FROM image_layer_blobs WHERE diff_id = ?', diffId);
  }
}
