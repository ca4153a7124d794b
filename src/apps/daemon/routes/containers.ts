/** Container life-cycle routes: list, create, inspect, start … remove, wait, update, rename, prune. */
import { createContainer } from '#engine/containers/create.ts';
import { inspectContainer } from '#engine/containers/inspect.ts';
import { killContainer } from '#engine/containers/kill.ts';
import { CONTAINER_FILTER_KEYS, listContainers } from '#engine/containers/list.ts';
import { pauseContainer, unpauseContainer } from '#engine/containers/pause.ts';
import { pruneContainers } from '#engine/containers/prune.ts';
import { removeContainer } from '#engine/containers/remove.ts';
import { renameContainer } from '#engine/containers/rename.ts';
import { resizeContainer } from '#engine/containers/resize.ts';
import { restartContainer } from '#engine/containers/restart.ts';
import { startContainer } from '#engine/containers/start.ts';
import { type StopOptions, stopContainer } from '#engine/containers/stop.ts';
import { topContainer } from '#engine/containers/top.ts';
import { updateContainer } from '#engine/containers/update.ts';
import { parseWaitCondition, waitForCondition } from '#engine/containers/wait.ts';
import type { Services } from '#engine/services.ts';
import { GantryError } from '#types/errors.ts';
import type { ContainerCreateRequest, ContainerUpdateRequest } from '#wire/engine.ts';
import type { Query, Route, RouteContext } from '../http/route.ts';
import { inspectForVersion, summaryForVersion } from './container-versions.ts';

const ID = '/containers/{id}';

/** The routes. */
export function containerRoutes(services: Services): Route[] {
  return [
    { method: 'GET', path: '/containers/json', handler: (context) => list(services, context) },
    { method: 'POST', path: '/containers/create', handler: (context) => create(services, context) },
    { method: 'POST', path: '/containers/prune', since: 25, handler: (context) => prune(services, context) },
    { method: 'GET', path: `${ID}/json`, handler: (context) => inspect(services, context) },
    { method: 'GET', path: `${ID}/top`, handler: (context) => top(services, context) },
    { method: 'POST', path: `${ID}/start`, handler: (context) => start(services, context) },
    {
      method: 'POST',
      path: `${ID}/stop`,
      handler: async (context) => {
        await stopContainer(services, idOf(context), stopOptions(context.query));
        context.empty(204);
      },
    },
    {
      method: 'POST',
      path: `${ID}/restart`,
      handler: async (context) => {
        await restartContainer(services, idOf(context), stopOptions(context.query));
        context.empty(204);
      },
    },
    {
      method: 'POST',
      path: `${ID}/kill`,
      handler: async (context) => {
        await killContainer(services, idOf(context), context.query.text('signal'));
        context.empty(204);
      },
    },
    {
      method: 'POST',
      path: `${ID}/pause`,
      handler: async (context) => {
        await pauseContainer(services, idOf(context));
        context.empty(204);
      },
    },
    {
      method: 'POST',
      path: `${ID}/unpause`,
      handler: async (context) => {
        await unpauseContainer(services, idOf(context));
        context.empty(204);
      },
    },
    {
      method: 'POST',
      path: `${ID}/rename`,
      handler: async (context) => {
        await renameContainer(services, idOf(context), context.query.text('name'));
        context.empty(204);
      },
    },
    { method: 'POST', path: `${ID}/resize`, handler: (context) => resize(services, context) },
    { method: 'POST', path: `${ID}/update`, handler: (context) => update(services, context) },
    { method: 'POST', path: `${ID}/wait`, handler: (context) => wait(services, context) },
    {
      method: 'DELETE',
      path: ID,
      handler: async (context) => {
        const { query } = context;
        await removeContainer(services, idOf(context), {
          force: query.flag('force'),
          removeVolumes: query.flag('v'),
          link: query.flag('link'),
        });
        context.empty(204);
      },
    },
  ];
}

/** The path's container reference. */
export function idOf(context: RouteContext): string {
  return context.params['id'] ?? '';
}

async function list(services: Services, context: RouteContext): Promise<void> {
  const { query, version } = context;
  const summaries = await listContainers(services, {
    all: query.flag('all'),
    limit: query.plainInteger('limit'),
    size: query.flag('size'),
    since: query.text('since'),
    before: query.text('before'),
    filters: query.filters(CONTAINER_FILTER_KEYS),
  });
  context.json(summaries.map((summary) => summaryForVersion(summary, version)));
}

async function create(services: Services, context: RouteContext): Promise<void> {
  const { query, version } = context;
  const request = await context.optionalBody<ContainerCreateRequest>('ContainerCreateRequest');
  if (request === undefined) throw new GantryError('invalid', 'invalid JSON: got EOF while reading request body');
  const created = await createContainer(services, {
    name: query.text('name'),
    platform: query.text('platform'),
    request,
    version,
  });
  context.json({ Id: created.id, Warnings: created.warnings }, 201);
}

async function inspect(services: Services, context: RouteContext): Promise<void> {
  const found = await inspectContainer(services, idOf(context), { size: context.query.flag('size') });
  context.json(inspectForVersion(found, context.version));
}

async function top(services: Services, context: RouteContext): Promise<void> {
  context.json(await topContainer(services, idOf(context), context.query.text('ps_args'), context.signal));
}

/** The shortest object with a field has this many. */
const MAX_IGNORED_BODY_BYTES = 7;

async function start(services: Services, context: RouteContext): Promise<void> {
  const length = Number(context.request.headers['content-length'] ?? 0);
  // Compat: API 1.24 took away the HostConfig body; one too short to say anything (`{"x":1}`) is still let through.
  if (length > MAX_IGNORED_BODY_BYTES) {
    throw new GantryError(
      'invalid',
      'starting container with non-empty request body was deprecated since API v1.22 and removed in v1.24',
    );
  }
  if (context.query.text('checkpoint') !== '') {
    throw new GantryError('invalid', 'checkpoint is only supported in experimental mode');
  }
  await startContainer(services, idOf(context));
  context.empty(204);
}

function stopOptions(query: Query): StopOptions {
  const timeout = query.text('t');
  return {
    signal: query.text('signal'),
    timeoutSeconds: timeout === '' ? undefined : query.plainInteger('t'),
  };
}

async function resize(services: Services, context: RouteContext): Promise<void> {
  await resizeContainer(services, idOf(context), sizeOf(context.query));
  context.empty(200);
}

/** The `h` and `w` parameters, with docker's messages. */
export function sizeOf(query: Query): { height: number; width: number } {
  return { height: dimension(query, 'h', 'height'), width: dimension(query, 'w', 'width') };
}

function dimension(query: Query, key: string, label: string): number {
  const text = query.text(key);
  if (!/^[+-]?\d+$/.test(text)) throw new GantryError('invalid', `invalid resize ${label} "${text}": invalid syntax`);
  const value = Number(text);
  if (value < 0 || value > 0xffff_ffff) {
    throw new GantryError('invalid', `invalid resize ${label} "${text}": value out of range`);
  }
  return value;
}

async function update(services: Services, context: RouteContext): Promise<void> {
  const request = (await context.optionalBody<ContainerUpdateRequest>('ContainerUpdateRequest')) ?? {};
  const warnings = await updateContainer(services, idOf(context), request, context.version);
  context.json({ Warnings: warnings });
}

async function wait(services: Services, context: RouteContext): Promise<void> {
  // Compat: before 1.30 the answer's head came only with its body, and conditions did not exist.
  const legacy = !context.version.atLeast(30);
  const condition = legacy ? 'not-running' : parseWaitCondition(context.query.text('condition'));
  const container = services.containers.find(idOf(context));
  const result = waitForCondition(container, condition, context.signal);
  result.catch(() => undefined);
  if (!legacy) {
    context.response.writeHead(200, { 'Content-Type': 'application/json' });
    context.response.flushHeaders();
  }
  const { exitCode, error } = await result;
  const body = { StatusCode: exitCode, ...(error === '' ? {} : { Error: { Message: error } }) };
  if (legacy) context.json(body);
  else context.response.end(`${JSON.stringify(body)}\n`);
}

async function prune(services: Services, context: RouteContext): Promise<void> {
  const pruned = await pruneContainers(services, context.query.filters(['label', 'label!', 'until']));
  context.json(pruned);
}
