/**
 * Tar entries → files under a root directory. Parents are resolved by the kernel inside the root, the last
 * component is never followed, so neither archive nor a concurrent process can make us write outside.
 *
 * Calls are synchronous (15,000 small files are quicker so than through the thread pool); `pause` gives the
 * event loop its turns. Directory times are set by `finish`, after their children.
 */
import { closeSync, constants, fchmodSync, fchownSync, ftruncateSync, writeSync } from 'node:fs';
import { setImmediate } from 'node:timers/promises';
import { GantryError } from '#types/errors.ts';
import { hasCode } from '../kernel/errno.ts';
import * as node from '../kernel/node.ts';
import { O_PATH, openAt, openInRoot, statAt } from '../kernel/path.ts';
import { removeTreeAt } from '../kernel/tree.ts';
import { setXattr } from '../kernel/xattr.ts';
import type { TarEntry, TarReadEntry } from './contract.ts';

/** Open parent directories kept for the next entries. */
const PARENTS_MAX = 32;
/** Longest stretch without a turn for the event loop. */
const STRETCH_MS = 8;
/** Compat: parents missing in the archive are made like docker makes them. */
const IMPLIED_DIRECTORY_MODE = 0o755;
const DIRECTORY_FLAGS = O_PATH | constants.O_DIRECTORY;

export interface UnpackOptions {
  /** Existing directories are not replaced by files nor files by directories (docker cp). */
  readonly noOverwriteDirNonDir?: boolean;
  /** Owner given to everything instead of the archive's. */
  readonly owner?: { readonly uid: number; readonly gid: number };
  /** Directory inside the root that entries are placed under; already resolved. Absolute links still mean the root. */
  readonly base?: string;
  /** Called before an existing entry is replaced or a new one made. */
  readonly onReplace?: (parentFd: number, name: string) => void;
}

/** Path of an entry as components; refuses leaving the root by text. */
export function splitPath(path: string): string[] {
  const parts: string[] = [];
  for (const part of path.split('/')) {
    if (part === '' || part === '.') continue;
    if (part !== '..') parts.push(part);
    else if (parts.pop() === undefined) throw new GantryError('invalid', `"${path}" is outside of "/"`);
  }
  return parts;
}

/** Places entries under one root. Dispose to close its descriptors (not the root). */
export class Unpacker implements Disposable {
  readonly #rootFd: number;
  readonly #options: UnpackOptions;
  readonly #parents = new Map<string, number>();
  readonly #directoryTimes = new Map<string, bigint>();
  readonly #umask = process.umask();
  readonly #base: readonly string[];
  #stretchStart = performance.now();

  constructor(rootFd: number, options: UnpackOptions = {}) {
    this.#rootFd = rootFd;
    this.#options = options;
    this.#base = splitPath(options.base ?? '');
  }

  /** The open parent directory of `parts`, made where missing. Valid until the next call. */
  parent(parts: readonly string[]): number {
    const key = parts.slice(0, -1).join('/');
    if (key === '') return this.#rootFd;
    const known = this.#parents.get(key);
    if (known !== undefined) return known;
    const fd = this.#openDirectory(parts.slice(0, -1));
    if (this.#parents.size >= PARENTS_MAX) this.#forgetParents();
    this.#parents.set(key, fd);
    return fd;
  }

  #openDirectory(parts: readonly string[]): number {
    try {
      return openInRoot(this.#rootFd, parts.join('/'), DIRECTORY_FLAGS);
    } catch (error) {
      if (!hasCode(error, 'ENOENT', 'ENOTDIR')) throw error;
    }
    for (let count = 1; count <= parts.length; count += 1) {
      try {
        closeSync(openInRoot(this.#rootFd, parts.slice(0, count).join('/'), DIRECTORY_FLAGS));
      } catch (error) {
        if (!hasCode(error, 'ENOENT')) throw error;
        const above = openInRoot(this.#rootFd, parts.slice(0, count - 1).join('/'), DIRECTORY_FLAGS);
        const name = parts[count - 1] as string;
        try {
          node.makeDirectoryAt(above, name, IMPLIED_DIRECTORY_MODE);
          const { owner } = this.#options;
          if (owner !== undefined) node.changeOwnerAt(above, name, owner);
        } finally {
          closeSync(above);
        }
      }
    }
    return openInRoot(this.#rootFd, parts.join('/'), DIRECTORY_FLAGS);
  }

  #forgetParents(): void {
    for (const fd of this.#parents.values()) closeSync(fd);
    this.#parents.clear();
  }

  /** Removes whatever is at `name`; parents may have gone with it. */
  remove(parentFd: number, name: string): void {
    removeTreeAt(parentFd, name);
    for (const [key, fd] of this.#parents) {
      if (fd === parentFd) continue;
      closeSync(fd);
      this.#parents.delete(key);
    }
  }

  /** Makes room for an entry; true when an existing directory is to be kept. */
  #makeRoom(parentFd: number, name: string, entry: TarEntry): boolean {
    const stat = statAt(parentFd, name);
    if (stat === undefined) return false;
    const isDirectory = (stat.mode & node.S_IFMT) === node.S_IFDIR;
    if (this.#options.noOverwriteDirNonDir === true) {
      if (isDirectory && entry.type !== 'directory') {
        throw new GantryError(
          'invalid',
          `cannot overwrite directory ${this.#quoted(entry)} with non-directory "/${this.#base.join('/')}"`,
        );
      }
      if (!isDirectory && entry.type === 'directory') {
        throw new GantryError(
          'invalid',
          `cannot overwrite non-directory ${this.#quoted(entry)} with directory "/${this.#base.join('/')}"`,
        );
      }
    }
    if (isDirectory && entry.type === 'directory') return true;
    this.#options.onReplace?.(parentFd, name);
    this.remove(parentFd, name);
    return false;
  }

  #quoted(entry: TarEntry): string {
    return JSON.stringify(`/${[...this.#base, ...splitPath(entry.path)].join('/')}`);
  }

  /** Creates one entry. The entry for the root itself is passed over, as docker does. */
  async place(item: TarReadEntry): Promise<void> {
    const { entry } = item;
    const own = splitPath(entry.path);
    if (own.length === 0) return;
    const parts = [...this.#base, ...own];
    const name = parts.at(-1) as string;
    const parentFd = this.parent(parts);
    if (entry.type === 'file') await this.#placeFile(parentFd, name, item);
    else this.#placeOther(parentFd, name, { entry, keep: this.#makeRoom(parentFd, name, entry) });
    if (entry.type === 'directory') this.#directoryTimes.set(parts.join('/'), entry.modifiedNs);
  }

  /** Nearly always nothing is there yet, so that is tried first. */
  #createFile(parentFd: number, name: string, entry: TarEntry): number {
    const flags = constants.O_WRONLY | constants.O_CREAT | constants.O_EXCL | constants.O_NOFOLLOW;
    try {
      return openAt(parentFd, name, flags, entry.mode & 0o777);
    } catch (error) {
      if (!hasCode(error, 'EEXIST')) throw error;
    }
    this.#makeRoom(parentFd, name, entry);
    return openAt(parentFd, name, flags, entry.mode & 0o777);
  }

  async #placeFile(parentFd: number, name: string, item: TarReadEntry): Promise<void> {
    const { entry, sparse } = item;
    const fd = this.#createFile(parentFd, name, entry);
    try {
      if (sparse === undefined) for await (const chunk of item.content) writeAll(fd, chunk);
      else await writeSparse(fd, entry.sizeBytes, sparse);
      const owner = this.#options.owner ?? entry;
      if (owner.uid !== 0 || owner.gid !== 0) fchownSync(fd, owner.uid, owner.gid);
      if ((entry.mode & 0o777 & ~this.#umask) !== entry.mode) fchmodSync(fd, entry.mode);
      applyXattrs(fd, entry.xattrs);
      node.changeTimesFd(fd, { accessed: entry.accessedNs ?? entry.modifiedNs, modified: entry.modifiedNs });
    } finally {
      closeSync(fd);
    }
  }

  #placeOther(parentFd: number, name: string, { entry, keep }: { entry: TarEntry; keep: boolean }): void {
    switch (entry.type) {
      case 'directory':
        if (!keep) node.makeDirectoryAt(parentFd, name, 0o700);
        break;
      case 'symlink':
        node.makeLinkAt(parentFd, name, entry.linkPath);
        break;
      case 'link':
        this.#placeLink(parentFd, name, entry.linkPath);
        return;
      case 'fifo':
        node.makeNodeAt(parentFd, name, node.S_IFIFO | 0o600);
        break;
      default: {
        const type = entry.type === 'block' ? node.S_IFBLK : node.S_IFCHR;
        node.makeNodeAt(parentFd, name, type | 0o600, node.makeDevice(entry.deviceMajor, entry.deviceMinor));
      }
    }
    node.changeOwnerAt(parentFd, name, this.#options.owner ?? entry);
    // O_NOFOLLOW semantics: what we just made could have been swapped for a link by a running container.
    if (entry.type === 'directory') applyToDirectory(parentFd, name, entry);
    else if (entry.type !== 'symlink') changeSpecialMode(parentFd, name, entry.mode);
    node.changeTimesAt(parentFd, name, { accessed: entry.modifiedNs, modified: entry.modifiedNs });
  }

  #placeLink(parentFd: number, name: string, target: string): void {
    const parts = [...this.#base, ...splitPath(target)];
    const base = parts.at(-1);
    if (base === undefined || splitPath(target).length === 0)
      throw new GantryError('invalid', `invalid hardlink "${target}" -> "${name}"`);
    const directory = parts.slice(0, -1).join('/');
    const fd = openInRoot(this.#rootFd, directory, DIRECTORY_FLAGS);
    try {
      node.hardLinkAt({ fd, name: base }, { fd: parentFd, name });
    } finally {
      closeSync(fd);
    }
  }

  /** Gives the event loop a turn when this stretch was long. */
  async pause(): Promise<void> {
    if (performance.now() - this.#stretchStart < STRETCH_MS) return;
    await setImmediate();
    this.#stretchStart = performance.now();
  }

  /** Sets directory times, deepest first. */
  finish(): void {
    for (const [path, modified] of [...this.#directoryTimes].reverse()) {
      const parts = path.split('/');
      try {
        const name = parts.at(-1) as string;
        const parentFd = this.parent(parts);
        const stat = statAt(parentFd, name);
        if (stat === undefined || (stat.mode & node.S_IFMT) !== node.S_IFDIR) continue;
        node.changeTimesAt(parentFd, name, { accessed: modified, modified });
      } catch (error) {
        if (!hasCode(error, 'ENOENT', 'ENOTDIR')) throw error;
      }
    }
  }

  [Symbol.dispose](): void {
    this.#forgetParents();
  }
}

function writeAll(fd: number, chunk: Buffer): void {
  for (let at = 0; at < chunk.length; ) at += writeSync(fd, chunk, at);
}

async function writeSparse(fd: number, sizeBytes: number, sparse: NonNullable<TarReadEntry['sparse']>): Promise<void> {
  let index = 0;
  let done = 0;
  for await (const chunk of sparse.data) {
    for (let at = 0; at < chunk.length; ) {
      const fragment = sparse.fragments[index];
      if (fragment === undefined) return;
      const piece = chunk.subarray(at, at + fragment.length - done);
      for (let written = 0; written < piece.length; ) {
        written += writeSync(fd, piece, written, piece.length - written, fragment.offset + done + written);
      }
      at += piece.length;
      done += piece.length;
      if (done === fragment.length) [index, done] = [index + 1, 0];
    }
  }
  ftruncateSync(fd, sizeBytes);
}

/** Compat: attributes the file system or the kernel refuses are left out, as docker does. */
function applyXattrs(fd: number, xattrs: ReadonlyMap<string, Buffer>): void {
  for (const [name, value] of xattrs) {
    try {
      setXattr(fd, name, value);
    } catch (error) {
      if (!hasCode(error, 'ENOTSUP', 'EPERM')) throw error;
    }
  }
}

function applyToDirectory(parentFd: number, name: string, entry: TarEntry): void {
  const fd = openAt(parentFd, name, constants.O_RDONLY | constants.O_DIRECTORY | constants.O_NOFOLLOW);
  try {
    fchmodSync(fd, entry.mode);
    applyXattrs(fd, entry.xattrs);
  } finally {
    closeSync(fd);
  }
}

/** chmod of a device or FIFO without opening it: through the O_PATH descriptor's /proc link. */
function changeSpecialMode(parentFd: number, name: string, mode: number): void {
  const fd = openAt(parentFd, name, O_PATH | constants.O_NOFOLLOW);
  try {
    node.changeModeAt(-100, `/proc/self/fd/${fd}`, mode);
  } finally {
    closeSync(fd);
  }
}
