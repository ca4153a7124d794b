/**
 * From the settings of a container in one network (API EndpointSettings) to the request for its endpoint, with
 * docker's checks of what depends on the network.
 */
import type { ContainerRecord } from '#services/containers/container.ts';
import { contains, parseCidr, tryParseIp } from '#services/networks/address.ts';
import type { EndpointRequest, NetworkDetails } from '#services/networks/contract.ts';
import { parsePublishRequests } from '#services/networks/ports.ts';
import { GantryError } from '#types/errors.ts';
import { type Id, shortId } from '#types/ids.ts';
import type { EndpointSettings } from '#wire/engine.ts';
import { endpointMistakes, isUserDefined, joinMistakes } from './create/validate.ts';
import { parseLink } from './links.ts';

/** Throws `invalid` with all that is wrong with the settings for this network. */
export function checkEndpointSettings(network: NetworkDetails, settings: EndpointSettings): void {
  const wrong = [...endpointMistakes(network.name, settings), ...addressMistakes(network, settings)];
  if (wrong.length > 0) throw new GantryError('invalid', `invalid endpoint settings:\n${joinMistakes(wrong)}`);
}

/** Compat: an address can be asked for only where the subnet was, too. */
export function addressMistakes(
  network: Pick<NetworkDetails, 'givenSubnets'>,
  { IPAMConfig: ipam }: EndpointSettings,
): string[] {
  return [ipam?.IPv4Address ?? '', ipam?.IPv6Address ?? ''].flatMap((text) => {
    const address = tryParseIp(text);
    if (address === undefined) return [];
    const given = network.givenSubnets.map((subnet) => parseCidr(subnet).subnet);
    const family = given.filter((subnet) => subnet.family === address.family);
    if (family.some((subnet) => contains(subnet, address))) return [];
    return family.length > 0
      ? [`no configured subnet or ip-range contain the IP address ${text}`]
      : ['user specified IP address is supported only when connecting to networks with user configured subnets'];
  });
}

/** Names the container answers to in a user-defined network, docker's order. */
export function dnsNames(record: ContainerRecord, aliases: readonly string[]): string[] {
  const names = [record.name, ...aliases, shortId(record.id), record.config.Hostname ?? ''];
  return [...new Set(names.filter((name) => name !== ''))];
}

/** The request that joins a container to a network. `links` are its legacy links. */
export function endpointRequest(
  record: ContainerRecord,
  network: NetworkDetails,
  wanted: { readonly settings: EndpointSettings; readonly links: readonly Id[] },
): EndpointRequest {
  const { settings, links } = wanted;
  const { MacAddress, IPAMConfig: ipam, DriverOpts, GwPriority } = settings;
  return {
    network: network.id,
    containerId: record.id,
    containerName: record.name,
    ...(MacAddress ? { macAddress: MacAddress } : {}),
    ...(ipam?.IPv4Address ? { ipv4Address: ipam.IPv4Address } : {}),
    ...(ipam?.IPv6Address ? { ipv6Address: ipam.IPv6Address } : {}),
    linkLocalAddresses: ipam?.LinkLocalIPs ?? [],
    driverOptions: DriverOpts ?? {},
    gatewayPriority: GwPriority ?? 0,
    names: isUserDefined(network.name) ? dnsNames(record, settings.Aliases ?? []) : [],
    aliasedLinks: Object.fromEntries(
      (settings.Links ?? []).map((text) => {
        const [reference, alias] = parseLink(text);
        return [alias, reference];
      }),
    ),
    publish: parsePublishRequests(record.config.ExposedPorts ?? {}, record.hostConfig),
    exposed: exposedPorts(record),
    links,
  };
}

function exposedPorts(record: ContainerRecord): { protocol: 'tcp' | 'udp' | 'sctp'; port: number }[] {
  return Object.keys(record.config.ExposedPorts ?? {}).map((port) => {
    const [number, protocol] = port.split('/');
    return { port: Number(number), protocol: (protocol ?? 'tcp') as 'tcp' | 'udp' | 'sctp' };
  });
}
