/** What docker tells about a path in a container, and how it reads paths with a trailing slash or dot. */
import * as node from '#system/kernel/node.ts';
import type { FileStat } from '#system/kernel/path.ts';
import type { PathStat } from './contract.ts';

const GO_TYPE_BITS: Readonly<Record<number, number>> = {
  [node.S_IFDIR]: 2 ** 31,
  [node.S_IFLNK]: 2 ** 27,
  [node.S_IFBLK]: 2 ** 26,
  [node.S_IFCHR]: 2 ** 26 + 2 ** 21,
  [node.S_IFIFO]: 2 ** 25,
  [node.S_IFSOCK]: 2 ** 24,
};

/** Go's os.FileMode of a Unix mode. */
export function goFileMode(mode: number): number {
  let bits = (mode & 0o777) + (GO_TYPE_BITS[mode & node.S_IFMT] ?? 0);
  if (mode & 0o4000) bits += 2 ** 23;
  if (mode & 0o2000) bits += 2 ** 22;
  if (mode & 0o1000) bits += 2 ** 20;
  return bits;
}

/** RFC 3339 in UTC, nanoseconds without trailing zeros, as Go marshals a time. */
export function goTime(ns: bigint): string {
  const second = 1_000_000_000n;
  const fraction = ((ns % second) + second) % second;
  const text = new Date(Number((ns - fraction) / 1_000_000n)).toISOString().slice(0, 19);
  const digits = fraction.toString().padStart(9, '0').replace(/0+$/, '');
  return `${text}${digits === '' ? '' : `.${digits}`}Z`;
}

/** A client's path, made absolute and cleaned as text; trailing `/` and `/.` keep their meaning. */
export interface CleanPath {
  /** With what the client wrote at the end. */
  readonly absolute: string;
  /** Directory part, to be resolved. */
  readonly directory: string;
  /** Last component, not to be followed; '.' when the path ends in a slash. */
  readonly base: string;
  /** Name for archive entries: the last component, `.` for `…/.`, `/` for the root. */
  readonly name: string;
}

/** Compat: like docker, `..` is taken away as text before links are looked at. */
export function cleanPath(path: string): CleanPath {
  const parts: string[] = [];
  for (const part of path.split('/')) {
    if (part === '..') parts.pop();
    else if (part !== '' && part !== '.') parts.push(part);
  }
  const clean = `/${parts.join('/')}`;
  const dot = path === '.' || path.endsWith('/.');
  if (parts.length === 0) return { absolute: dot ? '/.' : '/', directory: '/', base: '.', name: dot ? '.' : '/' };
  if (dot) return { absolute: `${clean}/.`, directory: clean, base: '.', name: '.' };
  const last = parts.at(-1) as string;
  if (path.endsWith('/')) return { absolute: `${clean}/`, directory: clean, base: '.', name: last };
  return { absolute: clean, directory: `/${parts.slice(0, -1).join('/')}`, base: last, name: last };
}

export function makePathStat(name: string, stat: FileStat, linkTarget: string): PathStat {
  return { name, size: stat.sizeBytes, mode: goFileMode(stat.mode), mtime: goTime(stat.modifiedNs), linkTarget };
}
