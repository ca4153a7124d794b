/** The working directory is there from a container's creation on: files can be copied into it before the first start. */
import { closeSync, constants } from 'node:fs';
import { hasCode } from '#system/kernel/errno.ts';
import { makeDirectoryAt } from '#system/kernel/node.ts';
import { O_PATH, openInRoot, openRoot } from '#system/kernel/path.ts';
import { GantryError } from '#types/errors.ts';
import type { Id } from '#types/ids.ts';
import type { Services } from '../services.ts';
import { removeBundle } from './bundle.ts';

const DIRECTORY_MODE = 0o755;

/** Makes `directory` and what is missing above it in the container's snapshot. Throws `system` when a file is there. */
export async function makeWorkingDirectory(
  services: Pick<Services, 'settings' | 'snapshots'>,
  id: Id,
  directory: string,
): Promise<void> {
  const parts = directory.split('/').filter((part) => part !== '' && part !== '.');
  if (parts.length === 0) return;
  const { paths } = services.settings;
  await services.snapshots.mount(id, paths.rootfs(id));
  try {
    makeDirectories(paths.rootfs(id), parts);
  } catch (error) {
    if (!hasCode(error, 'ENOTDIR', 'EEXIST')) throw error;
    throw new GantryError('system', `Cannot mkdir: ${directory} is not a directory`, { cause: error });
  } finally {
    await services.snapshots.unmount(id, paths.rootfs(id));
    removeBundle(paths, id);
  }
}

/** Each step is resolved by the kernel inside the root, links included; none is left to a later one. */
function makeDirectories(rootfs: string, parts: readonly string[]): void {
  const root = openRoot(rootfs);
  try {
    for (const [index, name] of parts.entries()) {
      const parent = openInRoot(root, parts.slice(0, index).join('/'), O_PATH | constants.O_DIRECTORY);
      try {
        makeDirectory(root, { parent, name, path: parts.slice(0, index + 1).join('/') });
      } finally {
        closeSync(parent);
      }
    }
  } finally {
    closeSync(root);
  }
}

function makeDirectory(
  root: number,
  at: { readonly parent: number; readonly name: string; readonly path: string },
): void {
  try {
    closeSync(openInRoot(root, at.path, O_PATH | constants.O_DIRECTORY));
  } catch (error) {
    if (!hasCode(error, 'ENOENT')) throw error;
    makeDirectoryAt(at.parent, at.name, DIRECTORY_MODE);
  }
}
