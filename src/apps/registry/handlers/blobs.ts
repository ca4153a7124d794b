/** GET, HEAD and DELETE of blobs. */
import { deleteBlob } from '#engine/registry/delete.ts';
import { blobPulled, findBlob } from '#engine/registry/pull-blob.ts';
import { parseRegistryDigest } from '#services/registry/names.ts';
import { DistributionError } from '#types/distribution-error.ts';
import type { Call } from '../server.ts';
import { byteRange, isUnchanged } from './conditions.ts';

/** A blob never changes: caches may keep it for a year. */
const MAX_AGE = 'max-age=31536000';

export async function serveBlob(call: Call): Promise<void> {
  const { exchange, services, caller, repository } = call;
  const digest = parseRegistryDigest(call.reference);
  if (exchange.method === 'DELETE') {
    deleteBlob(services, caller, { repository, digest });
    return exchange.empty(202);
  }
  const blob = await findBlob(services, { repository, digest }, exchange.signal);
  const { sizeBytes } = blob;
  const headers: Record<string, string> = {
    'Content-Type': 'application/octet-stream',
    'Docker-Content-Digest': digest,
    ETag: `"${digest}"`,
    'Accept-Ranges': 'bytes',
    'Cache-Control': MAX_AGE,
  };
  if (isUnchanged(exchange, digest)) return exchange.empty(304, headers);
  const range = exchange.method === 'GET' ? byteRange(exchange, digest, sizeBytes) : ({ kind: 'whole' } as const);
  if (range.kind === 'unsatisfiable') {
    exchange.response.setHeader('Content-Range', `bytes */${sizeBytes}`);
    throw new DistributionError('RANGE_INVALID', { message: 'the range is beyond the blob' });
  }
  const [start, end] = range.kind === 'part' ? [range.start, range.end] : [0, sizeBytes - 1];
  if (range.kind === 'part') headers['Content-Range'] = `bytes ${start}-${end}/${sizeBytes}`;
  headers['Content-Length'] = String(end - start + 1);
  exchange.response.writeHead(range.kind === 'part' ? 206 : 200, headers);
  if (exchange.method === 'HEAD' || sizeBytes === 0) {
    exchange.response.end();
    return;
  }
  blobPulled(services, caller, { repository, digest, sizeBytes });
  await exchange.stream(blob.read(start, end));
}
