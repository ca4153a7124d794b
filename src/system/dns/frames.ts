/** Messages on a TCP connection: each behind its length in two bytes (RFC 1035 4.2.2). */

const LENGTH_BYTES = 2;

/** A message with its length in front. */
export function frame(message: Buffer): Buffer {
  const framed = Buffer.alloc(LENGTH_BYTES + message.length);
  framed.writeUInt16BE(message.length);
  message.copy(framed, LENGTH_BYTES);
  return framed;
}

/** Cuts a byte stream into messages. It holds what was pushed and not taken yet: push only when `next` is empty. */
export class FrameReader {
  #parts: Buffer[] = [];
  #heldBytes = 0;
  #wantedBytes = LENGTH_BYTES;

  push(chunk: Buffer): void {
    this.#parts.push(chunk);
    this.#heldBytes += chunk.length;
  }

  /** The next whole message; undefined when more bytes are needed. */
  next(): Buffer | undefined {
    // Joined only when enough is there, so that bytes sent one by one are not copied again and again.
    while (this.#heldBytes >= this.#wantedBytes) {
      const held = this.#parts.length === 1 ? (this.#parts[0] as Buffer) : Buffer.concat(this.#parts);
      const end = LENGTH_BYTES + held.readUInt16BE(0);
      const complete = held.length >= end;
      const rest = complete ? held.subarray(end) : held;
      this.#parts = [rest];
      this.#heldBytes = rest.length;
      this.#wantedBytes = complete ? LENGTH_BYTES : end;
      if (complete) return held.subarray(LENGTH_BYTES, end);
    }
    return undefined;
  }
}
