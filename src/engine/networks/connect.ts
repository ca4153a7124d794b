/**
 * `docker network connect` and `disconnect`. A container that does not run only remembers; one that runs gets or
 * loses its interface, and its files and the resolver follow.
 */
import { writeFileSync } from 'node:fs';
import type { ContainerRecord } from '#services/containers/container.ts';
import { isAlive } from '#services/containers/container.ts';
import type { LiveContainer } from '#services/containers/live.ts';
import type { Endpoint, NetworkDetails } from '#services/networks/contract.ts';
import { GantryError } from '#types/errors.ts';
import type { EndpointSettings } from '#wire/engine.ts';
import { isUserDefined } from '../containers/create/validate.ts';
import { checkEndpointSettings, endpointRequest } from '../containers/endpoint-request.ts';
import { dnsOf, nameFiles, updateOwnHosts } from '../containers/name-files.ts';
import { attachResolver } from '../containers/resolver.ts';
import { canonicalName, joinedSettings, publishConnects } from '../containers/sandbox.ts';
import type { Services } from '../services.ts';

const SHARED_MESSAGE =
  'container sharing network namespace with another container or host cannot be connected to any other network';

/** Connects a container, by any reference, to a network, by any reference. */
export async function connectNetwork(
  services: Services,
  options: { readonly network: string; readonly container: string; readonly settings: EndpointSettings },
): Promise<void> {
  const container = services.containers.find(options.container);
  using _held = await container.lock.acquire();
  checkChangeable(container);
  const { record } = container;
  const mode = record.hostConfig.NetworkMode ?? 'default';
  if (mode.startsWith('container:')) throw new GantryError('invalid', SHARED_MESSAGE);
  const network = services.networks.describe(services.networks.find(options.network).id);
  const { settings } = options;
  checkEndpointSettings(network, settings);
  checkCombination(services, record, network);
  if (isAlive(container.state)) return connectRunning(services, container, { network, settings });
  const networks = { ...record.networks };
  // Compat: connecting twice changes nothing while it does not run.
  networks[network.name] ??= settings;
  container.update({ networks, hasLeftNetworks: false });
}

function checkChangeable(container: LiveContainer): void {
  const { status } = container.state;
  if (status !== 'removing' && status !== 'dead' && !container.removalInProgress) return;
  throw new GantryError(
    'system',
    `Container ${container.id} is marked for removal and cannot be connected or disconnected to the network`,
  );
}

/** Which networks go together. */
function checkCombination(services: Services, record: ContainerRecord, network: NetworkDetails): void {
  const mode = record.hostConfig.NetworkMode ?? 'default';
  if (mode !== 'host' && network.driver === 'host') {
    throw new GantryError(
      'invalid',
      'cannot connect container to host network - container must be created in host network mode',
    );
  }
  for (const name of Object.keys(record.networks)) {
    if (name === network.name) return;
    const other = knownDriver(services, name);
    if (other === 'host' || network.driver === 'host') throw new GantryError('invalid', SHARED_MESSAGE);
    if (name === 'none' || network.name === 'none') {
      throw new GantryError(
        'invalid',
        'container cannot be connected to multiple networks with one of the networks in private (none) mode',
      );
    }
  }
}

function knownDriver(services: Services, name: string): string {
  try {
    return services.networks.find(name).driver;
  } catch {
    return '';
  }
}

async function connectRunning(
  services: Services,
  container: LiveContainer,
  { network, settings }: { network: NetworkDetails; settings: EndpointSettings },
): Promise<void> {
  const { record } = container;
  const { sandbox } = record;
  if (sandbox === undefined || sandbox.path === '') throw new GantryError('invalid', SHARED_MESSAGE);
  await using undo = new AsyncDisposableStack();
  const endpoint = await services.networks.connect(sandbox, endpointRequest(record, network, { settings, links: [] }));
  undo.defer(() => services.networks.disconnect(record.id, network.id));
  const isFirst =
    isUserDefined(network.name) && !sandbox.endpoints.some(({ networkName }) => isUserDefined(networkName));
  if (isFirst) await attachResolver(services, record, sandbox.path);
  const endpoints = services.networks.endpoints(record.id);
  const networks = { ...record.networks, [network.name]: joinedSettings(record, network, settings) };
  container.update({ sandbox: { ...sandbox, endpoints }, networks, hasLeftNetworks: false });
  undo.move();
  updateOwnHosts(services, record, { joined: endpoint });
  if (isFirst && services.resolver !== undefined) useResolver(services, record);
  publishConnects(services, record, [endpoint]);
}

/** From now on the container asks the embedded resolver. */
function useResolver(services: Services, record: ContainerRecord): void {
  const { resolvConfPath } = nameFiles(services, record);
  writeFileSync(resolvConfPath, services.networks.resolvConf({ mode: 'resolver', ...dnsOf(services, record) }));
}

/** Disconnects a container. `force` also works when the network is gone. */
export async function disconnectNetwork(
  services: Services,
  options: { readonly network: string; readonly container: string; readonly force: boolean },
): Promise<void> {
  const container = findForDisconnect(services, options);
  using _held = await container.lock.acquire();
  const { record } = container;
  const isKnown = knownDriver(services, options.network) !== '';
  if (isAlive(container.state) && (isKnown || !options.force))
    return disconnectRunning(services, container, options.network);
  checkChangeable(container);
  const name = canonicalName(services, options.network);
  if (!(name in record.networks))
    throw new GantryError('system', `container ${record.id} is not connected to the network ${name}`);
  forget(container, name, record.sandbox?.endpoints);
}

/** Compat: with force, an endpoint may be named whose container is gone; none of ours outlives its container. */
function findForDisconnect(
  services: Services,
  options: { readonly network: string; readonly container: string; readonly force: boolean },
): LiveContainer {
  try {
    return services.containers.find(options.container);
  } catch (error) {
    if (!options.force) throw error;
    services.networks.find(options.network);
    throw new GantryError('notFound', `endpoint ${options.container} not found`, { cause: error });
  }
}

async function disconnectRunning(services: Services, container: LiveContainer, reference: string): Promise<void> {
  const { record } = container;
  const network = services.networks.find(reference);
  if (record.hostConfig.NetworkMode === 'host' && network.driver === 'host') {
    throw new GantryError(
      'invalid',
      'cannot disconnect container from host network - container was created in host network mode',
    );
  }
  const left = services.networks.endpoints(record.id).find(({ networkId }) => networkId === network.id);
  await services.networks.disconnect(record.id, network.id);
  const endpoints = services.networks.endpoints(record.id);
  forget(container, network.name, endpoints);
  // The resolver stays although no network may need it any more: the container's resolv.conf still names it.
  updateOwnHosts(services, record, left === undefined ? {} : { left });
  services.events.publish('network', 'disconnect', network.id, {
    container: record.id,
    name: network.name,
    type: network.driver,
  });
}

function forget(container: LiveContainer, name: string, endpoints: readonly Endpoint[] | undefined): void {
  const { sandbox, networks } = container.record;
  const { [name]: _left, ...kept } = networks;
  container.update({
    networks: kept,
    hasLeftNetworks: Object.keys(kept).length === 0,
    ...(sandbox === undefined || endpoints === undefined ? {} : { sandbox: { ...sandbox, endpoints } }),
  });
}
