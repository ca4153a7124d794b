/**
 * The files that tell a container about names: where they are, what goes into them, and their change while it
 * runs. They are mounted one by one, so they are changed in place; what the container added stays.
 */
import { mkdirSync, readFileSync, statSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { type ContainerRecord, isAlive } from '#services/containers/container.ts';
import type { Endpoint } from '#services/networks/contract.ts';
import { errorMessage } from '#types/errors.ts';
import type { Services } from '../services.ts';
import { changeHosts, hostLines } from './hosts-file.ts';
import { legacyLinks, parseLink } from './links.ts';

/** A container may write its files; larger ones are left as they are. */
const HOSTS_MAX_BYTES = 1024 * 1024;

export interface NameFiles {
  readonly hostsPath: string;
  readonly hostnamePath: string;
  readonly resolvConfPath: string;
}

/** Paths of a container's files; their directory is made. */
export function nameFiles(services: Pick<Services, 'settings'>, record: ContainerRecord): NameFiles {
  const directory = services.settings.paths.container(record.id);
  mkdirSync(directory, { recursive: true, mode: 0o710 });
  return {
    hostsPath: join(directory, 'hosts'),
    hostnamePath: join(directory, 'hostname'),
    resolvConfPath: join(directory, 'resolv.conf'),
  };
}

/** Lines of `--add-host`. */
export function extraHosts(
  services: Pick<Services, 'networks'>,
  record: ContainerRecord,
): { ip: string; names: string }[] {
  return (record.hostConfig.ExtraHosts ?? []).flatMap((line) => {
    const split = line.indexOf(':');
    const name = line.slice(0, split);
    const ip = line.slice(split + 1);
    const addresses = ip === 'host-gateway' ? services.networks.hostGateway() : [ip.replace(/^\[(.*)\]$/, '$1')];
    return addresses.map((address) => ({ ip: address, names: name }));
  });
}

/** The container's DNS options, or the daemon's. */
export function dnsOf(
  services: Pick<Services, 'settings'>,
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

/** Adds and removes the container's own addresses while it runs. */
export function updateOwnHosts(
  services: Pick<Services, 'settings' | 'logger'>,
  record: ContainerRecord,
  change: { readonly joined?: Endpoint; readonly left?: Endpoint },
): void {
  const addressesOf = (endpoint: Endpoint | undefined): string[] =>
    endpoint === undefined ? [] : [endpoint.ipAddress, endpoint.ipv6Address].filter((ip) => ip !== '');
  const { Hostname: hostname = '', Domainname: domainname = '' } = record.config;
  const lines = hostLines(addressesOf(change.joined), hostname, domainname);
  editHosts(services, record, (content) => changeHosts(content, { remove: addressesOf(change.left), add: lines }));
}

/** Running containers that link to this one learn its new address. */
export function refreshLinkingHosts(
  services: Pick<Services, 'containers' | 'settings' | 'logger'>,
  record: ContainerRecord,
  endpoints: readonly Endpoint[],
): void {
  const address = endpoints.find(({ networkName }) => networkName === 'bridge')?.ipAddress ?? '';
  if (address === '') return;
  for (const { record: parent, state } of services.containers.all()) {
    if (!isAlive(state) || parent.id === record.id) continue;
    for (const text of legacyLinks(parent)) {
      const [reference, alias] = parseLink(text);
      if (reference !== record.name && reference !== record.id) continue;
      const names = [...new Set([alias, record.config.Hostname ?? '', record.name])].filter((name) => name !== '');
      editHosts(services, parent, (content) =>
        changeHosts(content, { removeNamed: alias, add: [`${address}\t${names.join(' ')}`] }),
      );
    }
  }
}

function editHosts(
  services: Pick<Services, 'settings' | 'logger'>,
  record: ContainerRecord,
  edit: (content: string) => string,
): void {
  const { hostsPath } = nameFiles(services, record);
  try {
    if (statSync(hostsPath).size > HOSTS_MAX_BYTES) return;
    const before = readFileSync(hostsPath, 'utf8');
    const after = edit(before);
    if (after !== before) writeFileSync(hostsPath, after);
  } catch (error) {
    services.logger.warn('the hosts file could not be changed', { container: record.id, error: errorMessage(error) });
  }
}
