/** Stops a container: its stop signal, then after the timeout SIGKILL (`docker stop`). */
import { isAlive } from '#services/containers/container.ts';
import type { LiveContainer } from '#services/containers/live.ts';
import { GantryError, wrapError } from '#types/errors.ts';
import { isSupportedSignal, parseSignal, SIGKILL } from '#types/signal.ts';
import type { Services } from '../services.ts';
import { publishContainerEvent } from './events.ts';
import { KILL_WAIT_MS, sendSignal } from './kill.ts';
import { settle } from './wait.ts';

/** Seconds before SIGKILL when neither the call, the container nor the daemon says otherwise. */
export const DEFAULT_STOP_TIMEOUT_SECONDS = 10;
/** How long a SIGKILLed process may take to be reaped before stop gives up. */
const REAP_WAIT_MS = KILL_WAIT_MS;

/** What docker gives a process that could not be signalled. */
const UNSENT_SIGNAL_WAIT_SECONDS = 2;

export interface StopOptions {
  /** Signal name or number; empty: the container's own. */
  readonly signal: string;
  /** Seconds; negative waits for ever; undefined: the container's own. */
  readonly timeoutSeconds: number | undefined;
}

/** `docker stop`. Throws `notModified` when it is not running. */
export async function stopContainer(
  services: Pick<Services, 'containers' | 'events' | 'stopping'>,
  reference: string,
  options: StopOptions,
): Promise<void> {
  const container = services.containers.find(reference);
  if (container.state.status === 'restarting') {
    await cancelPendingRestart(container);
    // The restart may have been under way already: then there is a process to stop.
    if (!isAlive(container.state)) return;
  }
  if (!isAlive(container.state)) throw new GantryError('notModified', '');
  try {
    await stopRunning(services, container, options);
  } catch (error) {
    // Compat: a bad signal, too, is a 500 here.
    const wrapped = wrapError(`cannot stop container: ${reference}`, error);
    if (wrapped.kind !== 'invalid') throw wrapped;
    throw new GantryError('system', wrapped.message, { cause: error });
  }
}

/** Takes back an automatic restart that waits for its time; one that has begun is waited for. */
export async function cancelPendingRestart(container: LiveContainer): Promise<void> {
  container.stopRequested = true;
  container.update({ hasBeenManuallyStopped: true });
  container.pendingRestart?.abort();
  using _held = await container.lock.acquire();
}

/** Stops a container that may be running; returns when its run has been cleaned up. */
export async function stopRunning(
  services: Pick<Services, 'events' | 'stopping'>,
  container: LiveContainer,
  options: StopOptions,
): Promise<void> {
  const { config } = container.record;
  const signal = parseSignal(options.signal || config.StopSignal || 'SIGTERM');
  const wantedSeconds = options.timeoutSeconds ?? config.StopTimeout ?? DEFAULT_STOP_TIMEOUT_SECONDS;
  container.stopRequested = true;
  // Compat: a signal that Linux does not have is as good as none: the container is killed soon.
  const seconds = isSupportedSignal(signal)
    ? wantedSeconds
    : Math.min(Math.max(wantedSeconds, 0), UNSENT_SIGNAL_WAIT_SECONDS);
  if (isSupportedSignal(signal)) await signalUnlessGone(services, container, signal);
  if (seconds < 0) {
    await container.task?.settled;
  } else if (!(await settle(container, AbortSignal.timeout(seconds * 1000)))) {
    await signalUnlessGone(services, container, SIGKILL);
    if (!(await settle(container, AbortSignal.timeout(REAP_WAIT_MS)))) {
      throw new GantryError('system', 'tried to kill container, but did not receive an exit event');
    }
  }
  publishContainerEvent(services.events, container.record, 'stop');
}

/** The process may end by itself between our look and the signal: that is what was wanted. */
async function signalUnlessGone(
  services: Pick<Services, 'events' | 'stopping'>,
  container: LiveContainer,
  signal: number,
): Promise<void> {
  try {
    await sendSignal(services, container, signal);
  } catch (error) {
    if (error instanceof GantryError && error.kind === 'conflict') return;
    throw error;
  }
}
