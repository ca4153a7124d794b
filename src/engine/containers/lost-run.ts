/**
 * Cleans up after a run whose shim died: the runtime ends what still runs of it and forgets it, and the cgroups
 * it leaves are removed. Everything here may have been done in part already; each step is on its own.
 */
import { existsSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { setTimeout as delay } from 'node:timers/promises';
import { removeCgroup } from '#system/cgroup/leftovers.ts';
import { errorMessage } from '#types/errors.ts';
import type { Id } from '#types/ids.ts';
import { SIGKILL } from '#types/signal.ts';
import type { Services } from '../services.ts';
import { findRuntime } from '../settings.ts';

/** How long a shim that may be dead gets to answer, and its container to end after SIGKILL. */
const CONNECT_TIMEOUT_MS = 5_000;
const END_TIMEOUT_MS = 10_000;
/** A shim type that is there whenever containers are. */
const DEFAULT_SHIM = 'io.containerd.runc.v2';

/** Ends and forgets the run of a bundle that no shim looks after any more. Does not throw. */
export async function cleanUpLostRun(services: Services, id: Id, runtimeName?: string | null): Promise<void> {
  const { paths, shimNamespace, current } = services.settings;
  const bundle = paths.bundle(id);
  const config = join(bundle, 'config.json');
  if (!existsSync(config)) return;
  if (await endOverShim(services, id)) return;
  const shim = findRuntime(current(), runtimeName || 'runc')?.shim ?? DEFAULT_SHIM;
  try {
    await services.shims.cleanup({ id, namespace: shimNamespace, bundle, shim, debug: false });
  } catch (error) {
    services.logger.warn('shim cleanup failed', { container: id, error: errorMessage(error) });
  }
  const path = cgroupOf(config);
  if (path !== undefined) removeCgroup(path);
}

/** Where a start notes its shim before anything runs in it. */
export function shimAddressFile(bundle: string): string {
  return join(bundle, 'shim-address');
}

/** The shim may live on with a task that was never acknowledged. Returns whether it is done with. */
async function endOverShim(services: Services, id: Id): Promise<boolean> {
  const file = shimAddressFile(services.settings.paths.bundle(id));
  if (!existsSync(file)) return false;
  try {
    const address = readFileSync(file, 'utf8');
    await using shim = await services.shims.connect(address, AbortSignal.timeout(CONNECT_TIMEOUT_MS));
    const exited = shim.wait(id).catch(() => undefined);
    await shim.kill(id, SIGKILL, { all: true }).catch(() => undefined);
    await Promise.race([exited, delay(END_TIMEOUT_MS, undefined, { ref: false })]);
    // No task was made yet, or its end is recorded: the shim goes either way.
    const isDeleted = await shim.delete(id).then(
      () => true,
      () => false,
    );
    await shim.shutdown(id).catch(() => undefined);
    return isDeleted;
  } catch {
    return false;
  }
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
