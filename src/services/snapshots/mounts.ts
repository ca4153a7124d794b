/**
 * Which snapshot is mounted where. A target mounted twice is counted, one found mounted after a restart is
 * adopted, and unmounting never waits for the disk: the mount is detached at once, and the last descriptor
 * (whose closing makes the kernel write the file system out) is closed on a pool thread.
 */
import { close, mkdirSync } from 'node:fs';
import { hasCode } from '#system/kernel/errno.ts';
import { MNT_DETACH, type MountEntry, readMounts, tryUnmount } from '#system/kernel/mount.ts';
import { isMountPoint, openRoot } from '#system/kernel/path.ts';
import { GantryError } from '#types/errors.ts';

interface Mounted {
  readonly key: string;
  count: number;
}

/** Mounts of one driver. */
export class MountTable {
  readonly #mounted = new Map<string, Mounted>();
  readonly #closing = new Map<string, Promise<void>>();

  /** Mounts by `work` unless `target` is mounted for this key already. `owns` recognises a mount of this key. */
  async mount(
    key: string,
    target: string,
    how: { work: () => void; owns: (entry: MountEntry) => boolean },
  ): Promise<void> {
    const known = this.#mounted.get(target);
    if (known !== undefined) {
      if (known.key !== key)
        throw new GantryError('conflict', `${target} is already used as mount point of ${known.key}`);
      known.count += 1;
      return;
    }
    const closing = this.#closing.get(key);
    if (closing !== undefined) await closing;
    mkdirSync(target, { recursive: true, mode: 0o755 });
    if (isMountPoint(target)) {
      const entry = readMounts().findLast((candidate) => candidate.mountPoint === target);
      if (entry === undefined || !how.owns(entry))
        throw new GantryError('conflict', `${target} is already a mount point`);
    } else {
      how.work();
    }
    this.#mounted.set(target, { key, count: 1 });
  }

  /** Undoes one `mount`; also of a mount made before a restart. */
  unmount(key: string, target: string): void {
    const known = this.#mounted.get(target);
    if (known !== undefined && known.key === key) {
      known.count -= 1;
      if (known.count > 0) return;
      this.#mounted.delete(target);
    }
    this.#detach(key, target);
  }

  #detach(key: string, target: string): void {
    let fd: number;
    try {
      if (!isMountPoint(target)) return;
      fd = openRoot(target);
    } catch (error) {
      if (hasCode(error, 'ENOENT', 'ENOTDIR')) return;
      throw error;
    }
    tryUnmount(target, MNT_DETACH);
    const { promise, resolve } = Promise.withResolvers<void>();
    close(fd, () => {
      if (this.#closing.get(key) === promise) this.#closing.delete(key);
      resolve();
    });
    this.#closing.set(key, promise);
  }

  /** Detaches every mount of a key; the promise settles when the kernel has let go of its directories. */
  release(key: string): Promise<void> | undefined {
    for (const [target, mounted] of this.#mounted) {
      if (mounted.key !== key) continue;
      this.#mounted.delete(target);
      this.#detach(key, target);
    }
    return this.#closing.get(key);
  }

  /** Detaches mounts found in mountinfo that `isOrphan` claims. */
  detachOrphans(isOrphan: (entry: MountEntry) => boolean): void {
    for (const entry of readMounts().reverse()) {
      if (!isOrphan(entry)) continue;
      tryUnmount(entry.mountPoint, MNT_DETACH);
      this.#mounted.delete(entry.mountPoint);
    }
  }

  /** Resolves when nothing is being closed any more. */
  async settled(): Promise<void> {
    await Promise.all(this.#closing.values());
  }
}
