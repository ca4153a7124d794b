/** `docker container prune`: removes stopped containers. */
import { isAlive, labelsOf } from '#services/containers/container.ts';
import type { LiveContainer } from '#services/containers/live.ts';
import { errorMessage, GantryError } from '#types/errors.ts';
import type { Services } from '../services.ts';
import { parseUntilFilter } from '../until-filter.ts';
import { matchesLabels } from './list.ts';
import { removeContainer } from './remove.ts';

let isPruning = false;

/** Removes what the filters select. Throws `conflict` while another prune runs. */
export async function pruneContainers(
  services: Services,
  filters: ReadonlyMap<string, readonly string[]>,
): Promise<{ ContainersDeleted: string[] | null; SpaceReclaimed: number }> {
  if (isPruning) throw new GantryError('conflict', 'a prune operation is already running');
  isPruning = true;
  try {
    const untilMs = parseUntilFilter(filters);
    const deleted: string[] = [];
    let reclaimed = 0;
    for (const container of services.containers.all()) {
      if (!isPrunable(container, filters, untilMs)) continue;
      const { sizeBytes } = await services.snapshots.usage(container.id).catch(() => ({ sizeBytes: 0 }));
      try {
        await removeContainer(services, container.id, { force: false, removeVolumes: false, link: false });
      } catch (error) {
        services.logger.warn('failed to prune container', { container: container.id, error: errorMessage(error) });
        continue;
      }
      deleted.push(container.id);
      reclaimed += sizeBytes;
    }
    services.events.publish('container', 'prune', '', { reclaimed: String(reclaimed) });
    return { ContainersDeleted: deleted.length === 0 ? null : deleted, SpaceReclaimed: reclaimed };
  } finally {
    isPruning = false;
  }
}

function isPrunable(
  container: LiveContainer,
  filters: ReadonlyMap<string, readonly string[]>,
  untilMs: number | undefined,
): boolean {
  if (isAlive(container.state) || container.state.status === 'restarting') return false;
  if (untilMs !== undefined && Date.parse(container.record.createdAt) > untilMs) return false;
  const labels = labelsOf(container.record);
  const without = filters.get('label!') ?? [];
  return matchesLabels(labels, filters.get('label') ?? []) && !without.some((label) => matchesLabels(labels, [label]));
}
