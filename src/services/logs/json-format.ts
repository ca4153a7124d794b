/**
 * Docker's json-file format: one JSON object a line, `{"log":…,"stream":…,"attrs":…,"time":…}`.
 *
 * Invariant: what is written is byte for byte what dockerd writes (its escapes included). Whole blocks of
 * lines are encoded with string operations on Latin-1 views of the bytes: a million lines take well under a second.
 */
import type { OutputStream } from '#services/streams/contract.ts';
import type { LogRecord } from './contract.ts';
import type { EntryDecoder, EntryFormat, ReadAt, TailPosition } from './entry-format.ts';
import { parseEntryTime } from './entry-time.ts';
import { escapeBinary, escapeBytes, isBinary } from './json-escape.ts';
import type { EntryTime, PartOf } from './line-splitter.ts';

const LINE_FEED = 10;
const TAIL_BLOCK_BYTES = 64 * 1024;
/** A line of a log file longer than this is not ours and is dropped instead of growing memory. */
const MAX_ENTRY_BYTES = 1024 * 1024;

/** Format of the json-file driver; `attributes` are the same for every entry. */
export class JsonFormat implements EntryFormat {
  readonly #attributes: string;

  constructor(attributes: Readonly<Record<string, string>>) {
    const text = Object.keys(attributes).length === 0 ? '' : JSON.stringify(attributes);
    // Compat: Go escapes these three also inside JSON it made itself.
    const escaped = text.replace(/[<>&]/g, (character) => `\\u00${character.charCodeAt(0).toString(16)}`);
    this.#attributes = escaped === '' ? '' : `,"attrs":${Buffer.from(escaped).toString('latin1')}`;
  }

  encodeLines(stream: OutputStream, block: Buffer, time: EntryTime): Buffer {
    const end = `\\n${this.#end(stream, time)}`;
    const text = escapeBytes(block.subarray(0, -1));
    return Buffer.from(`{"log":"${text.split('\n').join(`${end}{"log":"`)}${end}`, 'latin1');
  }

  encodePart(stream: OutputStream, content: Buffer, time: EntryTime, part: PartOf): Buffer {
    const end = `${part.last ? '\\n' : ''}${this.#end(stream, time)}`;
    if (isBinary(content)) {
      return Buffer.concat([Buffer.from('{"log":"'), escapeBinary(content), Buffer.from(end, 'latin1')]);
    }
    return Buffer.from(`{"log":"${escapeBytes(content)}${end}`, 'latin1');
  }

  entryEnd(encoded: Buffer, offset: number): number {
    const lineEnd = encoded.indexOf(LINE_FEED, Math.max(0, offset));
    return lineEnd < 0 ? encoded.length : lineEnd + 1;
  }

  decoder(): EntryDecoder {
    return new JsonDecoder();
  }

  async tail(read: ReadAt, size: number, count: number): Promise<TailPosition> {
    const block = Buffer.allocUnsafe(TAIL_BLOCK_BYTES);
    let found = 0;
    let end = size;
    // The line feed that ends the last entry begins none.
    let ignored = size - 1;
    while (end > 0) {
      const start = Math.max(0, end - TAIL_BLOCK_BYTES);
      const length = await readFully(read, block.subarray(0, end - start), start);
      for (let at = block.subarray(0, length).lastIndexOf(LINE_FEED); at >= 0; at = lastBefore(block, at)) {
        if (start + at === ignored) continue;
        found += 1;
        if (found === count) return { offset: start + at + 1, found };
      }
      ignored = -1;
      end = start;
    }
    return { offset: 0, found: size > 0 ? found + 1 : 0 };
  }

  async repair(read: ReadAt, size: number): Promise<{ readonly append: Buffer } | undefined> {
    if (size === 0) return undefined;
    const last = Buffer.alloc(1);
    await read(last, size - 1);
    // The torn entry becomes a line of its own, which readers skip.
    return last[0] === LINE_FEED ? undefined : { append: Buffer.from('\n') };
  }

  #end(stream: OutputStream, time: EntryTime): string {
    return `","stream":"${stream}"${this.#attributes},"time":"${time.text}"}\n`;
  }
}

function lastBefore(block: Buffer, at: number): number {
  return at === 0 ? -1 : block.lastIndexOf(LINE_FEED, at - 1);
}

/** Reads until `buffer` is full or the file ends. */
export async function readFully(read: ReadAt, buffer: Buffer, position: number): Promise<number> {
  let done = 0;
  while (done < buffer.length) {
    const count = await read(buffer.subarray(done), position + done);
    if (count === 0) break;
    done += count;
  }
  return done;
}

class JsonDecoder implements EntryDecoder {
  #rest: Buffer = Buffer.alloc(0);

  push(chunk: Buffer): LogRecord[] {
    const data = this.#rest.length === 0 ? chunk : Buffer.concat([this.#rest, chunk]);
    const end = data.lastIndexOf(LINE_FEED);
    const rest = data.subarray(end + 1);
    this.#rest = rest.length > MAX_ENTRY_BYTES ? Buffer.alloc(0) : Buffer.from(rest);
    const records: LogRecord[] = [];
    if (end < 0) return records;
    for (const line of data.toString('utf8', 0, end).split('\n')) {
      const record = parseRecord(line);
      if (record !== undefined) records.push(record);
    }
    return records;
  }
}

/** Undefined for a line that is no entry: torn by a crash, or written by someone else. */
function parseRecord(line: string): LogRecord | undefined {
  let entry: { log?: unknown; stream?: unknown; time?: unknown; attrs?: unknown };
  try {
    entry = JSON.parse(line);
  } catch {
    return undefined;
  }
  if (typeof entry !== 'object' || entry === null || typeof entry.time !== 'string') return undefined;
  const timeNs = parseEntryTime(entry.time);
  if (timeNs === undefined) return undefined;
  return {
    stream: entry.stream === 'stderr' ? 'stderr' : 'stdout',
    line: Buffer.from(typeof entry.log === 'string' ? entry.log : ''),
    timeNs,
    attributes: typeof entry.attrs === 'object' && entry.attrs !== null ? (entry.attrs as Record<string, string>) : {},
  };
}
