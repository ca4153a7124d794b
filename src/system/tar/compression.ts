/**
 * Compressed archives by their first bytes: gzip and zstd in process, bzip2 and xz through the Debian tools.
 * Concatenated gzip members and zstd frames are one stream, as docker's pulls and loads accept them.
 */
import { spawn } from 'node:child_process';
import { pipeline, Readable, type Transform } from 'node:stream';
import { createGunzip, createZstdDecompress } from 'node:zlib';
import { GantryError } from '#types/errors.ts';

export type Compression = 'none' | 'gzip' | 'zstd' | 'bzip2' | 'xz';

/** Larger output chunks nearly double gunzip's speed. */
const CHUNK_BYTES = 256 * 1024;
const MAGIC_BYTES = 6;

/** Tells the compression from the first bytes of a stream. */
export function detectCompression(start: Buffer): Compression {
  if (start.length >= 3 && start.readUIntBE(0, 3) === 0x1f8b08) return 'gzip';
  if (start.length >= 3 && start.toString('latin1', 0, 3) === 'BZh') return 'bzip2';
  if (start.length >= 6 && start.readUIntBE(0, 6) === 0xfd377a585a00) return 'xz';
  if (start.length >= 4) {
    const word = start.readUInt32LE(0);
    // A zstd frame, or one of the sixteen kinds of skippable frame before it.
    if (word === 0xfd2fb528 || (word & 0xfffffff0) >>> 0 === 0x184d2a50) return 'zstd';
  }
  return 'none';
}

async function* joined(start: readonly Buffer[], rest: AsyncIterator<Buffer>): AsyncGenerator<Buffer> {
  try {
    yield* start;
    for (let next = await rest.next(); next.done !== true; next = await rest.next()) yield next.value;
  } finally {
    await rest.return?.();
  }
}

async function* through(source: AsyncIterable<Buffer>, transform: Transform): AsyncGenerator<Buffer> {
  // pipeline reports a source's failure through the transform, which the loop below then throws.
  pipeline(Readable.from(source, { objectMode: false }), transform, () => {});
  for await (const chunk of transform) yield chunk as Buffer;
}

async function* throughTool(
  tool: 'bzip2' | 'xz',
  source: AsyncIterable<Buffer>,
  signal?: AbortSignal,
): AsyncGenerator<Buffer> {
  const child = spawn(tool, ['-dc'], { stdio: ['pipe', 'pipe', 'pipe'], ...(signal === undefined ? {} : { signal }) });
  let complaint = '';
  child.stderr.on('data', (data: Buffer) => {
    complaint = (complaint + data.toString()).slice(0, 1024);
  });
  const ended = new Promise<number>((resolve, reject) => {
    child.on('error', reject);
    child.on('close', (code) => resolve(code ?? -1));
  });
  ended.catch(() => {});
  let sourceError: unknown;
  pipeline(Readable.from(source, { objectMode: false }), child.stdin, (error) => {
    if (error !== null && error !== undefined && (error as NodeJS.ErrnoException).code !== 'EPIPE') {
      sourceError = error;
      child.kill('SIGKILL');
    }
  });
  try {
    for await (const chunk of child.stdout) yield chunk as Buffer;
    const code = await ended;
    if (sourceError !== undefined) throw sourceError;
    if (code !== 0) throw new GantryError('invalid', `${tool}: ${complaint.trim() || `exit status ${code}`}`);
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code !== 'ENOENT') throw error;
    const text = `unable to decompress: the program ${tool} is missing (Debian package ${tool === 'xz' ? 'xz-utils' : tool})`;
    throw new GantryError('system', text, { cause: error });
  } finally {
    if (child.exitCode === null) child.kill('SIGKILL');
  }
}

/** Undoes whatever compression `source` has; plain bytes pass. */
export async function* decompress(source: AsyncIterable<Buffer>, signal?: AbortSignal): AsyncGenerator<Buffer> {
  const iterator = source[Symbol.asyncIterator]();
  const start: Buffer[] = [];
  let length = 0;
  while (length < MAGIC_BYTES) {
    const next = await iterator.next();
    if (next.done === true) break;
    start.push(next.value);
    length += next.value.length;
  }
  const kind = detectCompression(start.length === 1 ? (start[0] as Buffer) : Buffer.concat(start));
  const whole = joined(start, iterator);
  if (kind === 'gzip') yield* through(whole, createGunzip({ chunkSize: CHUNK_BYTES }));
  else if (kind === 'zstd') yield* through(whole, createZstdDecompress({ chunkSize: CHUNK_BYTES }));
  else if (kind === 'none') yield* whole;
  else yield* throughTool(kind, whole, signal);
}
