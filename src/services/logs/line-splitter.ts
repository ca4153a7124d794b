/**
 * Cuts a process's output into lines, and lines of MAX_LINE_BYTES or more into parts, as dockerd's copier does.
 *
 * Invariant: holds less than MAX_LINE_BYTES; the bytes given out are the bytes put in, less the line ends
 * of parted lines (which the part's `last` stands for).
 */
import { randomBytes } from 'node:crypto';

/** Docker's limit of one log message. */
export const MAX_LINE_BYTES: number = 16 * 1024;

const LINE_FEED = 10;

/** Time of an entry in both forms that drivers need. */
export interface EntryTime {
  readonly ns: bigint;
  /** RFC3339Nano. */
  readonly text: string;
}

/** Which part of a long line an entry is. */
export interface PartOf {
  readonly id: string;
  readonly ordinal: number;
  readonly last: boolean;
}

/** Receives what was cut. */
export interface LineReceiver {
  /** Whole lines, each with its line feed, together less than MAX_LINE_BYTES + 1. */
  lines(block: Buffer, time: EntryTime): void;
  part(content: Buffer, time: EntryTime, part: PartOf): void;
}

/** Splits one stream. */
export class LineSplitter {
  readonly #receiver: LineReceiver;
  readonly #now: () => EntryTime;
  #rest: Buffer = Buffer.alloc(0);
  #long: { readonly id: string; readonly time: EntryTime; ordinal: number } | undefined;

  constructor(receiver: LineReceiver, now: () => EntryTime) {
    this.#receiver = receiver;
    this.#now = now;
  }

  push(chunk: Buffer): void {
    const data = this.#rest.length === 0 ? chunk : Buffer.concat([this.#rest, chunk]);
    const time = this.#now();
    let position = 0;
    while (position < data.length) {
      const next = this.#long === undefined ? this.#takeLines(data, position, time) : this.#takeRest(data, position);
      if (next === position) break;
      position = next;
    }
    // Copied, so that a few bytes do not keep a large read buffer alive.
    this.#rest = Buffer.from(data.subarray(position));
  }

  /** Gives out an unfinished last line; it stays without a line end. */
  end(): void {
    if (this.#rest.length > 0) this.#cut(this.#rest, false);
    this.#rest = Buffer.alloc(0);
    this.#long = undefined;
  }

  #takeLines(data: Buffer, position: number, time: EntryTime): number {
    const window = data.subarray(position, position + MAX_LINE_BYTES);
    const lineEnd = window.lastIndexOf(LINE_FEED);
    if (lineEnd >= 0) {
      this.#receiver.lines(window.subarray(0, lineEnd + 1), time);
      return position + lineEnd + 1;
    }
    if (window.length < MAX_LINE_BYTES) return position;
    this.#cut(window, false);
    return position + MAX_LINE_BYTES;
  }

  #takeRest(data: Buffer, position: number): number {
    const window = data.subarray(position, position + MAX_LINE_BYTES);
    const lineEnd = window.indexOf(LINE_FEED);
    if (lineEnd >= 0) {
      this.#cut(window.subarray(0, lineEnd), true);
      this.#long = undefined;
      return position + lineEnd + 1;
    }
    if (window.length < MAX_LINE_BYTES) return position;
    this.#cut(window, false);
    return position + MAX_LINE_BYTES;
  }

  #cut(content: Buffer, last: boolean): void {
    // All parts of a line carry the time of the first.
    this.#long ??= { id: randomBytes(32).toString('hex'), time: this.#now(), ordinal: 0 };
    this.#long.ordinal += 1;
    const { id, time, ordinal } = this.#long;
    this.#receiver.part(content, time, { id, ordinal, last });
  }
}
