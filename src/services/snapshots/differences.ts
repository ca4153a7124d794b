/**
 * What a writable tree holds against the trees below it, as one walk in path order.
 *
 * The walker gives each difference with an open descriptor of its directory, valid until the next step.
 * The upper tree may be in use by a container: it is only touched through descriptors, links unfollowed.
 */
import { closeSync, constants } from 'node:fs';
import { hasCode } from '#system/kernel/errno.ts';
import { S_IFCHR, S_IFDIR, S_IFMT } from '#system/kernel/node.ts';
import { type FileStat, listFd, openAt, openRoot, statAt } from '#system/kernel/path.ts';
import { openDirectoryAt, TREE_DEPTH_MAX } from '#system/kernel/tree.ts';
import { getXattr } from '#system/kernel/xattr.ts';

const OPAQUE_XATTR = 'trusted.overlay.opaque';

export interface Difference {
  /** Without leading slash. */
  readonly path: string;
  readonly kind: 'added' | 'modified' | 'unchanged' | 'deleted';
  readonly directoryFd: number;
  readonly name: string;
  /** Undefined for deleted entries. */
  readonly stat: FileStat | undefined;
  /** A directory that hides what the trees below have under its path. */
  readonly opaque: boolean;
}

const isDirectory = (stat: FileStat): boolean => (stat.mode & S_IFMT) === S_IFDIR;
const isWhiteout = (stat: FileStat): boolean =>
  (stat.mode & S_IFMT) === S_IFCHR && stat.deviceMajor === 0 && stat.deviceMinor === 0;

function isOpaque(fd: number): boolean {
  return getXattr(fd, OPAQUE_XATTR)?.toString('latin1') === 'y';
}

/** Byte order of paths, as Go sorts. */
export function comparePaths(a: string, b: string): number {
  return a < b ? -1 : a > b ? 1 : 0;
}

/** The first entry of that name in a stack of lower directories, and the stack below it when it is a directory. */
function lookUp(lowers: readonly string[], name: string): { stat: FileStat | undefined; stack: string[] } {
  let stat: FileStat | undefined;
  const stack: string[] = [];
  for (const lower of lowers) {
    const found = statAt(-100, `${lower}/${name}`);
    if (found === undefined) continue;
    if (isWhiteout(found)) break;
    if (!isDirectory(found)) {
      stat ??= found;
      break;
    }
    stat ??= found;
    stack.push(`${lower}/${name}`);
    if (getXattr(`${lower}/${name}`, OPAQUE_XATTR)?.toString('latin1') === 'y') break;
  }
  return { stat, stack };
}

/** Compat: a directory counts as modified only when its own size, mode or time changed (archive.changes). */
function sameDirectory(a: FileStat, b: FileStat): boolean {
  return a.mode === b.mode && a.sizeBytes === b.sizeBytes && a.modifiedNs === b.modifiedNs;
}

interface Level {
  readonly fd: number;
  readonly path: string;
  readonly lowers: readonly string[];
  readonly depth: number;
}

function* walkOverlay(level: Level): Generator<Difference> {
  const { fd, lowers, depth } = level;
  if (depth > TREE_DEPTH_MAX) throw new Error(`${level.path}: more than ${TREE_DEPTH_MAX} directories deep`);
  for (const name of listFd(fd).sort(comparePaths)) {
    const path = level.path === '' ? name : `${level.path}/${name}`;
    const stat = statAt(fd, name);
    if (stat === undefined) continue;
    const base = { path, directoryFd: fd, name };
    if (isWhiteout(stat)) {
      yield { ...base, kind: 'deleted', stat: undefined, opaque: false };
      continue;
    }
    const below = lookUp(lowers, name);
    if (!isDirectory(stat)) {
      yield { ...base, kind: below.stat === undefined ? 'added' : 'modified', stat, opaque: false };
      continue;
    }
    const child = tryOpenDirectory(fd, name);
    if (child === undefined) continue;
    try {
      const opaque = isOpaque(child);
      const same = below.stat !== undefined && isDirectory(below.stat) && sameDirectory(below.stat, stat);
      const kind = below.stat === undefined ? 'added' : same ? 'unchanged' : 'modified';
      yield { ...base, kind, stat, opaque };
      yield* walkOverlay({ fd: child, path, lowers: opaque ? [] : below.stack, depth: depth + 1 });
    } finally {
      closeSync(child);
    }
  }
}

function tryOpenDirectory(fd: number, name: string): number | undefined {
  try {
    return openDirectoryAt(fd, name);
  } catch (error) {
    if (hasCode(error, 'ENOENT', 'ENOTDIR', 'ELOOP')) return undefined;
    throw error;
  }
}

/** Differences in an overlay's upper directory against its lower ones, topmost first. */
export function* overlayDifferences(upper: string, lowers: readonly string[]): Generator<Difference> {
  const fd = openRoot(upper);
  try {
    yield* walkOverlay({ fd, path: '', lowers, depth: 0 });
  } finally {
    closeSync(fd);
  }
}

/** Compat: what docker's directory comparison looks at (archive.statDifferent). */
function sameEntry(a: FileStat, b: FileStat): boolean {
  if (a.mode !== b.mode || a.uid !== b.uid || a.gid !== b.gid) return false;
  if (a.deviceMajor !== b.deviceMajor || a.deviceMinor !== b.deviceMinor) return false;
  return isDirectory(a) || (a.modifiedNs === b.modifiedNs && a.sizeBytes === b.sizeBytes);
}

function* walkCompare(now: Level, before: number | undefined): Generator<Difference> {
  if (now.depth > TREE_DEPTH_MAX) throw new Error(`${now.path}: more than ${TREE_DEPTH_MAX} directories deep`);
  const names = new Set([...listFd(now.fd), ...(before === undefined ? [] : listFd(before))]);
  for (const name of [...names].sort(comparePaths)) {
    const base = { path: now.path === '' ? name : `${now.path}/${name}`, directoryFd: now.fd, name, opaque: false };
    const stat = statAt(now.fd, name);
    const old = before === undefined ? undefined : statAt(before, name);
    if (stat === undefined) {
      if (old !== undefined) yield { ...base, kind: 'deleted', stat: undefined };
      continue;
    }
    const kind = old === undefined ? 'added' : sameEntry(old, stat) ? 'unchanged' : 'modified';
    yield { ...base, kind, stat };
    if (!isDirectory(stat)) continue;
    const child = tryOpenDirectory(now.fd, name);
    if (child === undefined) continue;
    const oldChild =
      before !== undefined && old !== undefined && isDirectory(old) ? openDirectoryAt(before, name) : undefined;
    try {
      yield* walkCompare({ fd: child, path: base.path, lowers: [], depth: now.depth + 1 }, oldChild);
    } finally {
      closeSync(child);
      if (oldChild !== undefined) closeSync(oldChild);
    }
  }
}

/** Differences between two whole trees. Unchanged files are given too, as 'unchanged'. */
export function* treeDifferences(now: string, before: string | undefined): Generator<Difference> {
  const fd = openRoot(now);
  const old = before === undefined ? undefined : openAt(-100, before, constants.O_RDONLY | constants.O_DIRECTORY);
  try {
    yield* walkCompare({ fd, path: '', lowers: [], depth: 0 }, old);
  } finally {
    closeSync(fd);
    if (old !== undefined) closeSync(old);
  }
}
