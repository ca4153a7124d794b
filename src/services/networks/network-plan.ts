/** What a new network gets: docker's checks of its description, and its subnets with their gateways. Pure. */
import { GantryError } from '#types/errors.ts';
import {
  contains,
  type Family,
  formatIp,
  formatPrefix,
  overlaps,
  type Prefix,
  parseCidr,
  tryParseIp,
} from './address.ts';
import type { IpamPool, NetworkSpec } from './contract.ts';
import type { AllocatedPool, NetworkPlan, NetworkRecord } from './driver.ts';
import { chooseSubnet, lowestFree, type Pools } from './ipam.ts';

/** Checks that need nothing but the description. Throws docker's errors. */
export function checkSpec(spec: NetworkSpec): void {
  if (spec.name.trim() === '') throw new GantryError('invalid', 'invalid name: name is empty');
  if (spec.configOnly) {
    if (spec.ingress || spec.internal || spec.attachable || spec.scope !== '') {
      throw new GantryError(
        'forbidden',
        'configuration network can only contain network specific fields. Network operator fields like [ ingress | internal | attachable | scope ] are not supported.',
      );
    }
    if (spec.configFrom !== '')
      throw new GantryError('forbidden', 'a configuration network cannot depend on another configuration network');
  }
  if (spec.configFrom !== '') checkDependent(spec);
}

function checkDependent({ ipam, ipv4, ipv6, labels, options }: NetworkSpec): void {
  const isConfigured =
    ipam.driver !== 'default' ||
    !ipv4 ||
    ipv6 ||
    Object.keys(labels).length > 0 ||
    Object.keys(ipam.options ?? {}).length > 0 ||
    ipam.pools.length > 0;
  if (isConfigured) {
    throw new GantryError(
      'forbidden',
      'user specified configurations are not supported if the network depends on a configuration network',
    );
  }
  if (Object.keys(options).length > 0) {
    throw new GantryError(
      'forbidden',
      'network driver options are not supported if the network depends on a configuration network',
    );
  }
}

/** The description completed with what a configuration-only network says. */
export function applyConfiguration(spec: NetworkSpec, networks: readonly NetworkRecord[]): NetworkSpec {
  const { configFrom } = spec;
  const found = networks.find(({ name, id, configOnly }) => configOnly && (name === configFrom || id === configFrom));
  if (found === undefined)
    throw new GantryError('notFound', `configuration network ${JSON.stringify(configFrom)} does not exist`);
  const { ipv4, ipv6, labels, options, ipam } = found;
  return { ...spec, configFrom: found.name, ipv4, ipv6, labels, options, ipam };
}

/** What is in use already. */
export interface Occupied {
  readonly pools: Pools;
  /** Subnets of other networks of this daemon. */
  readonly taken: readonly Prefix[];
  readonly hostRoutes: readonly Prefix[];
}

/** The network's pools: what its creator named, else one of each family it has. */
export function allocatePools(spec: NetworkSpec, plan: NetworkPlan, occupied: Occupied): AllocatedPool[] {
  // Compat: without address management the bridge driver has nothing to work with; others have no addresses.
  if (spec.ipam.driver === 'null') {
    if (spec.driver === 'bridge') throw new GantryError('invalid', 'ipv4 pool is empty');
    return [];
  }
  const pools: AllocatedPool[] = [];
  const families: Family[] = [...(spec.ipv4 ? [4 as const] : []), ...(spec.ipv6 ? [6 as const] : [])];
  for (const family of families) {
    const given = spec.ipam.pools.filter(({ subnet }) => parseCidr(subnet).subnet.family === family);
    const wantsGateway = family === 4 ? plan.gateway.ipv4 : plan.gateway.ipv6;
    if (given.length === 0) {
      const subnet = chooseSubnet(occupied.pools, [...occupied.taken, ...occupied.hostRoutes], family);
      pools.push(completed({ subnet: formatPrefix(subnet) }, wantsGateway, false));
      continue;
    }
    for (const pool of given) {
      const { subnet } = parseCidr(pool.subnet);
      const others = [...occupied.taken, ...pools.map((each) => parseCidr(each.subnet).subnet)];
      if (others.some((other) => overlaps(other, subnet))) {
        throw new GantryError('forbidden', 'invalid pool request: Pool overlaps with other one on this address space');
      }
      pools.push(completed(pool, wantsGateway, true));
    }
  }
  return pools;
}

function completed(pool: IpamPool, wantsGateway: boolean, isGiven: boolean): AllocatedPool {
  const { subnet } = parseCidr(pool.subnet);
  const { auxiliaryAddresses, ipRange } = pool;
  for (const [name, text] of Object.entries(auxiliaryAddresses ?? {})) {
    const address = tryParseIp(text);
    if (address === undefined || !contains(subnet, address))
      throw new GantryError(
        'forbidden',
        `auxiliary address: (${name}:${text}) must belong to the master pool: ${pool.subnet}`,
      );
    if (text === pool.gateway)
      throw new GantryError(
        'system',
        `failed to allocate secondary ip address (${name}:${text}): Address already in use`,
      );
  }
  if (pool.gateway || !wantsGateway) return { ...pool, isGiven };
  const range = ipRange ? parseCidr(ipRange).subnet : subnet;
  const used = new Set(Object.values(auxiliaryAddresses ?? {}).flatMap((text) => tryParseIp(text)?.value ?? []));
  const value = lowestFree({ subnet, range }, used);
  if (value === undefined)
    throw new GantryError('system', 'failed to allocate gateway (): no available addresses on this pool');
  return { ...pool, gateway: formatIp({ family: subnet.family, value }), isGiven };
}
