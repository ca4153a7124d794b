/**
 * Thread that builds a stopped container's view: it leaves the host's mount namespace for good, mounts the
 * volumes over the root, hands the descriptors to the daemon and ends. Descriptors belong to the process.
 */
import { closeSync, constants, statSync } from 'node:fs';
import { parentPort, workerData } from 'node:worker_threads';
import { hasCode } from '#system/kernel/errno.ts';
import { bindMount, MS_BIND, MS_RDONLY, MS_REMOUNT, mount, setPropagation } from '#system/kernel/mount.ts';
import { CLONE_FS, CLONE_NEWNS, unshare } from '#system/kernel/namespaces.ts';
import { makeDirectoryAt } from '#system/kernel/node.ts';
import { O_PATH, openAt, openInRoot, openRoot } from '#system/kernel/path.ts';
import type { ViewMount } from './contract.ts';

interface ViewRequest {
  readonly rootDirectory: string;
  readonly mounts: readonly ViewMount[];
}

/** Answer of the thread; the receiver owns the descriptors. */
export type ViewAnswer = { readonly rootFd: number; readonly namespaceFd: number } | { readonly message: string };

function build({ rootDirectory, mounts }: ViewRequest): ViewAnswer {
  unshare(CLONE_FS | CLONE_NEWNS);
  setPropagation('/', 'private', true);
  bindMount(rootDirectory, rootDirectory);
  const rootFd = openRoot(rootDirectory);
  try {
    const ordered = [...mounts].sort((a, b) => a.target.split('/').length - b.target.split('/').length);
    for (const each of ordered) mountInside(rootFd, each);
    return { rootFd, namespaceFd: openAt(-100, '/proc/thread-self/ns/mnt', constants.O_RDONLY) };
  } catch (error) {
    closeSync(rootFd);
    throw error;
  }
}

function mountInside(rootFd: number, { source, target, readOnly }: ViewMount): void {
  const fd = openTarget(rootFd, target, statSync(source).isDirectory());
  try {
    // The kernel followed the path inside the root once; the descriptor's link cannot be led elsewhere.
    bindMount(source, `/proc/self/fd/${fd}`, { recursive: true });
  } finally {
    closeSync(fd);
  }
  if (!readOnly) return;
  const mounted = openInRoot(rootFd, target, O_PATH);
  try {
    mount('', `/proc/self/fd/${mounted}`, { flags: MS_REMOUNT | MS_BIND | MS_RDONLY });
  } finally {
    closeSync(mounted);
  }
}

/** Opens a mount point, making what is missing of it as a start of the container would. */
function openTarget(rootFd: number, target: string, directory: boolean): number {
  try {
    return openInRoot(rootFd, target, O_PATH);
  } catch (error) {
    if (!hasCode(error, 'ENOENT')) throw error;
  }
  const parts = target.split('/').filter((part) => part !== '');
  const last = parts.pop() ?? '.';
  for (let count = 0; count <= parts.length; count += 1) {
    const above = openInRoot(rootFd, parts.slice(0, count).join('/'), O_PATH | constants.O_DIRECTORY);
    try {
      const name = parts[count];
      if (name !== undefined) ensure(() => makeDirectoryAt(above, name, 0o755));
      else if (directory) ensure(() => makeDirectoryAt(above, last, 0o755));
      else
        ensure(() => closeSync(openAt(above, last, constants.O_CREAT | constants.O_EXCL | constants.O_WRONLY, 0o644)));
    } finally {
      closeSync(above);
    }
  }
  return openInRoot(rootFd, target, O_PATH);
}

function ensure(make: () => void): void {
  try {
    make();
  } catch (error) {
    if (!hasCode(error, 'EEXIST')) throw error;
  }
}

if (parentPort !== null) {
  let answer: ViewAnswer;
  try {
    answer = build(workerData as ViewRequest);
  } catch (error) {
    answer = { message: error instanceof Error ? error.message : String(error) };
  }
  parentPort.postMessage(answer);
}
