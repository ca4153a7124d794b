/**
 * How layers survive a power loss. A committed layer is marked with the boot that wrote it, the disk is waited for
 * behind the answer, and then the mark goes. A mark of an earlier boot means that the files may be incomplete: such a
 * layer is extracted again from its blob, which was on the disk before the layer was committed.
 */
import { readFileSync } from 'node:fs';
import { setTimeout as delay } from 'node:timers/promises';
import type { Digest } from '#types/digest.ts';
import { GantryError } from '#types/errors.ts';
import type { LayerRecord, SnapshotRecords } from './records.ts';

/** How long after a commit the disk is waited for: layers that come shortly after one another share it. */
const SYNC_DELAY_MS = 200;

/** Gives the uncompressed tar of a layer; undefined when it is not there. */
type OpenLayer = (diffId: Digest) => AsyncIterable<Buffer> | undefined;

export interface DurabilityOptions {
  readonly records: SnapshotRecords;
  /** The kernel's name for this boot; undefined where layers need not survive a power loss. */
  readonly boot: string | undefined;
  /** Writes the file system that holds a path to its disk. */
  readonly sync: (path: string) => Promise<void>;
  /** Puts a newly extracted tree in the place of a layer's directory. */
  readonly extractAgain: (record: LayerRecord, tar: AsyncIterable<Buffer>) => Promise<void>;
}

/** The kernel's name for this boot. */
export function currentBoot(): string {
  return readFileSync('/proc/sys/kernel/random/boot_id', 'utf8').trim();
}

/** Marks, waits for the disk, and repairs after a power loss. */
export class LayerDurability {
  readonly boot: string | undefined;
  readonly #records: SnapshotRecords;
  readonly #options: DurabilityOptions;
  #syncing: Promise<void> | undefined;

  constructor(options: DurabilityOptions) {
    this.boot = options.boot;
    this.#records = options.records;
    this.#options = options;
  }

  /** Waits for the disk behind the answer; until then the new layers are marked. */
  syncSoon(): void {
    if (this.boot === undefined || this.#syncing !== undefined) return;
    const syncing = (async () => {
      await delay(SYNC_DELAY_MS);
      for (;;) {
        const marked = this.#records.unsynced().filter(({ boot }) => boot === this.boot);
        if (marked.length === 0) return;
        await this.#options.sync(this.#records.root);
        this.#records.markSynced(marked.map(({ chainId }) => chainId));
      }
    })();
    this.#syncing = syncing
      // The marks stay: the next commit or the next start tries again.
      .catch(() => {})
      .finally(() => {
        this.#syncing = undefined;
      });
  }

  /** Waits for the disk at once, where layers must survive a power loss. */
  async syncNow(path: string): Promise<void> {
    if (this.boot !== undefined) await this.#options.sync(path);
  }

  /** Extracts layers of an earlier boot again that may be incomplete; returns those for which that failed. */
  async repair(open: OpenLayer): Promise<Digest[]> {
    const suspects = new Set(
      this.#records
        .unsynced()
        .filter(({ boot }) => boot !== this.boot)
        .map(({ chainId }) => chainId),
    );
    const failed: Digest[] = [];
    for (const chainId of suspects) await this.#repairChain(chainId, { suspects, failed, open });
    this.syncSoon();
    return failed;
  }

  /** A layer and those below it, lowest first. */
  async #repairChain(top: Digest, work: { suspects: Set<Digest>; failed: Digest[]; open: OpenLayer }): Promise<void> {
    for (const record of this.#records.chain(top).reverse()) {
      if (!work.suspects.delete(record.chainId)) continue;
      try {
        const tar = work.open(record.diffId);
        if (tar === undefined) throw new GantryError('notFound', `content of layer ${record.diffId}: not found`);
        await this.#options.extractAgain(record, tar);
        this.#records.saveUnsynced(record.chainId, this.boot ?? '');
      } catch {
        work.failed.push(record.chainId);
      }
    }
  }

  /** Resolves when nothing waits for the disk. */
  async settled(): Promise<void> {
    await this.#syncing;
  }
}
