/**
 * A file that one thread appends to and another reads as it grows: counters in shared memory say how much is there,
 * how much was read, and whether it is whole or given up. The reader waits without blocking its event loop.
 */
import { readSync } from 'node:fs';
import { startWriteBack } from '../kernel/sync.ts';

/** Cells of 32 bits: how often something changed, and the state. Two of 64 bits follow: bytes there, bytes read. */
const CHANGES = 0;
const STATE = 1;
const AVAILABLE = 1;
const CONSUMED = 2;
const SHARED_BYTES = 24;

const GROWING = 0;
const COMPLETE = 1;
const ABANDONED = 2;

/** What a read takes at most. */
const CHUNK_BYTES = 256 * 1024;
/** The kernel is asked to write to the disk after this much, so that a later sync has little left to wait for. */
const WRITE_BACK_BYTES = 8 * 1024 * 1024;

/** The counters. Both sides make one over the same `memory`. */
export class FileGrowth {
  readonly memory: SharedArrayBuffer;
  readonly #words: Int32Array;
  readonly #counts: BigInt64Array;

  constructor(memory: SharedArrayBuffer = new SharedArrayBuffer(SHARED_BYTES)) {
    this.memory = memory;
    this.#words = new Int32Array(memory, 0, 2);
    this.#counts = new BigInt64Array(memory);
  }

  /** A file that is there as a whole. */
  static complete(sizeBytes: number): FileGrowth {
    const growth = new FileGrowth();
    growth.grow(sizeBytes);
    growth.complete();
    return growth;
  }

  get available(): number {
    return Number(Atomics.load(this.#counts, AVAILABLE));
  }

  get consumed(): number {
    return Number(Atomics.load(this.#counts, CONSUMED));
  }

  get isComplete(): boolean {
    return Atomics.load(this.#words, STATE) === COMPLETE;
  }

  get isAbandoned(): boolean {
    return Atomics.load(this.#words, STATE) === ABANDONED;
  }

  /** The file has `available` bytes now. */
  grow(available: number): void {
    Atomics.store(this.#counts, AVAILABLE, BigInt(available));
    this.#changed();
  }

  /** Nothing more will come. */
  complete(): void {
    Atomics.compareExchange(this.#words, STATE, GROWING, COMPLETE);
    this.#changed();
  }

  /** The reader is to stop with an error. */
  abandon(): void {
    Atomics.store(this.#words, STATE, ABANDONED);
    this.#changed();
  }

  /** Tells the other side how far the reader is. */
  consume(consumed: number): void {
    Atomics.store(this.#counts, CONSUMED, BigInt(consumed));
  }

  #changed(): void {
    Atomics.add(this.#words, CHANGES, 1);
    Atomics.notify(this.#words, CHANGES);
  }

  /** Waits until more than `position` bytes are there or none will come; returns how many are there. */
  async beyond(position: number): Promise<number> {
    for (;;) {
      const seen = Atomics.load(this.#words, CHANGES);
      if (this.isAbandoned) throw new DOMException('the file was given up', 'AbortError');
      // Read in this order: what came before completion is counted.
      const complete = this.isComplete;
      const { available } = this;
      if (available > position || complete) return available;
      const waiting = Atomics.waitAsync(this.#words, CHANGES, seen);
      if (waiting.async) await waiting.value;
    }
  }
}

/** Reads a growing file from its start to its end. A chunk is valid until the one after the next is asked for. */
export async function* readGrowingFile(fd: number, growth: FileGrowth): AsyncGenerator<Buffer> {
  const buffers = [Buffer.allocUnsafeSlow(CHUNK_BYTES), Buffer.allocUnsafeSlow(CHUNK_BYTES)] as const;
  let position = 0;
  let writtenBack = 0;
  for (let turn = 0; ; turn ^= 1) {
    if ((await growth.beyond(position)) <= position) return;
    const buffer = buffers[turn & 1] as Buffer;
    const length = Math.min(buffer.length, growth.available - position);
    const read = readSync(fd, buffer, 0, length, position);
    if (read === 0) throw new Error('the file is shorter than announced');
    position += read;
    growth.consume(position);
    if (position - writtenBack >= WRITE_BACK_BYTES) {
      startWriteBack(fd, writtenBack, position - writtenBack);
      writtenBack = position;
    }
    yield buffer.subarray(0, read);
  }
}
