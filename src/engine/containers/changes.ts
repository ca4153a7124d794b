/** `docker diff`. */
import type { Change } from '#services/snapshots/contract.ts';
import type { Services } from '../services.ts';

/** Changes of the container's file system against its image; null when there are none, as dockerd answers. */
export async function containerChanges(
  services: Pick<Services, 'containers' | 'snapshots'>,
  reference: string,
): Promise<{ Path: string; Kind: number }[] | null> {
  const container = services.containers.find(reference);
  const changes: Change[] = await services.snapshots.changes(container.id);
  return changes.length === 0 ? null : changes.map(({ path, kind }) => ({ Path: path, Kind: kind }));
}
