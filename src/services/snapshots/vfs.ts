/**
 * The `vfs` driver: every layer and snapshot is a full copy of its parent's tree (shared blocks where the file
 * system can). Slow and large, but it works on any file system; mounting is a bind mount.
 */
import { mkdirSync } from 'node:fs';
import { basename } from 'node:path';
import { bindMount, type MountEntry } from '#system/kernel/mount.ts';
import { S_IFDIR, S_IFMT } from '#system/kernel/node.ts';
import { GantryError } from '#types/errors.ts';
import type { Usage } from './contract.ts';
import { copyTree } from './copy-tree.ts';
import { treeDifferences } from './differences.ts';
import { CONTENT, type LayeredOptions, LayeredSnapshotter, type TreeStore } from './layered.ts';

class VfsTrees implements TreeStore {
  readonly driver = 'vfs';
  readonly whiteouts = 'apply';
  readonly packUnchanged = false;

  checkOptions(options: Readonly<Record<string, string>>): void {
    for (const key of Object.keys(options))
      throw new GantryError('system', `--storage-opt ${key} is not supported for vfs`);
  }

  async create(directory: string, below: readonly string[]): Promise<void> {
    const target = `${directory}/${CONTENT}`;
    mkdirSync(target, { mode: 0o755 });
    const parent = below[0];
    if (parent !== undefined) await copyTree(`${parent}/${CONTENT}`, target);
  }

  settle(): void {}

  forget(): void {}

  linkProblem(): undefined {
    return undefined;
  }

  // Mounted trees are copies.
  uses(): boolean {
    return false;
  }

  mount(directory: string, _below: readonly string[], target: string): void {
    bindMount(`${directory}/${CONTENT}`, target);
  }

  owns(entry: MountEntry, directory: string): boolean {
    // A bind mount tells its path inside its file system only; directory names are random, so the end decides.
    const [name, content] = entry.root.split('/').slice(-2);
    return content === CONTENT && name === basename(directory);
  }

  differences(directory: string, below: readonly string[]): ReturnType<typeof treeDifferences> {
    const parent = below[0];
    return treeDifferences(`${directory}/${CONTENT}`, parent === undefined ? undefined : `${parent}/${CONTENT}`);
  }

  usage(directory: string, below: readonly string[]): Usage {
    let sizeBytes = 0;
    let inodes = 0;
    const seen = new Set<string>();
    for (const { kind, stat } of this.differences(directory, below)) {
      if (stat === undefined || kind === 'unchanged') continue;
      if (seen.has(`${stat.fileSystem}:${stat.inode}`)) continue;
      seen.add(`${stat.fileSystem}:${stat.inode}`);
      inodes += 1;
      if ((stat.mode & S_IFMT) !== S_IFDIR) sizeBytes += stat.sizeBytes;
    }
    return { sizeBytes, inodes };
  }

  // Compat: docker's vfs tells nothing here.
  data(): Record<string, string> {
    return {};
  }
}

/** The vfs snapshotter under `options.root`. */
export function createVfsSnapshotter(options: LayeredOptions): LayeredSnapshotter {
  return new LayeredSnapshotter(new VfsTrees(), options);
}
