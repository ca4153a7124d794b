/**
 * The network side of a start: which namespace the container gets, the endpoints in it, and the files that
 * tell it about names (/etc/hosts, /etc/hostname, /etc/resolv.conf).
 */
import { copyFileSync, existsSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import type { ContainerRecord, SandboxRecord } from '#services/containers/container.ts';
import { isAlive } from '#services/containers/container.ts';
import type { LiveContainer } from '#services/containers/live.ts';
import type { Endpoint, NetworkDetails } from '#services/networks/contract.ts';
import { errorMessage, GantryError, wrapError } from '#types/errors.ts';
import type { EndpointSettings } from '#wire/engine.ts';
import type { Services } from '../services.ts';
import { isUserDefined } from './create/validate.ts';
import { checkEndpointSettings, dnsNames, endpointRequest } from './endpoint-request.ts';
import { hostsFile } from './hosts-file.ts';
import { type Link, resolveLinks } from './links.ts';
import { dnsOf, extraHosts, type NameFiles, nameFiles, refreshLinkingHosts } from './name-files.ts';
import { attachResolver } from './resolver.ts';

/** Where the container's network is, and its name files on the host. */
export interface ContainerNetwork extends NameFiles {
  /** Path of the namespace to join; undefined: the host's. */
  readonly namespacePath: string | undefined;
  /** Saved with the container when it has endpoints of its own. */
  readonly kept: SandboxRecord | undefined;
  /** The wanted networks, completed with what is known of them. */
  readonly networks: ContainerRecord['networks'];
  readonly hostname: string;
  /** `ALIAS_PORT_…` variables of legacy links. */
  readonly linkEnvironment: readonly string[];
}

/** Makes the container's network. On failure nothing of it remains. */
export async function joinNetwork(services: Services, record: ContainerRecord): Promise<ContainerNetwork> {
  const mode = record.hostConfig.NetworkMode ?? 'default';
  if (mode.startsWith('container:')) return joinOther(services, record, mode.slice('container:'.length));
  if (mode === 'host') return joinHost(services, record);
  return joinOwn(services, record);
}

function joinOther(services: Services, record: ContainerRecord, reference: string): ContainerNetwork {
  const donor = findDonor(services, reference);
  if (donor.id === record.id) throw new GantryError('system', 'cannot join own network namespace');
  const { state } = donor;
  if (!isAlive(state)) {
    throw new GantryError(
      'conflict',
      `cannot join network namespace of a non running container: container ${donor.record.name} is ${state.status}`,
    );
  }
  const directory = services.settings.paths.container(donor.id);
  return {
    namespacePath: donor.record.sandbox?.path || `/proc/${state.pid}/ns/net`,
    kept: undefined,
    networks: record.networks,
    hostname: donor.record.config.Hostname ?? '',
    hostsPath: join(directory, 'hosts'),
    hostnamePath: join(directory, 'hostname'),
    resolvConfPath: join(directory, 'resolv.conf'),
    linkEnvironment: [],
  };
}

function findDonor(services: Pick<Services, 'containers'>, reference: string): LiveContainer {
  try {
    return services.containers.find(reference);
  } catch (error) {
    throw new GantryError('notFound', `joining network namespace of container: ${errorMessage(error)}`, {
      cause: error,
    });
  }
}

async function joinHost(services: Services, record: ContainerRecord): Promise<ContainerNetwork> {
  const files = nameFiles(services, record);
  const extra = extraHosts(services, record);
  if (existsSync('/etc/hosts')) {
    copyFileSync('/etc/hosts', files.hostsPath);
    if (extra.length > 0)
      writeFileSync(files.hostsPath, extra.map(({ ip, names }) => `${ip}\t${names}\n`).join(''), { flag: 'a' });
  } else {
    writeFileSync(files.hostsPath, hostsFile({ own: [], hostname: '', domainname: '', extra }));
  }
  writeFileSync(files.hostnamePath, `${record.config.Hostname}\n`);
  writeFileSync(files.resolvConfPath, services.networks.resolvConf({ mode: 'host', ...dnsOf(services, record) }));
  const network = services.networks.describe(services.networks.find('host').id);
  const [name, settings] = wantedNetworks(services, record)[0] ?? ['host', {}];
  const request = endpointRequest(record, network, { settings, links: [] });
  const endpoint = await services.networks.connect({ id: record.id, path: '' }, request);
  publishConnects(services, record, [endpoint]);
  return {
    ...files,
    namespacePath: undefined,
    kept: { id: endpoint.endpointId, path: '', endpoints: [endpoint] },
    networks: { ...record.networks, [name]: { ...settings, NetworkID: network.id } },
    hostname: record.config.Hostname ?? '',
    linkEnvironment: [],
  };
}

async function joinOwn(services: Services, record: ContainerRecord): Promise<ContainerNetwork> {
  await using undo = new AsyncDisposableStack();
  const sandbox = await services.networks.createSandbox(record.id);
  undo.defer(() => services.networks.removeSandbox(record.id));
  const links = resolveLinks(services.containers, record);
  const networks: Record<string, EndpointSettings> = {};
  const wanted = wantedNetworks(services, record);
  try {
    for (const [name, settings] of wanted) {
      const network = services.networks.describe(services.networks.find(name).id);
      networks[network.name] = joinedSettings(record, network, settings);
      checkEndpointSettings(network, settings);
      const linkedIds = links.map(({ container }) => container.id);
      await services.networks.connect(sandbox, endpointRequest(record, network, { settings, links: linkedIds }));
    }
    if (wanted.some(([name]) => isUserDefined(name))) {
      await attachResolver(services, record, sandbox.path);
      undo.defer(() => services.resolver?.detach(record.id));
    }
  } catch (error) {
    throw wrapError('failed to set up container networking', error);
  }
  const endpoints = services.networks.endpoints(record.id);
  const files = writeFiles(services, record, { endpoints, links, names: wanted.map(([name]) => name) });
  publishConnects(services, record, endpoints);
  refreshLinkingHosts(services, record, endpoints);
  undo.move();
  return {
    ...files,
    namespacePath: sandbox.path,
    kept: { id: sandbox.id, path: sandbox.path, endpoints },
    networks,
    hostname: record.config.Hostname ?? '',
    linkEnvironment: links.flatMap((link) => link.environment),
  };
}

/** Settings as they are kept: with the network's identity, and the names given there. */
export function joinedSettings(
  record: ContainerRecord,
  network: NetworkDetails,
  settings: EndpointSettings,
): EndpointSettings {
  const names = isUserDefined(network.name) ? { DNSNames: dnsNames(record, settings.Aliases ?? []) } : {};
  return { ...settings, NetworkID: network.id, ...names };
}

function writeFiles(
  services: Services,
  record: ContainerRecord,
  joined: { endpoints: readonly Endpoint[]; links: readonly Link[]; names: readonly string[] },
): NameFiles {
  const files = nameFiles(services, record);
  const hostname = record.config.Hostname ?? '';
  const own = joined.endpoints
    .flatMap(({ ipAddress, ipv6Address }) => [ipAddress, ipv6Address])
    .filter((ip) => ip !== '');
  const linkLines = joined.links.map(({ ip, names }) => ({ ip, names: names.join(' ') }));
  const extra = [...extraHosts(services, record), ...linkLines];
  writeFileSync(files.hostsPath, hostsFile({ own, hostname, domainname: record.config.Domainname ?? '', extra }));
  writeFileSync(files.hostnamePath, `${hostname}\n`);
  const isResolved = services.resolver !== undefined && joined.names.some(isUserDefined);
  const mode = isResolved ? 'resolver' : 'bridge';
  writeFileSync(files.resolvConfPath, services.networks.resolvConf({ mode, ...dnsOf(services, record) }));
  return files;
}

/** Publishes one `connect` event an endpoint. */
export function publishConnects(
  services: Pick<Services, 'events' | 'networks'>,
  record: ContainerRecord,
  endpoints: readonly Endpoint[],
): void {
  for (const { networkId, networkName } of endpoints) {
    const type = services.networks.find(networkId).driver;
    services.events.publish('network', 'connect', networkId, { container: record.id, name: networkName, type });
  }
}

/** Networks the container wants to be in, the one its mode names first: that gets the first interface. */
function wantedNetworks(services: Pick<Services, 'networks'>, record: ContainerRecord): [string, EndpointSettings][] {
  if (record.hasLeftNetworks === true) return [];
  const mode = record.hostConfig.NetworkMode ?? 'default';
  const primary = canonicalName(services, mode === 'default' ? 'bridge' : mode);
  const entries = Object.entries(record.networks).map(([name, settings]): [string, EndpointSettings] => [
    name === 'default' ? 'bridge' : name,
    settings,
  ]);
  if (entries.length === 0) return [[primary, {}]];
  return entries.sort(([a], [b]) => Number(b === primary) - Number(a === primary));
}

/** The name of a network given by name or ID; as given when there is none yet. */
export function canonicalName(services: Pick<Services, 'networks'>, reference: string): string {
  try {
    return services.networks.find(reference).name;
  } catch {
    return reference;
  }
}
