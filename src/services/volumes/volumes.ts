/**
 * The volumes of this daemon: which exist, which containers use them. Rows are written before a volume is handed
 * out and deleted only after its content is gone, so that a crash leaves nothing that cannot be removed.
 */
import { lstat, readdir } from 'node:fs/promises';
import { join } from 'node:path';
import { now } from '#system/clock/clock.ts';
import type { Database, Migration, Row } from '#system/database/database.ts';
import { errorMessage, GantryError, wrapError } from '#types/errors.ts';
import { newId } from '#types/ids.ts';
import type { Volume } from '#wire/engine.ts';
import type { CreateVolumeOptions, VolumeDriver, Volumes } from './contract.ts';
import { LocalDriver, type OptionMounter } from './local-driver.ts';

/** Label that tells an anonymous volume. */
export const ANONYMOUS_LABEL = 'com.docker.volume.anonymous';

const MIGRATION: Migration = {
  name: 'volumes',
  steps: [
    `CREATE TABLE volumes (
       name TEXT PRIMARY KEY, driver TEXT NOT NULL, created_at TEXT NOT NULL,
       options TEXT, labels TEXT) STRICT;
     CREATE TABLE volume_references (
       volume TEXT NOT NULL REFERENCES volumes (name) ON DELETE CASCADE, container TEXT NOT NULL,
       PRIMARY KEY (volume, container)) STRICT, WITHOUT ROWID;`,
  ],
};

type Pairs = Readonly<Record<string, string>>;

/** Volumes kept in the database; `root` is the directory of the local driver. */
export class StoredVolumes implements Volumes {
  readonly #database: Database;
  readonly #drivers: ReadonlyMap<string, VolumeDriver>;

  constructor(database: Database, root: string, mounter?: OptionMounter) {
    this.#database = database;
    database.migrate(MIGRATION);
    const local = new LocalDriver(root, (name) => this.#options(name), mounter);
    this.#drivers = new Map([[local.name, local]]);
  }

  async create(name: string, options: CreateVolumeOptions = {}): Promise<{ volume: Volume; created: boolean }> {
    const anonymous = name === '';
    const wanted = anonymous ? newId() : name;
    const existing = this.#row(wanted);
    if (existing !== undefined) {
      const driver = String(existing['driver']);
      if (options.driver && options.driver !== driver) {
        throw new GantryError(
          'conflict',
          `create ${wanted}: driver '${driver}' already has volume '${wanted}': volume name must be unique`,
        );
      }
      if (options.reference !== undefined) this.addReference(wanted, options.reference);
      return { volume: this.#volume(existing), created: false };
    }
    const driver = this.#driver(options.driver || 'local', wanted);
    await driver.create(wanted, options.options ?? {}).catch((error: unknown) => {
      const prefix = `create ${wanted}`;
      throw errorMessage(error).startsWith(`${prefix}: `) ? error : wrapError(prefix, error);
    });
    const labels = anonymous ? { ...options.labels, [ANONYMOUS_LABEL]: '' } : options.labels;
    this.#database.transaction(() => {
      this.#database.run(
        'INSERT INTO volumes (name, driver, created_at, options, labels) VALUES (?, ?, ?, ?, ?) ON CONFLICT DO NOTHING',
        wanted,
        driver.name,
        now().replace(/\.\d+Z$/, 'Z'),
        encode(options.options),
        encode(labels),
      );
      if (options.reference !== undefined) this.addReference(wanted, options.reference);
    });
    return { volume: this.get(wanted), created: true };
  }

  get(name: string): Volume {
    const row = this.#row(name);
    if (row === undefined) throw new GantryError('notFound', `get ${name}: no such volume`);
    return this.#volume(row);
  }

  list(): Volume[] {
    return this.#database.all('SELECT * FROM volumes ORDER BY name').map((row) => this.#volume(row));
  }

  isAnonymous(name: string): boolean {
    return ANONYMOUS_LABEL in (this.get(name).Labels ?? {});
  }

  references(name: string): string[] {
    const rows = this.#database.all(
      'SELECT container FROM volume_references WHERE volume = ? ORDER BY container',
      name,
    );
    return rows.map((row) => String(row['container']));
  }

  addReference(name: string, container: string): void {
    this.#database.run(
      'INSERT INTO volume_references (volume, container) VALUES (?, ?) ON CONFLICT DO NOTHING',
      name,
      container,
    );
  }

  release(container: string, name?: string): void {
    if (name === undefined) this.#database.run('DELETE FROM volume_references WHERE container = ?', container);
    else this.#database.run('DELETE FROM volume_references WHERE container = ? AND volume = ?', container, name);
  }

  async remove(name: string, force = false): Promise<void> {
    const row = this.#row(name);
    if (row === undefined) {
      if (force) return;
      throw new GantryError('notFound', `get ${name}: no such volume`);
    }
    const users = this.references(name);
    if (users.length > 0) {
      throw new GantryError('conflict', `remove ${name}: volume is in use - [${users.join(', ')}]`);
    }
    await this.#driver(String(row['driver']), name).remove(name);
    this.#database.run('DELETE FROM volumes WHERE name = ?', name);
  }

  mount(name: string, container: string): Promise<string> {
    return this.#driver(this.get(name).Driver ?? 'local', name).mount(name, container);
  }

  async unmount(name: string, container: string): Promise<void> {
    const row = this.#row(name);
    if (row !== undefined) await this.#driver(String(row['driver']), name).unmount(name, container);
  }

  async isEmpty(name: string): Promise<boolean> {
    return (await readdir(this.get(name).Mountpoint ?? '')).length === 0;
  }

  async sizeBytes(name: string): Promise<number> {
    return directorySize(this.get(name).Mountpoint ?? '');
  }

  #row(name: string): Row | undefined {
    return this.#database.get('SELECT * FROM volumes WHERE name = ?', name);
  }

  #options(name: string): Pairs {
    return decode(this.#row(name)?.['options']) ?? {};
  }

  #driver(driver: string, volume: string): VolumeDriver {
    const found = this.#drivers.get(driver);
    if (found !== undefined) return found;
    throw new GantryError(
      'notFound',
      `create ${volume}: error looking up volume plugin ${driver}: plugin "${driver}" not found`,
    );
  }

  #volume(row: Row): Volume {
    const name = String(row['name']);
    const driver = this.#driver(String(row['driver']), name);
    return {
      CreatedAt: String(row['created_at']),
      Driver: driver.name,
      Labels: decode(row['labels']) as Record<string, string>,
      Mountpoint: driver.path(name),
      Name: name,
      Options: decode(row['options']) as Record<string, string>,
      Scope: driver.scope,
    };
  }
}

// Compat: absent labels and options are null, not {}.
function decode(text: unknown): Pairs | null {
  return typeof text === 'string' ? (JSON.parse(text) as Pairs) : null;
}

function encode(pairs: Pairs | undefined): string | null {
  return pairs === undefined || Object.keys(pairs).length === 0 ? null : JSON.stringify(pairs);
}

async function directorySize(directory: string): Promise<number> {
  let bytes = 0;
  for (const entry of await readdir(directory, { withFileTypes: true }).catch(() => [])) {
    const path = join(directory, entry.name);
    if (entry.isDirectory()) bytes += await directorySize(path);
    else
      bytes += await lstat(path).then(
        (stats) => stats.size,
        () => 0,
      );
  }
  return bytes;
}
