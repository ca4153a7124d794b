/**
 * The file of one log while it is written: append, rotation (`.1`, `.2`, … and `.gz`), compression.
 *
 * Invariant: the file holds whole entries at every moment this thread gives control away, because writes
 * are synchronous; `version` grows with each change and `generation` with each rotation, which is all a
 * reader in this process needs to follow without polling.
 */
import { closeSync, fstatSync, ftruncateSync, mkdirSync, openSync, read, renameSync, rmSync, writeSync } from 'node:fs';
import { dirname } from 'node:path';
import { errorMessage } from '#types/errors.ts';
import { compressFile } from './compress.ts';
import type { EntryFormat, ReadAt } from './entry-format.ts';
import type { Retention } from './options.ts';

const MODE = 0o640;

/** Reads from a descriptor. */
export function readerOf(descriptor: number): ReadAt {
  return (buffer, position) => {
    const { promise, resolve, reject } = Promise.withResolvers<number>();
    read(descriptor, buffer, 0, buffer.length, position, (error, count) => {
      if (error === null) resolve(count);
      else reject(error);
    });
    return promise;
  };
}

/** Name of the nth rotated file; 0 is the file being written. */
export function rotatedPath(path: string, index: number): string {
  return index === 0 ? path : `${path}.${index}`;
}

/** A log file open for writing. */
export class LogFile {
  readonly path: string;
  version = 0;
  generation = 0;
  isClosed = false;
  readonly #format: EntryFormat;
  readonly #retention: Retention;
  readonly #report: (text: string) => void;
  readonly #waiting = new Set<() => void>();
  #descriptor: number;
  #size: number;
  #compression: Promise<void> | undefined;
  /** Set while appends wait for a compression; they stay in order behind it. */
  #blocked: Promise<void> | undefined;

  private constructor(path: string, format: EntryFormat, retention: Retention, report: (text: string) => void) {
    this.path = path;
    this.#format = format;
    this.#retention = retention;
    this.#report = report;
    this.#descriptor = openSync(path, 'a+', MODE);
    this.#size = fstatSync(this.#descriptor).size;
  }

  /** Opens (creating) the log and mends an entry torn by a crash. */
  static async open(
    path: string,
    format: EntryFormat,
    options: { readonly retention: Retention; readonly report: (text: string) => void },
  ): Promise<LogFile> {
    mkdirSync(dirname(path), { recursive: true, mode: 0o710 });
    const file = new LogFile(path, format, options.retention, options.report);
    const repair = await format.repair(readerOf(file.#descriptor), file.#size);
    if (repair !== undefined && 'append' in repair) file.#write(repair.append, 0, repair.append.length);
    if (repair !== undefined && 'truncateTo' in repair) {
      ftruncateSync(file.#descriptor, repair.truncateTo);
      file.#size = repair.truncateTo;
    }
    return file;
  }

  /** Appends encoded entries; the promise, when there is one, asks the caller to wait. */
  append(encoded: Buffer): Promise<void> | undefined {
    const before = this.#blocked;
    const work = before === undefined ? this.#appendFrom(encoded, 0) : before.then(() => this.#appendFrom(encoded, 0));
    if (work === undefined) return undefined;
    const blocked = work.finally(() => {
      if (this.#blocked === blocked) this.#blocked = undefined;
    });
    this.#blocked = blocked;
    return blocked;
  }

  /** Resolves at the next change after `version`, when aborted, or after `timeoutMs`. */
  async changed(version: number, signal: AbortSignal, timeoutMs?: number): Promise<void> {
    if (this.version !== version || signal.aborted) return;
    const { promise, resolve } = Promise.withResolvers<void>();
    const timer = timeoutMs === undefined ? undefined : setTimeout(resolve, timeoutMs);
    this.#waiting.add(resolve);
    signal.addEventListener('abort', () => resolve(), { once: true });
    await promise;
    this.#waiting.delete(resolve);
    clearTimeout(timer);
  }

  /** Ends writing; followers read what is there and end. */
  async close(): Promise<void> {
    if (this.isClosed) return;
    while (this.#blocked !== undefined) await this.#blocked;
    if (this.isClosed) return;
    this.isClosed = true;
    closeSync(this.#descriptor);
    this.#notify();
    await this.#compression;
  }

  #appendFrom(encoded: Buffer, from: number): Promise<void> | undefined {
    const { maxSizeBytes } = this.#retention;
    let position = from;
    while (position < encoded.length) {
      if (this.#size >= maxSizeBytes) {
        if (this.#compression !== undefined) {
          const next = position;
          return this.#compression.then(() => this.#appendFrom(encoded, next));
        }
        this.#rotate();
      }
      const room = maxSizeBytes - this.#size;
      // As in dockerd an entry that begins below the limit is still written whole.
      const rest = position === 0 ? encoded : encoded.subarray(position);
      const end = rest.length <= room ? rest.length : this.#format.entryEnd(rest, room - 1);
      this.#write(encoded, position, end);
      position += end;
    }
    this.#notify();
    return undefined;
  }

  /** Entries that cannot be written are dropped and reported, as dockerd does; half an entry is taken back. */
  #write(encoded: Buffer, offset: number, length: number): void {
    let done = 0;
    try {
      while (done < length) done += writeSync(this.#descriptor, encoded, offset + done, length - done);
      this.#size += length;
    } catch (error) {
      this.#report(`writing ${this.path} failed: ${errorMessage(error)}`);
      if (done > 0) ftruncateSync(this.#descriptor, this.#size);
    }
  }

  #rotate(): void {
    const { maxFiles, compress } = this.#retention;
    try {
      const suffix = compress ? '.gz' : '';
      if (maxFiles > 1) {
        rmSync(`${rotatedPath(this.path, maxFiles - 1)}${suffix}`, { force: true });
        for (let index = maxFiles - 1; index > 1; index -= 1) {
          moveIfThere(`${rotatedPath(this.path, index - 1)}${suffix}`, `${rotatedPath(this.path, index)}${suffix}`);
        }
        moveIfThere(this.path, rotatedPath(this.path, 1));
      } else {
        // A new file instead of an emptied one, so that readers of the old one finish it.
        rmSync(this.path, { force: true });
      }
      const next = openSync(this.path, 'a+', MODE);
      closeSync(this.#descriptor);
      this.#descriptor = next;
      this.#size = 0;
      this.generation += 1;
      if (compress && maxFiles > 1) this.#compress(rotatedPath(this.path, 1));
    } catch (error) {
      this.#report(`rotating ${this.path} failed: ${errorMessage(error)}`);
      // Without this every further append would try again; the next limit is a file's size away.
      this.#size = 0;
    }
  }

  #compress(path: string): void {
    this.#compression = compressFile(path)
      .catch((error: unknown) => this.#report(`compressing ${path} failed: ${errorMessage(error)}`))
      .finally(() => {
        this.#compression = undefined;
      });
  }

  #notify(): void {
    this.version += 1;
    for (const wake of this.#waiting) wake();
  }
}

function moveIfThere(from: string, to: string): void {
  try {
    renameSync(from, to);
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code !== 'ENOENT') throw error;
  }
}
