/**
 * DNS messages (RFC 1035, EDNS of RFC 6891) as far as a forwarder needs them: the question of a query is read,
 * answers are checked and walked, but what is forwarded stays the sender's bytes. Pure.
 *
 * Both sides are hostile: every read is checked against the end, and a compression pointer must point before
 * the piece of name it ends, so each name is read in bounded time. Nothing here throws on bad input.
 */

export const TYPE = { A: 1, NS: 2, CNAME: 5, SOA: 6, PTR: 12, MX: 15, AAAA: 28, SRV: 33, DNAME: 39, OPT: 41 } as const;
export const RCODE = {
  success: 0,
  formatError: 1,
  serverFailure: 2,
  nameError: 3,
  notImplemented: 4,
  refused: 5,
  badVersion: 16,
} as const;
export const CLASS_INTERNET = 1;

export const HEADER_BYTES = 12;
/** What a client without EDNS takes over UDP. */
const PLAIN_UDP_BYTES = 512;
export const MESSAGE_BYTES_MAX = 65_535;
/** What we say we take ourselves: fits every path without fragments. */
const OWN_UDP_BYTES = 1232;
const NAME_BYTES_MAX = 255;
const LABEL_BYTES_MAX = 63;
/** A name of 255 bytes has at most 127 labels; more jumps than that only waste time. */
const NAME_JUMPS_MAX = 127;
const QUESTION_TAIL_BYTES = 4;
const RECORD_HEAD_BYTES = 10;
const OPT_BYTES = 11;

const FLAG_RESPONSE = 0x8000;
const FLAG_TRUNCATED = 0x0200;
const FLAG_RECURSION_DESIRED = 0x0100;
const FLAG_RECURSION_AVAILABLE = 0x0080;
const FLAG_AUTHENTIC_DATA = 0x0020;
const FLAG_CHECKING_DISABLED = 0x0010;
const MASK_OPCODE = 0x7800;
const MASK_RCODE = 0x000f;
const EDNS_DNSSEC_OK = 0x8000;

/** The OPT record of a query. */
export interface Edns {
  readonly version: number;
  readonly udpBytes: number;
  readonly dnssecOk: boolean;
  /** Options (cookies, client subnet …) make an answer this client's own. */
  readonly hasOptions: boolean;
}

/** A query that can be answered or forwarded. */
export interface Query {
  /** The message without anything behind its last record. */
  readonly bytes: Buffer;
  readonly flags: number;
  /** Lower case, without the final dot; bytes that are no plain label text are escaped. */
  readonly name: string;
  readonly type: number;
  readonly class: number;
  /** Where the question ends. */
  readonly questionEnd: number;
  readonly edns: Edns | undefined;
}

/** What a datagram turned out to be: nothing to answer, something to refuse, or a query. */
export type Received =
  | { readonly kind: 'ignored' }
  | { readonly kind: 'rejected'; readonly reply: Buffer }
  | { readonly kind: 'query'; readonly query: Query };

/** One record of a response, as offsets. */
interface RecordView {
  readonly type: number;
  readonly class: number;
  readonly ttlAt: number;
  readonly ttl: number;
  readonly dataAt: number;
  readonly end: number;
}

/** End of the (possibly compressed) name at `start`; undefined when it is not a valid name. */
export function nameEnd(bytes: Buffer, start: number): number | undefined {
  let at = start;
  let segment = start;
  let end: number | undefined;
  let length = 1;
  let jumps = 0;
  for (;;) {
    const first = bytes[at];
    if (first === undefined) return undefined;
    if (first === 0) return end ?? at + 1;
    if (first >= 0xc0) {
      const second = bytes[at + 1];
      if (second === undefined) return undefined;
      const target = ((first & 0x3f) << 8) | second;
      jumps += 1;
      if (target < HEADER_BYTES || target >= segment || jumps > NAME_JUMPS_MAX) return undefined;
      end ??= at + 2;
      at = target;
      segment = target;
      continue;
    }
    if (first > LABEL_BYTES_MAX) return undefined;
    length += first + 1;
    if (length > NAME_BYTES_MAX) return undefined;
    at += first + 1;
  }
}

/** The uncompressed name at `start` as lower-case text; call it on names `nameEnd` has accepted. */
function readName(bytes: Buffer, start: number, end: number): string {
  let text = '';
  let at = start;
  while (at < end - 1) {
    const length = bytes[at] ?? 0;
    if (text !== '') text += '.';
    for (let index = at + 1; index <= at + length; index += 1) text += nameCharacter(bytes[index] ?? 0);
    at += length + 1;
  }
  return text;
}

function nameCharacter(byte: number): string {
  if (byte >= 0x41 && byte <= 0x5a) return String.fromCharCode(byte + 0x20);
  // A dot or backslash inside a label must not look like the end of one.
  if (byte > 0x20 && byte < 0x7f && byte !== 0x2e && byte !== 0x5c) return String.fromCharCode(byte);
  return `\\${byte.toString().padStart(3, '0')}`;
}

/** Reads what a client sent. */
export function receiveQuery(bytes: Buffer): Received {
  if (bytes.length < HEADER_BYTES) return { kind: 'ignored' };
  const flags = bytes.readUInt16BE(2);
  if ((flags & FLAG_RESPONSE) !== 0) return { kind: 'ignored' };
  if ((flags & MASK_OPCODE) !== 0) return { kind: 'rejected', reply: headerReply(bytes, RCODE.notImplemented) };
  const query = readQuery(bytes, flags);
  if (query === undefined) return { kind: 'rejected', reply: headerReply(bytes, RCODE.formatError) };
  return { kind: 'query', query };
}

function readQuery(bytes: Buffer, flags: number): Query | undefined {
  if (bytes.readUInt16BE(4) !== 1) return undefined;
  const end = nameEnd(bytes, HEADER_BYTES);
  if (end === undefined || end + QUESTION_TAIL_BYTES > bytes.length) return undefined;
  const questionEnd = end + QUESTION_TAIL_BYTES;
  let edns: Edns | undefined;
  let total = questionEnd;
  for (const record of recordsOf(bytes, questionEnd) ?? [undefined]) {
    if (record === undefined) return undefined;
    total = record.end;
    if (record.type !== TYPE.OPT) continue;
    if (edns !== undefined) return undefined;
    edns = {
      version: (record.ttl >>> 16) & 0xff,
      udpBytes: record.class,
      dnssecOk: (record.ttl & EDNS_DNSSEC_OK) !== 0,
      hasOptions: record.end > record.dataAt,
    };
  }
  return {
    bytes: bytes.subarray(0, total),
    flags,
    name: readName(bytes, HEADER_BYTES, end),
    type: bytes.readUInt16BE(end),
    class: bytes.readUInt16BE(end + 2),
    questionEnd,
    edns,
  };
}

/** All records behind the question; undefined when they are not what the header counts or a name in them is bad. */
function recordsOf(bytes: Buffer, start: number): RecordView[] | undefined {
  const count = bytes.readUInt16BE(6) + bytes.readUInt16BE(8) + bytes.readUInt16BE(10);
  const records: RecordView[] = [];
  let at = start;
  for (let index = 0; index < count; index += 1) {
    const head = nameEnd(bytes, at);
    if (head === undefined || head + RECORD_HEAD_BYTES > bytes.length) return undefined;
    const dataAt = head + RECORD_HEAD_BYTES;
    const record = {
      type: bytes.readUInt16BE(head),
      class: bytes.readUInt16BE(head + 2),
      ttlAt: head + 4,
      ttl: bytes.readUInt32BE(head + 4),
      dataAt,
      end: dataAt + bytes.readUInt16BE(head + 8),
    };
    if (record.end > bytes.length || !namesInside(bytes, record)) return undefined;
    records.push(record);
    at = record.end;
  }
  return records;
}

/** Whether the names in a record's data are sound; only the old types may compress them. */
function namesInside(bytes: Buffer, { type, dataAt, end }: RecordView): boolean {
  if (end === dataAt) return true;
  switch (type) {
    case TYPE.NS:
    case TYPE.CNAME:
    case TYPE.PTR:
    case TYPE.DNAME:
      return nameEnd(bytes, dataAt) === end;
    case TYPE.MX:
      return nameEnd(bytes, dataAt + 2) === end;
    case TYPE.SRV:
      return nameEnd(bytes, dataAt + 6) === end;
    case TYPE.SOA: {
      const mailbox = nameEnd(bytes, dataAt);
      const numbers = mailbox === undefined ? undefined : nameEnd(bytes, mailbox);
      return numbers !== undefined && numbers + 20 === end;
    }
    default:
      return true;
  }
}

/** What the client takes in one message over this transport. */
export function replyLimit(query: Query, protocol: 'udp' | 'tcp'): number {
  return protocol === 'tcp' ? MESSAGE_BYTES_MAX : Math.max(PLAIN_UDP_BYTES, query.edns?.udpBytes ?? 0);
}

/** Record data of an answer to the question's own name. */
export interface Answer {
  readonly type: number;
  readonly ttlSeconds: number;
  readonly data: Buffer;
}

export interface ReplyOptions {
  readonly code?: number;
  readonly answers?: readonly Answer[];
  readonly limitBytes?: number;
  readonly truncated?: boolean;
}

/** A reply of our own. Answers that do not fit are left out and the reply says so. */
export function buildReply(query: Query, options: ReplyOptions = {}): Buffer {
  const { code = RCODE.success, limitBytes = PLAIN_UDP_BYTES } = options;
  const room = limitBytes - query.questionEnd - (query.edns === undefined ? 0 : OPT_BYTES);
  const kept: Buffer[] = [];
  let used = 0;
  let truncated = options.truncated ?? false;
  for (const { type, ttlSeconds, data } of options.answers ?? []) {
    const record = Buffer.alloc(12 + data.length);
    // The name is a pointer to the question.
    record.writeUInt16BE(0xc000 | HEADER_BYTES, 0);
    record.writeUInt16BE(type, 2);
    record.writeUInt16BE(CLASS_INTERNET, 4);
    record.writeUInt32BE(ttlSeconds, 6);
    record.writeUInt16BE(data.length, 10);
    data.copy(record, 12);
    truncated ||= used + record.length > room;
    if (truncated) break;
    used += record.length;
    kept.push(record);
  }
  const head = Buffer.from(query.bytes.subarray(0, query.questionEnd));
  head.writeUInt16BE(replyFlags(query.flags, code) | (truncated ? FLAG_TRUNCATED : 0), 2);
  head.writeUInt16BE(kept.length, 6);
  head.writeUInt16BE(0, 8);
  head.writeUInt16BE(query.edns === undefined ? 0 : 1, 10);
  return Buffer.concat([head, ...kept, ...(query.edns === undefined ? [] : [optRecord(query.edns, code)])]);
}

function replyFlags(queryFlags: number, code: number): number {
  const kept = queryFlags & (FLAG_RECURSION_DESIRED | FLAG_CHECKING_DISABLED);
  return FLAG_RESPONSE | FLAG_RECURSION_AVAILABLE | kept | (code & MASK_RCODE);
}

function optRecord(edns: Edns, code: number): Buffer {
  const record = Buffer.alloc(OPT_BYTES);
  record.writeUInt16BE(TYPE.OPT, 1);
  record.writeUInt16BE(OWN_UDP_BYTES, 3);
  record.writeUInt8(code >>> 4, 5);
  record.writeUInt16BE(edns.dnssecOk ? EDNS_DNSSEC_OK : 0, 7);
  return record;
}

/** A bare header, for messages whose question cannot be read. */
function headerReply(bytes: Buffer, code: number): Buffer {
  const reply = Buffer.alloc(HEADER_BYTES);
  bytes.copy(reply, 0, 0, 2);
  const flags = bytes.readUInt16BE(2);
  reply.writeUInt16BE(replyFlags(flags, code) | (flags & MASK_OPCODE), 2);
  return reply;
}

/** An upstream's response that belongs to a query. */
export interface Response {
  /** Without anything behind its last record. */
  readonly bytes: Buffer;
  readonly code: number;
  readonly truncated: boolean;
  /** Says that there is nothing of this name or type. */
  readonly negative: boolean;
  /** Seconds the response may be kept; 0: not at all. */
  readonly keepSeconds: number;
}

/**
 * Reads a response to `query` as it was sent under `id`. Undefined when it is none: other ID, other question,
 * or records that cannot be read.
 */
export function readResponse(query: Query, id: number, bytes: Buffer): Response | undefined {
  if (bytes.length < HEADER_BYTES || bytes.readUInt16BE(0) !== id) return undefined;
  const flags = bytes.readUInt16BE(2);
  if ((flags & FLAG_RESPONSE) === 0 || (flags & MASK_OPCODE) !== 0) return undefined;
  const code = flags & MASK_RCODE;
  const truncated = (flags & FLAG_TRUNCATED) !== 0;
  if (bytes.readUInt16BE(4) === 0) {
    // Old servers refuse with a bare header; with a success it would answer nothing.
    if (code === RCODE.success) return undefined;
    return { bytes: buildReply(query, { code }), code, truncated: false, negative: false, keepSeconds: 0 };
  }
  if (bytes.readUInt16BE(4) !== 1 || !sameQuestion(query, bytes)) return undefined;
  const records = recordsOf(bytes, query.questionEnd);
  // Some servers cut a truncated message in the middle of a record.
  if (records === undefined) return truncated ? cutShort(query, code) : undefined;
  const end = records.at(-1)?.end ?? query.questionEnd;
  const negative = code !== RCODE.success || bytes.readUInt16BE(6) === 0;
  return { bytes: bytes.subarray(0, end), code, truncated, negative, keepSeconds: keepSeconds(bytes, records, code) };
}

function cutShort(query: Query, code: number): Response {
  return {
    bytes: buildReply(query, { code, truncated: true }),
    code,
    truncated: true,
    negative: false,
    keepSeconds: 0,
  };
}

function sameQuestion(query: Query, bytes: Buffer): boolean {
  if (bytes.length < query.questionEnd) return false;
  const nameStop = query.questionEnd - QUESTION_TAIL_BYTES;
  for (let at = HEADER_BYTES; at < query.questionEnd; at += 1) {
    const ours = query.bytes[at] ?? 0;
    const theirs = bytes[at] ?? 0;
    // Lengths are below the letters, so folding case cannot mix them up.
    if (at < nameStop ? fold(ours) !== fold(theirs) : ours !== theirs) return false;
  }
  return true;
}

function fold(byte: number): number {
  return byte >= 0x41 && byte <= 0x5a ? byte + 0x20 : byte;
}

/** RFC 2308: an answer lives as long as its shortest record, a negative one as long as its SOA says. */
function keepSeconds(bytes: Buffer, records: readonly RecordView[], code: number): number {
  if (code !== RCODE.success && code !== RCODE.nameError) return 0;
  const answers = bytes.readUInt16BE(6);
  const lives = records.filter(({ type }) => type !== TYPE.OPT).map(ttlOf);
  const positive = answers > 0 && code === RCODE.success;
  if (positive) return Math.min(...lives);
  const authority = records.slice(answers, answers + bytes.readUInt16BE(8));
  const soa = authority.find(({ type, end, dataAt }) => type === TYPE.SOA && end > dataAt);
  if (soa === undefined) return 0;
  return Math.min(...lives, bytes.readUInt32BE(soa.end - 4));
}

/** RFC 2181: a TTL with the top bit set counts as 0. */
function ttlOf({ ttl }: RecordView): number {
  return ttl > 0x7fff_ffff ? 0 : ttl;
}

/** A kept response as the reply to `query`, which asks the same question: its ID, its spelling, TTLs aged. */
export function replyFromKept(kept: Buffer, query: Query, ageSeconds: number): Buffer {
  const reply = withIdentity(kept, query);
  for (const record of recordsOf(reply, query.questionEnd) ?? []) {
    if (record.type !== TYPE.OPT) reply.writeUInt32BE(Math.max(0, ttlOf(record) - ageSeconds), record.ttlAt);
  }
  return reply;
}

/** A copy of a response with the ID, the RD flag and the question of `query`. */
export function withIdentity(response: Buffer, query: Query): Buffer {
  const reply = Buffer.from(response);
  query.bytes.copy(reply, 0, 0, 2);
  query.bytes.copy(reply, HEADER_BYTES, HEADER_BYTES, query.questionEnd);
  return reply;
}

/** A copy of the query under another ID, for an upstream. */
export function withId(query: Query, id: number): Buffer {
  const message = Buffer.from(query.bytes);
  message.writeUInt16BE(id, 0);
  return message;
}

const KEY_FLAGS = FLAG_RECURSION_DESIRED | FLAG_AUTHENTIC_DATA | FLAG_CHECKING_DISABLED;

/** Everything of a query that its answer may depend on; undefined when the answer is only for this client. */
export function questionKey(query: Query): string | undefined {
  const { edns, flags, type, name } = query;
  if (edns?.hasOptions === true) return undefined;
  const extension = edns === undefined ? '-' : `${edns.version}${edns.dnssecOk ? 'd' : ''}`;
  return `${type} ${query.class} ${flags & KEY_FLAGS} ${extension} ${name}`;
}

/** A host name as wire bytes; undefined when DNS cannot carry it. */
export function encodeName(name: string): Buffer | undefined {
  const parts: Buffer[] = [];
  for (const label of name.replace(/\.$/, '').split('.')) {
    const bytes = Buffer.from(label, 'latin1');
    if (bytes.length === 0 || bytes.length > LABEL_BYTES_MAX || bytes.toString('latin1') !== label) return undefined;
    parts.push(Buffer.from([bytes.length]), bytes);
  }
  parts.push(Buffer.from([0]));
  const encoded = Buffer.concat(parts);
  return encoded.length > NAME_BYTES_MAX ? undefined : encoded;
}
