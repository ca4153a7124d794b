/**
 * A protobuf codec driven by field tables: just what containerd's messages and docker's log entries use.
 *
 * Invariant: decode never reads outside its input and skips fields it does not know; encode leaves out
 * default values as proto3 does. It exists because the general library costs 52 ms and 22 MB at import.
 * Follows the protobuf encoding document (wire types 0, 1, 2 and 5).
 */
import { GantryError } from '#types/errors.ts';

/** How one field is written. `message` holds another table; a trailing `repeated` collects an array. */
export type FieldKind = 'string' | 'bytes' | 'uint32' | 'int64' | 'bool' | { readonly message: FieldTable };

export interface Field {
  readonly number: number;
  readonly kind: FieldKind;
  readonly repeated?: boolean;
}

/** Property name → field. */
export type FieldTable = Readonly<Record<string, Field>>;

type Fields = Record<string, unknown>;

const MAX_VARINT_BYTES = 10;

/** Encodes the properties of `value` that are in `table`. */
export function encode(table: FieldTable, value: object): Buffer {
  const parts: Uint8Array[] = [];
  for (const name in table) {
    const field = table[name] as Field;
    const content = (value as Fields)[name];
    if (content === undefined) continue;
    for (const item of field.repeated === true ? (content as unknown[]) : [content]) {
      encodeField(parts, field, item);
    }
  }
  return parts.length === 1 ? Buffer.from(parts[0] as Uint8Array) : Buffer.concat(parts);
}

function encodeField(parts: Uint8Array[], field: Field, item: unknown): void {
  const { number, kind } = field;
  if (typeof kind === 'object') {
    const body = encode(kind.message, item as object);
    parts.push(varint(number * 8 + 2), varint(body.length), body);
    return;
  }
  switch (kind) {
    case 'string':
    case 'bytes': {
      const body = typeof item === 'string' ? Buffer.from(item) : (item as Uint8Array);
      if (body.length > 0 || field.repeated === true) parts.push(varint(number * 8 + 2), varint(body.length), body);
      return;
    }
    case 'bool':
      if (item === true) parts.push(varint(number * 8), varint(1));
      return;
    case 'uint32':
      if (item !== 0) parts.push(varint(number * 8), varint(item as number));
      return;
    case 'int64':
      if (item !== 0n) parts.push(varint(number * 8), bigVarint(item as bigint));
      return;
    default:
      kind satisfies never;
  }
}

function varint(value: number): Uint8Array {
  const bytes: number[] = [];
  let rest = value;
  while (rest >= 0x80) {
    bytes.push((rest % 0x80) | 0x80);
    rest = Math.floor(rest / 0x80);
  }
  bytes.push(rest);
  return Uint8Array.from(bytes);
}

function bigVarint(value: bigint): Uint8Array {
  const bytes: number[] = [];
  let rest = BigInt.asUintN(64, value);
  while (rest >= 0x80n) {
    bytes.push(Number(rest & 0x7fn) | 0x80);
    rest >>= 7n;
  }
  bytes.push(Number(rest));
  return Uint8Array.from(bytes);
}

/** Decodes a message; every field of the table is present in the result, with proto3's default when absent. */
export function decode<T>(table: FieldTable, bytes: Uint8Array): T {
  const result: Fields = {};
  const byNumber = new Map<number, [string, Field]>();
  for (const name in table) {
    const field = table[name] as Field;
    byNumber.set(field.number, [name, field]);
    result[name] = field.repeated === true ? [] : defaultOf(field.kind);
  }
  const reader = new Reader(bytes);
  while (!reader.done) {
    const tag = Number(reader.varint());
    const wire = tag % 8;
    const known = byNumber.get(Math.floor(tag / 8));
    if (known === undefined) {
      reader.skip(wire);
      continue;
    }
    const [name, field] = known;
    const item = decodeField(reader, field.kind, wire);
    if (field.repeated === true) (result[name] as unknown[]).push(item);
    else result[name] = item;
  }
  return result as T;
}

function defaultOf(kind: FieldKind): unknown {
  if (typeof kind === 'object') return undefined;
  switch (kind) {
    case 'string':
      return '';
    case 'bytes':
      return Buffer.alloc(0);
    case 'bool':
      return false;
    case 'uint32':
      return 0;
    case 'int64':
      return 0n;
    default:
      return kind satisfies never;
  }
}

function decodeField(reader: Reader, kind: FieldKind, wire: number): unknown {
  const wanted = typeof kind === 'object' || kind === 'string' || kind === 'bytes' ? 2 : 0;
  if (wire !== wanted) throw malformed(`wire type ${wire} where ${wanted} was expected`);
  if (typeof kind === 'object') return decode(kind.message, reader.block());
  switch (kind) {
    case 'string':
      return reader.block().toString('utf8');
    case 'bytes':
      return reader.block();
    case 'bool':
      return reader.varint() !== 0n;
    case 'uint32':
      return Number(BigInt.asUintN(32, reader.varint()));
    case 'int64':
      return BigInt.asIntN(64, reader.varint());
    default:
      return kind satisfies never;
  }
}

function malformed(text: string): GantryError {
  return new GantryError('system', `malformed protobuf message: ${text}`);
}

class Reader {
  readonly #bytes: Buffer;
  #offset = 0;

  constructor(bytes: Uint8Array) {
    this.#bytes = Buffer.from(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  }

  get done(): boolean {
    return this.#offset >= this.#bytes.length;
  }

  varint(): bigint {
    let low = 0;
    let scale = 1;
    for (let index = 0; index < MAX_VARINT_BYTES; index += 1) {
      const byte = this.#bytes[this.#offset];
      if (byte === undefined) throw malformed('truncated varint');
      this.#offset += 1;
      // 7 groups of 7 bits stay exact in a double; longer values are redone with BigInt.
      if (index >= 7) return this.#longVarint(index, BigInt(low), byte);
      low += (byte & 0x7f) * scale;
      scale *= 128;
      if (byte < 0x80) return BigInt(low);
    }
    throw malformed('varint too long');
  }

  #longVarint(start: number, low: bigint, first: number): bigint {
    let value = low;
    let byte = first;
    for (let index = start; index < MAX_VARINT_BYTES; index += 1) {
      value |= BigInt(byte & 0x7f) << BigInt(index * 7);
      if (byte < 0x80) return value;
      const next = this.#bytes[this.#offset];
      if (next === undefined) throw malformed('truncated varint');
      this.#offset += 1;
      byte = next;
    }
    throw malformed('varint too long');
  }

  block(): Buffer {
    const length = Number(this.varint());
    if (length > this.#bytes.length - this.#offset) throw malformed('truncated field');
    const start = this.#offset;
    this.#offset += length;
    return this.#bytes.subarray(start, this.#offset);
  }

  skip(wire: number): void {
    if (wire === 0) this.varint();
    else if (wire === 1) this.#advance(8);
    else if (wire === 2) this.block();
    else if (wire === 5) this.#advance(4);
    else throw malformed(`unknown wire type ${wire}`);
  }

  #advance(count: number): void {
    if (count > this.#bytes.length - this.#offset) throw malformed('truncated field');
    this.#offset += count;
  }
}
