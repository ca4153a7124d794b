/** Packs a directory tree by descriptors: links are packed as links, other kinds of mounts as empty directories. */
import { closeSync, statfsSync } from 'node:fs';
import { setImmediate } from 'node:timers/promises';
import { hasCode } from '#system/kernel/errno.ts';
import { S_IFDIR, S_IFMT } from '#system/kernel/node.ts';
import { type FileStat, listFd, statAt } from '#system/kernel/path.ts';
import { openDirectoryAt, TREE_DEPTH_MAX } from '#system/kernel/tree.ts';
import { pack, packedBlocks, type SeenLinks } from '#system/tar/pack.ts';

/** Kernel file systems: endless, or nothing anyone wants in an archive (linux/magic.h). */
const PSEUDO_FILE_SYSTEMS: ReadonlySet<number> = new Set([
  0x9fa0, // proc
  0x62656572, // sysfs
  0x27e0eb, // cgroup
  0x63677270, // cgroup2
  0x1cd1, // devpts
  0x19800202, // mqueue
  0x01021994, // tmpfs: docker's copies never show a container's tmpfs mounts either
]);
const STRETCH_MS = 8;

export interface WalkOptions {
  /** What lies on another file system is packed as an empty directory, not only kernel file systems. */
  readonly oneFileSystem: boolean;
}

interface Walk extends WalkOptions {
  readonly links: SeenLinks;
  stretchStart: number;
}

/** A new walk; its hard links are found across everything packed with it. */
export function startWalk(options: WalkOptions): Walk {
  return { ...options, links: new Map(), stretchStart: performance.now() };
}

/** Packs the entry `name` of a directory as `path`, and what is below it. */
export async function* packTree(
  walk: Walk,
  at: { directoryFd: number; name: string; path: string; parent: FileStat | undefined; depth: number },
): AsyncGenerator<Buffer> {
  const { directoryFd, name, path } = at;
  if (at.depth > TREE_DEPTH_MAX) throw new Error(`${path}: more than ${TREE_DEPTH_MAX} directories deep`);
  if (performance.now() - walk.stretchStart > STRETCH_MS) {
    await setImmediate();
    walk.stretchStart = performance.now();
  }
  const stat = statAt(directoryFd, name);
  if (stat === undefined) return;
  const packed = pack(path, { directoryFd, name, stat, links: walk.links });
  if (packed === undefined) return;
  yield* packedBlocks(packed);
  if (packed.entry.type === 'directory') yield* packChildren(walk, { ...at, stat });
}

async function* packChildren(
  walk: Walk,
  at: { directoryFd: number; name: string; path: string; parent: FileStat | undefined; stat: FileStat; depth: number },
): AsyncGenerator<Buffer> {
  let fd: number;
  try {
    fd = openDirectoryAt(at.directoryFd, at.name);
  } catch (error) {
    if (hasCode(error, 'ENOENT', 'ENOTDIR', 'ELOOP')) return;
    throw error;
  }
  try {
    const crossed = at.parent !== undefined && at.parent.fileSystem !== at.stat.fileSystem;
    if (crossed && (walk.oneFileSystem || PSEUDO_FILE_SYSTEMS.has(statfsSync(`/proc/self/fd/${fd}`).type))) return;
    yield* packDirectory(walk, fd, {
      prefix: at.path.endsWith('/') ? at.path : `${at.path}/`,
      stat: at.stat,
      depth: at.depth,
    });
  } finally {
    closeSync(fd);
  }
}

/** Packs what is in an open directory, in name order. */
export async function* packDirectory(
  walk: Walk,
  fd: number,
  at: { prefix: string; stat: FileStat; depth: number },
): AsyncGenerator<Buffer> {
  for (const child of listFd(fd).sort()) {
    const childAt = { directoryFd: fd, name: child, path: at.prefix + child, parent: at.stat, depth: at.depth + 1 };
    yield* packTree(walk, childAt);
  }
}

export const isDirectory = (stat: FileStat): boolean => (stat.mode & S_IFMT) === S_IFDIR;
