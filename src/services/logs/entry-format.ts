/** How a driver writes entries to its file and reads them back; the file life cycle is log-file.ts's. */
import type { OutputStream } from '#services/streams/contract.ts';
import type { LogRecord } from './contract.ts';
import type { EntryTime, PartOf } from './line-splitter.ts';

/** Reads at a position; 0 at the end of the file. */
export type ReadAt = (buffer: Buffer, position: number) => Promise<number>;

/** Where the last entries of a file begin. */
export interface TailPosition {
  readonly offset: number;
  readonly found: number;
}

/** Turns bytes in file order into records; keeps an unfinished entry until more comes. */
export interface EntryDecoder {
  push(chunk: Buffer): LogRecord[];
}

export interface EntryFormat {
  /** Encodes whole lines (each with its line feed), one entry a line. */
  encodeLines(stream: OutputStream, block: Buffer, time: EntryTime): Buffer;
  encodePart(stream: OutputStream, content: Buffer, time: EntryTime, part: PartOf): Buffer;
  /** Offset behind the entry that contains `offset`; `encoded` begins with an entry. */
  entryEnd(encoded: Buffer, offset: number): number;
  decoder(): EntryDecoder;
  /** Finds the last `count` entries of a file of `size` bytes, reading backwards. */
  tail(read: ReadAt, size: number, count: number): Promise<TailPosition>;
  /** What to do with a file whose last entry was torn by a crash: cut it to a length, or add bytes. */
  repair(
    read: ReadAt,
    size: number,
  ): Promise<{ readonly truncateTo: number } | { readonly append: Buffer } | undefined>;
}
