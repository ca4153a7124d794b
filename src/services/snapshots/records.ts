/**
 * What a snapshot driver keeps in the database and on disk: rows of layers and writable snapshots, their
 * directories, and the trash. A directory without a row is garbage; removal first deletes the row, then
 * renames the directory into the trash, which is emptied behind the answer.
 */
import { randomBytes } from 'node:crypto';
import { mkdirSync, readdirSync, readlinkSync, renameSync, rmSync } from 'node:fs';
import { rm } from 'node:fs/promises';
import { basename, join } from 'node:path';
import { setTimeout as delay } from 'node:timers/promises';
import type { Database, Migration, Row } from '#system/database/database.ts';
import { hasCode } from '#system/kernel/errno.ts';
import type { Digest } from '#types/digest.ts';
import type { Layer } from './contract.ts';

const MIGRATION: Migration = {
  name: 'snapshots',
  steps: [
    `CREATE TABLE snapshot_layers (
       driver TEXT NOT NULL, chain_id TEXT NOT NULL, diff_id TEXT NOT NULL, parent TEXT,
       size_bytes INTEGER NOT NULL, directory TEXT NOT NULL,
       PRIMARY KEY (driver, chain_id)
     ) WITHOUT ROWID;
     CREATE TABLE snapshot_inits (
       driver TEXT NOT NULL, parent TEXT NOT NULL, directory TEXT NOT NULL, PRIMARY KEY (driver, parent)
     ) WITHOUT ROWID;
     CREATE TABLE snapshots (
       driver TEXT NOT NULL, key TEXT NOT NULL, parent TEXT, directory TEXT NOT NULL, PRIMARY KEY (driver, key)
     ) WITHOUT ROWID;`,
    `CREATE TABLE snapshot_unsynced (
       driver TEXT NOT NULL, chain_id TEXT NOT NULL, boot TEXT NOT NULL, PRIMARY KEY (driver, chain_id)
     ) WITHOUT ROWID;`,
  ],
};

export interface LayerRecord extends Layer {
  /** Name of its directory under the driver's root. */
  readonly directory: string;
}

export interface SnapshotRecord {
  readonly key: string;
  readonly parent: Digest | undefined;
  readonly directory: string;
}

function layerOf(row: Row): LayerRecord {
  return {
    chainId: row['chain_id'] as Digest,
    diffId: row['diff_id'] as Digest,
    parent: (row['parent'] ?? undefined) as Digest | undefined,
    sizeBytes: Number(row['size_bytes']),
    directory: String(row['directory']),
  };
}

const SHORT_LINKS = 'l';
const TRASH = 'trash';
/** The answer to a removal, and the removals after it, come before the deleting of many files. */
const EMPTYING_DELAY_MS = 150;
const TEMPORARY = 'tmp';

/** Rows and directories of one driver. Layers and snapshots are held in memory too; the database is the truth. */
export class SnapshotRecords {
  readonly root: string;
  readonly #database: Database;
  readonly #driver: string;
  readonly #layers = new Map<Digest, LayerRecord>();
  readonly #snapshots = new Map<string, SnapshotRecord>();
  /** Init layers by parent chain; '' for none. */
  readonly #inits = new Map<string, string>();
  /** Directories of things that have no row yet. */
  readonly #pending = new Set<string>();
  /** Temporary and trash directories this process works on. */
  readonly #working = new Set<string>();
  #emptying: Promise<void> | undefined;
  #trashNumber = 0;

  constructor(root: string, database: Database, driver: string) {
    this.root = root;
    this.#database = database;
    this.#driver = driver;
    for (const name of ['', SHORT_LINKS, TRASH, TEMPORARY])
      mkdirSync(join(root, name), { recursive: true, mode: 0o710 });
    database.migrate(MIGRATION);
    for (const row of database.all('SELECT * FROM snapshot_layers WHERE driver = ?', driver)) {
      const layer = layerOf(row);
      this.#layers.set(layer.chainId, layer);
    }
    for (const row of database.all('SELECT * FROM snapshots WHERE driver = ?', driver)) {
      const parent = (row['parent'] ?? undefined) as Digest | undefined;
      this.#snapshots.set(String(row['key']), { key: String(row['key']), parent, directory: String(row['directory']) });
    }
    for (const row of database.all('SELECT * FROM snapshot_inits WHERE driver = ?', driver)) {
      this.#inits.set(String(row['parent']), String(row['directory']));
    }
  }

  /** A name for a directory; until its row is saved it counts as being made. */
  newName(): string {
    const name = randomBytes(32).toString('hex');
    this.#pending.add(name);
    return name;
  }

  path(directory: string): string {
    return `${this.root}/${directory}`;
  }

  /** A fresh directory for something half-made; `recover` removes it. */
  temporary(): string {
    const path = join(this.root, TEMPORARY, randomBytes(8).toString('hex'));
    this.#working.add(path);
    mkdirSync(path, { mode: 0o710 });
    return path;
  }

  layer(chainId: Digest): LayerRecord | undefined {
    return this.#layers.get(chainId);
  }

  layers(): LayerRecord[] {
    return [...this.#layers.values()];
  }

  snapshot(key: string): SnapshotRecord | undefined {
    return this.#snapshots.get(key);
  }

  snapshots(): SnapshotRecord[] {
    return [...this.#snapshots.values()];
  }

  init(parent: Digest | undefined): string | undefined {
    return this.#inits.get(parent ?? '');
  }

  /** Layers from the given one down to the base. */
  chain(top: Digest | undefined): LayerRecord[] {
    const chain: LayerRecord[] = [];
    for (let id = top; id !== undefined; ) {
      const layer = this.#layers.get(id);
      if (layer === undefined) throw new Error(`layer ${id} does not exist`);
      chain.push(layer);
      id = layer.parent;
    }
    return chain;
  }

  /** Saves layers in one transaction; `boot` marks those whose files are not surely on the disk yet. */
  saveLayers(layers: readonly LayerRecord[], boot: string | undefined): void {
    this.#database.transaction(() => {
      for (const layer of layers) {
        this.#insertLayer(layer);
        if (boot !== undefined) this.saveUnsynced(layer.chainId, boot);
      }
    });
    for (const layer of layers) {
      this.#layers.set(layer.chainId, layer);
      this.#pending.delete(layer.directory);
    }
  }

  /** Marks a layer whose files were written in this boot and are not surely on the disk. */
  saveUnsynced(chainId: Digest, boot: string): void {
    this.#database.run(
      'INSERT OR REPLACE INTO snapshot_unsynced (driver, chain_id, boot) VALUES (?, ?, ?)',
      this.#driver,
      chainId,
      boot,
    );
  }

  /** Layers whose files are not surely on the disk, with the boot that wrote them. */
  unsynced(): { chainId: Digest; boot: string }[] {
    return this.#database
      .all('SELECT chain_id, boot FROM snapshot_unsynced WHERE driver = ?', this.#driver)
      .map((row) => ({ chainId: String(row['chain_id']) as Digest, boot: String(row['boot']) }));
  }

  /** The files of these layers are on the disk. */
  markSynced(chainIds: readonly Digest[]): void {
    this.#database.transaction(() => {
      for (const chainId of chainIds) this.#forgetUnsynced(chainId);
    });
  }

  #forgetUnsynced(chainId: Digest): void {
    this.#database.run('DELETE FROM snapshot_unsynced WHERE driver = ? AND chain_id = ?', this.#driver, chainId);
  }

  #insertLayer(layer: LayerRecord): void {
    this.#database.run(
      'INSERT INTO snapshot_layers (driver, chain_id, diff_id, parent, size_bytes, directory) VALUES (?, ?, ?, ?, ?, ?)',
      this.#driver,
      layer.chainId,
      layer.diffId,
      layer.parent ?? null,
      layer.sizeBytes,
      layer.directory,
    );
  }

  saveSnapshot(record: SnapshotRecord): void {
    this.#database.run(
      'INSERT INTO snapshots (driver, key, parent, directory) VALUES (?, ?, ?, ?)',
      this.#driver,
      record.key,
      record.parent ?? null,
      record.directory,
    );
    this.#snapshots.set(record.key, record);
    this.#pending.delete(record.directory);
  }

  saveInit(parent: Digest | undefined, directory: string): void {
    this.#database.run(
      'INSERT INTO snapshot_inits (driver, parent, directory) VALUES (?, ?, ?)',
      this.#driver,
      parent ?? '',
      directory,
    );
    this.#inits.set(parent ?? '', directory);
    this.#pending.delete(directory.replace(/-init$/, ''));
  }

  /** Forgets an init layer whose directory is gone; the next use makes a new one. */
  deleteInit(parent: string): void {
    this.#database.run('DELETE FROM snapshot_inits WHERE driver = ? AND parent = ?', this.#driver, parent);
    this.#inits.delete(parent);
  }

  /** Init layers: parent chain ('' for none) and directory. */
  inits(): [string, string][] {
    return [...this.#inits];
  }

  deleteLayer(layer: LayerRecord): void {
    const init = this.#inits.get(layer.chainId);
    this.#database.transaction(() => {
      this.#database.run('DELETE FROM snapshot_layers WHERE driver = ? AND chain_id = ?', this.#driver, layer.chainId);
      this.#database.run('DELETE FROM snapshot_inits WHERE driver = ? AND parent = ?', this.#driver, layer.chainId);
      this.#forgetUnsynced(layer.chainId);
    });
    this.#layers.delete(layer.chainId);
    this.#inits.delete(layer.chainId);
    if (init !== undefined) this.discard(this.path(init));
    this.discard(this.path(layer.directory));
  }

  deleteSnapshot(record: SnapshotRecord): void {
    this.#database.run('DELETE FROM snapshots WHERE driver = ? AND key = ?', this.#driver, record.key);
    this.#snapshots.delete(record.key);
  }

  /** Moves a directory into the trash and lets it be emptied; `after` delays the emptying. */
  discard(path: string, after?: Promise<void>): void {
    this.#trashNumber += 1;
    const target = join(this.root, TRASH, `${process.pid}-${this.#trashNumber}-${randomBytes(4).toString('hex')}`);
    this.#working.delete(path);
    this.#pending.delete(basename(path));
    try {
      renameSync(path, target);
    } catch (error) {
      if (hasCode(error, 'ENOENT')) return;
      throw error;
    }
    this.#working.add(target);
    const previous = this.#emptying ?? Promise.resolve();
    // What cannot be removed now stays in the trash until the next start.
    this.#emptying = Promise.all([previous, after, delay(EMPTYING_DELAY_MS)]).then(() =>
      rm(target, { recursive: true, force: true })
        .catch(() => {})
        .finally(() => this.#working.delete(target)),
    );
  }

  /** Resolves when the trash is empty. */
  async emptied(): Promise<void> {
    await this.#emptying;
  }

  /** Discards every directory no row knows, the unfinished ones and what an earlier process left in the trash. */
  collectGarbage(): void {
    const { directories, links, leftovers } = this.garbage();
    for (const path of [...directories, ...leftovers]) this.discard(path);
    for (const link of links) rmSync(link, { force: true });
  }

  /** What no row knows and nobody works on: directories, short links, and unfinished or half-removed things. */
  garbage(): { directories: string[]; links: string[]; leftovers: string[] } {
    const known = new Set<string>([...this.#inits.values(), ...this.#pending]);
    for (const { directory } of this.#layers.values()) known.add(directory);
    for (const { directory } of this.#snapshots.values()) known.add(directory);
    const areas = new Set([SHORT_LINKS, TRASH, TEMPORARY]);
    const directories = readdirSync(this.root).filter((name) => !known.has(name) && !areas.has(name));
    const links = readdirSync(join(this.root, SHORT_LINKS)).map((name) => join(this.root, SHORT_LINKS, name));
    const leftovers = [TEMPORARY, TRASH].flatMap((area) =>
      readdirSync(join(this.root, area)).map((name) => join(this.root, area, name)),
    );
    return {
      directories: directories.map((name) => this.path(name)),
      links: links.filter((link) => !known.has(ownerOfLink(link))),
      leftovers: leftovers.filter((path) => !this.#working.has(path)),
    };
  }
}

/** The directory a short link `../<directory>/diff` belongs to; empty for anything else. */
function ownerOfLink(link: string): string {
  try {
    return readlinkSync(link).split('/')[1] ?? '';
  } catch (error) {
    if (hasCode(error, 'EINVAL', 'ENOENT')) return '';
    throw error;
  }
}
