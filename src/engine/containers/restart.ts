/** `docker restart`: stop if running, then start; the container's own restart policy stays out of it. */
import { isAlive } from '#services/containers/container.ts';
import { wrapError } from '#types/errors.ts';
import type { Services } from '../services.ts';
import { publishContainerEvent } from './events.ts';
import { startHeld } from './start.ts';
import { cancelPendingRestart, type StopOptions, stopRunning } from './stop.ts';

/** Throws docker's `Cannot restart container {name}: …`. */
export async function restartContainer(services: Services, reference: string, options: StopOptions): Promise<void> {
  const container = services.containers.find(reference);
  try {
    // Compat: --rm does not remove a container that is only being restarted.
    const { hostConfig } = container.record;
    if (container.state.status === 'restarting') await cancelPendingRestart(container);
    if (isAlive(container.state)) {
      if (hostConfig.AutoRemove === true) container.update({ hostConfig: { ...hostConfig, AutoRemove: false } });
      try {
        await stopRunning(services, container, options);
      } finally {
        container.update({ hostConfig });
      }
    }
    using _held = await container.lock.acquire();
    container.restarts = { count: 0, delayMs: 0 };
    container.update({ hasBeenManuallyStopped: false });
    // Somebody else's start may have come first.
    if (!isAlive(container.state)) await startHeld(services, container);
  } catch (error) {
    throw wrapError(`Cannot restart container ${reference}`, error);
  }
  publishContainerEvent(services.events, container.record, 'restart');
}
