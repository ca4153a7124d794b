/** Blob uploads: begin (with a mount or the whole body), parts, status, finish, cancel. */
import { appendToUpload, findUpload, finishUpload, mountBlob, startUpload } from '#engine/registry/push-blob.ts';
import { parseRegistryDigest, parseRepositoryName, parseUploadId } from '#services/registry/names.ts';
import type { Upload } from '#services/registry/uploads.ts';
import { DistributionError } from '#types/distribution-error.ts';
import type { Call } from '../server.ts';

function locationOf(upload: Upload): string {
  return `/v2/${upload.repository}/blobs/uploads/${upload.id}`;
}

function progressHeaders(upload: Upload): Record<string, string> {
  return {
    Location: locationOf(upload),
    // Compat: nothing yet reads as 0-0, as clients know it from the distribution project's registry.
    Range: `0-${Math.max(0, upload.offset - 1)}`,
    'Docker-Upload-UUID': upload.id,
  };
}

/** POST …/blobs/uploads/. */
export async function beginUpload(call: Call): Promise<void> {
  const { exchange, services, caller, repository } = call;
  const { query } = exchange;
  const mount = query.get('mount');
  if (mount !== null && mount !== '') {
    const from = query.get('from');
    const digest = parseRegistryDigest(mount);
    const source = from === null || from === '' ? undefined : parseRepositoryName(from);
    if (mountBlob(services, caller, { repository, digest, from: source })) {
      return exchange.empty(201, { Location: `/v2/${repository}/blobs/${digest}`, 'Docker-Content-Digest': digest });
    }
  }
  const digest = query.get('digest');
  const whole = digest === null || digest === '' ? undefined : parseRegistryDigest(digest);
  const upload = await startUpload(services, caller, repository);
  if (whole === undefined) return exchange.empty(202, progressHeaders(upload));
  try {
    await append(call, upload);
  } catch (error) {
    services.uploads.cancel(upload);
    throw error;
  }
  exchange.workQuietly();
  await finishUpload(services, caller, { upload, digest: whole }, exchange.signal);
  return exchange.empty(201, { Location: `/v2/${repository}/blobs/${whole}`, 'Docker-Content-Digest': whole });
}

/** Everything on one upload. */
export async function serveUpload(call: Call): Promise<void> {
  const { exchange, services, caller, repository } = call;
  const upload = findUpload(services, { repository, id: parseUploadId(call.reference) });
  switch (exchange.method) {
    case 'PATCH':
      await append(call, upload);
      return exchange.empty(202, progressHeaders(upload));
    case 'PUT': {
      const text = exchange.query.get('digest');
      if (text === null) throw new DistributionError('DIGEST_INVALID', { message: 'the digest parameter is missing' });
      const digest = parseRegistryDigest(text);
      await append(call, upload);
      exchange.workQuietly();
      await finishUpload(services, caller, { upload, digest }, exchange.signal);
      return exchange.empty(201, { Location: `/v2/${repository}/blobs/${digest}`, 'Docker-Content-Digest': digest });
    }
    case 'DELETE':
      services.uploads.cancel(upload);
      return exchange.empty(204);
    default:
      return exchange.empty(204, progressHeaders(upload));
  }
}

async function append(call: Call, upload: Upload): Promise<void> {
  const { exchange, services } = call;
  const lengthBytes = exchange.contentLength;
  const header = exchange.header('content-range');
  if (header !== '') checkRange(call, upload, { header, lengthBytes });
  await appendToUpload(services, upload, { body: exchange.body(), lengthBytes }, exchange.signal);
}

function checkRange(call: Call, upload: Upload, said: { header: string; lengthBytes: number | undefined }): void {
  const match = /^(?:bytes[ =])?(\d{1,15})-(\d{1,15})(?:\/(?:\d+|\*))?$/.exec(said.header);
  if (match === null) throw new DistributionError('BLOB_UPLOAD_INVALID', { message: 'the Content-Range is malformed' });
  const [start, end] = [Number(match[1]), Number(match[2])];
  if (start !== upload.offset || end + 1 < start) {
    for (const [name, value] of Object.entries(progressHeaders(upload))) call.exchange.response.setHeader(name, value);
    throw new DistributionError('RANGE_INVALID', {
      message: `the upload goes on at ${upload.offset}`,
      detail: { offset: upload.offset },
    });
  }
  if (said.lengthBytes !== undefined && said.lengthBytes !== end - start + 1)
    throw new DistributionError('SIZE_INVALID');
}
