/** Waiting for a container: docker's three conditions, and the daemon's own wait for a run to be over. */
import { isAlive } from '#services/containers/container.ts';
import type { LiveContainer, WaitCondition, WaitResult } from '#services/containers/live.ts';
import { GantryError } from '#types/errors.ts';

const CONDITIONS: readonly string[] = ['not-running', 'next-exit', 'removed'];

/** Parses the `condition` parameter; empty means not-running. */
export function parseWaitCondition(text: string): WaitCondition {
  if (text === '') return 'not-running';
  if (!CONDITIONS.includes(text)) throw new GantryError('invalid', `invalid condition: "${text}"`);
  return text as WaitCondition;
}

/** Resolves when `condition` holds. Must be called before anything is awaited, so that no exit is missed. */
export function waitForCondition(
  container: LiveContainer,
  condition: WaitCondition,
  signal: AbortSignal,
): Promise<WaitResult> {
  if (condition === 'removed') return container.waitFor('removal', signal);
  if (condition === 'next-exit') return container.waitFor('exit', signal);
  const state = container.state;
  if (isAlive(state) || state.status === 'restarting') return container.waitFor('exit', signal);
  return Promise.resolve({ exitCode: state.exitCode, error: state.error });
}

/** Waits until the present run, if any, has ended and been cleaned up. True when it has; false when `signal` aborted first. */
export async function settle(container: LiveContainer, signal: AbortSignal): Promise<boolean> {
  const task = container.task;
  if (task === undefined) return true;
  const { promise, resolve } = Promise.withResolvers<false>();
  const onAbort = (): void => resolve(false);
  if (signal.aborted) return false;
  signal.addEventListener('abort', onAbort, { once: true });
  try {
    return await Promise.race([task.settled.then(() => true), promise]);
  } finally {
    signal.removeEventListener('abort', onAbort);
  }
}
