/**
 * A run's bundle: the volatile directory with config.json, the root file system's mount point, FIFOs and, where
 * shared, /dev/shm. It is only ever deleted after both mount points proved to be empty directories, so that a
 * stuck mount can never take a container's files with it.
 */
import { rmdirSync, rmSync } from 'node:fs';
import { join } from 'node:path';
import { MNT_DETACH, tryUnmount, UMOUNT_NOFOLLOW } from '#system/kernel/mount.ts';
import type { Id } from '#types/ids.ts';
import type { Paths } from '../settings.ts';

/** The shared-memory mount of a bundle. */
export function shmPath(paths: Paths, id: Id): string {
  return join(paths.bundle(id), 'shm');
}

/** Deletes the bundle. Throws when a mount is still there. */
export function removeBundle(paths: Paths, id: Id): void {
  const shm = shmPath(paths, id);
  tryUnmount(shm, MNT_DETACH | UMOUNT_NOFOLLOW);
  for (const directory of [shm, paths.rootfs(id)]) removeEmpty(directory);
  rmSync(paths.bundle(id), { recursive: true, force: true });
}

function removeEmpty(directory: string): void {
  try {
    rmdirSync(directory);
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code !== 'ENOENT') throw error;
  }
}
