/** System routes: ping, version, info, events, df, auth. */

import type { Services } from '#engine/services.ts';
import { type DataUsageKind, dataUsage } from '#engine/system/data-usage.ts';
import { type InfoSources, systemInfo } from '#engine/system/info.ts';
import { systemVersion } from '#engine/system/version.ts';
import type { EngineEvent } from '#services/events/events.ts';
import { errorMessage, GantryError } from '#types/errors.ts';
import { parseTimestamp } from '#types/timestamp.ts';
import type { ApiVersion, Query, Route, RouteContext } from '../http/route.ts';

/** What these routes need beside the services. */
export interface SystemRouteOptions {
  /** BuildKit's number: `1` offers the classic builder. */
  readonly builderVersion: string;
  readonly info: InfoSources;
}

const DATA_USAGE_KINDS: readonly string[] = ['container', 'image', 'volume', 'build-cache'];

/** The routes. */
export function systemRoutes(services: Services, options: SystemRouteOptions): Route[] {
  const ping = (context: RouteContext): void => {
    const { response } = context;
    response.setHeader('Builder-Version', options.builderVersion);
    response.setHeader('Swarm', 'inactive');
    response.setHeader('Cache-Control', 'no-cache, no-store, must-revalidate');
    response.setHeader('Pragma', 'no-cache');
    if (context.request.method === 'HEAD') {
      response.setHeader('Content-Type', 'text/plain; charset=utf-8');
      response.setHeader('Content-Length', '0');
      context.empty(200);
    } else context.text('OK');
  };
  return [
    { method: 'GET', path: '/_ping', handler: ping },
    { method: 'HEAD', path: '/_ping', handler: ping },
    { method: 'GET', path: '/version', handler: (context) => context.json(systemVersion(services.settings.current())) },
    {
      method: 'GET',
      path: '/info',
      handler: (context) => context.json(systemInfo(services, options.info, context.version.minor)),
    },
    { method: 'GET', path: '/events', handler: (context) => events(services, context) },
    { method: 'GET', path: '/system/df', handler: (context) => df(services, context) },
  ];
}

async function events(services: Services, context: RouteContext): Promise<void> {
  const { query } = context;
  const sinceNs = eventTime(query, 'since');
  const untilNs = eventTime(query, 'until');
  if (sinceNs !== undefined && untilNs !== undefined && sinceNs > untilNs) {
    throw new GantryError(
      'invalid',
      `\`since\` time (${query.text('since')}) cannot be after \`until\` time (${query.text('until')})`,
    );
  }
  // Compat: names that mean nothing here are let pass, and filter nothing.
  const filters = query.filters();
  const source = services.events.stream({ sinceNs, untilNs, filters }, context.signal);
  const lines = context.jsonLines();
  for await (const event of source) {
    if (event.Type === 'image' && event.Action === 'create' && !context.version.atLeast(46)) continue;
    await lines.write(eventForVersion(event, context.version));
  }
  lines.end();
}

function eventTime(query: Query, key: string): bigint | undefined {
  const text = query.text(key);
  if (text === '') return undefined;
  try {
    return parseTimestamp(text, Date.now());
  } catch (error) {
    // Compat: 500, not 400.
    throw new GantryError('system', errorMessage(error), { cause: error });
  }
}

/** The wire form: below API 1.52 container and image events also carry status, id and from. */
function eventForVersion(event: EngineEvent, version: ApiVersion): object {
  const legacy =
    version.atLeast(52) || (event.Type !== 'container' && event.Type !== 'image')
      ? {}
      : {
          status: event.Action,
          id: event.Actor.ID,
          ...(event.Type === 'container' ? { from: event.Actor.Attributes['image'] ?? '' } : {}),
        };
  const { timeNano, ...rest } = event;
  return { ...legacy, ...rest, timeNano: rawNumber(timeNano) };
}

/** A 64-bit integer in JSON: JavaScript numbers would round it. */
function rawNumber(value: bigint): unknown {
  return (JSON as unknown as { rawJSON(text: string): unknown }).rawJSON(value.toString());
}

async function df(services: Services, context: RouteContext): Promise<void> {
  const kinds = context.query.all('type');
  for (const kind of kinds) {
    if (!DATA_USAGE_KINDS.includes(kind)) throw new GantryError('invalid', `unknown object type: ${kind}`);
  }
  const wanted = new Set(
    (kinds.length === 0 || !context.version.atLeast(42) ? DATA_USAGE_KINDS : kinds) as DataUsageKind[],
  );
  context.json(await dataUsage(services, wanted, context.version.minor));
}
