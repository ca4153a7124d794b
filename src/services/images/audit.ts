/**
 * A check of the image store's rows against each other and against the digests they are named by. It reads the
 * database, not the maps that mirror it, and changes nothing by itself; the methods that do are its repairs.
 */
import type { Database } from '#system/database/database.ts';
import { type Digest, digestOf, isDigest } from '#types/digest.ts';
import { errorMessage, GantryError } from '#types/errors.ts';
import { parseImageConfig } from './config.ts';
import type { ImageStore } from './store.ts';

/** A row that is not what it should be. */
export interface ImageRowProblem {
  readonly row: 'image' | 'parent' | 'reference' | 'manifest' | 'layerBlob';
  /** Image ID, stored reference, manifest digest or diffID. */
  readonly id: string;
  readonly kind: 'missing' | 'corrupt' | 'orphaned';
  readonly detail: string;
  /** The image the row belongs to, where there is one. */
  readonly image?: Digest;
}

/** What the store gives its audit of its own memory. */
export interface AuditedMemory {
  /** Rows that were no image when they were read, and why. */
  readonly damaged: Map<string, string>;
  forgetReference(name: string): void;
}

const COMPRESSIONS = new Set(['none', 'gzip', 'zstd']);

/** Checks and repairs of one image store's rows. */
export class ImageAudit {
  readonly #database: Database;
  readonly #images: ImageStore;
  readonly #memory: AuditedMemory;

  constructor(database: Database, images: ImageStore, memory: AuditedMemory) {
    this.#database = database;
    this.#images = images;
    this.#memory = memory;
  }

  /** Every problem of the rows, as of now. */
  problems(): ImageRowProblem[] {
    return [
      ...this.#imageProblems(),
      ...this.#referenceProblems(),
      ...this.#manifestProblems(),
      ...this.#blobProblems(),
    ];
  }

  *#imageProblems(): Generator<ImageRowProblem> {
    const seen = new Set<string>();
    for (const row of this.#database.all('SELECT id, config, parent FROM images')) {
      const id = String(row['id']);
      seen.add(id);
      const detail = configProblem(id, Buffer.from(row['config'] as Uint8Array));
      if (detail !== undefined) yield { row: 'image', id, kind: 'corrupt', detail };
      const parent = row['parent'] === null ? undefined : String(row['parent']);
      if (parent !== undefined && this.#database.get('SELECT 1 FROM images WHERE id = ?', parent) === undefined) {
        yield { row: 'parent', id, kind: 'missing', detail: `its parent ${parent} is not there`, image: id as Digest };
      }
    }
    for (const image of this.#images.list()) {
      if (seen.has(image.id)) continue;
      yield { row: 'image', id: image.id, kind: 'missing', detail: 'its row is not in the database any more' };
    }
  }

  *#referenceProblems(): Generator<ImageRowProblem> {
    const rows = this.#database.all(
      'SELECT name, image FROM image_references WHERE image NOT IN (SELECT id FROM images)',
    );
    for (const row of rows) {
      // A row that only memory still knows is told of as an image.
      if (this.#images.get(String(row['image']) as Digest) !== undefined) continue;
      const detail = `it names image ${String(row['image'])}, which is not there`;
      yield { row: 'reference', id: String(row['name']), kind: 'orphaned', detail };
    }
  }

  *#manifestProblems(): Generator<ImageRowProblem> {
    const rows = this.#manifestTables().flatMap((table) =>
      this.#database.all(`SELECT digest, bytes, image FROM ${table}`),
    );
    for (const row of rows) {
      const digest = String(row['digest']);
      const image = String(row['image']) as Digest;
      const actual = digestOf(row['bytes'] as Uint8Array);
      if (this.#database.get('SELECT 1 FROM images WHERE id = ?', image) === undefined) {
        if (this.#images.get(image) !== undefined) continue;
        yield { row: 'manifest', id: digest, kind: 'orphaned', detail: `its image ${image} is not there` };
      } else if (actual !== digest) {
        yield { row: 'manifest', id: digest, kind: 'corrupt', detail: `its bytes have digest ${actual}`, image };
      }
    }
  }

  /** Indexes lie beside manifests, once images are pulled by them. */
  #manifestTables(): string[] {
    return this.#database
      .all("SELECT name FROM sqlite_master WHERE type = 'table' AND name IN ('image_manifests', 'image_indexes')")
      .map((row) => String(row['name']));
  }

  *#blobProblems(): Generator<ImageRowProblem> {
    for (const row of this.#database.all('SELECT diff_id, digest, compression FROM image_layer_blobs')) {
      const diffId = String(row['diff_id']);
      const digest = String(row['digest']);
      const compression = String(row['compression']);
      const corrupt = (detail: string): ImageRowProblem => ({ row: 'layerBlob', id: diffId, kind: 'corrupt', detail });
      if (!isDigest(diffId)) yield corrupt('it is no digest');
      else if (!isDigest(digest)) yield corrupt(`its blob has the impossible digest ${digest}`);
      else if (!COMPRESSIONS.has(compression)) yield corrupt(`its blob has the unknown compression ${compression}`);
    }
  }

  /** Deletes a reference that names no image. */
  forgetReference(name: string): void {
    this.#database.run('DELETE FROM image_references WHERE name = ?', name);
    this.#memory.forgetReference(name);
  }

  /** Deletes a kept manifest. */
  forgetManifest(digest: string): void {
    for (const table of this.#manifestTables()) this.#database.run(`DELETE FROM ${table} WHERE digest = ?`, digest);
  }

  /** Makes an image one without parent. */
  forgetParent(image: Digest): void {
    this.#images.clearParent(image);
  }

  /** Deletes the row that tells a layer's blob. */
  forgetLayerBlob(diffId: string): void {
    this.#database.run('DELETE FROM image_layer_blobs WHERE diff_id = ?', diffId);
  }

  /** Puts the right bytes under a kept manifest's digest; throws when they are not. */
  rewriteManifest(digest: Digest, bytes: Buffer): void {
    const actual = digestOf(bytes);
    if (actual !== digest) throw new GantryError('invalid', `its bytes have digest ${actual}`);
    for (const table of this.#manifestTables())
      this.#database.run(`UPDATE ${table} SET bytes = ? WHERE digest = ?`, bytes, digest);
  }

  /** Whether memory holds an image's config as its ID says. */
  isConfigWholeInMemory(id: Digest): boolean {
    return this.#images.get(id) !== undefined && digestOf(this.#images.configBytes(id)) === id;
  }

  /** Writes the row of an image that only memory knows, with its references. */
  async rewriteImage(id: Digest): Promise<void> {
    const references = this.#images.references(id);
    await this.#images.create(this.#images.configBytes(id));
    for (const reference of references) this.#images.addReference(reference, id);
  }

  /** Deletes a row that is no image, with everything that names it. */
  dropDamaged(id: string): void {
    for (const row of this.#database.all('SELECT name FROM image_references WHERE image = ?', id)) {
      this.forgetReference(String(row['name']));
    }
    this.#database.run('DELETE FROM images WHERE id = ?', id);
    this.#memory.damaged.delete(id);
  }

  /** Names a damaged row has. */
  namesOf(id: string): string[] {
    const rows = this.#database.all('SELECT name FROM image_references WHERE image = ? ORDER BY name', id);
    return rows.map((row) => String(row['name']));
  }
}

function configProblem(id: string, bytes: Buffer): string | undefined {
  const actual = digestOf(bytes);
  if (actual !== id) return `its config has digest ${actual}`;
  try {
    parseImageConfig(bytes);
    return undefined;
  } catch (error) {
    return errorMessage(error);
  }
}
