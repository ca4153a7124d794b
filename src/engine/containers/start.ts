/**
 * Starts a container's process: file system, network, files, spec, shim — released in reverse order when a
 * later step fails, so that a failed start leaves only its error in the record.
 */
import { mkdirSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import type { ContainerRecord } from '#services/containers/container.ts';
import { isAlive, ZERO_TIME } from '#services/containers/container.ts';
import type { LiveContainer } from '#services/containers/live.ts';
import type { LogWriter } from '#services/logs/contract.ts';
import type { ProcessStreams } from '#services/streams/contract.ts';
import { now } from '#system/clock/clock.ts';
import type { Shim, Stdio } from '#system/runtime/contract.ts';
import { GantryError, wrapError } from '#types/errors.ts';
import type { Services } from '../services.ts';
import { findRuntime } from '../settings.ts';
import { removeBundle } from './bundle.ts';
import { publishContainerEvent } from './events.ts';
import { supervise } from './exit.ts';
import { shimAddressFile } from './lost-run.ts';
import { openLog, streamsOf } from './output.ts';
import { prepareMounts } from './prepared-mounts.ts';
import { removeHeld } from './remove.ts';
import { joinNetwork } from './sandbox.ts';
import { type RunSpec, specFor } from './spec.ts';
import { explainStartFailure } from './start-failure.ts';
import { mountVolumes } from './volume-mounts.ts';

/** `docker start`. Throws `notModified` when it runs already. */
export async function startContainer(services: Services, reference: string): Promise<void> {
  const container = services.containers.find(reference);
  using _held = await container.lock.acquire();
  const { status } = container.state;
  if (status === 'paused') throw new GantryError('conflict', 'cannot start a paused container, try unpause instead');
  if (status === 'running' || status === 'restarting') throw new GantryError('notModified', '');
  if (status === 'removing' || status === 'dead') {
    throw new GantryError('conflict', 'container is marked for removal and cannot be started');
  }
  container.stopRequested = false;
  container.restarts = { count: 0, delayMs: 0 };
  container.update({ hasBeenManuallyStopped: false, restartCount: 0 });
  await startHeld(services, container);
}

/** Starts while the caller holds the container's lock. A failure is recorded in the container and thrown. */
export async function startHeld(services: Services, container: LiveContainer): Promise<void> {
  try {
    await launch(services, container);
  } catch (error) {
    const failure = explainStartFailure(error);
    recordFailure(container, failure.error.message, failure.exitCode);
    container.notifyExit({ exitCode: failure.exitCode, error: failure.error.message });
    if (container.record.hostConfig.AutoRemove === true) await removeHeld(services, container, { removeVolumes: true });
    throw failure.error;
  }
}

function recordFailure(container: LiveContainer, error: string, exitCode: number): void {
  const { state } = container;
  const before = isAlive(state) ? { startedAt: state.startedAt, finishedAt: state.finishedAt } : state;
  container.update({
    shimAddress: '',
    sandbox: undefined,
    state: {
      status: container.record.hasBeenStartedBefore ? 'exited' : 'created',
      exitCode,
      error,
      oomKilled: false,
      startedAt: before.startedAt,
      finishedAt: before.finishedAt,
    },
  });
}

async function launch(services: Services, container: LiveContainer): Promise<void> {
  const { paths } = services.settings;
  const { id } = container;
  await using undo = new AsyncDisposableStack();

  mkdirSync(paths.streams(id), { recursive: true, mode: 0o711 });
  undo.defer(() => removeBundle(paths, id));

  await services.snapshots.mount(id, paths.rootfs(id));
  undo.defer(() => services.snapshots.unmount(id, paths.rootfs(id)));

  const volumes = await mountVolumes(services, container.record);
  undo.defer(() => volumes[Symbol.asyncDispose]());

  const prepared = await prepareMounts(services, container.record, volumes.paths);
  undo.defer(() => prepared[Symbol.asyncDispose]());

  const sandbox = await joinNetwork(services, container.record);
  undo.defer(() => services.networks.removeSandbox(id));

  const record: ContainerRecord = { ...container.record, sandbox: sandbox.kept, networks: sandbox.networks };
  const spec = specFor(services, record, { network: sandbox, volumes: volumes.paths, prepared: prepared.sources });
  writeFileSync(join(paths.bundle(id), 'config.json'), JSON.stringify(spec.spec), { mode: 0o600 });

  const log = await openLog(services, record);
  const streams = streamsOf(services, container);
  undo.defer(() => streams.finish());
  const stdio = await streams.open(paths.streams(id), log);

  const shim = await startShim(services, record, undo);
  await run(services, container, { shim, streams, log, stdio, record, spec });
  undo.move();
}

interface Launched {
  readonly shim: Shim;
  readonly streams: ProcessStreams;
  readonly log: LogWriter | undefined;
  readonly stdio: Stdio;
  readonly record: ContainerRecord;
  readonly spec: RunSpec;
}

async function startShim(services: Services, record: ContainerRecord, undo: AsyncDisposableStack): Promise<Shim> {
  const { settings } = services;
  const runtime = findRuntime(settings.current(), record.hostConfig.Runtime ?? '');
  if (runtime === undefined) {
    throw new GantryError('invalid', `unknown or invalid runtime name: ${record.hostConfig.Runtime}`);
  }
  const shimOptions = {
    id: record.id,
    namespace: settings.shimNamespace,
    bundle: settings.paths.bundle(record.id),
    shim: runtime.shim,
    debug: settings.current().debug,
  };
  const shim = await services.shims.start(shimOptions).catch((error: unknown) => {
    throw wrapError('failed to create task for container: failed to start shim', error);
  });
  // Before the container is in it: a daemon that dies now must find this shim again.
  writeFileSync(shimAddressFile(shimOptions.bundle), shim.address, { mode: 0o600 });
  undo.defer(async () => {
    await shim.kill(record.id, 9, { all: true }).catch(() => undefined);
    await shim.delete(record.id).catch(() => undefined);
    await shim.shutdown(record.id).catch(() => undefined);
    await shim[Symbol.asyncDispose]();
  });
  return shim;
}

/** Creates and starts the task; from its first instruction on, its exit is watched. */
async function run(services: Services, container: LiveContainer, launched: Launched): Promise<void> {
  const { settings } = services;
  const { id } = container;
  const { shim, streams, record } = launched;
  const created = await shim
    .create({
      id,
      bundle: settings.paths.bundle(id),
      stdio: launched.stdio,
      runc: {
        ...launched.spec.runtime,
        root: settings.paths.runtimeRoot,
        systemdCgroup: settings.cgroupDriver === 'systemd',
      },
    })
    .catch((error: unknown) => {
      throw wrapError('failed to create task for container: failed to create shim task', error);
    });
  const exited = shim.wait(id);
  exited.catch(() => undefined);
  await shim.start(id).catch((error: unknown) => {
    throw wrapError('failed to start task for container', error);
  });
  const before = container.state;
  container.oomKilled = false;
  container.update({
    sandbox: record.sandbox,
    networks: record.networks,
    shimAddress: shim.address,
    hasBeenStartedBefore: true,
    state: { status: 'running', pid: created.pid, startedAt: now(), finishedAt: before.finishedAt ?? ZERO_TIME },
  });
  supervise(services, container, { shim, streams, log: launched.log, exited, process: launched.spec.spec.process });
  // Only now: input that ended before the start is closed through the task that supervise has just set.
  streams.connected();
  publishContainerEvent(services.events, container.record, 'start');
}
