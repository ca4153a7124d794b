/** Gives a manifest by tag or digest; in a cache, fetched from the upstream when needed. */
import type { RepositoryName, StoredManifest } from '#services/registry/contract.ts';
import type { ManifestReference } from '#services/registry/names.ts';
import { DistributionError } from '#types/distribution-error.ts';
import { type Caller, publish, type RegistryServices } from './services.ts';

/** The manifest. Throws MANIFEST_UNKNOWN. `isPull` is false when only its head is asked for. */
export async function pullManifest(
  services: RegistryServices,
  caller: Caller,
  request: { repository: RepositoryName; reference: ManifestReference; isPull: boolean },
  signal: AbortSignal,
): Promise<StoredManifest> {
  const { repository, reference, isPull } = request;
  const manifest =
    services.upstream === undefined
      ? services.store.manifest(repository, reference)
      : await services.upstream.manifest(repository, reference, signal);
  if (manifest === undefined) throw manifestUnknown(repository, reference);
  if (isPull) {
    publish(services, caller, 'pull', {
      mediaType: manifest.mediaType,
      size: manifest.bytes.length,
      digest: manifest.digest,
      repository,
      url: caller.url(`/v2/${repository}/manifests/${manifest.digest}`),
      ...(reference.kind === 'tag' ? { tag: reference.tag } : {}),
    });
  }
  return manifest;
}

/** The error for a manifest that is not there. Compat: also in a repository that is not, as clients know it. */
export function manifestUnknown(repository: RepositoryName, reference: ManifestReference): DistributionError {
  const detail = reference.kind === 'tag' ? { Tag: reference.tag } : { Name: repository, Revision: reference.digest };
  return new DistributionError('MANIFEST_UNKNOWN', { detail });
}
