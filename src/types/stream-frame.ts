/**
 * Docker's multiplexed stream: an 8-byte header (type, three zeros, length big-endian) before each chunk.
 * Types: 1 stdout, 2 stderr, 3 errors of the daemon itself (Engine API, "Stream format").
 */

/** Which stream a chunk belongs to. */
export type FrameType = 'stdout' | 'stderr' | 'system';

const HEADER_BYTES = 8;

const TYPES: Readonly<Record<FrameType, number>> = { stdout: 1, stderr: 2, system: 3 };

/** The header for a chunk of `length` bytes. */
export function frameHeader(stream: FrameType, length: number): Buffer {
  const header = Buffer.alloc(HEADER_BYTES);
  header[0] = TYPES[stream];
  header.writeUInt32BE(length, 4);
  return header;
}

/** Header and chunk in one buffer; for short chunks only, longer ones are better written as two. */
export function frameChunk(stream: FrameType, chunk: Uint8Array): Buffer {
  const framed = Buffer.allocUnsafe(HEADER_BYTES + chunk.length);
  framed.fill(0, 0, 4);
  framed[0] = TYPES[stream];
  framed.writeUInt32BE(chunk.length, 4);
  framed.set(chunk, HEADER_BYTES);
  return framed;
}
