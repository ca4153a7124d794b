/** Gives a blob of a repository; in a cache, streamed from the upstream while it is stored. */
import { open } from 'node:fs/promises';
import type { RepositoryName } from '#services/registry/contract.ts';
import type { Digest } from '#types/digest.ts';
import { DistributionError } from '#types/distribution-error.ts';
import { type Caller, publish, type RegistryServices } from './services.ts';

/** Read and sent one at a time, so that a slow reader holds little. */
const READ_CHUNK_BYTES = 128 * 1024;

/** A blob that can be read, whole or in part. */
export interface ReadableBlob {
  readonly sizeBytes: number;
  /** Bytes from `start` to `end`, both included. */
  read(start: number, end: number): AsyncIterable<Uint8Array>;
}

/** Finds a blob. Throws BLOB_UNKNOWN. */
export async function findBlob(
  services: RegistryServices,
  request: { repository: RepositoryName; digest: Digest },
  signal: AbortSignal,
): Promise<ReadableBlob> {
  const { repository, digest } = request;
  const { store, upstream } = services;
  const sizeBytes = store.blobSize(repository, digest);
  if (sizeBytes !== undefined && store.files.size(digest) === sizeBytes) {
    const path = store.files.path(digest);
    return { sizeBytes, read: (start, end) => readRange(path, start, end) };
  }
  const fetched = await upstream?.blob(repository, digest, signal);
  if (fetched === undefined) throw new DistributionError('BLOB_UNKNOWN', { detail: { digest } });
  return fetched;
}

async function* readRange(path: string, start: number, end: number): AsyncGenerator<Uint8Array> {
  await using file = await open(path, 'r');
  for (let at = start; at <= end; ) {
    const length = Math.min(READ_CHUNK_BYTES, end + 1 - at);
    const { bytesRead, buffer } = await file.read(Buffer.allocUnsafeSlow(length), 0, length, at);
    if (bytesRead === 0) throw new DistributionError('UNKNOWN', { message: 'the blob was cut while it was read' });
    at += bytesRead;
    yield buffer.subarray(0, bytesRead);
  }
}

/** Tells the webhooks that a blob is being pulled. */
export function blobPulled(
  services: RegistryServices,
  caller: Caller,
  blob: { repository: RepositoryName; digest: Digest; sizeBytes: number },
): void {
  const { repository, digest, sizeBytes } = blob;
  publish(services, caller, 'pull', {
    mediaType: 'application/octet-stream',
    size: sizeBytes,
    digest,
    repository,
    url: caller.url(`/v2/${repository}/blobs/${digest}`),
  });
}
