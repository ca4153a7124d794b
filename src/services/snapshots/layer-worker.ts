/**
 * Thread that extracts layers: it follows the layer's file while it grows, undoes the compression, takes the sha256 of
 * the tar and makes the files, one layer at a time. It also waits for the disk, which blocks.
 */
import { createHash } from 'node:crypto';
import { closeSync, constants } from 'node:fs';
import { parentPort } from 'node:worker_threads';
import { FileGrowth, readGrowingFile } from '#system/disk/growing-file.ts';
import { passBytes } from '#system/kernel/buffers.ts';
import { openAt } from '#system/kernel/path.ts';
import { syncFileSystem } from '#system/kernel/sync.ts';
import { type Compression, decompress, detectCompression } from '#system/tar/compression.ts';
import type { Digest } from '#types/digest.ts';
import { type ErrorKind, errorKind, errorMessage } from '#types/errors.ts';
import { extractLayer } from './layer-tar.ts';

/** What the thread is asked to do. A descriptor belongs to the whole process: a file that is renamed meanwhile stays the same. */
export type LayerTask =
  | {
      readonly task: 'extract';
      readonly fileFd: number;
      readonly memory: SharedArrayBuffer;
      readonly directory: string;
      readonly hashFile: boolean;
    }
  | { readonly task: 'sync'; readonly directory: string };

/** What a layer turned out to be. */
export interface ExtractedLayer {
  readonly diffId: Digest;
  /** Bytes of its regular files. */
  readonly sizeBytes: number;
  readonly tarSizeBytes: number;
  readonly compression: Compression;
  /** Digest of the file as it is, where it was asked for. */
  readonly fileDigest: Digest | undefined;
}

export type LayerAnswer =
  | { readonly extracted: ExtractedLayer }
  | { readonly synced: true }
  | { readonly kind: ErrorKind; readonly message: string; readonly code: string | undefined };

async function extract(task: Extract<LayerTask, { task: 'extract' }>): Promise<ExtractedLayer> {
  const hash = createHash('sha256');
  const fileHash = createHash('sha256');
  let tarSizeBytes = 0;
  let compression: Compression | undefined;
  const bytes = async function* (): AsyncGenerator<Buffer> {
    for await (const chunk of readGrowingFile(task.fileFd, new FileGrowth(task.memory))) {
      compression ??= detectCompression(chunk);
      if (task.hashFile && compression !== 'none') fileHash.update(chunk);
      // Decompressors read ahead; the reader uses its buffers again.
      if (compression !== 'none') passBytes(chunk.length);
      yield compression === 'none' ? chunk : Buffer.from(chunk);
    }
  };
  const tar = async function* (): AsyncGenerator<Buffer> {
    for await (const chunk of decompress(bytes())) {
      tarSizeBytes += chunk.length;
      if (compression !== 'none') passBytes(chunk.length);
      hash.update(chunk);
      yield chunk;
    }
  };
  const sizeBytes = await extractLayer(task.directory, tar(), { style: 'overlay' });
  const diffId = `sha256:${hash.digest('hex')}` as Digest;
  const own = compression === 'none' ? diffId : (`sha256:${fileHash.digest('hex')}` as Digest);
  const fileDigest = task.hashFile && compression !== undefined ? own : undefined;
  return { diffId, sizeBytes, tarSizeBytes, compression: compression ?? 'none', fileDigest };
}

function sync(directory: string): void {
  const fd = openAt(-100, directory, constants.O_RDONLY | constants.O_DIRECTORY);
  try {
    syncFileSystem(fd);
  } finally {
    closeSync(fd);
  }
}

async function answer(task: LayerTask): Promise<LayerAnswer> {
  try {
    if (task.task === 'extract') return { extracted: await extract(task) };
    sync(task.directory);
    return { synced: true };
  } catch (error) {
    const code = (error as NodeJS.ErrnoException).code;
    return { kind: errorKind(error), message: errorMessage(error), code: typeof code === 'string' ? code : undefined };
  }
}

parentPort?.on('message', (task: LayerTask) => {
  void answer(task).then((result) => parentPort?.postMessage(result));
});
