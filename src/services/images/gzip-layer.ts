/**
 * gzip of a layer on several threads: blocks are compressed apart, each with the end of the one before as its
 * dictionary, and joined to one member (RFC 1952). Equal input gives equal output, so that a layer pushed twice has
 * one digest; memory is bounded by the blocks under way.
 */
import { promisify } from 'node:util';
import { constants, crc32, deflateRaw } from 'node:zlib';
import { passBytes } from '#system/kernel/buffers.ts';

const compress = promisify(deflateRaw) as (
  input: Uint8Array,
  options: { level: number; finishFlush?: number; dictionary?: Uint8Array },
) => Promise<Buffer>;

const BLOCK_BYTES = 512 * 1024;
/** Blocks compressed at once: the thread pool has four threads. */
const BLOCKS_LIMIT = 4;
/** Half the time of level 6 for about 3 % more bytes. */
const LEVEL = 4;
/** Deflate looks this far back. */
const WINDOW_BYTES = 32 * 1024;
/** No name, no time, unknown system: the same bytes everywhere. */
const HEADER = Buffer.from([0x1f, 0x8b, 8, 0, 0, 0, 0, 0, 0, 0xff]);

/** Cuts a stream into blocks of the same size, whatever its chunks are. */
async function* blocksOf(source: AsyncIterable<Buffer>): AsyncGenerator<Buffer> {
  let block = Buffer.allocUnsafe(BLOCK_BYTES);
  let filled = 0;
  for await (const chunk of source) {
    for (let at = 0; at < chunk.length; ) {
      const count = chunk.copy(block, filled, at);
      at += count;
      filled += count;
      if (filled < BLOCK_BYTES) continue;
      yield block;
      block = Buffer.allocUnsafe(BLOCK_BYTES);
      filled = 0;
    }
  }
  if (filled > 0) yield block.subarray(0, filled);
}

/** The gzip stream of `source`. */
export async function* gzipLayer(source: AsyncIterable<Buffer>): AsyncGenerator<Buffer> {
  yield HEADER;
  let checksum = 0;
  let sizeBytes = 0;
  let dictionary: Buffer | undefined;
  const pending: Promise<Buffer>[] = [];
  for await (const block of blocksOf(source)) {
    checksum = crc32(block, checksum);
    sizeBytes += block.length;
    const work = compress(block, {
      level: LEVEL,
      finishFlush: constants.Z_SYNC_FLUSH,
      ...(dictionary === undefined ? {} : { dictionary }),
    });
    // It is awaited in its turn; until then a failure must not be an unhandled one.
    work.catch(() => undefined);
    pending.push(work);
    dictionary = block.subarray(Math.max(0, block.length - WINDOW_BYTES));
    passBytes(block.length);
    if (pending.length >= BLOCKS_LIMIT) yield (await pending.shift()) as Buffer;
  }
  for (const work of pending) yield await work;
  const trailer = Buffer.alloc(8);
  trailer.writeUInt32LE(checksum, 0);
  trailer.writeUInt32LE(sizeBytes % 2 ** 32, 4);
  yield Buffer.concat([await compress(Buffer.alloc(0), { level: LEVEL }), trailer]);
}
