/**
 * Rotated log files and gzip: `x.1` becomes `x.1.gz`, and back into an unnamed file for reading.
 *
 * Invariant: at every moment either the plain or the whole compressed file is there under its name.
 */
import { randomBytes } from 'node:crypto';
import { closeSync, createReadStream, createWriteStream, openSync, renameSync, rmSync } from 'node:fs';
import { pipeline } from 'node:stream/promises';
import { createGunzip, createGzip } from 'node:zlib';

/** Larger than zlib's default: fewer turns of the event loop. */
const CHUNK_BYTES = 256 * 1024;

/** Compresses a file and removes the original. */
export async function compressFile(path: string): Promise<void> {
  const unfinished = `${path}.gz.tmp`;
  try {
    await pipeline(
      createReadStream(path, { highWaterMark: CHUNK_BYTES }),
      createGzip({ chunkSize: CHUNK_BYTES }),
      createWriteStream(unfinished, { mode: 0o640 }),
    );
    renameSync(unfinished, `${path}.gz`);
    rmSync(path, { force: true });
  } catch (error) {
    rmSync(unfinished, { force: true });
    throw error;
  }
}

/** Unpacks an open gzip file beside `path` into a file without a name; closes `compressed`. */
export async function unpackFile(compressed: number, path: string, signal: AbortSignal): Promise<number> {
  const temporary = `${path}.${randomBytes(6).toString('hex')}.tmp`;
  const unpacked = openSync(temporary, 'wx+', 0o600);
  rmSync(temporary);
  try {
    await pipeline(
      createReadStream('', { fd: compressed, highWaterMark: CHUNK_BYTES }),
      createGunzip({ chunkSize: CHUNK_BYTES }),
      createWriteStream('', { fd: unpacked, autoClose: false }),
      { signal },
    );
    return unpacked;
  } catch (error) {
    closeSync(unpacked);
    throw error;
  }
}
