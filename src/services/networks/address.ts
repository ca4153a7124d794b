/**
 * IPv4 addresses and subnets as numbers, and the choice of free ones. Pure.
 * Docker derives a container's MAC address from its IPv4 address (02:42 and the four bytes).
 */
import { isIPv4 } from 'node:net';
import { GantryError } from '#types/errors.ts';

/** An IPv4 subnet; `base` has its host bits cleared. */
export interface Subnet {
  readonly base: number;
  readonly prefixLength: number;
}

/** A pool subnets of one size are cut from. */
export interface AddressPool {
  readonly base: string;
  readonly size: number;
}

/** Docker's built-in --default-address-pool list. */
export const DEFAULT_ADDRESS_POOLS: readonly AddressPool[] = [
  { base: '172.17.0.0/16', size: 16 },
  { base: '172.18.0.0/16', size: 16 },
  { base: '172.19.0.0/16', size: 16 },
  { base: '172.20.0.0/14', size: 16 },
  { base: '172.24.0.0/14', size: 16 },
  { base: '172.28.0.0/14', size: 16 },
  { base: '192.168.0.0/16', size: 20 },
];

/** Number of a dotted address. */
export function parseIpv4(address: string): number {
  if (!isIPv4(address)) throw new GantryError('invalid', `invalid IPv4 address: ${address}`);
  return address.split('.').reduce((value, byte) => value * 256 + Number(byte), 0);
}

/** Dotted text of a number. */
export function formatIpv4(address: number): string {
  return [24, 16, 8, 0].map((shift) => (address >>> shift) & 255).join('.');
}

/** How many addresses a prefix covers. */
function sizeOf(prefixLength: number): number {
  return 2 ** (32 - prefixLength);
}

/** Parses `10.1.2.3/16` into the address and its subnet. */
export function parseCidr(text: string): { address: number; subnet: Subnet } {
  const [addressText = '', prefixText = ''] = text.split('/');
  const prefixLength = Number(prefixText);
  if (!isIPv4(addressText) || !/^\d{1,2}$/.test(prefixText) || prefixLength > 32 || text.split('/').length !== 2) {
    throw new GantryError('invalid', `invalid CIDR address: ${text}`);
  }
  const address = parseIpv4(addressText);
  return { address, subnet: { base: address - (address % sizeOf(prefixLength)), prefixLength } };
}

export function formatSubnet(subnet: Subnet): string {
  return `${formatIpv4(subnet.base)}/${subnet.prefixLength}`;
}

export function contains(subnet: Subnet, address: number): boolean {
  return address >= subnet.base && address < subnet.base + sizeOf(subnet.prefixLength);
}

export function overlaps(a: Subnet, b: Subnet): boolean {
  return contains(a, b.base) || contains(b, a.base);
}

/** The first subnet of the pools that overlaps nothing in `taken`. */
export function chooseSubnet(pools: readonly AddressPool[], taken: readonly Subnet[]): Subnet {
  for (const pool of pools) {
    const { subnet: whole } = parseCidr(pool.base);
    const step = sizeOf(pool.size);
    for (let base = whole.base; base < whole.base + sizeOf(whole.prefixLength); base += step) {
      const candidate = { base, prefixLength: pool.size };
      if (!taken.some((other) => overlaps(candidate, other))) return candidate;
    }
  }
  throw new GantryError('invalid', 'all predefined address pools have been fully subnetted');
}

/** The lowest free host address of `range` inside `subnet`; undefined when full. Network and broadcast addresses are never given. */
export function lowestFree(subnet: Subnet, range: Subnet, used: ReadonlySet<number>): number | undefined {
  const last = subnet.base + sizeOf(subnet.prefixLength) - 1;
  const end = range.base + sizeOf(range.prefixLength);
  for (let address = range.base; address < end; address += 1) {
    if (address === subnet.base || address === last || used.has(address)) continue;
    return address;
  }
  return undefined;
}

/** Docker's MAC address of an IPv4 address. */
export function macOf(address: number): string {
  const bytes = [24, 16, 8, 0].map((shift) => ((address >>> shift) & 255).toString(16).padStart(2, '0'));
  return `02:42:${bytes.join(':')}`;
}
