/**
 * IP address management: which subnet a new network gets and which address a new endpoint gets. Pure.
 *
 * The built-in pools are split adaptively: networks get docker's size while there is plenty, then /24s, then
 * /28s, so that thousands fit where docker's own division ends after 31. Pools an administrator configured are
 * cut exactly as configured. What overlaps a route of the host is never given.
 */
import { createHash } from 'node:crypto';
import { GantryError } from '#types/errors.ts';
import {
  bitsOf,
  contains,
  type Family,
  type IpAddress,
  overlaps,
  type Prefix,
  parseCidr,
  sizeOf,
  tryParseCidr,
} from './address.ts';

/** A pool subnets of one size are cut from (`--default-address-pool`). */
export interface AddressPool {
  readonly base: string;
  readonly size: number;
}

/** Docker's built-in list. */
export const DEFAULT_ADDRESS_POOLS: readonly AddressPool[] = [
  { base: '172.17.0.0/16', size: 16 },
  { base: '172.18.0.0/16', size: 16 },
  { base: '172.19.0.0/16', size: 16 },
  { base: '172.20.0.0/14', size: 16 },
  { base: '172.24.0.0/14', size: 16 },
  { base: '172.28.0.0/14', size: 16 },
  { base: '192.168.0.0/16', size: 20 },
];

/** Smaller sizes of the built-in pools, each with the share of the free space one network may take at most. */
const SPLIT_STEPS: readonly { readonly length: number | undefined; readonly shareMax: bigint }[] = [
  { length: undefined, shareMax: 8n },
  { length: 24, shareMax: 256n },
  { length: 28, shareMax: 1n },
];

/** Networks of one IPv6 pool are /64s of a unique local /48. */
const IPV6_POOL_LENGTH = 48;
const IPV6_NETWORK_LENGTH = 64;

/** The pools of one daemon. */
export interface Pools {
  readonly pools: readonly AddressPool[];
  /** Whether networks may be smaller than the pool says. */
  readonly adaptive: boolean;
}

/** Pools as configured, or the built-in ones; a unique local IPv6 pool is added when none is configured. */
export function poolsOf(configured: readonly AddressPool[], identity: string): Pools {
  for (const { base, size } of configured) {
    const pool = tryParseCidr(base)?.subnet;
    if (pool === undefined || size < pool.length || size > bitsOf(pool.family))
      throw new GantryError('invalid', `invalid default address pool: base=${base},size=${size}`);
  }
  const pools = configured.length === 0 ? DEFAULT_ADDRESS_POOLS : configured;
  const hasIpv6 = pools.some(({ base }) => parseCidr(base).subnet.family === 6);
  return {
    pools: hasIpv6 ? pools : [...pools, { base: uniqueLocalPool(identity), size: IPV6_NETWORK_LENGTH }],
    adaptive: configured.length === 0,
  };
}

/** The /48 of fd00::/8 (RFC 4193) that belongs to this daemon. */
function uniqueLocalPool(identity: string): string {
  const hash = createHash('sha256').update(`ula ${identity}`).digest('hex');
  return `fd${hash.slice(0, 2)}:${hash.slice(2, 6)}:${hash.slice(6, 10)}::/${IPV6_POOL_LENGTH}`;
}

/** The subnet of a new network: the first free one of its family. Throws `invalid` when there is none. */
export function chooseSubnet({ pools, adaptive }: Pools, taken: readonly Prefix[], family: Family = 4): Prefix {
  const wholes = pools
    .map(({ base, size }) => ({ whole: parseCidr(base).subnet, size }))
    .filter(({ whole }) => whole.family === family)
    .map(({ whole, size }) => ({ whole, size, gaps: gapsOf(whole, taken) }));
  const free = wholes.reduce((sum, { gaps }) => sum + gaps.reduce((part, gap) => part + gap.end - gap.start, 0n), 0n);
  for (const { length, shareMax } of adaptive && family === 4 ? SPLIT_STEPS : SPLIT_STEPS.slice(0, 1)) {
    for (const { size, gaps } of wholes) {
      const wanted = length === undefined ? size : Math.max(length, size);
      const block = sizeOf({ family, length: wanted });
      if (adaptive && family === 4 && block * shareMax > free) continue;
      const base = firstBlock(gaps, block);
      if (base !== undefined) return { family, base, length: wanted };
    }
  }
  throw new GantryError('invalid', 'all predefined address pools have been fully subnetted');
}

interface Gap {
  readonly start: bigint;
  readonly end: bigint;
}

/** Parts of `whole` that overlap nothing in `taken`, in order. */
function gapsOf(whole: Prefix, taken: readonly Prefix[]): Gap[] {
  const end = whole.base + sizeOf(whole);
  const inside = taken
    .filter((other) => overlaps(whole, other))
    .map((other) => ({ start: other.base, end: other.base + sizeOf(other) }))
    .sort((a, b) => (a.start < b.start ? -1 : a.start > b.start ? 1 : 0));
  const gaps: Gap[] = [];
  let next = whole.base;
  for (const used of inside) {
    if (used.start > next) gaps.push({ start: next, end: used.start });
    if (used.end > next) next = used.end;
  }
  if (next < end) gaps.push({ start: next, end });
  return gaps;
}

/** The lowest aligned block of this size in the gaps. */
function firstBlock(gaps: readonly Gap[], size: bigint): bigint | undefined {
  for (const { start, end } of gaps) {
    const base = ((start + size - 1n) / size) * size;
    if (base + size <= end) return base;
  }
  return undefined;
}

/** Addresses of a subnet that are given out: `range` inside `subnet`. */
export interface AddressRange {
  readonly subnet: Prefix;
  readonly range: Prefix;
}

/**
 * The lowest free address of the range; undefined when full. Never given: the subnet's own address, and in IPv4
 * its broadcast address (except in /31 and /32, which have neither).
 */
export function lowestFree({ subnet, range }: AddressRange, used: ReadonlySet<bigint>): bigint | undefined {
  const end = range.base + sizeOf(range);
  const small = bitsOf(subnet.family) - subnet.length <= 1;
  const last = subnet.family === 4 && !small ? subnet.base + sizeOf(subnet) - 1n : -1n;
  const first = small ? -1n : subnet.base;
  for (let value = range.base; value < end; value += 1n) {
    if (value !== first && value !== last && !used.has(value)) return value;
  }
  return undefined;
}

/** Whether an address may be given in this subnet at all. */
export function isAssignable(subnet: Prefix, address: IpAddress): boolean {
  if (!contains(subnet, address)) return false;
  if (bitsOf(subnet.family) - subnet.length <= 1) return true;
  const isLast = subnet.family === 4 && address.value === subnet.base + sizeOf(subnet) - 1n;
  return address.value !== subnet.base && !isLast;
}

/** Addresses in use, by network and family. */
export class AddressBook {
  readonly #used = new Map<string, Set<bigint>>();

  /** The set of one network and family; live. */
  used(networkId: string, family: Family): Set<bigint> {
    const key = `${networkId}/${family}`;
    const known = this.#used.get(key);
    if (known !== undefined) return known;
    const set = new Set<bigint>();
    this.#used.set(key, set);
    return set;
  }

  /** Takes the wanted address, or the lowest free one of the first range that has one. Docker's texts. */
  take(
    network: { readonly id: string; readonly name: string },
    ranges: readonly AddressRange[],
    wanted: IpAddress | undefined,
  ): { address: IpAddress; subnet: Prefix } {
    const family = ranges[0]?.subnet.family ?? 4;
    const used = this.used(network.id, family);
    if (wanted !== undefined) {
      const range = ranges.find(({ subnet }) => isAssignable(subnet, wanted));
      if (range === undefined) throw new GantryError('invalid', 'requested address is out of range');
      if (used.has(wanted.value)) throw new GantryError('forbidden', 'Address already in use');
      used.add(wanted.value);
      return { address: wanted, subnet: range.subnet };
    }
    for (const range of ranges) {
      const value = lowestFree(range, used);
      if (value === undefined) continue;
      used.add(value);
      return { address: { family, value }, subnet: range.subnet };
    }
    throw new GantryError(
      'unavailable',
      `no available IPv${family} addresses on this network's address pools: ${network.name} (${network.id})`,
    );
  }

  release(networkId: string, address: IpAddress): void {
    this.#used.get(`${networkId}/${address.family}`)?.delete(address.value);
  }

  forget(networkId: string): void {
    for (const family of [4, 6]) this.#used.delete(`${networkId}/${family}`);
  }
}
