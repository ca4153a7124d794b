/** Which images are in use: what keeps `docker rmi` and prunes from taking them. */
import { isAlive } from '#services/containers/container.ts';
import type { ContainerStore } from '#services/containers/store.ts';
import type { ImageUse } from '../images/remove.ts';

/** One row a container and one an image mount. */
export function imageUses(containers: Pick<ContainerStore, 'all'>): ImageUse[] {
  return containers.all().flatMap(({ record }) => [
    {
      containerId: record.id,
      imageId: record.imageId,
      running: isAlive(record.state) || record.state.status === 'restarting',
    },
    // Compat: the image of a mount can be forced away, its layers stay with the mount.
    ...(record.imageMounts ?? []).map(({ imageId }) => ({ containerId: record.id, imageId, running: false })),
  ]);
}
