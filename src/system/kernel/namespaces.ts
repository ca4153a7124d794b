/**
 * Namespaces. A switch lasts for one synchronous stretch on the calling thread; the thread is back in the
 * namespace it came from before anything else runs, or the process aborts: running on in a wrong
 * namespace would be worse than dying (containers survive the daemon).
 */
import { closeSync, openSync, rmSync } from 'node:fs';
import { lastError } from './errno.ts';
import { libc } from './libc.ts';
import { bindMount, MNT_DETACH, tryUnmount } from './mount.ts';

export const CLONE_FS = 0x200;
export const CLONE_NEWNS = 0x20000;
export const CLONE_NEWCGROUP = 0x2000000;
export const CLONE_NEWUTS = 0x4000000;
export const CLONE_NEWIPC = 0x8000000;
export const CLONE_NEWUSER = 0x10000000;
export const CLONE_NEWPID = 0x20000000;
export const CLONE_NEWNET = 0x40000000;

const OWN_NETWORK_NAMESPACE = '/proc/thread-self/ns/net';

/** unshare(2) on this thread, for good. Only for threads that end afterwards. */
export function unshare(flags: number): void {
  if (libc.unshare(flags) !== 0) throw lastError('unshare', `0x${flags.toString(16)}`);
}

/** setns(2) on this thread. */
export function setNamespace(fd: number, type: number): void {
  if (libc.setns(fd, type) !== 0) throw lastError('setns', String(fd));
}

let hostNetworkFd: number | undefined;

/** Runs `switchAndWork`, then returns this thread to the network namespace it had when this module was first used. */
function returningToHost<T>(switchAndWork: () => T): T {
  hostNetworkFd ??= openSync(OWN_NETWORK_NAMESPACE, 'r');
  try {
    const result = switchAndWork();
    if (result instanceof Promise) throw new TypeError('work inside a namespace must be synchronous');
    return result;
  } finally {
    if (libc.setns(hostNetworkFd, CLONE_NEWNET) !== 0) process.abort();
  }
}

/** Makes a new network namespace and keeps it alive as a bind mount at `path` (created). Its loopback is down. */
export function createNetworkNamespace(path: string): void {
  closeSync(openSync(path, 'wx', 0o444));
  try {
    returningToHost(() => {
      unshare(CLONE_NEWNET);
      bindMount(OWN_NETWORK_NAMESPACE, path);
    });
  } catch (error) {
    rmSync(path, { force: true });
    throw error;
  }
}

/** Undoes `createNetworkNamespace`. Idempotent. */
export function removeNetworkNamespace(path: string): void {
  tryUnmount(path, MNT_DETACH);
  rmSync(path, { force: true });
}

/** Runs synchronous `work` in the network namespace at `path` (a bind mount or /proc/PID/ns/net). */
export function inNetworkNamespace<T>(path: string, work: () => T): T {
  const fd = openSync(path, 'r');
  try {
    return returningToHost(() => {
      if (libc.setns(fd, CLONE_NEWNET) !== 0) throw lastError('setns', path);
      return work();
    });
  } finally {
    closeSync(fd);
  }
}
