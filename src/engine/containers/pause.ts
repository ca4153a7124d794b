/** Freezes and thaws all processes of a container (cgroup freezer). */
import { isAlive } from '#services/containers/container.ts';
import { GantryError, wrapError } from '#types/errors.ts';
import type { Services } from '../services.ts';
import { publishContainerEvent } from './events.ts';

/** `docker pause`. Throws `conflict` when not running, restarting or already paused. */
export async function pauseContainer(
  services: Pick<Services, 'containers' | 'events'>,
  reference: string,
): Promise<void> {
  const container = services.containers.find(reference);
  using _held = await container.lock.acquire();
  const { state } = container;
  if (state.status === 'restarting') {
    throw new GantryError('conflict', `Container ${container.id} is restarting, wait until the container is running`);
  }
  if (!isAlive(state) || container.task === undefined) {
    throw new GantryError('conflict', `container ${container.id} is not running`);
  }
  if (state.status === 'paused') throw new GantryError('conflict', `Container ${container.id} is already paused`);
  try {
    await container.task.shim.pause(container.id);
  } catch (error) {
    throw wrapError(`cannot pause container ${container.id}`, error);
  }
  container.update({ state: { ...state, status: 'paused' } });
  publishContainerEvent(services.events, container.record, 'pause');
}

/** `docker unpause`. Throws `system` when not paused, as dockerd does. */
export async function unpauseContainer(
  services: Pick<Services, 'containers' | 'events'>,
  reference: string,
): Promise<void> {
  const container = services.containers.find(reference);
  using _held = await container.lock.acquire();
  const { state } = container;
  if (state.status !== 'paused' || container.task === undefined) {
    throw new GantryError('system', `Container ${container.id} is not paused`);
  }
  try {
    await container.task.shim.resume(container.id);
  } catch (error) {
    throw wrapError(`cannot unpause container ${container.id}`, error);
  }
  container.update({ state: { ...state, status: 'running' } });
  publishContainerEvent(services.events, container.record, 'unpause');
}
