/** The ways a blob gets in: an upload in one or many parts, or a mount from a repository the caller may read. */
import type { RepositoryName } from '#services/registry/contract.ts';
import { quotaError } from '#services/registry/quotas.ts';
import type { Upload } from '#services/registry/uploads.ts';
import type { Digest } from '#types/digest.ts';
import { DistributionError } from '#types/distribution-error.ts';
import { type Caller, isOutOfSpace, publish, type RegistryServices, requireWritable } from './services.ts';

/** Repositories looked at when a mount names none. */
const MAX_MOUNT_SOURCES = 1000;

/** Begins an upload. */
export async function startUpload(
  services: RegistryServices,
  caller: Caller,
  repository: RepositoryName,
): Promise<Upload> {
  requireWritable(services);
  services.quotas.require(repository, 1);
  return await services.uploads.start(repository, userKey(caller));
}

/** The upload of this ID, if it is the caller's repository's. */
export function findUpload(services: RegistryServices, request: { repository: RepositoryName; id: string }): Upload {
  requireWritable(services);
  return services.uploads.find(request.repository, request.id);
}

/** What a client says about a part. */
export interface UploadPart {
  readonly body: AsyncIterable<Uint8Array>;
  /** Bytes announced, when they are. */
  readonly lengthBytes: number | undefined;
}

/** Appends a part, within the quotas. */
export async function appendToUpload(
  services: RegistryServices,
  upload: Upload,
  part: UploadPart,
  signal: AbortSignal,
): Promise<void> {
  // Its own bytes are among the pending ones.
  const { bytes, limit } = services.quotas.remaining(upload.repository);
  if ((part.lengthBytes ?? 0) > bytes) throw quotaError(limit);
  try {
    const options = { limitBytes: upload.offset + bytes, beyondLimit: quotaError(limit) };
    await services.uploads.append(upload, part.body, options, signal);
  } catch (error) {
    // What may not grow further would only hold its bytes until it expires.
    const isRefused = error instanceof DistributionError && error.code === 'DENIED';
    if (isRefused || isOutOfSpace(error)) services.uploads.cancel(upload);
    throw error;
  }
}

/** Verifies and stores the whole. */
export async function finishUpload(
  services: RegistryServices,
  caller: Caller,
  request: { upload: Upload; digest: Digest },
  signal: AbortSignal,
): Promise<void> {
  const { upload, digest } = request;
  const { sizeBytes } = await services.uploads.finish(upload, digest, signal);
  const { repository } = upload;
  publish(services, caller, 'push', {
    mediaType: 'application/octet-stream',
    size: sizeBytes,
    digest,
    repository,
    url: caller.url(`/v2/${repository}/blobs/${digest}`),
  });
}

/** Makes a blob of another repository one of this; false when there is none the caller may read. */
export function mountBlob(
  services: RegistryServices,
  caller: Caller,
  request: { repository: RepositoryName; digest: Digest; from: RepositoryName | undefined },
): boolean {
  requireWritable(services);
  const { repository, digest, from } = request;
  const sources = from === undefined ? services.store.repositoriesWith(digest, MAX_MOUNT_SOURCES) : [from];
  const source = sources.find(
    (name) => caller.actor.may('pull', name) && services.store.blobSize(name, digest) !== undefined,
  );
  if (source === undefined) return false;
  if (services.store.blobSize(repository, digest) === undefined) {
    services.quotas.require(repository, services.store.blobSize(source, digest) ?? 0);
  }
  const size = services.store.mountBlob(repository, source, digest);
  if (size === undefined) return false;
  publish(services, caller, 'mount', {
    mediaType: 'application/octet-stream',
    size,
    digest,
    repository,
    fromRepository: source,
    url: caller.url(`/v2/${repository}/blobs/${digest}`),
  });
  return true;
}

/** Whom an upload counts for: anonymous callers by their address. */
function userKey(caller: Caller): string {
  return caller.actor.user ?? `@${caller.request.addr.replace(/:\d+$/, '')}`;
}
