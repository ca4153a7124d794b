/** Routes for every operation of the Engine API that the given table lacks: 501 with the operation's name. */
import { GantryError } from '#types/errors.ts';
import { OPERATIONS } from '#wire/engine-schema.ts';
import type { Route } from './route.ts';

/** Path parameters of image, plugin and distribution names contain slashes. */
function routePath(path: string): string {
  if (/^\/(images|plugins|distribution)\/\{name\}/.test(path)) return path.replace('{name}', '{name:.*}');
  if (path.startsWith('/networks/{id}')) return path.replace('{id}', '{id:.*}');
  return path;
}

function shapeOf(route: { readonly method: string; readonly path: string }): string {
  return `${route.method} ${route.path.replaceAll(/\{[^}]*\}/g, '{}')}`;
}

/** The operations missing from `routes`, as routes that answer 501. */
export function notBuilt(routes: readonly Route[]): Route[] {
  const built = new Set(routes.map(shapeOf));
  return OPERATIONS.filter((operation) => !built.has(shapeOf(operation))).map((operation) => ({
    method: operation.method as Route['method'],
    path: routePath(operation.path),
    handler: () => {
      throw new GantryError('notImplemented', `${operation.id} is not implemented by this version of Gantry`);
    },
  }));
}
