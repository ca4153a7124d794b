/**
 * Docker's `local` driver format: entries of the LogEntry protobuf, each between two copies of its
 * length (4 bytes, big-endian), so that a file reads forwards and backwards.
 */
import type { OutputStream } from '#services/streams/contract.ts';
import { decode, encode, type FieldTable } from '#system/runtime/protobuf.ts';
import type { LogRecord } from './contract.ts';
import type { EntryDecoder, EntryFormat, ReadAt, TailPosition } from './entry-format.ts';
import { readFully } from './json-format.ts';
import type { EntryTime, PartOf } from './line-splitter.ts';

const LENGTH_BYTES = 4;
const FRAME_BYTES = 2 * LENGTH_BYTES;
/** dockerd refuses larger ones too. */
const MAX_ENTRY_BYTES = 1_000_000;

const ATTRIBUTE: FieldTable = { key: { number: 1, kind: 'string' }, value: { number: 2, kind: 'string' } };
const PART: FieldTable = {
  last: { number: 1, kind: 'bool' },
  id: { number: 2, kind: 'string' },
  ordinal: { number: 3, kind: 'uint32' },
};
const HEAD: FieldTable = { source: { number: 1, kind: 'string' }, timeNano: { number: 2, kind: 'int64' } };
const TAIL: FieldTable = {
  partial: { number: 4, kind: 'bool' },
  part: { number: 5, kind: { message: PART } },
  attributes: { number: 6, kind: { message: ATTRIBUTE }, repeated: true },
};
const ENTRY: FieldTable = { ...HEAD, line: { number: 3, kind: 'bytes' }, ...TAIL };
const LINE_TAG = (3 << 3) | 2;

interface Entry {
  readonly source: string;
  readonly timeNano: bigint;
  readonly line: Buffer;
  readonly partial: boolean;
  readonly part: { readonly last: boolean } | undefined;
  readonly attributes: readonly { readonly key: string; readonly value: string }[];
}

/** Format of the local driver; `attributes` are the same for every entry. */
export class LocalFormat implements EntryFormat {
  readonly #attributes: readonly { key: string; value: string }[];

  constructor(attributes: Readonly<Record<string, string>>) {
    this.#attributes = Object.entries(attributes).map(([key, value]) => ({ key, value }));
  }

  encodeLines(stream: OutputStream, block: Buffer, time: EntryTime): Buffer {
    const head = encode(HEAD, { source: stream, timeNano: time.ns });
    const tail = encode(TAIL, { attributes: this.#attributes });
    const entries: Buffer[] = [];
    let start = 0;
    while (start < block.length) {
      const end = block.indexOf(10, start);
      entries.push(frame(head, block.subarray(start, end), tail));
      start = end + 1;
    }
    return Buffer.concat(entries);
  }

  encodePart(stream: OutputStream, content: Buffer, time: EntryTime, part: PartOf): Buffer {
    const head = encode(HEAD, { source: stream, timeNano: time.ns });
    return frame(head, content, encode(TAIL, { partial: true, part, attributes: this.#attributes }));
  }

  entryEnd(encoded: Buffer, offset: number): number {
    let end = 0;
    while (end <= offset && end < encoded.length) end += encoded.readUInt32BE(end) + FRAME_BYTES;
    return end;
  }

  decoder(): EntryDecoder {
    return new LocalDecoder();
  }

  async tail(read: ReadAt, size: number, count: number): Promise<TailPosition> {
    const header = Buffer.alloc(LENGTH_BYTES);
    const footer = Buffer.alloc(LENGTH_BYTES);
    let offset = size;
    let found = 0;
    while (offset > 0 && found < count) {
      await readFully(read, footer, offset - LENGTH_BYTES);
      const start = offset - FRAME_BYTES - footer.readUInt32BE(0);
      // Not a whole entry: what was found behind it is still the newest.
      if (start < 0) break;
      await readFully(read, header, start);
      if (!header.equals(footer)) break;
      offset = start;
      found += 1;
    }
    return { offset: found === 0 && size > 0 ? 0 : offset, found };
  }

  /** Only the end can be torn; if the last entry is not whole, all are walked to find the last good one. */
  async repair(read: ReadAt, size: number): Promise<{ readonly truncateTo: number } | undefined> {
    if (size === 0 || (await this.tail(read, size, 1)).found === 1) return undefined;
    const header = Buffer.alloc(LENGTH_BYTES);
    const footer = Buffer.alloc(LENGTH_BYTES);
    let good = 0;
    while (good + FRAME_BYTES <= size) {
      await readFully(read, header, good);
      const end = good + header.readUInt32BE(0) + FRAME_BYTES;
      if (end > size) break;
      await readFully(read, footer, end - LENGTH_BYTES);
      if (!footer.equals(header)) break;
      good = end;
    }
    return { truncateTo: good };
  }
}

function frame(head: Buffer, line: Buffer, tail: Buffer): Buffer {
  // Protobuf writes no empty field; the length of a line is below 2^21, so at most three bytes.
  const lineHead = line.length === 0 ? 0 : 1 + (line.length < 0x80 ? 1 : line.length < 0x4000 ? 2 : 3);
  const length = head.length + lineHead + line.length + tail.length;
  const framed = Buffer.allocUnsafe(length + FRAME_BYTES);
  framed.writeUInt32BE(length, 0);
  let at = LENGTH_BYTES + head.copy(framed, LENGTH_BYTES);
  if (lineHead > 0) {
    framed[at++] = LINE_TAG;
    let rest = line.length;
    for (; rest >= 0x80; rest >>= 7) framed[at++] = (rest & 0x7f) | 0x80;
    framed[at++] = rest;
    at += line.copy(framed, at);
  }
  at += tail.copy(framed, at);
  framed.writeUInt32BE(length, at);
  return framed;
}

class LocalDecoder implements EntryDecoder {
  #rest: Buffer = Buffer.alloc(0);
  #isBroken = false;

  push(chunk: Buffer): LogRecord[] {
    const records: LogRecord[] = [];
    if (this.#isBroken) return records;
    let data = this.#rest.length === 0 ? chunk : Buffer.concat([this.#rest, chunk]);
    while (data.length >= LENGTH_BYTES) {
      const length = data.readUInt32BE(0);
      if (length > MAX_ENTRY_BYTES) {
        // Without its length nothing behind a broken entry can be found.
        this.#isBroken = true;
        return records;
      }
      if (data.length < length + FRAME_BYTES) break;
      const record = parseEntry(data.subarray(LENGTH_BYTES, LENGTH_BYTES + length));
      if (record !== undefined) records.push(record);
      data = data.subarray(length + FRAME_BYTES);
    }
    this.#rest = Buffer.from(data);
    return records;
  }
}

function parseEntry(bytes: Buffer): LogRecord | undefined {
  let entry: Entry;
  try {
    entry = decode<Entry>(ENTRY, bytes);
  } catch {
    return undefined;
  }
  const isComplete = !entry.partial || entry.part?.last === true;
  return {
    stream: entry.source === 'stderr' ? 'stderr' : 'stdout',
    line: isComplete ? Buffer.concat([entry.line, Buffer.from('\n')]) : Buffer.from(entry.line),
    timeNs: entry.timeNano,
    attributes: Object.fromEntries(entry.attributes.map(({ key, value }) => [key, value])),
  };
}
