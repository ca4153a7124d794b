/**
 * Cleans up after a run whose shim died: the runtime ends what still runs of it and forgets it, and the cgroups
 * it leaves are removed. Everything here may have been done in part already; each step is on its own.
 */
import { existsSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { removeCgroup } from '#system/cgroup/leftovers.ts';
import { errorMessage } from '#types/errors.ts';
import type { Id } from '#types/ids.ts';
import type { Services } from '../services.ts';

/** A shim type that is there whenever containers are. */
const DEFAULT_SHIM = 'io.containerd.runc.v2';

/** Ends and forgets the run of a bundle that no shim looks after any more. Does not throw. */
export async function cleanUpLostRun(services: Services, id: Id, runtimeName?: string | null): Promise<void> {
  const { paths, shimNamespace, current } = services.settings;
  const bundle = paths.bundle(id);
  const config = join(bundle, 'config.json');
  if (!existsSync(config)) return;
  const shim = current().runtimes[runtimeName || 'runc']?.shim ?? DEFAULT_SHIM;
  try {
    await services.shims.cleanup({ id, namespace: shimNamespace, bundle, shim, debug: false });
  } catch (error) {
    services.logger.warn('shim cleanup failed', { container: id, error: errorMessage(error) });
  }
  const path = cgroupOf(config);
  if (path !== undefined) removeCgroup(path);
}

/** The cgroup a bundle's process was put into; undefined when the file does not say. */
function cgroupOf(config: string): string | undefined {
  try {
    const spec = JSON.parse(readFileSync(config, 'utf8')) as { linux?: { cgroupsPath?: string } };
    return spec.linux?.cgroupsPath;
  } catch {
    // Written in part when the daemon died: then nothing was started from it.
    return undefined;
  }
}
