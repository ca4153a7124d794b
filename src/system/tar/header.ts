/**
 * The 512-byte tar header block: USTAR (POSIX.1-1988), GNU and V7 read, USTAR written.
 * Numbers are octal text or, beyond its range, GNU base-256. Error texts are those of Go's archive/tar.
 */
import { decodeBytes } from '../kernel/bytes.ts';

export const BLOCK_BYTES = 512;

/** An archive that is malformed or ends early. */
export class TarError extends Error {
  override readonly name = 'TarError';
}

export const invalidHeader = (): TarError => new TarError('archive/tar: invalid tar header');
export const unexpectedEnd = (): TarError => new TarError('unexpected EOF');

/** A header block as it stands, before PAX and GNU extensions. */
export interface RawHeader {
  name: string;
  linkName: string;
  type: string;
  mode: number;
  uid: number;
  gid: number;
  size: number;
  modifiedNs: bigint;
  accessedNs: bigint | undefined;
  changedNs: bigint | undefined;
  userName: string;
  groupName: string;
  deviceMajor: number;
  deviceMinor: number;
  gnu: boolean;
}

/** Text up to the first NUL. */
export function textField(block: Buffer, offset: number, length: number): string {
  const field = block.subarray(offset, offset + length);
  const end = field.indexOf(0);
  return decodeBytes(end < 0 ? field : field.subarray(0, end));
}

/** An octal or base-256 number. */
export function numberField(block: Buffer, offset: number, length: number): number {
  const first = block[offset] ?? 0;
  if (first & 0x80) return base256(block.subarray(offset, offset + length));
  let text = block.toString('latin1', offset, offset + length);
  const end = text.indexOf('\0', text.search(/[^\0 ]/));
  if (end >= 0) text = text.slice(0, end);
  text = text.replace(/^[\0 ]+|[\0 ]+$/g, '');
  if (text === '') return 0;
  if (!/^[0-7]+$/.test(text)) throw invalidHeader();
  return Number.parseInt(text, 8);
}

function base256(field: Buffer): number {
  const negative = ((field[0] ?? 0) & 0x40) !== 0;
  let value = 0n;
  for (let index = 0; index < field.length; index += 1) {
    let byte = field[index] ?? 0;
    if (negative) byte ^= 0xff;
    if (index === 0) byte &= 0x7f;
    value = (value << 8n) | BigInt(byte);
  }
  if (negative) value = ~value;
  if (value > BigInt(Number.MAX_SAFE_INTEGER) || value < BigInt(Number.MIN_SAFE_INTEGER)) throw invalidHeader();
  return Number(value);
}

function checksums(block: Buffer): [unsigned: number, signed: number] {
  let unsigned = 8 * 32;
  let negative = 0;
  for (let index = 0; index < BLOCK_BYTES; index += 1) {
    if (index === 148) index = 156;
    const byte = block[index] as number;
    unsigned += byte;
    if (byte > 127) negative += 256;
  }
  return [unsigned, unsigned - negative];
}

export function isZeroBlock(block: Buffer): boolean {
  for (let index = 0; index < BLOCK_BYTES; index += 1) if (block[index] !== 0) return false;
  return true;
}

const NS_PER_S = 1_000_000_000n;

/** Reads a header block; throws when its checksum or a number is wrong. */
export function parseHeader(block: Buffer): RawHeader {
  const sum = numberField(block, 148, 8);
  const [unsigned, signed] = checksums(block);
  if (sum !== unsigned && sum !== signed) throw invalidHeader();
  const magic = block.toString('latin1', 257, 265);
  const gnu = magic === 'ustar  \0';
  const modern = gnu || magic.startsWith('ustar\0');
  const header: RawHeader = {
    name: textField(block, 0, 100),
    linkName: textField(block, 157, 100),
    type: String.fromCharCode(block[156] ?? 0),
    mode: numberField(block, 100, 8),
    uid: numberField(block, 108, 8),
    gid: numberField(block, 116, 8),
    size: numberField(block, 124, 12),
    modifiedNs: BigInt(numberField(block, 136, 12)) * NS_PER_S,
    accessedNs: undefined,
    changedNs: undefined,
    userName: modern ? textField(block, 265, 32) : '',
    groupName: modern ? textField(block, 297, 32) : '',
    deviceMajor: modern ? numberField(block, 329, 8) : 0,
    deviceMinor: modern ? numberField(block, 337, 8) : 0,
    gnu,
  };
  if (header.size < 0) throw invalidHeader();
  if (gnu) {
    if (block[345] !== 0) header.accessedNs = BigInt(numberField(block, 345, 12)) * NS_PER_S;
    if (block[357] !== 0) header.changedNs = BigInt(numberField(block, 357, 12)) * NS_PER_S;
  } else if (modern && block[345] !== 0) {
    const star = block.toString('latin1', 508, 512) === 'tar\0';
    header.name = `${textField(block, 345, star ? 131 : 155)}/${header.name}`;
  }
  return header;
}

/** Fields of a header block to write; the caller has moved what does not fit into PAX records. */
export interface HeaderFields {
  readonly name: Buffer;
  readonly prefix: Buffer;
  readonly linkName: Buffer;
  readonly type: string;
  readonly mode: number;
  readonly uid: number;
  readonly gid: number;
  readonly size: number;
  readonly modifiedSeconds: number;
  readonly userName: Buffer;
  readonly groupName: Buffer;
  readonly deviceMajor: number;
  readonly deviceMinor: number;
}

function writeNumber(block: Buffer, offset: number, length: number, value: number): void {
  const text = value.toString(8);
  if (value >= 0 && text.length < length) {
    block.write(text.padStart(length - 1, '0'), offset, 'latin1');
    return;
  }
  let rest = BigInt.asUintN(8 * length, BigInt(value));
  for (let index = length - 1; index >= 0; index -= 1) {
    block[offset + index] = Number(rest & 0xffn);
    rest >>= 8n;
  }
  block[offset] = (block[offset] as number) | 0x80;
}

/** Makes a USTAR header block. */
export function encodeHeader(fields: HeaderFields): Buffer {
  const block = Buffer.alloc(BLOCK_BYTES);
  fields.name.copy(block, 0, 0, 100);
  writeNumber(block, 100, 8, fields.mode);
  writeNumber(block, 108, 8, fields.uid);
  writeNumber(block, 116, 8, fields.gid);
  writeNumber(block, 124, 12, fields.size);
  writeNumber(block, 136, 12, fields.modifiedSeconds);
  block.write(fields.type, 156, 'latin1');
  fields.linkName.copy(block, 157, 0, 100);
  block.write('ustar\x0000', 257, 'latin1');
  fields.userName.copy(block, 265, 0, 32);
  fields.groupName.copy(block, 297, 0, 32);
  writeNumber(block, 329, 8, fields.deviceMajor);
  writeNumber(block, 337, 8, fields.deviceMinor);
  fields.prefix.copy(block, 345, 0, 155);
  const [sum] = checksums(block);
  block.write(`${sum.toString(8).padStart(6, '0')}\0 `, 148, 'latin1');
  return block;
}
