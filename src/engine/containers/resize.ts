/** Resizes a running container's terminal. */
import { isAlive } from '#services/containers/container.ts';
import { GantryError } from '#types/errors.ts';
import type { Services } from '../services.ts';
import { publishContainerEvent } from './events.ts';

/** `POST /containers/{id}/resize`. Throws `conflict` when it does not run. */
export async function resizeContainer(
  services: Pick<Services, 'containers' | 'events'>,
  reference: string,
  size: { readonly width: number; readonly height: number },
): Promise<void> {
  const container = services.containers.find(reference);
  if (!isAlive(container.state) || container.task === undefined) {
    throw new GantryError('conflict', `container ${container.id} is not running`);
  }
  await container.task.shim.resizePty(container.id, size);
  publishContainerEvent(services.events, container.record, 'resize', {
    height: String(size.height),
    width: String(size.width),
  });
}
