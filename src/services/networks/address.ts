/**
 * IP addresses and subnets of both families as numbers, and Docker's MAC address of an IPv4 address. Pure.
 * A prefix always has its host bits cleared.
 */
import { isIPv4, isIPv6 } from 'node:net';
import { addressBytes } from '#system/netlink/route.ts';
import { GantryError } from '#types/errors.ts';

export type Family = 4 | 6;

/** One address. */
export interface IpAddress {
  readonly family: Family;
  readonly value: bigint;
}

/** A subnet; `base` has its host bits cleared. */
export interface Prefix {
  readonly family: Family;
  readonly base: bigint;
  readonly length: number;
}

/** Bits of an address. */
export function bitsOf(family: Family): number {
  return family === 4 ? 32 : 128;
}

/** Number of a dotted or colon address; undefined when it is neither. */
export function tryParseIp(text: string): IpAddress | undefined {
  if (isIPv4(text))
    return { family: 4, value: BigInt(text.split('.').reduce((sum, byte) => sum * 256 + Number(byte), 0)) };
  if (!isIPv6(text) || text.includes('%')) return undefined;
  return { family: 6, value: BigInt(`0x${addressBytes(text).toString('hex')}`) };
}

/** Like `tryParseIp`; throws `invalid`. */
export function parseIp(text: string): IpAddress {
  const address = tryParseIp(text);
  if (address === undefined) throw new GantryError('invalid', `invalid IP address: ${text}`);
  return address;
}

/** Canonical text (RFC 5952 for IPv6). */
export function formatIp({ family, value }: IpAddress): string {
  if (family === 4) return [24n, 16n, 8n, 0n].map((shift) => Number((value >> shift) & 255n)).join('.');
  const words = Array.from({ length: 8 }, (_, index) => Number((value >> BigInt(112 - index * 16)) & 0xffffn));
  const { start, length } = longestZeroRun(words);
  const text = (part: readonly number[]): string => part.map((word) => word.toString(16)).join(':');
  if (length < 2) return text(words);
  return `${text(words.slice(0, start))}::${text(words.slice(start + length))}`;
}

function longestZeroRun(words: readonly number[]): { start: number; length: number } {
  let best = { start: 0, length: 0 };
  for (let start = 0; start < words.length; start += 1) {
    let length = 0;
    while (words[start + length] === 0) length += 1;
    if (length > best.length) best = { start, length };
  }
  return best;
}

/** How many addresses a prefix covers. */
export function sizeOf(prefix: { readonly family: Family; readonly length: number }): bigint {
  return 1n << BigInt(bitsOf(prefix.family) - prefix.length);
}

/** The prefix of this length an address lies in. */
export function prefixOf({ family, value }: IpAddress, length: number): Prefix {
  return { family, base: value - (value % sizeOf({ family, length })), length };
}

/** Parses `10.1.2.3/16` into the address and its prefix; undefined when it is no CIDR notation. */
export function tryParseCidr(text: string): { address: IpAddress; subnet: Prefix } | undefined {
  const [addressText = '', lengthText = '', extra] = text.split('/');
  const address = tryParseIp(addressText);
  if (address === undefined || extra !== undefined || !/^(0|[1-9]\d{0,2})$/.test(lengthText)) return undefined;
  const length = Number(lengthText);
  return length > bitsOf(address.family) ? undefined : { address, subnet: prefixOf(address, length) };
}

/** Like `tryParseCidr`; throws `invalid`. */
export function parseCidr(text: string): { address: IpAddress; subnet: Prefix } {
  const parsed = tryParseCidr(text);
  if (parsed === undefined) throw new GantryError('invalid', `invalid CIDR address: ${text}`);
  return parsed;
}

export function formatPrefix(prefix: Prefix): string {
  return `${formatIp({ family: prefix.family, value: prefix.base })}/${prefix.length}`;
}

export function contains(prefix: Prefix, { family, value }: IpAddress): boolean {
  return prefix.family === family && value >= prefix.base && value < prefix.base + sizeOf(prefix);
}

export function overlaps(a: Prefix, b: Prefix): boolean {
  return contains(a, { family: b.family, value: b.base }) || contains(b, { family: a.family, value: a.base });
}

/** Docker's MAC address of an IPv4 address: 02:42 and its four bytes. */
export function macOf({ value }: IpAddress): string {
  const bytes = [24n, 16n, 8n, 0n].map((shift) => ((value >> shift) & 255n).toString(16).padStart(2, '0'));
  return `02:42:${bytes.join(':')}`;
}
