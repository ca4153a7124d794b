/**
 * The snapshot life cycle over any way of keeping trees on disk (`TreeStore`): records, extraction, counting
 * of mounts, init layers. Drivers differ only in how a tree is stacked, mounted and compared.
 *
 * Everything half-made lies in a temporary directory; a rename and one row make it real. A layer's files reach the
 * disk behind the answer; its row is marked until then, and after a power loss it is extracted again (0055).
 */
import { existsSync, mkdirSync, renameSync } from 'node:fs';
import { Readable } from 'node:stream';
import { type Database, isDiskFull } from '#system/database/database.ts';
import type { MountEntry } from '#system/kernel/mount.ts';
import { chainIds, type Digest } from '#types/digest.ts';
import { GantryError } from '#types/errors.ts';
import { LayeredAudit } from './audit.ts';
import type {
  Change,
  Layer,
  LayerFile,
  SnapshotAudit,
  Snapshotter,
  SnapshotUsage,
  StagedLayer,
  Usage,
} from './contract.ts';
import { type Difference, treeDifferences } from './differences.ts';
import { DiskUsage } from './disk-usage.ts';
import { currentBoot, LayerDurability } from './durability.ts';
import { fillInitLayer } from './init-layer.ts';
import { extractLayer, HashedSource, listChanges, packDifferences, type WhiteoutStyle } from './layer-tar.ts';
import { LayerThreads } from './layer-threads.ts';
import type { ExtractedLayer } from './layer-worker.ts';
import { MountTable } from './mounts.ts';
import { type LayerRecord, type SnapshotRecord, SnapshotRecords } from './records.ts';

/** Content of a layer's or snapshot's directory. */
export const CONTENT = 'diff';

/** How one driver keeps trees. Directories are absolute; `below` lists directories of layers, topmost first. */
export interface TreeStore {
  readonly driver: string;
  readonly whiteouts: WhiteoutStyle;
  /** Throws for storage options this driver cannot keep. */
  checkOptions(options: Readonly<Record<string, string>>): void;
  /** Fills a fresh directory: at least `diff`. `below` is what it will lie on. */
  create(directory: string, below: readonly string[], writable: boolean): void | Promise<void>;
  /** A committed directory has moved to its final place. */
  settle(directory: string): void;
  /** A directory is about to be removed. */
  forget(directory: string): void;
  /** What is wrong with the driver's own marks of a committed directory; `forget` and `settle` renew them. */
  linkProblem(directory: string): string | undefined;
  /** Whether a mount reads the committed directory. */
  uses(entry: MountEntry, directory: string): boolean;
  mount(directory: string, below: readonly string[], target: string): void;
  owns(entry: MountEntry, directory: string): boolean;
  differences(directory: string, below: readonly string[]): Iterable<Difference>;
  /** Whether an archive of differences holds the unchanged ones too. */
  readonly packUnchanged: boolean;
  usage(directory: string, below: readonly string[]): Usage;
  data(directory: string, below: readonly string[], writable: boolean): Record<string, string>;
}

export interface LayeredOptions {
  /** The driver's own directory, e.g. `<data root>/overlay2`. */
  readonly root: string;
  readonly database: Database;
  /** Marks a layer until its files are on the disk. Default true; tests switch it off. */
  readonly durable?: boolean;
  /** Which boot of the machine this is; for tests. */
  readonly boot?: string;
}

class Staged implements StagedLayer {
  readonly diffId: Digest;
  readonly sizeBytes: number;
  readonly tarSizeBytes: number;
  readonly compression: StagedLayer['compression'];
  readonly fileDigest: Digest | undefined;
  readonly directory: string;
  readonly #drop: (directory: string) => void;

  constructor(layer: ExtractedLayer, directory: string, drop: (directory: string) => void) {
    this.diffId = layer.diffId;
    this.sizeBytes = layer.sizeBytes;
    this.tarSizeBytes = layer.tarSizeBytes;
    this.compression = layer.compression;
    this.fileDigest = layer.fileDigest;
    this.directory = directory;
    this.#drop = drop;
  }

  get isAvailable(): boolean {
    return existsSync(this.directory);
  }

  /** A directory that was committed has left its place: nothing is dropped then. */
  [Symbol.dispose](): void {
    this.#drop(this.directory);
  }
}

/** A Snapshotter over a TreeStore. */
export class LayeredSnapshotter implements Snapshotter {
  readonly driver: string;
  readonly #store: TreeStore;
  readonly #records: SnapshotRecords;
  readonly #mounts = new MountTable();
  readonly #threads = new LayerThreads();
  readonly #durability: LayerDurability;
  readonly #usage: DiskUsage;
  readonly #inits = new Map<string, Promise<string>>();

  constructor(store: TreeStore, options: LayeredOptions) {
    this.driver = store.driver;
    this.#store = store;
    this.#records = new SnapshotRecords(options.root, options.database, store.driver);
    this.#usage = new DiskUsage(options.database, this.#records);
    this.#durability = new LayerDurability({
      records: this.#records,
      boot: options.durable === false ? undefined : (options.boot ?? currentBoot()),
      sync: (path) => this.#threads.sync(path),
      extractAgain: (record, tar) => this.#extractAgain(record, tar),
    });
  }

  #below(parent: Digest | undefined): string[] {
    return this.#records.chain(parent).map(({ directory }) => this.#records.path(directory));
  }

  #snapshot(key: string): { record: SnapshotRecord; directory: string; below: string[] } {
    const record = this.#records.snapshot(key);
    if (record === undefined) throw new GantryError('notFound', `snapshot ${key} does not exist`);
    const init = this.#records.init(record.parent);
    const below = this.#below(record.parent);
    if (init !== undefined) below.unshift(this.#records.path(init));
    return { record, directory: this.#records.path(record.directory), below };
  }

  async applyLayer(
    parent: Digest | undefined,
    tar: AsyncIterable<Buffer>,
    options: { expected?: Digest },
    signal?: AbortSignal,
  ): Promise<Layer> {
    const { expected } = options;
    const below = this.#parentBelow(parent);
    const source = new HashedSource(tar);
    const known = expected === undefined ? undefined : this.#records.layer(chainOver(parent, expected));
    if (known !== undefined) {
      for await (const _ of source) signal?.throwIfAborted();
      checkDigest(source.digest(), expected);
      return publicLayer(known);
    }
    const temporary = this.#records.temporary();
    try {
      await this.#store.create(temporary, below, false);
      const sizeBytes = await extractLayer(`${temporary}/${CONTENT}`, source, { style: this.#store.whiteouts, signal });
      const diffId = source.digest();
      checkDigest(diffId, expected);
      const chainId = chainOver(parent, diffId);
      signal?.throwIfAborted();
      const [layer] = this.#commit([{ directory: temporary, layer: { chainId, diffId, parent, sizeBytes } }]);
      return layer as Layer;
    } finally {
      this.#records.discard(temporary);
    }
  }

  #parentBelow(parent: Digest | undefined): string[] {
    if (parent !== undefined && this.#records.layer(parent) === undefined) {
      throw new GantryError('notFound', `layer ${parent} does not exist`);
    }
    return this.#below(parent);
  }

  /** Gives extracted directories their place and saves them at once; layers that exist already stay as they are. */
  #commit(extracted: readonly { directory: string; layer: Layer }[]): Layer[] {
    const [first] = extracted;
    if (first !== undefined) this.#parentBelow(first.layer.parent);
    const records: LayerRecord[] = [];
    const layers: Layer[] = [];
    for (const { directory, layer } of extracted) {
      const existing = this.#records.layer(layer.chainId);
      layers.push(existing === undefined ? layer : publicLayer(existing));
      if (existing !== undefined) continue;
      const record: LayerRecord = { ...layer, directory: this.#records.newName() };
      const place = this.#records.path(record.directory);
      renameSync(directory, place);
      this.#store.settle(place);
      records.push(record);
    }
    if (records.length === 0) return layers;
    try {
      this.#records.saveLayers(records, this.#durability.boot);
    } catch (error) {
      for (const { directory } of records) {
        this.#store.forget(this.#records.path(directory));
        this.#records.discard(this.#records.path(directory));
      }
      throw error;
    }
    this.#durability.syncSoon();
    return layers;
  }

  get stagesAhead(): boolean {
    return this.#store.whiteouts === 'overlay';
  }

  async stage(file: LayerFile, signal?: AbortSignal): Promise<StagedLayer> {
    if (!this.stagesAhead) throw new Error(`the driver ${this.driver} extracts layers over their parents only`);
    const temporary = this.#records.temporary();
    try {
      await this.#store.create(temporary, [], false);
      const extracted = await this.#threads.extract(file, `${temporary}/${CONTENT}`, signal);
      return new Staged(extracted, temporary, (directory) => this.#records.discard(directory));
    } catch (error) {
      this.#records.discard(temporary);
      throw error;
    }
  }

  commitStaged(parent: Digest | undefined, staged: readonly StagedLayer[]): Layer[] {
    let below = parent;
    const extracted = staged.map((each) => {
      if (!(each instanceof Staged)) throw new Error('a layer staged by another snapshotter');
      const { diffId, sizeBytes, directory } = each;
      const chainId = chainOver(below, diffId);
      const layer: Layer = { chainId, diffId, parent: below, sizeBytes };
      below = chainId;
      return { directory, layer };
    });
    return this.#commit(extracted);
  }

  async repair(open: (diffId: Digest) => AsyncIterable<Buffer> | undefined): Promise<Digest[]> {
    return await this.#durability.repair(open);
  }

  async #extractAgain(record: LayerRecord, tar: AsyncIterable<Buffer>): Promise<void> {
    const temporary = this.#records.temporary();
    try {
      await this.#store.create(temporary, this.#below(record.parent), false);
      const source = new HashedSource(tar);
      await extractLayer(`${temporary}/${CONTENT}`, source, { style: this.#store.whiteouts });
      checkDigest(source.digest(), record.diffId);
      const place = this.#records.path(record.directory);
      this.#store.forget(place);
      this.#records.discard(place);
      renameSync(temporary, place);
      this.#store.settle(place);
    } finally {
      this.#records.discard(temporary);
    }
  }

  layer(chainId: Digest): Layer | undefined {
    const record = this.#records.layer(chainId);
    return record === undefined ? undefined : publicLayer(record);
  }

  layers(): Layer[] {
    return this.#records.layers().map(publicLayer);
  }

  async removeLayer(chainId: Digest): Promise<void> {
    const record = this.#records.layer(chainId);
    if (record === undefined) return;
    const used =
      this.#records.layers().some(({ parent }) => parent === chainId) ||
      this.#records.snapshots().some(({ parent }) => parent === chainId) ||
      this.#inits.has(chainId);
    if (used) throw new GantryError('conflict', `layer ${chainId} is in use`);
    const init = this.#records.init(chainId);
    if (init !== undefined) this.#store.forget(this.#records.path(init));
    this.#store.forget(this.#records.path(record.directory));
    this.#records.deleteLayer(record);
  }

  async prepare(key: string, parent: Digest | undefined, storageOptions: Record<string, string> = {}): Promise<void> {
    this.#store.checkOptions(storageOptions);
    if (this.#records.snapshot(key) !== undefined) throw new GantryError('conflict', `snapshot ${key} already exists`);
    const layers = this.#parentBelow(parent);
    const init = this.#records.init(parent) ?? (await this.#makeInit(parent, layers));
    const name = this.#records.newName();
    const directory = this.#records.path(name);
    mkdirSync(directory, { mode: 0o710 });
    try {
      const filled = this.#store.create(directory, [this.#records.path(init), ...layers], true);
      if (filled !== undefined) await filled;
      this.#parentBelow(parent);
      this.#records.saveSnapshot({ key, parent, directory: name });
    } catch (error) {
      this.#records.discard(directory);
      throw error;
    }
  }

  /** The init layer over a parent, made once. */
  #makeInit(parent: Digest | undefined, below: readonly string[]): Promise<string> {
    const running = this.#inits.get(parent ?? '');
    if (running !== undefined) return running;
    const making = (async () => {
      const temporary = this.#records.temporary();
      const name = `${this.#records.newName()}-init`;
      const target = `${temporary}/merged`;
      try {
        await this.#store.create(temporary, below, true);
        await this.#mounts.mount(name, target, {
          work: () => this.#store.mount(temporary, below, target),
          owns: () => false,
        });
        try {
          fillInitLayer(target);
        } finally {
          this.#mounts.unmount(name, target);
          await this.#mounts.release(name);
        }
        renameSync(temporary, this.#records.path(name));
        this.#store.settle(this.#records.path(name));
        this.#records.saveInit(parent, name);
        return name;
      } finally {
        this.#records.discard(temporary);
        this.#inits.delete(parent ?? '');
      }
    })();
    this.#inits.set(parent ?? '', making);
    return making;
  }

  exists(key: string): boolean {
    return this.#records.snapshot(key) !== undefined;
  }

  parent(key: string): Digest | undefined {
    return this.#records.snapshot(key)?.parent;
  }

  keys(): string[] {
    return this.#records.snapshots().map(({ key }) => key);
  }

  async mount(key: string, target: string): Promise<void> {
    const { directory, below } = this.#snapshot(key);
    await this.#mounts.mount(key, target, {
      work: () => this.#store.mount(directory, below, target),
      owns: (entry) => this.#store.owns(entry, directory),
    });
  }

  async unmount(key: string, target: string): Promise<void> {
    this.#mounts.unmount(key, target);
  }

  async changes(key: string): Promise<Change[]> {
    const { directory, below } = this.#snapshot(key);
    return listChanges(this.#store.differences(directory, below));
  }

  diff(key: string): Readable {
    const { directory, below } = this.#snapshot(key);
    const blocks = packDifferences(this.#store.differences(directory, below), this.#store.packUnchanged);
    return Readable.from(blocks, { objectMode: false });
  }

  async commit(key: string): Promise<Layer> {
    const { record } = this.#snapshot(key);
    return this.applyLayer(record.parent, this.diff(key) as AsyncIterable<Buffer>, {});
  }

  stackDifference(base: Digest | undefined, top: Digest): Readable {
    const blocks = async function* (this: LayeredSnapshotter): AsyncGenerator<Buffer> {
      await using before = await this.#view(base);
      await using now = await this.#view(top);
      yield* packDifferences(treeDifferences(now.target, before.target), false);
    };
    return Readable.from(blocks.call(this), { objectMode: false });
  }

  /** A layer's whole tree at a temporary mount point. */
  async #view(top: Digest | undefined): Promise<{ readonly target: string } & AsyncDisposable> {
    const below = this.#parentBelow(top);
    const name = this.#records.newName();
    const temporary = this.#records.temporary();
    const target = `${temporary}/merged`;
    const drop = async (): Promise<void> => {
      this.#mounts.unmount(name, target);
      await this.#mounts.release(name);
      this.#records.discard(this.#records.path(name));
      this.#records.discard(temporary);
    };
    try {
      await this.#store.create(temporary, below, true);
      const work = (): void => this.#store.mount(temporary, below, target);
      await this.#mounts.mount(name, target, { work, owns: () => false });
    } catch (error) {
      await drop();
      throw error;
    }
    return { target, [Symbol.asyncDispose]: drop };
  }

  async usage(key: string): Promise<Usage> {
    const { directory, below } = this.#snapshot(key);
    return this.#store.usage(directory, below);
  }

  graphDriverData(key: string): Record<string, string> {
    const { directory, below } = this.#snapshot(key);
    return this.#store.data(directory, below, true);
  }

  layerDriverData(chainId: Digest): Record<string, string> {
    const [top, ...below] = this.#parentBelow(chainId);
    return this.#store.data(top as string, below, false);
  }

  async remove(key: string): Promise<void> {
    const record = this.#records.snapshot(key);
    if (record === undefined) return;
    const released = this.#mounts.release(key);
    const directory = this.#records.path(record.directory);
    this.#store.forget(directory);
    try {
      this.#records.deleteSnapshot(record);
    } catch (error) {
      if (!isDiskFull(error)) throw error;
      // Its files make the room that writing down the removal needs; a crash in between leaves a row to remove again.
      this.#records.discard(directory, released);
      await this.#records.emptied();
      this.#records.deleteSnapshot(record);
      return;
    }
    this.#records.discard(directory, released);
  }

  async recover(keep: ReadonlySet<string>): Promise<void> {
    const kept = this.#records.snapshots().filter(({ key }) => keep.has(key));
    const keptDirectories = kept.map(({ directory }) => this.#records.path(directory));
    const doomed = this.#records
      .snapshots()
      .filter(({ key }) => !keep.has(key))
      .map(({ directory }) => this.#records.path(directory));
    const root = `${this.#records.root}/`;
    this.#mounts.detachOrphans((entry) => {
      const ours =
        entry.mountPoint.startsWith(root) ||
        this.#store.owns(entry, this.#records.root) ||
        doomed.some((directory) => this.#store.owns(entry, directory));
      return ours && !keptDirectories.some((directory) => this.#store.owns(entry, directory));
    });
    for (const { key } of this.#records.snapshots()) if (!keep.has(key)) await this.remove(key);
    this.#records.collectGarbage();
  }

  diskUsage(): Promise<SnapshotUsage> {
    return this.#usage.measure();
  }

  audit(): SnapshotAudit {
    return new LayeredAudit({
      store: this.#store,
      records: this.#records,
      sync: (path) => this.#durability.syncNow(path),
      makeInit: async (parent) => {
        await this.#makeInit(parent, this.#parentBelow(parent));
      },
    });
  }

  /** Resolves when everything removed is gone from the disk. */
  async settled(): Promise<void> {
    await this.#mounts.settled();
    await this.#durability.settled();
    await this.#records.emptied();
  }
}

function publicLayer({ chainId, diffId, parent, sizeBytes }: Layer): Layer {
  return { chainId, diffId, parent, sizeBytes };
}

function chainOver(parent: Digest | undefined, diffId: Digest): Digest {
  return parent === undefined ? diffId : (chainIds([parent, diffId])[1] as Digest);
}

function checkDigest(actual: Digest, expected: Digest | undefined): void {
  if (expected !== undefined && actual !== expected) {
    throw new GantryError(
      'invalid',
      `layers from manifest don't match image configuration: wanted ${expected}, got ${actual}`,
    );
  }
}
