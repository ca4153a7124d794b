/** DNS messages for tests, written independently of the resolver's own codec: queries, responses, and their reading. */

export const DNS_TYPE = {
  A: 1,
  NS: 2,
  CNAME: 5,
  SOA: 6,
  PTR: 12,
  MX: 15,
  TXT: 16,
  AAAA: 28,
  SRV: 33,
  OPT: 41,
  ANY: 255,
} as const;

export interface QueryOptions {
  readonly id?: number;
  readonly type?: number;
  readonly class?: number;
  readonly flags?: number;
  /** Adds an OPT record with this UDP size. */
  readonly ednsBytes?: number;
  readonly ednsVersion?: number;
  readonly ednsOptions?: Buffer;
}

/** Wire form of a dotted name. */
export function wireName(name: string): Buffer {
  const labels = name.split('.').filter((label) => label !== '');
  return Buffer.concat([
    ...labels.map((label) => Buffer.from([label.length, ...Buffer.from(label)])),
    Buffer.from([0]),
  ]);
}

function u16(...values: number[]): Buffer {
  const bytes = Buffer.alloc(values.length * 2);
  for (const [index, value] of values.entries()) bytes.writeUInt16BE(value, index * 2);
  return bytes;
}

/** A query with one question. */
export function dnsQuery(name: string, options: QueryOptions = {}): Buffer {
  const { id = 4660, type = DNS_TYPE.A, flags = 0x0100, ednsBytes } = options;
  const opt =
    ednsBytes === undefined
      ? Buffer.alloc(0)
      : dnsRecord(
          '',
          DNS_TYPE.OPT,
          (options.ednsVersion ?? 0) << 16,
          options.ednsOptions ?? Buffer.alloc(0),
          ednsBytes,
        );
  return Buffer.concat([
    u16(id, flags, 1, 0, 0, ednsBytes === undefined ? 0 : 1),
    wireName(name),
    u16(type, options.class ?? 1),
    opt,
  ]);
}

/** A resource record with an uncompressed owner; '@' stands for a pointer to the question. */
export function dnsRecord(owner: string, type: number, ttl: number, data: Buffer, recordClass = 1): Buffer {
  const tail = Buffer.alloc(10);
  tail.writeUInt16BE(type, 0);
  tail.writeUInt16BE(recordClass, 2);
  tail.writeUInt32BE(ttl, 4);
  tail.writeUInt16BE(data.length, 8);
  return Buffer.concat([owner === '@' ? u16(0xc00c) : wireName(owner), tail, data]);
}

export interface ResponseOptions {
  readonly code?: number;
  readonly truncated?: boolean;
  readonly answers?: readonly Buffer[];
  readonly authority?: readonly Buffer[];
  readonly additional?: readonly Buffer[];
}

/** A server's response to a query: its ID and question, and these records. */
export function dnsResponse(query: Buffer, options: ResponseOptions = {}): Buffer {
  const { answers = [], authority = [], additional = [] } = options;
  let end = 12;
  while ((query[end] ?? 0) !== 0) end += (query[end] ?? 0) + 1;
  const flags = 0x8180 | (options.truncated === true ? 0x0200 : 0) | (options.code ?? 0);
  return Buffer.concat([
    query.subarray(0, 2),
    u16(flags, 1, answers.length, authority.length, additional.length),
    query.subarray(12, end + 5),
    ...answers,
    ...authority,
    ...additional,
  ]);
}

/** An SOA record, which gives negative answers their life. */
export function soaRecord(owner: string, ttl: number, minimum: number): Buffer {
  const numbers = Buffer.alloc(20);
  numbers.writeUInt32BE(minimum, 16);
  return dnsRecord(owner, DNS_TYPE.SOA, ttl, Buffer.concat([wireName('ns.test'), wireName('admin.test'), numbers]));
}

export interface ReadRecord {
  readonly name: string;
  readonly type: number;
  readonly class: number;
  readonly ttl: number;
  readonly data: Buffer;
  /** Data as text: addresses, names; hexadecimal otherwise. */
  readonly text: string;
}

export interface ReadMessage {
  readonly id: number;
  readonly flags: number;
  readonly code: number;
  readonly truncated: boolean;
  readonly question: string;
  readonly answers: readonly ReadRecord[];
  readonly authority: readonly ReadRecord[];
  readonly additional: readonly ReadRecord[];
  readonly sizeBytes: number;
}

/** Reads a whole message strictly; throws on anything that is not well-formed. */
export function readDns(bytes: Buffer): ReadMessage {
  const counts = [4, 6, 8, 10].map((at) => bytes.readUInt16BE(at));
  let at = 12;
  const name = (): string => {
    const read = nameAt(bytes, at);
    at = read.end;
    return read.name;
  };
  const question = counts[0] === 0 ? '' : `${name()} ${bytes.readUInt16BE(at)}`;
  if (counts[0] !== 0) at += 4;
  const section = (count = 0): ReadRecord[] =>
    Array.from({ length: count }, () => {
      const owner = name();
      const length = bytes.readUInt16BE(at + 8);
      const [type, recordClass, ttl] = [bytes.readUInt16BE(at), bytes.readUInt16BE(at + 2), bytes.readUInt32BE(at + 4)];
      const start = at + 10;
      at = start + length;
      if (at > bytes.length) throw new Error('record beyond the end');
      const data = bytes.subarray(start, at);
      return { name: owner, type, class: recordClass, ttl, data, text: dataText(bytes, type, start, data) };
    });
  const [answers, authority, additional] = [section(counts[1]), section(counts[2]), section(counts[3])];
  if (at !== bytes.length) throw new Error('bytes behind the last record');
  const flags = bytes.readUInt16BE(2);
  const head = { id: bytes.readUInt16BE(0), flags, code: flags & 15, truncated: (flags & 0x0200) !== 0 };
  return { ...head, question, answers, authority, additional, sizeBytes: bytes.length };
}

function nameAt(bytes: Buffer, start: number): { name: string; end: number } {
  const labels: string[] = [];
  let at = start;
  let end = -1;
  for (let steps = 0; steps < 300; steps += 1) {
    const length = bytes.readUInt8(at);
    if (length === 0) return { name: labels.join('.'), end: end === -1 ? at + 1 : end };
    if (length >= 0xc0) {
      if (end === -1) end = at + 2;
      at = bytes.readUInt16BE(at) & 0x3fff;
    } else {
      labels.push(bytes.toString('latin1', at + 1, at + 1 + length));
      at += length + 1;
    }
  }
  throw new Error('endless name');
}

function dataText(bytes: Buffer, type: number, start: number, data: Buffer): string {
  if (type === DNS_TYPE.A) return [...data].join('.');
  if (type === DNS_TYPE.PTR || type === DNS_TYPE.CNAME) return nameAt(bytes, start).name;
  return data.toString('hex');
}
