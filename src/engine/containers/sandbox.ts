/**
 * The network side of a start: which namespace the container gets, the endpoints in it, and the files that
 * tell it about names (/etc/hosts, /etc/hostname, /etc/resolv.conf).
 */
import { copyFileSync, existsSync, mkdirSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import type { ContainerRecord, SandboxRecord } from '#services/containers/container.ts';
import { isAlive } from '#services/containers/container.ts';
import type { LiveContainer } from '#services/containers/live.ts';
import type { Endpoint } from '#services/networks/contract.ts';
import { parsePublishRequests } from '#services/networks/ports.ts';
import { errorMessage, GantryError, wrapError } from '#types/errors.ts';
import type { Services } from '../services.ts';
import { hostsFile } from './hosts-file.ts';
import { resolveLinks } from './links.ts';

/** Where the container's network is, and its name files on the host. */
export interface ContainerNetwork {
  /** Path of the namespace to join; undefined: the host's. */
  readonly namespacePath: string | undefined;
  /** Saved with the container when it has a sandbox of its own. */
  readonly kept: SandboxRecord | undefined;
  readonly hostname: string;
  readonly hostsPath: string;
  readonly hostnamePath: string;
  readonly resolvConfPath: string;
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
    namespacePath: donor.record.sandbox?.path ?? `/proc/${state.pid}/ns/net`,
    kept: undefined,
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

function joinHost(services: Services, record: ContainerRecord): ContainerNetwork {
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
  const network = services.networks.find('host');
  services.events.publish('network', 'connect', network.id, { container: record.id, name: 'host', type: 'host' });
  return {
    ...files,
    namespacePath: undefined,
    kept: undefined,
    hostname: record.config.Hostname ?? '',
    linkEnvironment: [],
  };
}

async function joinOwn(services: Services, record: ContainerRecord): Promise<ContainerNetwork> {
  await using undo = new AsyncDisposableStack();
  const sandbox = await services.networks.createSandbox(record.id);
  undo.defer(() => services.networks.removeSandbox(record.id));
  const links = resolveLinks(services.containers, record);
  const endpoints: Endpoint[] = [];
  for (const [name, wanted] of wantedNetworks(record)) {
    if (name === 'none') continue;
    try {
      endpoints.push(
        await services.networks.connect(sandbox, {
          network: name,
          containerId: record.id,
          containerName: record.name,
          ...(wanted.MacAddress ? { macAddress: wanted.MacAddress } : {}),
          ...(wanted.IPAMConfig?.IPv4Address ? { ipv4Address: wanted.IPAMConfig.IPv4Address } : {}),
          aliases: wanted.Aliases ?? [],
          publish: parsePublishRequests(record.config.ExposedPorts ?? {}, record.hostConfig),
          exposed: exposedPorts(record),
          links: links.map(({ container }) => container.id),
          sysctls: {},
        }),
      );
    } catch (error) {
      throw wrapError('failed to set up container networking', error);
    }
  }
  const files = nameFiles(services, record);
  const hostname = record.config.Hostname ?? '';
  const own = endpoints.flatMap((endpoint) => [endpoint.ipAddress, endpoint.ipv6Address]).filter((ip) => ip !== '');
  const linkLines = links.map(({ ip, names }) => ({ ip, names: names.join(' ') }));
  writeFileSync(
    files.hostsPath,
    hostsFile({
      own,
      hostname,
      domainname: record.config.Domainname ?? '',
      extra: [...extraHosts(services, record), ...linkLines],
    }),
  );
  writeFileSync(files.hostnamePath, `${hostname}\n`);
  writeFileSync(files.resolvConfPath, services.networks.resolvConf({ mode: 'bridge', ...dnsOf(services, record) }));
  publishConnects(services, record, endpoints);
  undo.move();
  return {
    ...files,
    namespacePath: sandbox.path,
    kept: { id: sandbox.id, path: sandbox.path, endpoints },
    hostname,
    linkEnvironment: links.flatMap((link) => link.environment),
  };
}

function publishConnects(services: Services, record: ContainerRecord, endpoints: readonly Endpoint[]): void {
  const joined = endpoints.map((endpoint) => ({
    id: endpoint.networkId as string,
    name: endpoint.networkName,
    type: 'bridge',
  }));
  if (joined.length === 0) joined.push({ id: services.networks.find('none').id, name: 'none', type: 'null' });
  for (const { id, name, type } of joined) {
    services.events.publish('network', 'connect', id, { container: record.id, name, type });
  }
}

/** Networks the container wants to be in; `default` is the default bridge. */
function wantedNetworks(record: ContainerRecord): [string, NonNullable<ContainerRecord['networks'][string]>][] {
  const mode = record.hostConfig.NetworkMode ?? 'default';
  const primary = mode === 'default' ? 'bridge' : mode;
  const entries = Object.entries(record.networks).map(([name, settings]): [string, NonNullable<typeof settings>] => [
    name === 'default' ? 'bridge' : name,
    settings ?? {},
  ]);
  if (!entries.some(([name]) => name === primary)) entries.unshift([primary, {}]);
  return entries;
}

function exposedPorts(record: ContainerRecord): { protocol: 'tcp' | 'udp' | 'sctp'; port: number }[] {
  return Object.keys(record.config.ExposedPorts ?? {}).map((port) => {
    const [number, protocol] = port.split('/');
    return { port: Number(number), protocol: (protocol ?? 'tcp') as 'tcp' | 'udp' | 'sctp' };
  });
}

function nameFiles(
  services: Pick<Services, 'settings'>,
  record: ContainerRecord,
): Pick<ContainerNetwork, 'hostsPath' | 'hostnamePath' | 'resolvConfPath'> {
  const directory = services.settings.paths.container(record.id);
  mkdirSync(directory, { recursive: true, mode: 0o710 });
  return {
    hostsPath: join(directory, 'hosts'),
    hostnamePath: join(directory, 'hostname'),
    resolvConfPath: join(directory, 'resolv.conf'),
  };
}

function extraHosts(services: Services, record: ContainerRecord): { ip: string; names: string }[] {
  return (record.hostConfig.ExtraHosts ?? []).flatMap((line) => {
    const split = line.indexOf(':');
    const name = line.slice(0, split);
    const ip = line.slice(split + 1);
    const addresses = ip === 'host-gateway' ? services.networks.hostGateway() : [ip.replace(/^\[(.*)\]$/, '$1')];
    return addresses.map((address) => ({ ip: address, names: name }));
  });
}

function dnsOf(
  services: Services,
  record: ContainerRecord,
): { servers: readonly string[]; search: readonly string[]; options: readonly string[] } {
  const { hostConfig } = record;
  const { dns, dnsSearch, dnsOptions } = services.settings.current().defaults;
  return {
    servers: hostConfig.Dns?.length ? hostConfig.Dns : dns,
    search: hostConfig.DnsSearch?.length ? hostConfig.DnsSearch : dnsSearch,
    options: hostConfig.DnsOptions?.length ? hostConfig.DnsOptions : dnsOptions,
  };
}
