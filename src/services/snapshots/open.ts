/** Chooses and opens the snapshot driver: the one asked for, else native overlayfs, else plain copies. */
import { mkdirSync, mkdtempSync, rmSync, statfsSync } from 'node:fs';
import { join } from 'node:path';
import type { Database } from '#system/database/database.ts';
import { mount, unmount } from '#system/kernel/mount.ts';
import { errorMessage, GantryError } from '#types/errors.ts';
import type { LayeredSnapshotter } from './layered.ts';
import { createOverlaySnapshotter } from './overlay.ts';
import { createVfsSnapshotter } from './vfs.ts';

export interface OpenSnapshotterOptions {
  readonly database: Database;
  readonly dataRoot: string;
  /** `overlay2`, `overlay`, `overlayfs`, `vfs`, or empty for the best that works here. */
  readonly driver: string;
  readonly warn: (message: string) => void;
}

/** Opens the driver. Throws `invalid` for one that does not exist and `system` for one that cannot work here. */
export function openSnapshotter(options: OpenSnapshotterOptions): LayeredSnapshotter {
  const { database, dataRoot, driver } = options;
  switch (driver) {
    case 'vfs':
      return createVfsSnapshotter({ database, root: join(dataRoot, 'vfs') });
    case 'overlay2':
    case 'overlay':
    case 'overlayfs':
      probeOverlay(dataRoot);
      return createOverlaySnapshotter({ database, root: join(dataRoot, 'overlay2') });
    case '':
      return bestDriver(options);
    default:
      throw new GantryError('invalid', `driver not supported: ${driver}`);
  }
}

function bestDriver(options: OpenSnapshotterOptions): LayeredSnapshotter {
  try {
    return openSnapshotter({ ...options, driver: 'overlay2' });
  } catch (error) {
    options.warn(`overlayfs does not work here, falling back to vfs: ${errorMessage(error)}`);
    return openSnapshotter({ ...options, driver: 'vfs' });
  }
}

/** Mounts a small overlay once: the kernel refuses some backing file systems only then. */
function probeOverlay(dataRoot: string): void {
  mkdirSync(dataRoot, { recursive: true, mode: 0o710 });
  const directory = mkdtempSync(join(dataRoot, 'overlay-check-'));
  try {
    for (const name of ['lower', 'upper', 'work', 'merged']) mkdirSync(join(directory, name));
    const at = (name: string): string => join(directory, name);
    const data = `lowerdir=${at('lower')},upperdir=${at('upper')},workdir=${at('work')}`;
    mount('overlay', at('merged'), { type: 'overlay', data });
    unmount(at('merged'));
  } catch (error) {
    const type = (statfsSync(dataRoot).type >>> 0).toString(16);
    throw new GantryError('system', `overlay is not supported over file system ${type}: ${errorMessage(error)}`, {
      cause: error,
    });
  } finally {
    rmSync(directory, { recursive: true, force: true });
  }
}
