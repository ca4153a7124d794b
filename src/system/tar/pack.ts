/** Directory entries as tar entries: what `lstat` and the attributes say, hard links found by inode. */
import { closeSync, readSync } from 'node:fs';
import { hasCode } from '../kernel/errno.ts';
import { S_IFBLK, S_IFCHR, S_IFDIR, S_IFIFO, S_IFLNK, S_IFMT, S_IFREG } from '../kernel/node.ts';
import { type FileStat, openRegularAt, readLinkAt } from '../kernel/path.ts';
import { getXattr, listXattrs } from '../kernel/xattr.ts';
import type { TarEntry, TarEntryType } from './contract.ts';
import { tarHeader, tarPadding } from './writer.ts';

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
    if (value === undefined) continue;
    kept ??= new Map();
    kept.set(key, value);
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
function packEntry(path: string, options: PackOptions): TarEntry | undefined {
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

/** An entry ready to be written; `content` (files) must be read or returned, it holds a descriptor. */
export interface Packed {
  readonly entry: TarEntry;
  readonly content: Iterable<Buffer> | undefined;
}

/** Like `packEntry`, with the file opened; undefined also for what was removed or replaced since `stat`. */
export function pack(path: string, options: PackOptions): Packed | undefined {
  try {
    const entry = packEntry(path, options);
    if (entry === undefined) return undefined;
    if (entry.type !== 'file' || entry.sizeBytes === 0) return { entry, content: undefined };
    return { entry, content: readExactly(openRegularAt(options.directoryFd, options.name), entry.sizeBytes) };
  } catch (error) {
    if (hasCode(error, 'ENOENT', 'ENOTDIR', 'ELOOP', 'EINVAL')) return undefined;
    throw error;
  }
}

/** Exactly `sizeBytes` of an open file: one that shrinks meanwhile is filled with zeros. Closes it. */
function* readExactly(fd: number, sizeBytes: number): Generator<Buffer> {
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

/** All blocks of a packed entry. */
export function* packedBlocks({ entry, content }: Packed): Generator<Buffer> {
  const header = tarHeader(entry);
  if (content === undefined) {
    yield header;
    return;
  }
  // The header goes out with the first bytes, so that the file is being read (and will be closed) from then on.
  let first: Buffer | undefined = header;
  for (const chunk of content) {
    yield first === undefined ? chunk : Buffer.concat([first, chunk]);
    first = undefined;
  }
  const padding = tarPadding(entry.sizeBytes);
  if (padding.length > 0) yield padding;
}
