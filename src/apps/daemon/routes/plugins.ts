/** Plugins: none can be installed yet, so the list is empty and no name is found; everything else is 501 by name. */
import { GantryError } from '#types/errors.ts';
import type { Route } from '../http/route.ts';

/** The routes. `docker inspect` asks for a plugin last, and must hear that there is none. */
export function pluginRoutes(): Route[] {
  return [
    {
      method: 'GET',
      path: '/plugins',
      handler: (context) => {
        context.query.filters(['capability', 'enabled']);
        context.json([]);
      },
    },
    {
      method: 'GET',
      path: '/plugins/{name:.*}/json',
      handler: ({ params }) => {
        throw new GantryError('notFound', `plugin "${params['name'] ?? ''}" not found`);
      },
    },
  ];
}
