/**
 * Whether two trees hold the same: types, owners, modes, times of files, devices, links, attributes and bytes.
 * Links are never followed. Times of directories and of whiteouts are left out: an archive need not name them.
 */
import { closeSync, readSync } from 'node:fs';
import { setImmediate } from 'node:timers/promises';
import { S_IFCHR, S_IFDIR, S_IFLNK, S_IFMT, S_IFREG } from '#system/kernel/node.ts';
import { type FileStat, listFd, openRegularAt, openRoot, readLinkAt, statAt } from '#system/kernel/path.ts';
import { openDirectoryAt, TREE_DEPTH_MAX } from '#system/kernel/tree.ts';
import { getXattr, listXattrs } from '#system/kernel/xattr.ts';
import { comparePaths } from './differences.ts';

/** Bytes read from each file at a time. */
const CHUNK_BYTES = 256 * 1024;
/** Longest stretch of synchronous work before the event loop gets a turn. */
const STRETCH_MS = 8;

interface Side {
  readonly fd: number;
  readonly name: string;
  readonly stat: FileStat;
}

/** The first difference in path order, named with its path; undefined for equal trees. */
export async function compareTrees(
  expected: string,
  actual: string,
  signal?: AbortSignal,
): Promise<string | undefined> {
  const comparison = new TreeComparison();
  const [left, right] = [openRoot(expected), openRoot(actual)];
  try {
    let stretchStart = performance.now();
    for (const difference of comparison.directory(left, right, '')) {
      if (difference !== undefined) return difference;
      if (performance.now() - stretchStart < STRETCH_MS) continue;
      await setImmediate();
      signal?.throwIfAborted();
      stretchStart = performance.now();
    }
    return undefined;
  } finally {
    closeSync(left);
    closeSync(right);
  }
}

class TreeComparison {
  /** Inodes of files with several names, left to right. */
  readonly #linked = new Map<bigint, bigint>();
  readonly #chunks = [Buffer.allocUnsafe(CHUNK_BYTES), Buffer.allocUnsafe(CHUNK_BYTES)] as const;

  /** Yields undefined after each step that may take long, or a difference. */
  *directory(left: number, right: number, path: string, depth = 0): Generator<string | undefined> {
    if (depth > TREE_DEPTH_MAX) throw new Error(`${path}: more than ${TREE_DEPTH_MAX} directories deep`);
    const [mine, theirs] = [new Set(listFd(left)), new Set(listFd(right))];
    for (const name of [...new Set([...mine, ...theirs])].sort(comparePaths)) {
      const here = `${path}/${name}`;
      const [a, b] = [statAt(left, name), statAt(right, name)];
      if (a === undefined || b === undefined) {
        if (a !== undefined) yield `${here} is missing`;
        else if (b !== undefined) yield `${here} should not be there`;
        continue;
      }
      const one = { fd: left, name, stat: a };
      const other = { fd: right, name, stat: b };
      yield this.#entry(one, other, here);
      if ((a.mode & S_IFMT) === S_IFREG && !this.#isSeen(a, b)) yield* this.#content(one, other, here);
      if ((a.mode & S_IFMT) === S_IFDIR) yield* this.#child(one, other, { path: here, depth });
    }
  }

  *#child(one: Side, other: Side, at: { path: string; depth: number }): Generator<string | undefined> {
    const left = openDirectoryAt(one.fd, one.name);
    try {
      const right = openDirectoryAt(other.fd, other.name);
      try {
        yield* this.directory(left, right, at.path, at.depth + 1);
      } finally {
        closeSync(right);
      }
    } finally {
      closeSync(left);
    }
  }

  #entry(one: Side, other: Side, path: string): string | undefined {
    const [a, b] = [one.stat, other.stat];
    const type = a.mode & S_IFMT;
    if (type !== (b.mode & S_IFMT)) return `${path} has another type`;
    if (a.mode !== b.mode) return `${path} has mode ${octal(b.mode)} instead of ${octal(a.mode)}`;
    if (a.uid !== b.uid || a.gid !== b.gid) return `${path} belongs to ${b.uid}:${b.gid} instead of ${a.uid}:${a.gid}`;
    if (a.deviceMajor !== b.deviceMajor || a.deviceMinor !== b.deviceMinor) return `${path} is another device`;
    if (type === S_IFREG && a.sizeBytes !== b.sizeBytes)
      return `${path} has ${b.sizeBytes} bytes instead of ${a.sizeBytes}`;
    if (type === S_IFLNK && readLinkAt(one.fd, one.name) !== readLinkAt(other.fd, other.name))
      return `${path} leads elsewhere`;
    const isWhiteout = type === S_IFCHR && a.deviceMajor === 0 && a.deviceMinor === 0;
    if (type !== S_IFDIR && !isWhiteout && a.modifiedNs !== b.modifiedNs) return `${path} has another time`;
    if (type !== S_IFDIR && a.links !== b.links) return `${path} has ${b.links} names instead of ${a.links}`;
    return differentAttribute(attributePath(one), attributePath(other), path);
  }

  /** Whether this file's bytes were compared under another name of it. */
  #isSeen(a: FileStat, b: FileStat): boolean {
    if (a.links < 2) return false;
    const known = this.#linked.get(a.inode);
    this.#linked.set(a.inode, b.inode);
    return known === b.inode;
  }

  *#content(one: Side, other: Side, path: string): Generator<string | undefined> {
    const left = openRegularAt(one.fd, one.name);
    try {
      const right = openRegularAt(other.fd, other.name);
      try {
        for (let position = 0; position < one.stat.sizeBytes; position += CHUNK_BYTES) {
          const [mine, theirs] = this.#chunks;
          const length = readSync(left, mine, 0, CHUNK_BYTES, position);
          const otherLength = readSync(right, theirs, 0, CHUNK_BYTES, position);
          const same = length === otherLength && mine.compare(theirs, 0, length, 0, length) === 0;
          yield same ? undefined : `${path} has other content`;
        }
      } finally {
        closeSync(right);
      }
    } finally {
      closeSync(left);
    }
  }
}

const octal = (mode: number): string => (mode & 0o7777).toString(8);

/** A path through the open directory, so that the attributes of links and devices can be read too. */
function attributePath({ fd, name }: Side): string {
  return `/proc/self/fd/${fd}/${name}`;
}

function differentAttribute(mine: string, theirs: string, path: string): string | undefined {
  const [expected, actual] = [listXattrs(mine), listXattrs(theirs)];
  for (const name of new Set([...expected, ...actual])) {
    const [a, b] = [getXattr(mine, name), getXattr(theirs, name)];
    if (a === undefined || b === undefined || !a.equals(b)) return `${path} has another attribute ${name}`;
  }
  return undefined;
}
