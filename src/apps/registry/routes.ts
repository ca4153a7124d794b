/** Which operation of the distribution-spec a path is, and what it needs of the caller. */
import type { Action, RepositoryName } from '#services/registry/contract.ts';
import { parseRepositoryName } from '#services/registry/names.ts';

/** The kinds of paths; metrics count by them. */
export type RouteKind = 'base' | 'catalog' | 'tags' | 'manifest' | 'uploads' | 'upload' | 'blob' | 'referrers';

/** A path below /v2/. */
export interface Route {
  readonly kind: RouteKind;
  /** Set for all but `base` and `catalog`. */
  readonly repository: RepositoryName | undefined;
  /** The last part: tag, digest or upload ID; not checked. */
  readonly reference: string;
}

const PATTERNS: readonly (readonly [RouteKind, RegExp])[] = [
  ['base', /^\/v2\/?$/],
  ['catalog', /^\/v2\/_catalog$/],
  ['tags', /^\/v2\/(.+)\/tags\/list$/],
  ['manifest', /^\/v2\/(.+)\/manifests\/([^/]+)$/],
  ['referrers', /^\/v2\/(.+)\/referrers\/([^/]+)$/],
  ['uploads', /^\/v2\/(.+)\/blobs\/uploads\/?$/],
  ['upload', /^\/v2\/(.+)\/blobs\/uploads\/([^/]+)$/],
  ['blob', /^\/v2\/(.+)\/blobs\/([^/]+)$/],
];

const METHODS: Readonly<Record<RouteKind, Readonly<Record<string, Action | undefined>>>> = {
  base: { GET: undefined, HEAD: undefined },
  catalog: { GET: undefined, HEAD: undefined },
  tags: { GET: 'pull', HEAD: 'pull' },
  manifest: { GET: 'pull', HEAD: 'pull', PUT: 'push', DELETE: 'delete' },
  referrers: { GET: 'pull', HEAD: 'pull' },
  uploads: { POST: 'push' },
  upload: { GET: 'push', HEAD: 'push', PATCH: 'push', PUT: 'push', DELETE: 'push' },
  blob: { GET: 'pull', HEAD: 'pull', DELETE: 'delete' },
};

/** The route of a decoded path; undefined when there is none. Throws NAME_INVALID. */
export function matchRoute(path: string): Route | undefined {
  for (const [kind, pattern] of PATTERNS) {
    const match = pattern.exec(path);
    if (match === null) continue;
    const [, name, reference = ''] = match;
    return { kind, repository: name === undefined ? undefined : parseRepositoryName(name), reference };
  }
  return undefined;
}

/** Methods a route has, with the action each needs. */
export function methodsOf(route: Route): Readonly<Record<string, Action | undefined>> {
  return METHODS[route.kind];
}
