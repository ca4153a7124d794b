/** Which images are in use: what keeps `docker rmi` and prunes from taking them. */
import { isAlive } from '#services/containers/container.ts';
import type { ContainerStore } from '#services/containers/store.ts';
import type { ImageUse } from '../images/remove.ts';

/** One row a container. */
export function imageUses(containers: Pick<ContainerStore, 'all'>): ImageUse[] {
  return containers.all().map(({ record }) => ({
    containerId: record.id,
    imageId: record.imageId,
    running: isAlive(record.state) || record.state.status === 'restarting',
  }));
}
