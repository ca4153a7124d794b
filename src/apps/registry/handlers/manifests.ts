/** GET, HEAD, PUT and DELETE of manifests. */
import { deleteManifest } from '#engine/registry/delete.ts';
import { pullManifest } from '#engine/registry/pull-manifest.ts';
import { pushManifest } from '#engine/registry/push-manifest.ts';
import { MAX_MANIFEST_BYTES } from '#services/registry/manifest.ts';
import { parseManifestReference } from '#services/registry/names.ts';
import { DistributionError } from '#types/distribution-error.ts';
import type { Call } from '../server.ts';
import { isUnchanged } from './conditions.ts';

export async function serveManifest(call: Call): Promise<void> {
  const { exchange, services, caller, repository } = call;
  const reference = parseManifestReference(call.reference);
  switch (exchange.method) {
    case 'PUT': {
      const tooLarge = new DistributionError('MANIFEST_INVALID', {
        message: `manifest invalid: it is larger than ${MAX_MANIFEST_BYTES} bytes`,
      });
      const bytes = await exchange.wholeBody(MAX_MANIFEST_BYTES, tooLarge);
      const contentType = exchange.header('content-type');
      const { digest, subject } = pushManifest(services, caller, { repository, reference, bytes, contentType });
      return exchange.empty(201, {
        Location: `/v2/${repository}/manifests/${digest}`,
        'Docker-Content-Digest': digest,
        ...(subject === undefined ? {} : { 'OCI-Subject': subject }),
      });
    }
    case 'DELETE':
      deleteManifest(services, caller, { repository, reference });
      return exchange.empty(202);
    default: {
      const isPull = exchange.method === 'GET';
      const manifest = await pullManifest(services, caller, { repository, reference, isPull }, exchange.signal);
      const headers = { 'Docker-Content-Digest': manifest.digest, ETag: `"${manifest.digest}"` };
      if (isUnchanged(exchange, manifest.digest)) return exchange.empty(304, headers);
      return exchange.bytes(200, manifest.bytes, { 'Content-Type': manifest.mediaType, ...headers });
    }
  }
}
