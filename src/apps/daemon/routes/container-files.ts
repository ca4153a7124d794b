/** Routes about a container's file system: changes, export, archive (`docker cp`). */
import { archiveStat, exportContainer, readArchive, writeArchive } from '#engine/containers/archive.ts';
import { containerChanges } from '#engine/containers/changes.ts';
import type { Services } from '#engine/services.ts';
import { GantryError } from '#types/errors.ts';
import { bodyBytes } from '../http/body.ts';
import type { Route, RouteContext } from '../http/route.ts';
import { idOf } from './containers.ts';

const TAR = 'application/x-tar';
const STAT_HEADER = 'X-Docker-Container-Path-Stat';

/** The routes. */
export function containerFileRoutes(services: Services): Route[] {
  return [
    {
      method: 'GET',
      path: '/containers/{id}/changes',
      handler: async (context) => context.json(await containerChanges(services, idOf(context))),
    },
    {
      method: 'GET',
      path: '/containers/{id}/export',
      handler: async (context) => {
        await using source = await exportContainer(services, idOf(context));
        await context.bytes('application/octet-stream', source.stream);
      },
    },
    { method: 'HEAD', path: '/containers/{id}/archive', handler: (context) => head(services, context) },
    { method: 'GET', path: '/containers/{id}/archive', handler: (context) => get(services, context) },
    { method: 'PUT', path: '/containers/{id}/archive', handler: (context) => put(services, context) },
  ];
}

function pathOf(context: RouteContext): string {
  const path = context.query.text('path');
  if (path === '') throw new GantryError('invalid', 'bad parameter: pathcannot be empty');
  return path;
}

async function head(services: Services, context: RouteContext): Promise<void> {
  const stat = await archiveStat(services, idOf(context), pathOf(context));
  context.response.setHeader(STAT_HEADER, encodeStat(stat));
  context.empty(200);
}

async function get(services: Services, context: RouteContext): Promise<void> {
  await using archive = await readArchive(services, idOf(context), pathOf(context));
  context.response.setHeader(STAT_HEADER, encodeStat(archive.stat));
  await context.bytes(TAR, archive.stream);
}

async function put(services: Services, context: RouteContext): Promise<void> {
  const { query } = context;
  await writeArchive(
    services,
    idOf(context),
    {
      path: pathOf(context),
      noOverwriteDirNonDir: query.flag('noOverwriteDirNonDir'),
      copyOwner: query.flag('copyUIDGID'),
      source: bodyBytes(context.request),
    },
    context.signal,
  );
  context.empty(200);
}

function encodeStat(stat: object): string {
  return Buffer.from(JSON.stringify(stat)).toString('base64');
}
