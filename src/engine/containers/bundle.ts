/**
 * A run's bundle: the volatile directory with config.json, the root file system's mount point, FIFOs and, where
 * shared, /dev/shm. It is only ever deleted after its mount points proved to be empty, so that a
 * stuck mount can never take a container's files with it.
 */
import { existsSync, lstatSync, readdirSync, rmdirSync, rmSync, unlinkSync } from 'node:fs';
import { join } from 'node:path';
import { MNT_DETACH, tryUnmount, UMOUNT_NOFOLLOW } from '#system/kernel/mount.ts';
import type { Id } from '#types/ids.ts';
import type { Paths } from '../settings.ts';

/** The shared-memory mount of a bundle. */
export function shmPath(paths: Paths, id: Id): string {
  return join(paths.bundle(id), 'shm');
}

/** Where a run's own mounts of volume parts and images lie. */
export function preparedMountsPath(paths: Paths, id: Id): string {
  return join(paths.bundle(id), 'mounts');
}

/** Deletes the bundle. Throws when a mount is still there. */
export function removeBundle(paths: Paths, id: Id): void {
  const shm = shmPath(paths, id);
  tryUnmount(shm, MNT_DETACH | UMOUNT_NOFOLLOW);
  for (const directory of [shm, paths.rootfs(id)]) removeEmpty(directory);
  removePreparedMounts(preparedMountsPath(paths, id));
  rmSync(paths.bundle(id), { recursive: true, force: true });
}

function removeEmpty(directory: string): void {
  try {
    rmdirSync(directory);
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code !== 'ENOENT') throw error;
  }
}

/** Each is a directory or a file, and busy while something is mounted there. */
function removePreparedMounts(directory: string): void {
  if (!existsSync(directory)) return;
  for (const entry of readdirSync(directory, { withFileTypes: true })) {
    const path = join(directory, entry.name);
    tryUnmount(path, MNT_DETACH | UMOUNT_NOFOLLOW);
    if (lstatSync(path).isDirectory()) removeEmpty(path);
    else unlinkSync(path);
  }
}
