/**
 * What layers and writable trees take on the disk. A layer does not change, so it is measured once and the figure kept
 * in the database; one whose files may not have reached the disk yet is measured again the next time.
 */
import type { Database, Migration } from '#system/database/database.ts';
import { allocatedBytes } from '#system/disk/allocated.ts';
import type { Digest } from '#types/digest.ts';
import type { SnapshotUsage } from './contract.ts';
import { CONTENT } from './layered.ts';
import type { LayerRecord, SnapshotRecords } from './records.ts';

const MIGRATION: Migration = {
  name: 'snapshot_disk_usage',
  // By directory: those names are never used again.
  steps: [
    'CREATE TABLE snapshot_disk_usage (directory TEXT PRIMARY KEY, bytes INTEGER NOT NULL) STRICT, WITHOUT ROWID',
  ],
};

/** Measures the trees of one driver. */
export class DiskUsage {
  readonly #database: Database;
  readonly #records: SnapshotRecords;

  constructor(database: Database, records: SnapshotRecords) {
    this.#database = database;
    this.#records = records;
    database.migrate(MIGRATION);
  }

  async measure(): Promise<SnapshotUsage> {
    this.#forgetGone();
    const unsynced = new Set(this.#records.unsynced().map(({ chainId }) => chainId));
    const layers = new Map<Digest, number>();
    for (const layer of this.#records.layers()) layers.set(layer.chainId, await this.#layer(layer, unsynced));
    const snapshots = new Map<string, number>();
    for (const { key, directory } of this.#records.snapshots()) {
      snapshots.set(key, await allocatedBytes(`${this.#records.path(directory)}/${CONTENT}`, { belowOnly: true }));
    }
    let sharedBytes = await allocatedBytes(this.#records.path('l'));
    for (const [, directory] of this.#records.inits())
      sharedBytes += await allocatedBytes(this.#records.path(directory));
    return { layers, snapshots, sharedBytes };
  }

  async #layer(layer: LayerRecord, unsynced: ReadonlySet<Digest>): Promise<number> {
    const known = this.#database.get('SELECT bytes FROM snapshot_disk_usage WHERE directory = ?', layer.directory);
    if (known !== undefined) return Number(known['bytes']);
    const bytes = await allocatedBytes(this.#records.path(layer.directory));
    if (!unsynced.has(layer.chainId) && this.#records.layer(layer.chainId) === layer) {
      this.#database.run('INSERT OR REPLACE INTO snapshot_disk_usage VALUES (?, ?)', layer.directory, bytes);
    }
    return bytes;
  }

  #forgetGone(): void {
    const here = new Set(this.#records.layers().map(({ directory }) => directory));
    for (const row of this.#database.all('SELECT directory FROM snapshot_disk_usage')) {
      const directory = String(row['directory']);
      if (!here.has(directory)) this.#database.run('DELETE FROM snapshot_disk_usage WHERE directory = ?', directory);
    }
  }
}
