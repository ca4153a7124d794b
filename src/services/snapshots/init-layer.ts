/**
 * The init layer: mount points every container needs (/etc/hosts, /proc, …), made below the writable layer
 * so that they do not show in `docker diff`.
 *
 * Compat: like dockerd's initlayer, anything but a directory on the way is removed first, so that no link
 * of the image leads elsewhere.
 */
import { closeSync, constants } from 'node:fs';
import { hasCode } from '#system/kernel/errno.ts';
import { makeDirectoryAt, makeLinkAt, removeAt, S_IFDIR, S_IFMT } from '#system/kernel/node.ts';
import { openAt, openRoot, statAt } from '#system/kernel/path.ts';
import { openDirectoryAt } from '#system/kernel/tree.ts';

const ENTRIES: readonly (readonly [path: string, type: 'directory' | 'file' | { link: string }])[] = [
  ['dev/pts', 'directory'],
  ['dev/shm', 'directory'],
  ['proc', 'directory'],
  ['sys', 'directory'],
  ['.dockerenv', 'file'],
  ['etc/resolv.conf', 'file'],
  ['etc/hosts', 'file'],
  ['etc/hostname', 'file'],
  ['dev/console', 'file'],
  ['etc/mtab', { link: '/proc/mounts' }],
];

const MODE = 0o755;

/** Makes the mount points in the root file system at `root`. */
export function fillInitLayer(root: string): void {
  const rootFd = openRoot(root);
  try {
    for (const [path, type] of ENTRIES) {
      const parts = path.split('/');
      const opened: number[] = [];
      let fd = rootFd;
      try {
        for (const part of parts.slice(0, -1)) {
          ensureDirectory(fd, part);
          fd = openDirectoryAt(fd, part);
          opened.push(fd);
        }
        makeLast(fd, parts.at(-1) as string, type);
      } finally {
        for (const each of opened) closeSync(each);
      }
    }
  } finally {
    closeSync(rootFd);
  }
}

function removeUnlessDirectory(fd: number, name: string): boolean {
  const stat = statAt(fd, name);
  if (stat === undefined) return false;
  if ((stat.mode & S_IFMT) === S_IFDIR) return true;
  removeAt(fd, name);
  return false;
}

function ensureDirectory(fd: number, name: string): void {
  if (removeUnlessDirectory(fd, name)) return;
  try {
    makeDirectoryAt(fd, name, MODE);
  } catch (error) {
    if (!hasCode(error, 'EEXIST')) throw error;
  }
}

function makeLast(fd: number, name: string, type: (typeof ENTRIES)[number][1]): void {
  if (type === 'directory') ensureDirectory(fd, name);
  else if (removeUnlessDirectory(fd, name)) return;
  else if (type === 'file')
    closeSync(openAt(fd, name, constants.O_WRONLY | constants.O_CREAT | constants.O_EXCL, MODE));
  else makeLinkAt(fd, name, type.link);
}
