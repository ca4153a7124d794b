/** PAX extended header records (POSIX.1-2001): `length key=value\n`, times as decimal seconds. */
import { decodeBytes, encodeBytes } from '../kernel/bytes.ts';
import { invalidHeader } from './header.ts';

export const XATTR_PREFIX = 'SCHILY.xattr.';

/** Records in order; repeated keys (GNU.sparse 0.0) are all kept. */
export function parsePax(data: Buffer): [string, Buffer][] {
  const records: [string, Buffer][] = [];
  let at = 0;
  while (at < data.length) {
    const space = data.indexOf(0x20, at);
    if (space < 0 || space - at > 10) throw invalidHeader();
    const digits = data.toString('latin1', at, space);
    const end = at + Number(digits);
    if (!/^[0-9]+$/.test(digits) || end > data.length || end < space + 3 || data[end - 1] !== 0x0a)
      throw invalidHeader();
    const equals = data.indexOf(0x3d, space);
    if (equals < 0 || equals >= end) throw invalidHeader();
    const key = data.toString('utf8', space + 1, equals);
    if (key === '') throw invalidHeader();
    records.push([key, Buffer.from(data.subarray(equals + 1, end - 1))]);
    at = end;
  }
  return records;
}

/** A record's text; NUL in it is malformed. */
export function paxText(value: Buffer): string {
  if (value.includes(0)) throw invalidHeader();
  return decodeBytes(value);
}

export function paxInteger(value: Buffer): number {
  const text = value.toString('latin1');
  const number = Number(text);
  if (!/^-?[0-9]+$/.test(text) || !Number.isSafeInteger(number)) throw invalidHeader();
  return number;
}

/** `-1.5` is half a second before one second before the epoch. Digits beyond nanoseconds are dropped. */
export function paxTime(value: Buffer): bigint {
  const match = /^(-?)([0-9]{1,19})(?:\.([0-9]*))?$/.exec(value.toString('latin1'));
  if (match === null) throw invalidHeader();
  const [, sign, seconds = '0', fraction = ''] = match;
  const ns = BigInt(seconds) * 1_000_000_000n + BigInt(fraction.slice(0, 9).padEnd(9, '0'));
  return sign === '-' ? -ns : ns;
}

/** The inverse of `paxTime`, without trailing zeros. */
export function formatPaxTime(ns: bigint): string {
  const size = ns < 0n ? -ns : ns;
  const fraction = (size % 1_000_000_000n).toString().padStart(9, '0').replace(/0+$/, '');
  return `${ns < 0n ? '-' : ''}${size / 1_000_000_000n}${fraction === '' ? '' : `.${fraction}`}`;
}

/** Encodes records, keys sorted as Go writes them. */
export function encodePax(records: ReadonlyMap<string, string | Buffer>): Buffer {
  const parts: Buffer[] = [];
  for (const key of [...records.keys()].sort()) {
    const raw = records.get(key) ?? '';
    const value = typeof raw === 'string' ? encodeBytes(raw) : raw;
    const name = Buffer.from(` ${key}=`);
    const body = name.length + value.length + 1;
    let length = body + String(body).length;
    if (String(length).length !== String(body).length) length = body + String(length).length;
    parts.push(Buffer.from(String(length)), name, value, Buffer.from('\n'));
  }
  return Buffer.concat(parts);
}
