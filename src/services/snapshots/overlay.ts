/**
 * The `overlay2` driver: a layer is a directory with what it adds (`diff`), a snapshot an overlayfs mount.
 *
 * Like docker, each layer has a short link `l/XXXX → ../<layer>/diff`, so that long stacks fit the one page
 * mount(2) takes; stacks that do not fit are mounted through fsconfig(2), option by option.
 */
import { randomBytes } from 'node:crypto';
import { closeSync, mkdirSync, readFileSync, readlinkSync, rmSync, symlinkSync, writeFileSync } from 'node:fs';
import { basename, dirname } from 'node:path';
import { hasCode } from '#system/kernel/errno.ts';
import { MOUNT_DATA_MAX_BYTES, type MountEntry, mount, mountWithOptions } from '#system/kernel/mount.ts';
import { S_IFDIR, S_IFMT } from '#system/kernel/node.ts';
import { listFd, openRoot, statAt } from '#system/kernel/path.ts';
import { openDirectoryAt } from '#system/kernel/tree.ts';
import { GantryError } from '#types/errors.ts';
import type { Usage } from './contract.ts';
import { overlayDifferences } from './differences.ts';
import { CONTENT, type LayeredOptions, LayeredSnapshotter, type TreeStore } from './layered.ts';

const LINK_CHARACTERS = 'ABCDEFGHIJKLMNOPQRSTUVWXYZ234567';
const LINK_LENGTH = 26;
/** Features that would make the upper directory unreadable as a layer are off, whatever the module's defaults. */
const SAFE_OPTIONS: readonly (readonly [string, string])[] = [
  ['index', 'off'],
  ['redirect_dir', 'off'],
  ['metacopy', 'off'],
];

function newLinkName(): string {
  return Array.from(randomBytes(LINK_LENGTH), (byte) => LINK_CHARACTERS[byte & 31]).join('');
}

class OverlayTrees implements TreeStore {
  readonly driver = 'overlay2';
  readonly whiteouts = 'overlay';
  readonly packUnchanged = true;
  readonly #root: string;
  /** Layer directory → its short path. */
  readonly #links = new Map<string, string>();

  constructor(root: string) {
    this.#root = root;
  }

  checkOptions(options: Readonly<Record<string, string>>): void {
    for (const key of Object.keys(options)) {
      if (key.toLowerCase() !== 'size') throw new GantryError('invalid', `Unknown option ${key}`);
      // Compat: dockerd's text wherever project quotas are missing.
      throw new GantryError(
        'system',
        `--storage-opt is supported only for overlay over xfs with 'pquota' mount option`,
      );
    }
  }

  create(directory: string, _below: readonly string[], writable: boolean): void {
    mkdirSync(`${directory}/${CONTENT}`, { mode: 0o755 });
    if (writable) mkdirSync(`${directory}/work`, { mode: 0o700 });
  }

  settle(directory: string): void {
    const name = newLinkName();
    symlinkSync(`../${basename(directory)}/${CONTENT}`, `${this.#root}/l/${name}`);
    writeFileSync(`${directory}/link`, name);
  }

  forget(directory: string): void {
    const link = this.#link(directory);
    this.#links.delete(directory);
    if (link !== undefined) rmSync(link, { force: true });
  }

  linkProblem(directory: string): string | undefined {
    const link = this.#writtenLink(directory);
    if (link === undefined) return 'it has no short link';
    try {
      if (readlinkSync(link) === `../${basename(directory)}/${CONTENT}`) return undefined;
      return `its short link ${basename(link)} leads elsewhere`;
    } catch (error) {
      if (hasCode(error, 'ENOENT', 'EINVAL')) return `its short link ${basename(link)} is gone`;
      throw error;
    }
  }

  #link(directory: string): string | undefined {
    const known = this.#links.get(directory);
    if (known !== undefined) return known;
    const link = this.#writtenLink(directory);
    if (link !== undefined) this.#links.set(directory, link);
    return link;
  }

  #writtenLink(directory: string): string | undefined {
    try {
      return `${this.#root}/l/${readFileSync(`${directory}/link`, 'utf8')}`;
    } catch (error) {
      if (hasCode(error, 'ENOENT')) return undefined;
      throw error;
    }
  }

  mount(directory: string, below: readonly string[], target: string): void {
    const upper = `${directory}/${CONTENT}`;
    const work = `${directory}/work`;
    // An overlay needs a lower directory; an empty one stands for "no parent".
    const lowers =
      below.length > 0 ? below.map((layer) => this.#link(layer) ?? `${layer}/${CONTENT}`) : [this.#empty(directory)];
    const rest = [...SAFE_OPTIONS, ['upperdir', upper], ['workdir', work]] as const;
    const data = `lowerdir=${lowers.join(':')},${rest.map(([name, value]) => `${name}=${value}`).join(',')}`;
    const plain = [target, upper, ...lowers].every((path) => !/[:,\\]/.test(path));
    if (plain && Buffer.byteLength(data) <= MOUNT_DATA_MAX_BYTES) {
      mount('overlay', target, { type: 'overlay', data });
    } else {
      const stack = lowers.map((lower) => ['lowerdir+', lower] as const);
      mountWithOptions('overlay', target, [['source', 'overlay'], ...stack, ...rest]);
    }
  }

  #empty(directory: string): string {
    const path = `${directory}/empty`;
    mkdirSync(path, { recursive: true });
    return path;
  }

  owns(entry: MountEntry, directory: string): boolean {
    if (entry.type !== 'overlay') return false;
    const upper = entry.superOptions.find((option) => option.startsWith('upperdir='))?.slice('upperdir='.length);
    return upper !== undefined && (upper === `${directory}/${CONTENT}` || dirname(dirname(upper)) === directory);
  }

  uses(entry: MountEntry, directory: string): boolean {
    if (entry.type !== 'overlay') return false;
    const paths = new Set([`${directory}/${CONTENT}`, this.#link(directory)]);
    return entry.superOptions
      .filter((option) => option.startsWith('lowerdir'))
      .some((option) =>
        option
          .slice(option.indexOf('=') + 1)
          .split(':')
          .some((path) => paths.has(path)),
      );
  }

  differences(directory: string, below: readonly string[]): ReturnType<typeof overlayDifferences> {
    return overlayDifferences(
      `${directory}/${CONTENT}`,
      below.map((layer) => `${layer}/${CONTENT}`),
    );
  }

  usage(directory: string): Usage {
    const fd = openRoot(`${directory}/${CONTENT}`);
    try {
      return measureTree(fd, new Set());
    } finally {
      closeSync(fd);
    }
  }

  data(directory: string, below: readonly string[], writable: boolean): Record<string, string> {
    const lower = below.map((layer) => `${layer}/${CONTENT}`).join(':');
    return {
      ...(writable ? { ID: basename(directory) } : {}),
      ...(lower === '' ? {} : { LowerDir: lower }),
      MergedDir: `${directory}/merged`,
      UpperDir: `${directory}/${CONTENT}`,
      WorkDir: `${directory}/work`,
    };
  }
}

/** Bytes and inodes of a tree; hard links count once, directories have no size (docker's directory.Size). */
export function measureTree(fd: number, seen: Set<string>): Usage {
  let sizeBytes = 0;
  let inodes = 0;
  for (const name of listFd(fd)) {
    const stat = statAt(fd, name);
    if (stat === undefined) continue;
    if ((stat.mode & S_IFMT) === S_IFDIR) {
      inodes += 1;
      try {
        const child = openDirectoryAt(fd, name);
        try {
          const below = measureTree(child, seen);
          sizeBytes += below.sizeBytes;
          inodes += below.inodes;
        } finally {
          closeSync(child);
        }
      } catch (error) {
        if (!hasCode(error, 'ENOENT', 'ENOTDIR', 'ELOOP')) throw error;
      }
      continue;
    }
    if (stat.links > 1) {
      const inode = `${stat.fileSystem}:${stat.inode}`;
      if (seen.has(inode)) continue;
      seen.add(inode);
    }
    inodes += 1;
    sizeBytes += stat.sizeBytes;
  }
  return { sizeBytes, inodes };
}

/** The overlay2 snapshotter under `options.root`. */
export function createOverlaySnapshotter(options: LayeredOptions): LayeredSnapshotter {
  return new LayeredSnapshotter(new OverlayTrees(options.root), options);
}
