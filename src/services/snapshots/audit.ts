/**
 * The check of a layered snapshotter: rows, directories and trees against each other, and their repair.
 * Everything that looks at names and rows happens in one synchronous stretch, so running work shows either
 * before or after, never half; a tree that was measured for longer counts only if its row is still the same.
 */
import { existsSync, renameSync, rmSync } from 'node:fs';
import { setImmediate } from 'node:timers/promises';
import { readMounts } from '#system/kernel/mount.ts';
import { exchangePaths, S_IFLNK, S_IFMT, S_IFREG } from '#system/kernel/node.ts';
import type { Digest } from '#types/digest.ts';
import { GantryError } from '#types/errors.ts';
import { compareTrees } from './compare-trees.ts';
import type { SnapshotAudit, SnapshotProblem } from './contract.ts';
import { extractLayer, HashedSource, packDifferences } from './layer-tar.ts';
import { CONTENT, type TreeStore } from './layered.ts';
import type { LayerRecord, SnapshotRecords } from './records.ts';

/** Longest stretch of synchronous work before the event loop gets a turn. */
const STRETCH_MS = 8;

export interface LayeredAuditOptions {
  readonly store: TreeStore;
  readonly records: SnapshotRecords;
  /** Writes the file system of a path to its disk. */
  readonly sync: (path: string) => Promise<void>;
  /** Makes the init layer over a parent anew. */
  readonly makeInit: (parent: Digest | undefined) => Promise<void>;
}

type Suspected = SnapshotProblem & { readonly suspect?: boolean };

/** SnapshotAudit over any TreeStore. */
export class LayeredAudit implements SnapshotAudit {
  readonly #store: TreeStore;
  readonly #records: SnapshotRecords;
  readonly #options: LayeredAuditOptions;

  constructor(options: LayeredAuditOptions) {
    this.#store = options.store;
    this.#records = options.records;
    this.#options = options;
  }

  async *problems(signal?: AbortSignal): AsyncGenerator<Suspected> {
    const byDepth = this.#records
      .layers()
      .map((layer) => ({ layer, depth: this.#depth(layer) }))
      .sort((a, b) => a.depth - b.depth);
    for (const { layer } of byDepth) {
      signal?.throwIfAborted();
      yield* this.#layerProblems(layer);
    }
    yield* this.#otherProblems();
  }

  #depth(layer: LayerRecord): number {
    let depth = 0;
    for (let at: LayerRecord | undefined = layer; at?.parent !== undefined; at = this.#records.layer(at.parent))
      depth += 1;
    return depth;
  }

  async *#layerProblems(layer: LayerRecord): AsyncGenerator<Suspected> {
    const about = { object: 'layer', id: layer.chainId } as const;
    const current = (): boolean => this.#records.layer(layer.chainId) === layer;
    if (!current()) return;
    if (layer.parent !== undefined && this.#records.layer(layer.parent) === undefined) {
      yield { ...about, kind: 'missing', detail: `the layer below it, ${layer.parent}, is not there` };
      return;
    }
    const directory = this.#records.path(layer.directory);
    if (!existsSync(`${directory}/${CONTENT}`)) {
      yield { ...about, kind: 'missing', detail: `its directory ${directory} is not there` };
      return;
    }
    const link = this.#store.linkProblem(directory);
    if (link !== undefined) yield { object: 'link', id: layer.chainId, kind: 'missing', detail: link };
    let sizeBytes: number;
    try {
      sizeBytes = await this.#measure(layer);
    } catch (error) {
      if (!current()) return;
      throw error;
    }
    if (sizeBytes === layer.sizeBytes || !current()) return;
    const detail = `its files have ${sizeBytes} bytes instead of ${layer.sizeBytes}`;
    yield { ...about, kind: 'corrupt', detail, suspect: true };
  }

  /** Bytes of the files a layer adds, and of the targets of its links. */
  async #measure(layer: LayerRecord): Promise<number> {
    const directory = this.#records.path(layer.directory);
    const below = this.#store.packUnchanged ? [] : this.#below(layer.parent);
    const seen = new Set<string>();
    let sizeBytes = 0;
    let stretchStart = performance.now();
    for (const { stat, kind } of this.#store.differences(directory, below)) {
      if (performance.now() - stretchStart > STRETCH_MS) {
        await setImmediate();
        stretchStart = performance.now();
      }
      if (stat === undefined || ![S_IFREG, S_IFLNK].includes(stat.mode & S_IFMT)) continue;
      if (kind === 'unchanged' && !this.#store.packUnchanged) continue;
      const inode = `${stat.fileSystem}:${stat.inode}`;
      if (stat.links > 1 && seen.has(inode)) continue;
      if (stat.links > 1) seen.add(inode);
      sizeBytes += stat.sizeBytes;
    }
    return sizeBytes;
  }

  #below(parent: Digest | undefined): string[] {
    return this.#records.chain(parent).map(({ directory }) => this.#records.path(directory));
  }

  *#otherProblems(): Generator<SnapshotProblem> {
    for (const [parent, directory] of this.#records.inits()) {
      if (existsSync(`${this.#records.path(directory)}/${CONTENT}`)) continue;
      yield { object: 'init', id: parent, kind: 'missing', detail: `its directory ${directory} is not there` };
    }
    for (const { key, directory, parent } of this.#records.snapshots()) {
      const about = { object: 'snapshot', id: key, kind: 'missing' } as const;
      if (!existsSync(`${this.#records.path(directory)}/${CONTENT}`)) {
        yield { ...about, detail: `its directory ${this.#records.path(directory)} is not there` };
      } else if (parent !== undefined && this.#records.layer(parent) === undefined) {
        yield { ...about, detail: `the layer below it, ${parent}, is not there` };
      }
    }
  }

  orphans(): SnapshotProblem[] {
    const { directories, links, leftovers } = this.#records.garbage();
    const orphan = (object: SnapshotProblem['object'], detail: string) => (id: string) =>
      ({ object, id, kind: 'orphaned', detail }) as const;
    return [
      ...directories.map(orphan('directory', 'no row names it')),
      ...links.map(orphan('link', 'no layer has it')),
      ...leftovers.map(orphan('leftover', 'nobody works on it any more')),
    ];
  }

  async compareLayer(
    chainId: Digest,
    tar: AsyncIterable<Buffer>,
    options: { repair: boolean },
    signal?: AbortSignal,
  ): Promise<string | undefined> {
    const layer = this.#records.layer(chainId);
    if (layer === undefined) throw new GantryError('notFound', `layer ${chainId} does not exist`);
    const directory = this.#records.path(layer.directory);
    const temporary = this.#records.temporary();
    try {
      await this.#store.create(temporary, this.#below(layer.parent), false);
      const source = new HashedSource(tar);
      await extractLayer(`${temporary}/${CONTENT}`, source, { style: this.#store.whiteouts, signal });
      const diffId = source.digest();
      if (diffId !== layer.diffId) throw new GantryError('invalid', `its archive has digest ${diffId}`);
      const difference = existsSync(`${directory}/${CONTENT}`)
        ? await compareTrees(`${temporary}/${CONTENT}`, `${directory}/${CONTENT}`, signal)
        : 'its directory is not there';
      if (difference !== undefined && options.repair) {
        await this.#options.sync(temporary);
        this.#swap(layer, temporary);
      }
      return this.#records.layer(chainId) === layer ? difference : undefined;
    } finally {
      this.#records.discard(temporary);
    }
  }

  /** In one stretch: whoever mounts the layer sees the old tree or the new one. */
  #swap(layer: LayerRecord, temporary: string): void {
    const directory = this.#records.path(layer.directory);
    if (this.#records.layer(layer.chainId) !== layer) return;
    if (readMounts().some((entry) => this.#store.uses(entry, directory))) {
      throw new GantryError('conflict', `layer ${layer.chainId} is in use by a running container`);
    }
    this.#store.forget(directory);
    if (existsSync(directory)) exchangePaths(temporary, directory);
    else renameSync(temporary, directory);
    this.#store.settle(directory);
  }

  async repair(problem: SnapshotProblem): Promise<void> {
    switch (problem.object) {
      case 'layer':
        throw new Error('a layer is repaired from its archive');
      case 'init': {
        const parent = problem.id === '' ? undefined : (problem.id as Digest);
        const lost = this.#records.init(parent);
        if (lost !== undefined) this.#store.forget(this.#records.path(lost));
        this.#records.deleteInit(problem.id);
        await this.#options.makeInit(parent);
        return;
      }
      case 'link': {
        const layer = this.#records.layer(problem.id as Digest);
        if (problem.kind === 'orphaned') rmSync(problem.id, { force: true });
        else if (layer !== undefined) {
          this.#store.forget(this.#records.path(layer.directory));
          this.#store.settle(this.#records.path(layer.directory));
        }
        return;
      }
      case 'directory':
      case 'leftover':
        this.#records.discard(problem.id);
        return;
      case 'snapshot':
        throw new GantryError('conflict', 'what was written there is lost; remove the container');
      default:
        problem.object satisfies never;
    }
  }

  packLayer(chainId: Digest): AsyncIterable<Buffer> {
    const layer = this.#records.layer(chainId);
    if (layer === undefined) throw new GantryError('notFound', `layer ${chainId} does not exist`);
    const below = this.#below(layer.parent);
    const differences = this.#store.differences(this.#records.path(layer.directory), below);
    return packDifferences(differences, this.#store.packUnchanged);
  }
}
