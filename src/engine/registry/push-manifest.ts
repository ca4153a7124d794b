/** Stores a manifest under its digest and, when pushed by tag, lets the tag name it. */
import { createHash } from 'node:crypto';
import type { RepositoryName } from '#services/registry/contract.ts';
import { parseManifest } from '#services/registry/manifest.ts';
import type { ManifestReference } from '#services/registry/names.ts';
import { type Digest, digestHex, digestOf } from '#types/digest.ts';
import { DistributionError } from '#types/distribution-error.ts';
import { type Caller, publish, type RegistryServices, requireWritable } from './services.ts';

export interface PushManifestRequest {
  readonly repository: RepositoryName;
  readonly reference: ManifestReference;
  readonly bytes: Buffer;
  readonly contentType: string;
}

/** Its digest, and the subject it refers to. Throws MANIFEST_INVALID, MANIFEST_BLOB_UNKNOWN, DIGEST_INVALID, DENIED. */
export function pushManifest(
  services: RegistryServices,
  caller: Caller,
  request: PushManifestRequest,
): { digest: Digest; subject: Digest | undefined } {
  requireWritable(services);
  const { repository, reference, bytes } = request;
  const parsed = parseManifest(bytes, request.contentType);
  const digest = reference.kind === 'digest' ? reference.digest : digestOf(bytes);
  if (reference.kind === 'digest') {
    const algorithm = digest.slice(0, digest.indexOf(':'));
    if (createHash(algorithm).update(bytes).digest('hex') !== digestHex(digest))
      throw new DistributionError('DIGEST_INVALID', { detail: { digest } });
  }
  if (services.store.manifest(repository, { kind: 'digest', digest }) === undefined)
    services.quotas.require(repository, bytes.length);
  services.store.putManifest(repository, {
    digest,
    bytes,
    parsed,
    ...(reference.kind === 'tag' ? { tag: reference.tag } : {}),
  });
  publish(services, caller, 'push', {
    mediaType: parsed.mediaType,
    size: bytes.length,
    digest,
    repository,
    url: caller.url(`/v2/${repository}/manifests/${digest}`),
    ...(reference.kind === 'tag' ? { tag: reference.tag } : {}),
  });
  return { digest, subject: parsed.subject?.digest };
}
