/**
 * One daemon a data root and one an exec root: each root holds a locked file for as long as the daemon lives.
 * The kernel drops the locks when the process ends, however it ends, so no crash leaves a stale one.
 */
import { mkdirSync } from 'node:fs';
import { join } from 'node:path';
import { tryLock } from '#system/kernel/flock.ts';
import { GantryError } from '#types/errors.ts';

const LOCK_FILE = 'gantryd.lock';

/** Takes both locks. Throws `conflict` naming the root that another daemon uses. */
export function lockRoots(roots: { readonly dataRoot: string; readonly execRoot: string }): Disposable {
  using undo = new DisposableStack();
  for (const [option, directory, mode] of [
    ['data-root', roots.dataRoot, 0o710],
    ['exec-root', roots.execRoot, 0o700],
  ] as const) {
    mkdirSync(directory, { recursive: true, mode });
    const lock = tryLock(join(directory, LOCK_FILE));
    if (lock === undefined) {
      throw new GantryError(
        'conflict',
        `another daemon is using ${directory}: stop it, or give this one a --${option} of its own`,
      );
    }
    undo.use(lock);
  }
  return undo.move();
}
