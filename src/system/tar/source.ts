/** Pulls exact numbers of bytes out of an async iterable without copying more than block borders. */
import { unexpectedEnd } from './header.ts';

/** The unread rest of a byte stream. */
export class ByteSource {
  readonly #iterator: AsyncIterator<Buffer>;
  #chunk: Buffer = Buffer.alloc(0);
  #at = 0;
  #ended = false;

  constructor(source: AsyncIterable<Buffer>) {
    this.#iterator = source[Symbol.asyncIterator]();
  }

  /** Whether `length` bytes can be had without waiting. */
  has(length: number): boolean {
    return this.#chunk.length - this.#at >= length;
  }

  async #more(): Promise<boolean> {
    while (!this.#ended && this.#at >= this.#chunk.length) {
      const next = await this.#iterator.next();
      if (next.done === true) this.#ended = true;
      else [this.#chunk, this.#at] = [next.value, 0];
    }
    return this.#at < this.#chunk.length;
  }

  /** The next `length` bytes, already here (see `has`). */
  takeNow(length: number): Buffer {
    const piece = this.#chunk.subarray(this.#at, this.#at + length);
    this.#at += length;
    return piece;
  }

  /** Exactly `length` bytes; undefined at a clean end; throws when the stream ends in between. */
  async read(length: number): Promise<Buffer | undefined> {
    if (this.has(length)) return this.takeNow(length);
    const whole = Buffer.allocUnsafe(length);
    let filled = 0;
    while (filled < length) {
      if (!(await this.#more())) {
        if (filled === 0) return undefined;
        throw unexpectedEnd();
      }
      const piece = this.takeNow(Math.min(length - filled, this.#chunk.length - this.#at));
      piece.copy(whole, filled);
      filled += piece.length;
    }
    return whole;
  }

  /** The next piece of at most `max` bytes; throws at the end. */
  async some(max: number): Promise<Buffer> {
    if (this.#at >= this.#chunk.length && !(await this.#more())) throw unexpectedEnd();
    return this.takeNow(Math.min(max, this.#chunk.length - this.#at));
  }

  /** Passes over bytes; throws when the stream ends first. */
  async skip(length: number): Promise<void> {
    let rest = length;
    while (rest > 0) rest -= (await this.some(rest)).length;
  }

  /** Passes over padding; false when the stream ended in it. */
  async skipPadding(length: number): Promise<boolean> {
    for (let rest = length; rest > 0; ) {
      if (!(await this.#more())) return false;
      rest -= this.takeNow(Math.min(rest, this.#chunk.length - this.#at)).length;
    }
    return true;
  }

  /** Reads to the end, keeping nothing, so that digests over the whole stream are right. */
  async drain(): Promise<void> {
    while (await this.#more()) this.#at = this.#chunk.length;
  }

  /** Tells the source that no more is wanted. */
  async close(): Promise<void> {
    if (!this.#ended) await this.#iterator.return?.();
  }
}
