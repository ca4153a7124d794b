/** Sends a signal to a container's main process (`docker kill`). */
import { isAlive } from '#services/containers/container.ts';
import type { LiveContainer } from '#services/containers/live.ts';
import type { Shim } from '#system/runtime/contract.ts';
import { errorKind, errorMessage, GantryError, wrapError } from '#types/errors.ts';
import { isSupportedSignal, parseSignal, SIGKILL } from '#types/signal.ts';
import type { Services } from '../services.ts';
import { publishContainerEvent } from './events.ts';
import { settle } from './wait.ts';

/** How long `kill` waits for a SIGKILLed container to be gone before it answers (dockerd: 10 s). */
export const KILL_WAIT_MS = 10_000;

/**
 * `docker kill`. `signalText` empty means SIGKILL. Throws `conflict` when the container is not running and
 * `invalid` for an unknown signal.
 */
export async function killContainer(
  services: Pick<Services, 'containers' | 'events' | 'stopping'>,
  reference: string,
  signalText: string,
): Promise<void> {
  const container = findToKill(services, reference);
  const signal = signalText === '' ? SIGKILL : parseKillSignal(container, signalText);
  if (container.pendingRestart !== undefined && container.state.status === 'restarting') {
    container.stopRequested = true;
    container.pendingRestart.abort();
    return;
  }
  await sendSignal(services, container, signal);
  if (signal === SIGKILL) await settle(container, AbortSignal.timeout(KILL_WAIT_MS));
}

function parseKillSignal(container: LiveContainer, text: string): number {
  try {
    const signal = parseSignal(text);
    if (isSupportedSignal(signal)) return signal;
    throw new GantryError('invalid', `the linux daemon does not support signal ${signal}`);
  } catch (error) {
    throw wrapError(`cannot kill container: ${container.record.name}`, error);
  }
}

function findToKill(services: Pick<Services, 'containers'>, reference: string): LiveContainer {
  try {
    return services.containers.find(reference);
  } catch (error) {
    throw wrapError(`cannot kill container: ${reference}`, error);
  }
}

/**
 * Signals the main process and publishes `kill`.
 * Compat: without a stop signal of its own, any signal to a container counts as a wish to stop it, so its
 * restart policy does not bring it back; and a paused container is thawed for the signal to act.
 */
export async function sendSignal(
  services: Pick<Services, 'events' | 'stopping'>,
  container: LiveContainer,
  signal: number,
): Promise<void> {
  const task = container.task;
  if (!isAlive(container.state) || task === undefined) throw notRunning(container);
  const configured = container.record.config.StopSignal ?? '';
  const ends = configured === '' || signal === SIGKILL || signal === parseSignal(configured);
  if (ends) container.stopRequested = true;
  // A container on its way out needs no note for its next start.
  if (!services.stopping.aborted && !container.removalInProgress) container.update({ hasBeenManuallyStopped: true });
  try {
    await task.shim.kill(container.id, signal);
  } catch (error) {
    // A connection that closed means the run is over: its supervisor is at work on the end, or about to be.
    const isOver = ['notFound', 'unavailable'].includes(errorKind(error));
    if (isOver || /process already finished|no such process/i.test(String(error))) throw notRunning(container);
    throw wrapError(`cannot kill container: ${container.record.name}`, error);
  }
  publishContainerEvent(services.events, container.record, 'kill', { signal: String(signal) });
  if (ends && container.state.status === 'paused') await thaw(services, container, task.shim);
}

async function thaw(services: Pick<Services, 'events'>, container: LiveContainer, shim: Shim): Promise<void> {
  try {
    await shim.resume(container.id);
  } catch (error) {
    // The runtime thaws for SIGKILL by itself, so the process may have ended by now, or be about to.
    const isOver = ['notFound', 'unavailable'].includes(errorKind(error));
    if (isOver || /cannot resume a (stopped|deleted) container/.test(errorMessage(error))) return;
    if (!/container not paused/.test(errorMessage(error))) throw error;
  }
  const { state } = container;
  if (state.status !== 'paused') return;
  container.update({ state: { ...state, status: 'running' } });
  publishContainerEvent(services.events, container.record, 'unpause');
}

function notRunning(container: LiveContainer): GantryError {
  return new GantryError(
    'conflict',
    `cannot kill container: ${container.record.name}: container ${container.id} is not running`,
  );
}
