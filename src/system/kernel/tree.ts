/** Whole trees by descriptor: links are never followed, so a tree changed meanwhile cannot lead elsewhere. */
import { closeSync, constants } from 'node:fs';
import { ERRNO, hasCode, KernelError } from './errno.ts';
import { removeAt, S_IFDIR, S_IFMT } from './node.ts';
import { listFd, openAt, statAt } from './path.ts';

/** Each level holds a descriptor open; deeper trees are an attack on the descriptor table. */
export const TREE_DEPTH_MAX = 1000;

/** Opens a directory entry that must be a real directory. */
export function openDirectoryAt(directoryFd: number, name: string): number {
  return openAt(directoryFd, name, constants.O_RDONLY | constants.O_DIRECTORY | constants.O_NOFOLLOW);
}

/** Removes `name` and everything below; absent is fine. */
export function removeTreeAt(directoryFd: number, name: string, depth = 0): void {
  if (depth > TREE_DEPTH_MAX) throw new KernelError(ERRNO['ELOOP'] ?? 40, 'remove', name);
  const stat = statAt(directoryFd, name);
  if (stat === undefined) return;
  try {
    if ((stat.mode & S_IFMT) !== S_IFDIR) {
      removeAt(directoryFd, name);
      return;
    }
    const fd = openDirectoryAt(directoryFd, name);
    try {
      for (const child of listFd(fd)) removeTreeAt(fd, child, depth + 1);
    } finally {
      closeSync(fd);
    }
    removeAt(directoryFd, name, true);
  } catch (error) {
    if (!hasCode(error, 'ENOENT')) throw error;
  }
}
