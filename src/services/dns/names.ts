/**
 * Looking up container names and addresses in a view by docker's rules: `name`, `name.network`, both of which
 * may contain dots; the asking container's links shadow names. Upper and lower case are the same. Pure.
 */
import { isIP } from 'node:net';
import { addressBytes } from '#system/netlink/route.ts';
import type { NamedEndpoint, ResolverNetwork, ResolverView } from './contract.ts';

/** Addresses of a name; a name that exists may have none of one family. */
export interface NamedAddresses {
  readonly ipv4: readonly Buffer[];
  readonly ipv6: readonly Buffer[];
}

interface NetworkIndex {
  readonly addresses: ReadonlyMap<string, { ipv4: Buffer[]; ipv6: Buffer[] }>;
  /** Hexadecimal address → name. */
  readonly names: ReadonlyMap<string, string>;
}

/** Built once per array, which the contract promises not to change. */
const indexes = new WeakMap<readonly NamedEndpoint[], NetworkIndex>();

function indexOf(network: ResolverNetwork): NetworkIndex {
  let index = indexes.get(network.endpoints);
  if (index === undefined) {
    index = buildIndex(network.endpoints);
    indexes.set(network.endpoints, index);
  }
  return index;
}

function buildIndex(endpoints: readonly NamedEndpoint[]): NetworkIndex {
  const addresses = new Map<string, { ipv4: Buffer[]; ipv6: Buffer[] }>();
  const names = new Map<string, string>();
  for (const endpoint of endpoints) {
    const ipv4 = isIP(endpoint.ipv4) === 4 ? addressBytes(endpoint.ipv4) : undefined;
    const ipv6 = isIP(endpoint.ipv6) === 6 ? addressBytes(endpoint.ipv6) : undefined;
    if (ipv4 === undefined && ipv6 === undefined) continue;
    for (const name of new Set(endpoint.names.map((each) => each.toLowerCase()))) {
      const known = addresses.get(name) ?? { ipv4: [], ipv6: [] };
      addresses.set(name, known);
      addOnce(known.ipv4, ipv4);
      addOnce(known.ipv6, ipv6);
    }
    const [first] = endpoint.names;
    for (const address of [ipv4, ipv6]) {
      const key = address?.toString('hex');
      if (key !== undefined && first !== undefined && !names.has(key)) names.set(key, first);
    }
  }
  return { addresses, names };
}

function addOnce(known: Buffer[], address: Buffer | undefined): void {
  if (address !== undefined && !known.some((each) => each.equals(address))) known.push(address);
}

/** Addresses of a lower-case name without final dot; undefined when no network of the view knows it. */
export function findName(view: ResolverView, name: string): NamedAddresses | undefined {
  // The whole name in any network first, then ever shorter names in the network the rest names.
  for (let end = name.length; end > 0; end = name.lastIndexOf('.', end - 1)) {
    const rest = end === name.length ? undefined : name.slice(end + 1);
    const networks =
      rest === undefined ? view.networks : view.networks.filter((network) => network.name.toLowerCase() === rest);
    const found = findIn(networks, name.slice(0, end));
    if (found !== undefined) return found;
  }
  return undefined;
}

function findIn(networks: readonly ResolverNetwork[], name: string): NamedAddresses | undefined {
  for (const network of networks) {
    const target = linkTarget(network, name);
    const found = target === undefined ? undefined : indexOf(network).addresses.get(target);
    if (found !== undefined) return found;
  }
  for (const network of networks) {
    if (linkTarget(network, name) !== undefined) continue;
    const found = indexOf(network).addresses.get(name);
    if (found !== undefined) return found;
  }
  return undefined;
}

function linkTarget({ links }: ResolverNetwork, alias: string): string | undefined {
  if (links.size === 0) return undefined;
  const exact = links.get(alias);
  if (exact !== undefined) return exact.toLowerCase();
  for (const [name, target] of links) if (name.toLowerCase() === alias) return target.toLowerCase();
  return undefined;
}

/** `name.network` of an address; undefined when no network of the view has it. */
export function findAddress(view: ResolverView, address: Buffer): string | undefined {
  const key = address.toString('hex');
  for (const network of view.networks) {
    const name = indexOf(network).names.get(key);
    if (name !== undefined) return `${name}.${network.name}`;
  }
  return undefined;
}

const IPV4_SUFFIX = '.in-addr.arpa';
const IPV6_SUFFIX = '.ip6.arpa';
const DECIMAL_BYTE = /^(0|[1-9]\d{0,2})$/;
const NIBBLE = /^[0-9a-f]$/;

/** The address a PTR query's name stands for; undefined when it is no complete address. */
export function addressOfPointer(name: string): Buffer | undefined {
  if (name.endsWith(IPV4_SUFFIX)) {
    const parts = name.slice(0, -IPV4_SUFFIX.length).split('.');
    if (parts.length !== 4 || !parts.every((part) => DECIMAL_BYTE.test(part) && Number(part) < 256)) return undefined;
    return Buffer.from(parts.reverse().map(Number));
  }
  if (name.endsWith(IPV6_SUFFIX)) {
    const parts = name.slice(0, -IPV6_SUFFIX.length).split('.');
    if (parts.length !== 32 || !parts.every((part) => NIBBLE.test(part))) return undefined;
    return Buffer.from(parts.reverse().join(''), 'hex');
  }
  return undefined;
}
