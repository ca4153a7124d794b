/**
 * What follows a process's end: drain its output, release what the run held, record the exit, and either
 * restart, remove or rest. One supervisor a run; it owns the run until `settled` resolves.
 */
import { type ContainerRecord, isAlive, ZERO_TIME } from '#services/containers/container.ts';
import type { LiveContainer } from '#services/containers/live.ts';
import type { LogWriter } from '#services/logs/contract.ts';
import type { ProcessStreams } from '#services/streams/contract.ts';
import { now, parseTime } from '#system/clock/clock.ts';
import type { ExitStatus, Shim } from '#system/runtime/contract.ts';
import { errorMessage } from '#types/errors.ts';
import type { OciProcess } from '#types/oci.ts';
import type { Services } from '../services.ts';
import { removeBundle } from './bundle.ts';
import { publishContainerEvent } from './events.ts';
import { startHealthMonitor } from './health.ts';
import { cleanUpLostRun } from './lost-run.ts';
import { releasePreparedMounts } from './prepared-mounts.ts';
import { removeHeld } from './remove.ts';
import { decideRestart, scheduleRestart } from './restart-policy.ts';
import { releaseVolumes } from './volume-mounts.ts';

/** Exit code docker reports when it cannot know the real one (the shim died). */
export const UNKNOWN_EXIT_CODE = 255;

/** A run to watch. */
export interface Run {
  readonly shim: Shim;
  readonly streams: ProcessStreams;
  readonly log: LogWriter | undefined;
  readonly exited: Promise<ExitStatus>;
  readonly process: OciProcess | undefined;
}

/** An end as the shim reported it, or made up because the shim is gone. */
interface Exit extends ExitStatus {
  readonly isLost: boolean;
}

/** Begins watching a started (or re-found) process. */
export function supervise(services: Services, container: LiveContainer, run: Run): void {
  const { promise: settled, resolve } = Promise.withResolvers<void>();
  container.task = { shim: run.shim, log: run.log, settled, process: run.process };
  startHealthMonitor(services, container);
  const lost = run.shim.closed.then((): Exit => ({ exitStatus: UNKNOWN_EXIT_CODE, exitedAt: now(), isLost: true }));
  const exited = run.exited.then((exit): Exit => ({ ...exit, isLost: false }));
  Promise.race([exited.catch(() => lost), lost])
    .then(async (exit) => {
      // The daemon is going away and leaves the container running: its connection ended, not the process.
      if (container.task?.shim !== run.shim) return;
      await handleExit(services, container, run, exit);
    })
    .catch((error: unknown) => {
      services.logger.error('handling the exit failed', { container: container.id, error: errorMessage(error) });
    })
    .finally(resolve);
}

/** Lets go of a run without ending it (daemon shutdown with live-restore). */
export async function detachRun(container: LiveContainer): Promise<void> {
  const { task, streams } = container;
  container.healthMonitor?.abort();
  container.task = undefined;
  container.streams = undefined;
  await task?.shim[Symbol.asyncDispose]();
  await streams?.[Symbol.asyncDispose]();
}

async function handleExit(services: Services, container: LiveContainer, run: Run, exit: Exit): Promise<void> {
  using _held = await container.lock.acquire();
  container.healthMonitor?.abort();
  container.healthMonitor = undefined;
  const { taskEnd } = await release(services, container, run, exit);
  const state = container.state;
  const startedAt = isAlive(state) ? state.startedAt : ZERO_TIME;
  const finishedAt = parseTime(exit.exitedAt) === undefined ? now() : exit.exitedAt;
  const decision = decideRestart(services, container, exit.exitStatus, elapsedNs(startedAt, finishedAt));
  const ended = { exitCode: exit.exitStatus, error: '', oomKilled: container.oomKilled, startedAt, finishedAt };
  container.task = undefined;
  recordEnd(services, container, {
    sandbox: undefined,
    shimAddress: '',
    restartCount: decision.restart ? container.record.restartCount + 1 : container.record.restartCount,
    state: { status: decision.restart ? 'restarting' : 'exited', ...ended },
  });
  publishContainerEvent(services.events, container.record, 'die', {
    exitCode: String(exit.exitStatus),
    execDuration: String(elapsedNs(startedAt, finishedAt) / 1_000_000_000n),
  });
  container.stopRequested = false;
  container.notifyExit({ exitCode: exit.exitStatus, error: '' });
  try {
    // `docker wait` for an exit has learnt of it before the removal; --rm waits for the removal itself.
    const removes = container.record.hostConfig.AutoRemove === true && !services.stopping.aborted;
    if (decision.restart) scheduleRestart(services, container, decision.delayMs);
    else if (removes) await removeHeld(services, container, { removeVolumes: true });
  } finally {
    await taskEnd;
  }
}

/** The process has ended even when the disk is too full to say so; the next start then finds it lost. */
function recordEnd(services: Services, container: LiveContainer, changes: Partial<ContainerRecord>): void {
  try {
    container.update(changes);
  } catch (error) {
    logFailure(services, container.id, 'record', error);
    container.updateUnsaved(changes);
  }
}

/**
 * Frees what the run held; each part on its own, so that one failure does not keep the others. The end of the
 * task (one run of runc, most of the time) is returned: it goes on behind the answer, still under the lock.
 */
async function release(
  services: Services,
  container: LiveContainer,
  run: Run,
  exit: Exit,
): Promise<{ taskEnd: Promise<void> }> {
  const { id, record } = container;
  const { paths } = services.settings;
  for (const exec of container.execs.values()) {
    if (exec.state.status === 'running') await exec.streams.finish();
  }
  const taskEnd = endTask(services, container, run.shim).catch((error: unknown) =>
    logFailure(services, id, 'task', error),
  );
  // A process whose shim died may live on until then.
  if (exit.isLost) await taskEnd;
  const parts: [string, Promise<unknown>][] = [
    ['output', run.streams.finish()],
    ['network', releaseNetwork(services, container)],
  ];
  // One may fail while another is still waited for.
  for (const [, work] of parts) work.catch(() => undefined);
  for (const [part, work] of parts) await work.catch((error: unknown) => logFailure(services, id, part, error));
  container.streams = undefined;
  await releasePreparedMounts(services, record).catch((error: unknown) => logFailure(services, id, 'mounts', error));
  await releaseVolumes(services, record).catch((error: unknown) => logFailure(services, id, 'volumes', error));
  await services.snapshots
    .unmount(id, paths.rootfs(id))
    .catch((error: unknown) => logFailure(services, id, 'root file system', error));
  return {
    taskEnd: taskEnd.then(() => {
      try {
        removeBundle(paths, id);
      } catch (error) {
        logFailure(services, id, 'bundle', error);
      }
    }),
  };
}

async function endTask(services: Services, container: LiveContainer, shim: Shim): Promise<void> {
  const { id, record } = container;
  try {
    await shim.delete(id);
    await shim.shutdown(id).catch(() => undefined);
  } catch (error) {
    // The shim died before its container: nobody else ends and forgets that process.
    await cleanUpLostRun(services, id, record.hostConfig.Runtime);
    throw error;
  } finally {
    await shim[Symbol.asyncDispose]();
  }
}

async function releaseNetwork(services: Services, container: LiveContainer): Promise<void> {
  const { sandbox, hostConfig } = container.record;
  await services.resolver?.detach(container.id);
  for (const endpoint of sandbox?.endpoints ?? []) {
    services.events.publish('network', 'disconnect', endpoint.networkId, {
      container: container.id,
      name: endpoint.networkName,
      type: driverOf(services, endpoint.networkId),
    });
  }
  if (hostConfig.NetworkMode?.startsWith('container:')) return;
  await services.networks.removeSandbox(container.id);
}

function driverOf(services: Pick<Services, 'networks'>, networkId: string): string {
  try {
    return services.networks.find(networkId).driver;
  } catch {
    return '';
  }
}

function logFailure(services: Services, id: string, part: string, error: unknown): void {
  services.logger.warn(`releasing ${part} failed`, { container: id, error: errorMessage(error) });
}

function elapsedNs(startedAt: string, finishedAt: string): bigint {
  const start = parseTime(startedAt);
  const end = parseTime(finishedAt);
  if (start === undefined || end === undefined || startedAt === ZERO_TIME || end < start) return 0n;
  return end - start;
}
