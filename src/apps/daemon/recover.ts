/**
 * What a starting daemon finds from the one before it: running containers are taken over again, ended ones
 * get their exit, half-done things are finished or undone, and restart policies apply.
 */
import { existsSync, readdirSync, rmSync } from 'node:fs';
import { join } from 'node:path';
import { removeBundle } from '#engine/containers/bundle.ts';
import { isUserDefined } from '#engine/containers/create/validate.ts';
import { supervise, UNKNOWN_EXIT_CODE } from '#engine/containers/exit.ts';
import { cleanUpLostRun } from '#engine/containers/lost-run.ts';
import { openLog, streamsOf } from '#engine/containers/output.ts';
import { releasePreparedMounts } from '#engine/containers/prepared-mounts.ts';
import { removeHeld } from '#engine/containers/remove.ts';
import { attachResolver } from '#engine/containers/resolver.ts';
import { scheduleRestart, startsWithDaemon } from '#engine/containers/restart-policy.ts';
import { startHeld } from '#engine/containers/start.ts';
import { holdVolumes } from '#engine/containers/volume-mounts.ts';
import type { Services } from '#engine/services.ts';
import { isAlive } from '#services/containers/container.ts';
import type { LiveContainer } from '#services/containers/live.ts';
import { cgroupsPath } from '#services/spec/build-spec.ts';
import { removeCgroup } from '#system/cgroup/leftovers.ts';
import { now } from '#system/clock/clock.ts';
import type { Shim } from '#system/runtime/contract.ts';
import { errorMessage } from '#types/errors.ts';
import { type Id, isId } from '#types/ids.ts';

/** How long reconnecting to one shim may take before it counts as dead. */
const RECONNECT_TIMEOUT_MS = 10_000;

/** Brings records and reality together. Called once, before the API is served. */
export async function recover(services: Services): Promise<void> {
  const containers = services.containers.all();
  const shims = new Map<Id, Shim>();
  for (const container of containers) {
    const shim = await reconnect(services, container);
    if (shim !== undefined) shims.set(container.id, shim);
  }
  await removeOrphanBundles(services, shims);
  removeOrphanDirectories(services);
  await services.networks.recover(new Set(shims.keys()));
  await services.snapshots.recover(new Set(containers.flatMap(snapshotsOf)));
  await repairLayers(services);
  for (const container of containers) {
    const shim = shims.get(container.id);
    try {
      if (shim !== undefined) await takeOver(services, container, shim);
      else await settleLost(services, container);
    } catch (error) {
      services.logger.error('recovering a container failed', { container: container.id, error: errorMessage(error) });
    }
  }
}

/** Layers that a power loss may have taken are extracted again from their archives. */
async function repairLayers({ snapshots, images, logger }: Services): Promise<void> {
  const failed = await snapshots.repair((diffId) =>
    images.layerBlob(diffId) === undefined ? undefined : images.openLayer(diffId),
  );
  for (const layer of failed) logger.error('a layer could not be repaired after a power loss', { layer });
}

/** Its own and those of its image mounts. */
function snapshotsOf({ id, record }: LiveContainer): Id[] {
  return [id, ...(record.imageMounts ?? []).map(({ snapshot }) => snapshot)];
}

/** Starts what restart policies ask for. Called after the API is served, like dockerd. */
export async function startByPolicy(services: Services): Promise<void> {
  const wanted = services.containers.all().filter((container) => startsWithDaemon(container.record));
  for (const container of wanted.reverse()) {
    using _held = await container.lock.acquire();
    if (isAlive(container.state) || services.stopping.aborted) continue;
    await startHeld(services, container).catch((error: unknown) => {
      services.logger.error('failed to start container', { container: container.id, error: errorMessage(error) });
    });
  }
}

async function reconnect(services: Services, container: LiveContainer): Promise<Shim | undefined> {
  const { shimAddress, id } = container.record;
  if (shimAddress === '') return undefined;
  try {
    const shim = await services.shims.connect(shimAddress, AbortSignal.timeout(RECONNECT_TIMEOUT_MS));
    const state = await shim.state(id);
    services.logger.debug('reconnected', { container: id, status: state.status });
    return shim;
  } catch (error) {
    services.logger.info('container has no shim any more', { container: id, error: errorMessage(error) });
    return undefined;
  }
}

/** Streams, log and supervision for a process that lives on (or ended while nobody looked: its wait answers at once). */
async function takeOver(services: Services, container: LiveContainer, shim: Shim): Promise<void> {
  const { id } = container;
  const status = await shim.state(id);
  const log = await openLog(services, container.record);
  const streams = streamsOf(services, container);
  await streams.reopen(services.settings.paths.streams(id), log);
  await settleNetworks(services, container);
  const { state } = container;
  if (isAlive(state)) {
    container.update({ state: { ...state, status: status.status === 'paused' ? 'paused' : 'running' } });
  }
  await holdVolumes(services, container.record);
  const exited = shim.wait(id);
  exited.catch(() => undefined);
  supervise(services, container, { shim, streams, log, exited, process: undefined });
}

/** A connection that was being made is undone, one that was being cut is forgotten; then names are resolved again. */
async function settleNetworks(services: Services, container: LiveContainer): Promise<void> {
  const { sandbox, networks, id } = container.record;
  if (sandbox === undefined) return;
  const known = new Set(sandbox.endpoints.map(({ endpointId }) => endpointId));
  for (const { endpointId, networkId } of services.networks.endpoints(id)) {
    if (!known.has(endpointId)) await services.networks.disconnect(id, networkId);
  }
  const endpoints = services.networks.endpoints(id);
  const left = sandbox.endpoints.filter(
    (before) => !endpoints.some(({ endpointId }) => endpointId === before.endpointId),
  );
  const gone = new Set(left.map(({ networkName }) => networkName));
  const kept = Object.fromEntries(Object.entries(networks).filter(([name]) => !gone.has(name)));
  container.update({ sandbox: { ...sandbox, endpoints }, networks: kept });
  if (endpoints.some(({ networkName }) => isUserDefined(networkName)))
    await attachResolver(services, container.record, sandbox.path);
}

/** A container whose process is gone without a word: the host crashed, or the shim died with it. */
async function settleLost(services: Services, container: LiveContainer): Promise<void> {
  const { state, record, id } = container;
  if (state.status === 'removing' || state.status === 'dead') {
    using _held = await container.lock.acquire();
    await removeHeld(services, container, { removeVolumes: false });
    return;
  }
  if (record.shimAddress !== '') await cleanUpRun(services, container);
  if (isAlive(state)) {
    container.update({
      shimAddress: '',
      sandbox: undefined,
      state: {
        status: 'exited',
        exitCode: UNKNOWN_EXIT_CODE,
        error: '',
        oomKilled: false,
        startedAt: state.startedAt,
        finishedAt: now(),
      },
    });
  } else if (state.status === 'restarting') {
    scheduleRestart(services, container, 0);
  }
  dropBundle(services, id);
  // Compat: whatever was to be removed at its end and does not run goes now, also when it never ran.
  if (record.hostConfig.AutoRemove === true) {
    using _held = await container.lock.acquire();
    await removeHeld(services, container, { removeVolumes: true });
  }
}

async function cleanUpRun(services: Services, container: LiveContainer): Promise<void> {
  const { id, record } = container;
  const { settings } = services;
  await cleanUpLostRun(services, id, record.hostConfig.Runtime);
  // The exec root may be gone with the bundle, as after a reboot that kept its cgroups (a container host).
  const parent = record.hostConfig.CgroupParent || settings.current().defaults.cgroupParent;
  if (settings.cgroupDriver === 'cgroupfs') removeCgroup(cgroupsPath(id, parent, 'cgroupfs'));
  await releasePreparedMounts(services, record).catch(() => undefined);
  await services.snapshots.unmount(id, settings.paths.rootfs(id)).catch(() => undefined);
}

/** Bundles of containers that were being started or removed when the daemon died. */
async function removeOrphanBundles(services: Services, alive: ReadonlyMap<Id, Shim>): Promise<void> {
  const { paths } = services.settings;
  const directory = join(paths.execRoot, 'containers');
  if (!existsSync(directory)) return;
  for (const id of readdirSync(directory)) {
    if (!isId(id) || alive.has(id) || services.containers.get(id)?.record.shimAddress) continue;
    await cleanUpLostRun(services, id);
    await services.snapshots.unmount(id, paths.rootfs(id)).catch(() => undefined);
    dropBundle(services, id);
  }
}

/** Files of containers that were being created, or whose record went first, when the daemon died. */
function removeOrphanDirectories(services: Services): void {
  const parent = join(services.settings.paths.dataRoot, 'containers');
  for (const id of readdirSync(parent)) {
    if (isId(id) && services.containers.get(id) === undefined) {
      rmSync(services.settings.paths.container(id), { recursive: true, force: true });
    }
  }
}

function dropBundle(services: Services, id: Id): void {
  try {
    removeBundle(services.settings.paths, id);
  } catch (error) {
    services.logger.warn('leftover bundle stays', { container: id, error: errorMessage(error) });
  }
}
