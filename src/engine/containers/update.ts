/** `docker update`: new limits for a container, applied at once when it runs. */
import { isAlive } from '#services/containers/container.ts';
import { GantryError, wrapError } from '#types/errors.ts';
import type { ContainerUpdateRequest } from '#wire/engine.ts';
import type { Services } from '../services.ts';
import type { RequestVersion } from './create/adjust-version.ts';
import { publishContainerEvent } from './events.ts';
import { planUpdate } from './update-resources.ts';

/** Returns warnings. The record changes only when the kernel took the new limits. */
export async function updateContainer(
  services: Pick<Services, 'containers' | 'events' | 'settings'>,
  reference: string,
  request: ContainerUpdateRequest,
  version: RequestVersion,
): Promise<string[]> {
  const container = services.containers.find(reference);
  using _held = await container.lock.acquire();
  const { record, state } = container;
  if (state.status === 'removing' || state.status === 'dead') {
    throw new GantryError(
      'conflict',
      `Cannot update container ${record.id}: container is marked for removal and cannot be "update"`,
    );
  }
  const plan = planUpdate(record, request, { host: services.settings.machine, version });
  if (isAlive(state) && container.task !== undefined) {
    try {
      await container.task.shim.update(record.id, plan.resources);
    } catch (error) {
      throw wrapError(`Cannot update container ${record.id}`, error);
    }
  }
  container.update({ hostConfig: plan.hostConfig });
  publishContainerEvent(services.events, container.record, 'update');
  return [...plan.warnings];
}
