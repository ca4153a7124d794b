/** Removes tags, manifests and blob links. The bytes go with the next collection. */
import type { RepositoryName } from '#services/registry/contract.ts';
import type { ManifestReference } from '#services/registry/names.ts';
import type { Digest } from '#types/digest.ts';
import { DistributionError } from '#types/distribution-error.ts';
import { manifestUnknown } from './pull-manifest.ts';
import { type Caller, publish, type RegistryServices, requireWritable } from './services.ts';

/** Removes a tag alone, or a manifest with the tags that name it. A manifest an index needs is kept (UNSUPPORTED). */
export function deleteManifest(
  services: RegistryServices,
  caller: Caller,
  request: { repository: RepositoryName; reference: ManifestReference },
): void {
  requireWritable(services);
  const { repository, reference } = request;
  if (reference.kind === 'tag') {
    const digest = services.store.deleteTag(repository, reference.tag);
    if (digest === undefined) throw manifestUnknown(repository, reference);
    publish(services, caller, 'delete', { repository, tag: reference.tag, digest });
    return;
  }
  const outcome = services.store.deleteManifest(repository, reference.digest);
  if (outcome === 'unknown') throw manifestUnknown(repository, reference);
  if (outcome === 'inUse')
    throw new DistributionError('UNSUPPORTED', { message: 'an index names this manifest; delete the index first' });
  publish(services, caller, 'delete', { repository, digest: reference.digest });
}

/** Removes a blob from a repository. One that a manifest needs is kept (UNSUPPORTED). */
export function deleteBlob(
  services: RegistryServices,
  caller: Caller,
  request: { repository: RepositoryName; digest: Digest },
): void {
  requireWritable(services);
  const { repository, digest } = request;
  const outcome = services.store.deleteBlob(repository, digest);
  if (outcome === 'unknown') throw new DistributionError('BLOB_UNKNOWN', { detail: { digest } });
  if (outcome === 'inUse')
    throw new DistributionError('UNSUPPORTED', { message: 'a manifest names this blob; delete the manifest first' });
  publish(services, caller, 'delete', { repository, digest });
}
