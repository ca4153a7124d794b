/** What a tree takes on the disk, as du(1) counts it: allocated blocks, directories included, hard links once. */
import { closeSync } from 'node:fs';
import { setImmediate } from 'node:timers/promises';
import { hasCode } from '../kernel/errno.ts';
import { S_IFDIR, S_IFMT } from '../kernel/node.ts';
import { AT_FDCWD, listFd, statAt } from '../kernel/path.ts';
import { openDirectoryAt, TREE_DEPTH_MAX } from '../kernel/tree.ts';

const BLOCK_BYTES = 512;
/** Longest stretch of synchronous work before the event loop gets a turn. */
const STRETCH_MS = 8;

/**
 * Bytes of what a path names and everything below; 0 when it is not there. Links are not followed. With `belowOnly`, a
 * directory's own block is left out.
 */
export async function allocatedBytes(path: string, options: { belowOnly?: boolean } = {}): Promise<number> {
  const seen = new Set<string>();
  let sizeBytes = 0;
  let stretchStart = performance.now();
  for (const bytes of allocations(AT_FDCWD, path, seen)) {
    sizeBytes += bytes;
    if (performance.now() - stretchStart < STRETCH_MS) continue;
    await setImmediate();
    stretchStart = performance.now();
  }
  const root = options.belowOnly === true ? statAt(AT_FDCWD, path) : undefined;
  const own = root !== undefined && (root.mode & S_IFMT) === S_IFDIR ? root.blocks * BLOCK_BYTES : 0;
  return Math.max(0, sizeBytes - own);
}

/** What goes away meanwhile counts as far as it was seen. */
function* allocations(directoryFd: number, name: string, seen: Set<string>, depth = 0): Generator<number> {
  const stat = statAt(directoryFd, name);
  if (stat === undefined) return;
  const isDirectory = (stat.mode & S_IFMT) === S_IFDIR;
  if (!isDirectory && stat.links > 1) {
    const inode = `${stat.fileSystem}:${stat.inode}`;
    if (seen.has(inode)) return;
    seen.add(inode);
  }
  yield stat.blocks * BLOCK_BYTES;
  if (!isDirectory || depth > TREE_DEPTH_MAX) return;
  let fd: number;
  try {
    fd = openDirectoryAt(directoryFd, name);
  } catch (error) {
    if (hasCode(error, 'ENOENT', 'ENOTDIR', 'ELOOP')) return;
    throw error;
  }
  try {
    for (const child of listFd(fd)) yield* allocations(fd, child, seen, depth + 1);
  } finally {
    closeSync(fd);
  }
}
