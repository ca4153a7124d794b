/**
 * Reads a log over its rotated files and, for a follower, on through the file being written.
 *
 * Invariant: all files are opened in one synchronous step, before a rotation can move them; memory is
 * bounded by one block and its records, whatever the size of the log.
 */
import { closeSync, fstatSync, openSync } from 'node:fs';
import { nowNs } from '#system/clock/clock.ts';
import { unpackFile } from './compress.ts';
import type { LogReadOptions, LogRecord } from './contract.ts';
import type { EntryFormat } from './entry-format.ts';
import { type LogFile, readerOf, rotatedPath } from './log-file.ts';

const BLOCK_BYTES = 64 * 1024;
/** More rotated files than this are not looked for. */
const MAX_ROTATED_FILES = 10_000;

/** What is read. */
export interface LogSource {
  readonly path: string;
  readonly format: EntryFormat;
  /** The log's writer, if it is being written now. */
  readonly live: LogFile | undefined;
}

/** One opened file of a log. */
interface Segment {
  descriptor: number;
  isCompressed: boolean;
  /** Where reading begins. */
  offset: number;
}

/** Opens `path` or `path.gz`. */
function openSegment(path: string): Segment | undefined {
  for (const isCompressed of [false, true]) {
    try {
      return { descriptor: openSync(isCompressed ? `${path}.gz` : path, 'r'), isCompressed, offset: 0 };
    } catch (error) {
      if ((error as NodeJS.ErrnoException).code !== 'ENOENT') throw error;
    }
  }
  return undefined;
}

/**
 * Records in order, as many at a time as are at hand; ends at the end of the log or, following, when its
 * writer closes or `signal` aborts.
 */
export async function* readLogBatches(
  source: LogSource,
  options: LogReadOptions,
  signal: AbortSignal,
): AsyncGenerator<readonly LogRecord[], void, void> {
  const reader = new LogReader(source, options, signal);
  try {
    yield* reader.batches();
  } catch (error) {
    if (!signal.aborted) throw error;
  } finally {
    reader.close();
  }
}

/** The same, one record at a time. */
export async function* readLog(
  source: LogSource,
  options: LogReadOptions,
  signal: AbortSignal,
): AsyncGenerator<LogRecord, void, void> {
  for await (const batch of readLogBatches(source, options, signal)) {
    for (const record of batch) {
      if (signal.aborted) return;
      yield record;
    }
  }
}

class LogReader {
  readonly #source: LogSource;
  readonly #options: LogReadOptions;
  readonly #signal: AbortSignal;
  /** Oldest first; the last is the file being written, if it exists. */
  readonly #segments: Segment[] = [];
  #generation: number;
  #isPastUntil = false;

  constructor(source: LogSource, options: LogReadOptions, signal: AbortSignal) {
    this.#source = source;
    this.#options = options;
    this.#signal = signal;
    this.#generation = source.live?.generation ?? 0;
    for (let index = 0; index < MAX_ROTATED_FILES; index += 1) {
      const segment = openSegment(rotatedPath(source.path, index));
      if (segment !== undefined) this.#segments.unshift(segment);
      // The newest may be missing when a crash came between two steps of a rotation.
      else if (index > 0) break;
    }
  }

  close(): void {
    for (const segment of this.#segments.splice(0)) closeSync(segment.descriptor);
  }

  async *batches(): AsyncGenerator<readonly LogRecord[], void, void> {
    if (this.#options.tail !== undefined) await this.#skipToTail(this.#options.tail);
    const { live } = this.#source;
    const isFollowing = this.#options.follow && live !== undefined;
    while (this.#segments.length > 0 && !this.#isDone()) {
      const segment = this.#segments[0] as Segment;
      await this.#unpack(segment);
      if (isFollowing && this.#segments.length === 1) yield* this.#follow(segment, live);
      else yield* this.#decodeAll(segment);
      this.#segments.shift();
      closeSync(segment.descriptor);
    }
  }

  #isDone(): boolean {
    return this.#isPastUntil || this.#signal.aborted;
  }

  async #unpack(segment: Segment): Promise<void> {
    if (!segment.isCompressed) return;
    const compressed = segment.descriptor;
    // The unpacking closes the compressed file, also when it fails.
    this.#segments.splice(this.#segments.indexOf(segment), 1);
    segment.descriptor = await unpackFile(compressed, this.#source.path, this.#signal);
    segment.isCompressed = false;
    this.#segments.unshift(segment);
  }

  /** Finds where the last `count` records begin, newest file first; older files are not read at all. */
  async #skipToTail(count: number): Promise<void> {
    let missing = count;
    for (let index = this.#segments.length - 1; index >= 0; index -= 1) {
      const segment = this.#segments[index] as Segment;
      if (missing === 0) {
        // Tail 0 still follows the newest file, from its end.
        if (index === this.#segments.length - 1) {
          segment.offset = fstatSync(segment.descriptor).size;
          continue;
        }
        for (const older of this.#segments.splice(0, index + 1)) closeSync(older.descriptor);
        return;
      }
      if (segment.isCompressed) {
        segment.descriptor = await this.#unpackInPlace(segment, index);
        segment.isCompressed = false;
      }
      const { size } = fstatSync(segment.descriptor);
      const tail = await this.#source.format.tail(readerOf(segment.descriptor), size, missing);
      segment.offset = tail.offset;
      missing -= tail.found;
    }
  }

  async #unpackInPlace(segment: Segment, index: number): Promise<number> {
    this.#segments.splice(index, 1);
    const unpacked = await unpackFile(segment.descriptor, this.#source.path, this.#signal);
    this.#segments.splice(index, 0, segment);
    return unpacked;
  }

  async *#decodeAll(segment: Segment): AsyncGenerator<readonly LogRecord[], void, void> {
    const read = readerOf(segment.descriptor);
    const decoder = this.#source.format.decoder();
    const block = Buffer.allocUnsafe(BLOCK_BYTES);
    while (!this.#isDone()) {
      const count = await read(block, segment.offset);
      if (count === 0) return;
      segment.offset += count;
      const records = this.#chosen(decoder.push(block.subarray(0, count)));
      if (records.length > 0) yield records;
    }
  }

  async *#follow(first: Segment, live: LogFile): AsyncGenerator<readonly LogRecord[], void, void> {
    let segment = first;
    let decoder = this.#source.format.decoder();
    const block = Buffer.allocUnsafe(BLOCK_BYTES);
    while (!this.#isDone()) {
      // Taken before the read: what is true of them holds for everything the read could have seen.
      const { version, generation, isClosed } = live;
      const count = await readerOf(segment.descriptor)(block, segment.offset);
      if (count > 0) {
        segment.offset += count;
        const records = this.#chosen(decoder.push(block.subarray(0, count)));
        if (records.length > 0) yield records;
      } else if (generation !== this.#generation) {
        const next = this.#nextGeneration(live);
        if (next === undefined) return;
        closeSync(segment.descriptor);
        // `first` stays in the list and is closed by the caller: it carries the descriptor in use.
        segment = Object.assign(first, next);
        await this.#unpack(segment);
        decoder = this.#source.format.decoder();
      } else if (isClosed || !(await this.#waitForChange(live, version))) {
        return;
      }
    }
  }

  /** Opens the file after the one just finished; files already removed are passed over. */
  #nextGeneration(live: LogFile): Segment | undefined {
    while (this.#generation < live.generation) {
      this.#generation += 1;
      const next = openSegment(rotatedPath(live.path, live.generation - this.#generation));
      if (next !== undefined) return next;
    }
    return undefined;
  }

  /** False when the end of the wanted time came first. */
  async #waitForChange(live: LogFile, version: number): Promise<boolean> {
    const { untilNs } = this.#options;
    if (untilNs === undefined) {
      await live.changed(version, this.#signal);
      return true;
    }
    const remainingMs = Number((untilNs - nowNs()) / 1_000_000n) + 1;
    if (remainingMs <= 0) return false;
    await live.changed(version, this.#signal, Math.min(remainingMs, 2 ** 31 - 1));
    return true;
  }

  #chosen(records: readonly LogRecord[]): LogRecord[] {
    const { sinceNs, untilNs } = this.#options;
    const chosen: LogRecord[] = [];
    for (const record of records) {
      if (sinceNs !== undefined && record.timeNs < sinceNs) continue;
      if (untilNs !== undefined && record.timeNs > untilNs) {
        this.#isPastUntil = true;
        break;
      }
      if (this.#options[record.stream]) chosen.push(record);
    }
    return chosen;
  }
}
