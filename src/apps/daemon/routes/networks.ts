/** Network routes that read: list and inspect. */
import { inspectNetwork, listNetworks, NETWORK_FILTER_KEYS } from '#engine/networks/networks.ts';
import type { Services } from '#engine/services.ts';
import type { Route } from '../http/route.ts';

/** The routes. */
export function networkRoutes(services: Services): Route[] {
  return [
    {
      method: 'GET',
      path: '/networks',
      handler: (context) => context.json(listNetworks(services, context.query.filters(NETWORK_FILTER_KEYS))),
    },
    {
      method: 'GET',
      path: '/networks/{id}',
      handler: (context) =>
        context.json(inspectNetwork(services, context.params['id'] ?? '', context.query.text('scope'))),
    },
  ];
}
