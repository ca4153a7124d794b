/** Network routes. */
import { connectNetwork, disconnectNetwork } from '#engine/networks/connect.ts';
import { createNetwork } from '#engine/networks/create.ts';
import { inspectNetwork, listNetworks, NETWORK_FILTER_KEYS } from '#engine/networks/networks.ts';
import { NETWORK_PRUNE_FILTER_KEYS, pruneNetworks, removeNetwork } from '#engine/networks/remove.ts';
import type { Services } from '#engine/services.ts';
import { GantryError } from '#types/errors.ts';
import type { NetworkConnectRequest, NetworkCreateRequest, NetworkDisconnectRequest } from '#wire/engine.ts';
import type { Route, RouteContext } from '../http/route.ts';

// Compat: names may contain slashes.
const ID = '/networks/{id:.*}';
const GO_BOOLEANS = /^(?:1|t|T|TRUE|true|True|0|f|F|FALSE|false|False)$/;

/** The routes. */
export function networkRoutes(services: Services): Route[] {
  return [
    { method: 'GET', path: '/networks', handler: (context) => list(services, context) },
    { method: 'GET', path: ID, handler: (context) => inspect(services, context) },
    { method: 'POST', path: '/networks/create', handler: (context) => create(services, context) },
    {
      method: 'POST',
      path: '/networks/prune',
      since: 25,
      handler: async (context) => {
        context.json(await pruneNetworks(services, context.query.filters(NETWORK_PRUNE_FILTER_KEYS)));
      },
    },
    { method: 'POST', path: `${ID}/connect`, handler: (context) => connect(services, context) },
    { method: 'POST', path: `${ID}/disconnect`, handler: (context) => disconnect(services, context) },
    {
      method: 'DELETE',
      path: ID,
      handler: async (context) => {
        await removeNetwork(services, idOf(context));
        context.empty(204);
      },
    },
  ];
}

function idOf(context: RouteContext): string {
  return context.params['id'] ?? '';
}

async function list(services: Services, context: RouteContext): Promise<void> {
  const filters = context.query.filters(NETWORK_FILTER_KEYS);
  // Compat: before API 1.28 the list named containers.
  context.json(listNetworks(services, filters, !context.version.atLeast(28)));
}

async function inspect(services: Services, context: RouteContext): Promise<void> {
  const verbose = context.query.text('verbose');
  if (verbose !== '' && !GO_BOOLEANS.test(verbose)) {
    throw new GantryError(
      'invalid',
      `invalid value for verbose: ${verbose}: strconv.ParseBool: parsing ${JSON.stringify(verbose)}: invalid syntax`,
    );
  }
  context.json(inspectNetwork(services, idOf(context), context.query.text('scope')));
}

async function create(services: Services, context: RouteContext): Promise<void> {
  const request = await context.body<NetworkCreateRequest>('NetworkCreateRequest');
  // Compat: IPv4 can be switched off since API 1.48.
  const { EnableIPv4: _since48, ...older } = request;
  context.json(await createNetwork(services, context.version.atLeast(48) ? request : older), 201);
}

async function connect(services: Services, context: RouteContext): Promise<void> {
  const request = await context.body<NetworkConnectRequest>('NetworkConnectRequest');
  await connectNetwork(services, {
    network: idOf(context),
    container: request.Container ?? '',
    settings: request.EndpointConfig ?? {},
  });
  context.empty(200);
}

async function disconnect(services: Services, context: RouteContext): Promise<void> {
  const request = await context.body<NetworkDisconnectRequest>('NetworkDisconnectRequest');
  await disconnectNetwork(services, {
    network: idOf(context),
    container: request.Container ?? '',
    force: request.Force ?? false,
  });
  context.empty(200);
}
