/** `docker network rm` and `docker network prune`. */
import type { NetworkDetails } from '#services/networks/contract.ts';
import { isPredefined } from '#services/networks/store.ts';
import { errorMessage, GantryError } from '#types/errors.ts';
import { matchesLabels } from '../containers/list.ts';
import type { Services } from '../services.ts';
import { parseUntilFilter } from '../until-filter.ts';

/** Keys the `filters` parameter of prune accepts. */
export const NETWORK_PRUNE_FILTER_KEYS: readonly string[] = ['label', 'label!', 'until'];

type NetworkServices = Pick<Services, 'networks' | 'events' | 'logger'>;

let isPruning = false;

/** Removes a network by name, ID or ID prefix. */
export async function removeNetwork(services: NetworkServices, reference: string): Promise<void> {
  const { id } = services.networks.find(reference);
  const { name, driver, configOnly } = services.networks.describe(id);
  await services.networks.remove(id);
  if (!configOnly) services.events.publish('network', 'destroy', id, { name, type: driver });
}

/** Removes the networks nobody uses. Throws `conflict` while another prune runs. */
export async function pruneNetworks(
  services: NetworkServices,
  filters: ReadonlyMap<string, readonly string[]>,
): Promise<{ NetworksDeleted: string[] | null }> {
  if (isPruning) throw new GantryError('conflict', 'a prune operation is already running');
  isPruning = true;
  try {
    const untilMs = parseUntilFilter(filters);
    const deleted: string[] = [];
    for (const { id } of services.networks.list()) {
      const network = services.networks.describe(id);
      if (!isPrunable(network, filters, untilMs)) continue;
      try {
        await removeNetwork(services, id);
        deleted.push(network.name);
      } catch (error) {
        services.logger.warn('could not remove network', { network: network.name, error: errorMessage(error) });
      }
    }
    services.events.publish('network', 'prune', '', { reclaimed: '0' });
    return { NetworksDeleted: deleted.length === 0 ? null : deleted };
  } finally {
    isPruning = false;
  }
}

function isPrunable(
  network: NetworkDetails,
  filters: ReadonlyMap<string, readonly string[]>,
  untilMs: number | undefined,
): boolean {
  if (network.configOnly || isPredefined(network.name) || network.endpoints.length > 0) return false;
  if (untilMs !== undefined && Date.parse(network.createdAt) > untilMs) return false;
  const without = filters.get('label!') ?? [];
  return (
    matchesLabels(network.labels, filters.get('label') ?? []) &&
    !without.some((label) => matchesLabels(network.labels, [label]))
  );
}
