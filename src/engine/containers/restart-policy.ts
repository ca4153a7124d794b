/**
 * Restart policies: whether a container comes back after an exit, and after how long.
 *
 * Compat: as dockerd's restart manager: 100 ms, doubled at each quick failure up to a minute; a run of ten
 * seconds or more starts the count anew.
 */
import { type ContainerRecord, isAlive } from '#services/containers/container.ts';
import type { LiveContainer } from '#services/containers/live.ts';
import { errorMessage } from '#types/errors.ts';
import type { Services } from '../services.ts';

const FIRST_DELAY_MS = 100;
const MAX_DELAY_MS = 60_000;
/** A run this long counts as a success for the back-off. */
const STABLE_RUN_NS = 10_000_000_000n;

export type RestartDecision = { readonly restart: false } | { readonly restart: true; readonly delayMs: number };

/** Decides after an exit; advances the container's back-off. */
export function decideRestart(
  services: Pick<Services, 'stopping'>,
  container: LiveContainer,
  exitCode: number,
  runtimeNs: bigint,
): RestartDecision {
  const policy = container.record.hostConfig.RestartPolicy;
  if (services.stopping.aborted || container.stopRequested || container.removalInProgress) return { restart: false };
  const { restarts } = container;
  const stable = runtimeNs >= STABLE_RUN_NS;
  const delayMs = restarts.delayMs === 0 || stable ? FIRST_DELAY_MS : Math.min(restarts.delayMs * 2, MAX_DELAY_MS);
  if (!applies(policy?.Name ?? '', exitCode, restarts.count, policy?.MaximumRetryCount ?? 0)) return { restart: false };
  container.restarts = { count: restarts.count + 1, delayMs };
  return { restart: true, delayMs };
}

function applies(name: string, exitCode: number, count: number, maximum: number): boolean {
  switch (name) {
    case 'always':
    case 'unless-stopped':
      return true;
    case 'on-failure':
      return exitCode !== 0 && (maximum === 0 || count < maximum);
    default:
      return false;
  }
}

/** Whether a starting daemon starts a container that does not run. */
export function startsWithDaemon(record: ContainerRecord): boolean {
  const { state, hostConfig } = record;
  if (isAlive(state) || state.status === 'removing' || state.status === 'dead' || !record.hasBeenStartedBefore)
    return false;
  const policy = hostConfig.RestartPolicy;
  // Compat: a manual stop is respected by `unless-stopped` only; `on-failure` looks at nothing but the exit code.
  if (policy?.Name === 'unless-stopped' && record.hasBeenManuallyStopped) return false;
  return applies(policy?.Name ?? '', state.exitCode, record.restartCount, policy?.MaximumRetryCount ?? 0);
}

/** Starts the container again after `delayMs`, unless a stop or removal comes first. */
export function scheduleRestart(services: Services, container: LiveContainer, delayMs: number): void {
  const pending = new AbortController();
  container.pendingRestart = pending;
  const timer = setTimeout(() => {
    void restartNow(services, container, pending).catch((error: unknown) => {
      services.logger.error('automatic restart failed', { container: container.id, error: errorMessage(error) });
    });
  }, delayMs);
  pending.signal.addEventListener('abort', () => {
    clearTimeout(timer);
    cancelRestart(container, pending);
  });
}

function cancelRestart(container: LiveContainer, pending: AbortController): void {
  if (container.pendingRestart !== pending) return;
  container.pendingRestart = undefined;
  const { state } = container;
  if (state.status !== 'restarting') return;
  container.update({ state: { ...state, status: 'exited' } });
  container.notifyExit({ exitCode: state.exitCode, error: state.error });
}

async function restartNow(services: Services, container: LiveContainer, pending: AbortController): Promise<void> {
  using _held = await container.lock.acquire();
  if (pending.signal.aborted || container.pendingRestart !== pending || container.state.status !== 'restarting') return;
  container.pendingRestart = undefined;
  const { startHeld } = await import('./start.ts');
  try {
    await startHeld(services, container);
  } catch (error) {
    services.logger.error('failed to start container', { container: container.id, error: errorMessage(error) });
    const { state } = container.record;
    if (state.status !== 'exited' && state.status !== 'created') return;
    const decision = decideRestart(services, container, state.exitCode, 0n);
    if (!decision.restart) return;
    container.update({ restartCount: container.record.restartCount + 1, state: { ...state, status: 'restarting' } });
    scheduleRestart(services, container, decision.delayMs);
  }
}
