/** Directory entries as tar entries: what `lstat` and the attributes say, hard links found by inode. */
import { closeSync, constants, readSync } from 'node:fs';
import { S_IFBLK, S_IFCHR, S_IFDIR, S_IFIFO, S_IFLNK, S_IFMT, S_IFREG } from '../kernel/node.ts';
import { type FileStat, openAt, readLinkAt } from '../kernel/path.ts';
import { getXattr, listXattrs } from '../kernel/xattr.ts';
import type { TarEntry, TarEntryType } from './contract.ts';

const TYPES: Readonly<Record<number, TarEntryType>> = {
  [S_IFREG]: 'file',
  [S_IFDIR]: 'directory',
  [S_IFLNK]: 'symlink',
  [S_IFCHR]: 'character',
  [S_IFBLK]: 'block',
  [S_IFIFO]: 'fifo',
};

const NS_PER_S = 1_000_000_000n;
const READ_BYTES = 256 * 1024;
const NO_XATTRS: ReadonlyMap<string, Buffer> = new Map();

/** Paths already packed by device and inode, to write later names as hard links. */
export type SeenLinks = Map<string, string>;

/** Attributes worth keeping in an archive: file capabilities and what users set. */
export function packedXattrs(directoryFd: number, name: string): ReadonlyMap<string, Buffer> {
  if (!name.isWellFormed()) return NO_XATTRS;
  const path = `/proc/self/fd/${directoryFd}/${name}`;
  let kept: Map<string, Buffer> | undefined;
  for (const key of listXattrs(path)) {
    if (key !== 'security.capability' && !key.startsWith('user.')) continue;
    const value = getXattr(path, key);
    if (value !== undefined) (kept ??= new Map()).set(key, value);
  }
  return kept ?? NO_XATTRS;
}

export interface PackOptions {
  readonly directoryFd: number;
  readonly name: string;
  readonly stat: FileStat;
  readonly links: SeenLinks;
}

/**
 * The tar entry of one directory entry under the archive path `path`; undefined for sockets.
 * Compat: docker cuts times to whole seconds.
 */
export function packEntry(path: string, options: PackOptions): TarEntry | undefined {
  const { directoryFd, name, stat, links } = options;
  let type = TYPES[stat.mode & S_IFMT];
  if (type === undefined) return undefined;
  let linkPath = type === 'symlink' ? readLinkAt(directoryFd, name) : '';
  if (stat.links > 1 && type !== 'directory') {
    const inode = `${stat.fileSystem}:${stat.inode}`;
    const first = links.get(inode);
    if (first === undefined) links.set(inode, path);
    else [type, linkPath] = ['link', first];
  }
  const seconds = stat.modifiedNs / NS_PER_S - (stat.modifiedNs % NS_PER_S < 0n ? 1n : 0n);
  return {
    path,
    type,
    linkPath,
    mode: stat.mode & 0o7777,
    uid: stat.uid,
    gid: stat.gid,
    userName: '',
    groupName: '',
    sizeBytes: type === 'file' ? stat.sizeBytes : 0,
    modifiedNs: seconds * NS_PER_S,
    deviceMajor: type === 'character' || type === 'block' ? stat.deviceMajor : 0,
    deviceMinor: type === 'character' || type === 'block' ? stat.deviceMinor : 0,
    xattrs: type === 'link' || type === 'symlink' ? NO_XATTRS : packedXattrs(directoryFd, name),
  };
}

/** Content of a regular file, exactly `sizeBytes` long: one that shrinks meanwhile is filled with zeros. */
export function* fileContent(directoryFd: number, name: string, sizeBytes: number): Generator<Buffer> {
  if (sizeBytes === 0) return;
  const fd = openAt(directoryFd, name, constants.O_RDONLY | constants.O_NOFOLLOW | constants.O_NONBLOCK);
  try {
    let left = sizeBytes;
    while (left > 0) {
      const chunk = Buffer.allocUnsafe(Math.min(left, READ_BYTES));
      const length = readSync(fd, chunk);
      yield length === 0 ? chunk.fill(0) : chunk.subarray(0, length);
      left -= length === 0 ? chunk.length : length;
    }
  } finally {
    closeSync(fd);
  }
}

