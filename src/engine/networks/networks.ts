/** Network use-cases that read: the list with docker's filters, and what inspect shows. */
import type { NetworkDetails } from '#services/networks/contract.ts';
import { isPredefined } from '#services/networks/store.ts';
import { GantryError } from '#types/errors.ts';
import type { Network } from '#wire/engine.ts';
import { matchesLabels } from '../containers/list.ts';
import type { Services } from '../services.ts';

/** Keys the `filters` parameter of the list accepts. */
export const NETWORK_FILTER_KEYS: readonly string[] = ['dangling', 'driver', 'id', 'label', 'name', 'scope', 'type'];

type Filters = ReadonlyMap<string, readonly string[]>;
type NetworkServices = Pick<Services, 'networks'>;

const BOOLEANS: ReadonlyMap<string, boolean> = new Map([
  ['1', true],
  ['true', true],
  ['0', false],
  ['false', false],
]);

/** The networks a filter selects. Compat: the list names containers for old clients only. */
export function listNetworks(services: NetworkServices, filters: Filters, withContainers: boolean): Network[] {
  const isWanted = networkFilter(filters);
  return services.networks
    .list()
    .map(({ id }) => services.networks.describe(id))
    .filter(isWanted)
    .map((network) => shown(network, withContainers));
}

/** One network by name, ID or ID prefix; another scope than `scope` (empty: any) does not count. */
export function inspectNetwork(services: NetworkServices, reference: string, scope: string): Network {
  const { id, scope: actual } = services.networks.find(reference);
  if (scope !== '' && scope !== actual) throw new GantryError('notFound', `network ${reference} not found`);
  return shown(services.networks.describe(id), true);
}

/** Throws `invalid` for bad values. */
function networkFilter(filters: Filters): (network: NetworkDetails) => boolean {
  const types = filters.get('type') ?? [];
  for (const type of types) {
    if (type !== 'builtin' && type !== 'custom') throw new GantryError('invalid', `invalid filter: 'type'='${type}'`);
  }
  const danglings = filters.get('dangling') ?? [];
  if (danglings.length > 1) throw new GantryError('invalid', 'got more than one value for filter key "dangling"');
  const [dangling] = danglings;
  if (dangling !== undefined && !BOOLEANS.has(dangling)) {
    throw new GantryError(
      'invalid',
      'invalid value for filter \'dangling\', must be "true" (or "1"), or "false" (or "0")',
    );
  }
  const isAny = (key: string, test: (value: string) => boolean): boolean => filters.get(key)?.some(test) ?? true;
  return (network) =>
    // Compat: the list names no containers, so every user-defined network counts as dangling there.
    (dangling === undefined || BOOLEANS.get(dangling) === !isPredefined(network.name)) &&
    (types.length === 0 || types.includes(isPredefined(network.name) ? 'builtin' : 'custom')) &&
    isAny('driver', (value) => network.driver === value) &&
    isAny('id', (value) => network.id.includes(value)) &&
    isAny('name', (value) => network.name.includes(value)) &&
    isAny('scope', (value) => network.scope === value) &&
    matchesLabels(network.labels, filters.get('label') ?? []);
}

function shown(network: NetworkDetails, withContainers: boolean): Network {
  const config =
    network.subnets?.map(({ subnet, ipRange, gateway, auxiliaryAddresses }) => ({
      Subnet: subnet,
      ...(ipRange ? { IPRange: ipRange } : {}),
      ...(gateway ? { Gateway: gateway } : {}),
      ...(auxiliaryAddresses ? { AuxiliaryAddresses: auxiliaryAddresses } : {}),
    })) ?? null;
  const { driver, options } = network.ipam;
  return {
    Name: network.name,
    Id: network.id,
    Created: network.createdAt,
    Scope: network.scope,
    Driver: network.driver,
    EnableIPv4: network.ipv4,
    EnableIPv6: network.ipv6,
    IPAM: { Driver: driver, Options: options, Config: config } as unknown as NonNullable<Network['IPAM']>,
    Internal: network.internal,
    Attachable: network.attachable,
    Ingress: network.ingress,
    ConfigFrom: { Network: network.configFrom },
    ConfigOnly: network.configOnly,
    Containers: withContainers ? containersOf(network) : {},
    Options: { ...network.options },
    Labels: { ...network.labels },
  };
}

function containersOf(network: NetworkDetails): NonNullable<Network['Containers']> {
  return Object.fromEntries(
    network.endpoints.map(({ containerId, containerName, endpoint }) => [
      containerId,
      {
        Name: containerName.replace(/^\//, ''),
        EndpointID: endpoint.endpointId,
        MacAddress: endpoint.macAddress,
        IPv4Address: endpoint.ipAddress === '' ? '' : `${endpoint.ipAddress}/${endpoint.prefixLength}`,
        IPv6Address: endpoint.ipv6Address === '' ? '' : `${endpoint.ipv6Address}/${endpoint.ipv6PrefixLength}`,
      },
    ]),
  );
}
