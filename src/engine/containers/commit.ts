/** The container side of `docker commit`: finds it, freezes it meanwhile, tells of it. */
import { isAlive } from '#services/containers/container.ts';
import type { ImageRunConfig } from '#services/images/contract.ts';
import { GantryError } from '#types/errors.ts';
import type { CommittedContainer } from '../images/commit.ts';
import type { Services } from '../services.ts';
import { publishContainerEvent } from './events.ts';

/** Runs `work` on a container that stands still when `pause` is set. Throws `conflict` for one being removed. */
export async function withCommittedContainer<T extends { id: string }>(
  services: Pick<Services, 'containers' | 'events'>,
  request: {
    readonly reference: string;
    readonly pause: boolean;
    readonly comment: string;
    /** Name and tag the image gets; empty without. */
    readonly imageName: string;
  },
  work: (container: CommittedContainer) => Promise<T>,
): Promise<T> {
  const container = services.containers.find(request.reference);
  using _held = await container.lock.acquire();
  const { state, record } = container;
  if (state.status === 'dead' || state.status === 'removing') {
    const word = state.status === 'dead' ? 'Dead' : 'Removal In Progress';
    throw new GantryError('conflict', `You cannot commit container ${container.id} which is ${word}`);
  }
  const shim = request.pause && isAlive(state) && state.status !== 'paused' ? container.task?.shim : undefined;
  if (shim !== undefined) {
    await shim.pause(container.id);
    publishContainerEvent(services.events, record, 'pause');
  }
  try {
    const image = await work({
      id: record.id,
      imageId: record.imageId,
      snapshotKey: record.id,
      config: record.config as unknown as ImageRunConfig,
      command: record.args,
    });
    publishContainerEvent(services.events, record, 'commit', {
      comment: request.comment,
      imageID: image.id,
      imageRef: request.imageName,
    });
    return image;
  } finally {
    if (shim !== undefined) {
      await shim.resume(container.id);
      publishContainerEvent(services.events, record, 'unpause');
    }
  }
}
