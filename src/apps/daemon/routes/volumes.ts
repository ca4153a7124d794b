/** Volume routes: list, inspect, create, remove, prune. */
import type { Services } from '#engine/services.ts';
import {
  createVolume,
  listVolumes,
  pruneVolumes,
  removeVolume,
  VOLUME_FILTER_KEYS,
  VOLUME_PRUNE_FILTER_KEYS,
} from '#engine/volumes/volumes.ts';
import type { VolumeCreateOptions } from '#wire/engine.ts';
import type { Route } from '../http/route.ts';

/** The routes. */
export function volumeRoutes(services: Services): Route[] {
  return [
    {
      method: 'GET',
      path: '/volumes',
      handler: (context) =>
        context.json({ Volumes: listVolumes(services, context.query.filters(VOLUME_FILTER_KEYS)), Warnings: null }),
    },
    {
      method: 'POST',
      path: '/volumes/create',
      handler: async (context) => {
        const request = await context.optionalBody<VolumeCreateOptions>('VolumeCreateOptions');
        context.json(await createVolume(services, request ?? {}), 201);
      },
    },
    {
      method: 'POST',
      path: '/volumes/prune',
      since: 25,
      handler: async (context) => {
        const filters = context.query.filters(VOLUME_PRUNE_FILTER_KEYS);
        // Compat: before API 1.42 named volumes were pruned too.
        context.json(await pruneVolumes(services, filters, !context.version.atLeast(42)));
      },
    },
    {
      method: 'GET',
      path: '/volumes/{name}',
      handler: (context) => context.json(services.volumes.get(context.params['name'] ?? '')),
    },
    {
      method: 'DELETE',
      path: '/volumes/{name}',
      handler: async (context) => {
        await removeVolume(services, context.params['name'] ?? '', context.query.flag('force'));
        context.empty(204);
      },
    },
  ];
}
