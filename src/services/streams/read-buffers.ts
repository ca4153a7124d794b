/**
 * Buffers for reading output, used again and again: a fresh 64 KiB for each read would make the process
 * grow by the garbage of hundreds of megabytes a second.
 *
 * Invariant: a buffer is given out to one reader at a time and comes back when its last user has released it.
 */

const BUFFER_BYTES = 64 * 1024;
/** Free buffers kept; what a burst needed beyond is left to the garbage collector. */
const MAX_FREE = 32;

const free: Buffer[] = [];

/** A buffer to read into. */
export function takeBuffer(): Buffer {
  return free.pop() ?? Buffer.allocUnsafeSlow(BUFFER_BYTES);
}

/** Gives a buffer back; the caller must not touch it again. */
export function giveBackBuffer(buffer: Buffer): void {
  if (free.length < MAX_FREE) free.push(buffer);
}

/** Counts the users of one buffer: each `hold` is answered by one `release`. */
export class BufferUse {
  readonly #buffer: Buffer;
  #users = 1;

  constructor(buffer: Buffer) {
    this.#buffer = buffer;
  }

  hold(): void {
    this.#users += 1;
  }

  readonly release = (): void => {
    this.#users -= 1;
    if (this.#users === 0) giveBackBuffer(this.#buffer);
  };
}
