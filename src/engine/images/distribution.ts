/** `GET /distribution/{name}/json`: a reference's descriptor at its registry, and the platforms it is for. */
import { parseImageConfig } from '#services/images/config.ts';
import type { RegistryClient, RegistryCredentials, RemoteRepository } from '#system/registry-http/contract.ts';
import { GantryError } from '#types/errors.ts';
import type { Platform } from '#types/platform.ts';
import { parseAnyReference, withDefaultTag } from '#types/reference.ts';
import { CONFIG_LIMIT_BYTES, type Descriptor, parseManifest } from './manifest.ts';

export interface DistributionPlatform {
  readonly architecture: string;
  readonly os: string;
  readonly 'os.version'?: string;
  readonly variant?: string;
}

export interface Distribution {
  readonly Descriptor: { readonly mediaType: string; readonly digest: string; readonly size: number };
  readonly Platforms: readonly DistributionPlatform[] | null;
}

/** Asks the registry. */
export async function inspectDistribution(
  registries: RegistryClient,
  name: string,
  credentials: RegistryCredentials,
  signal: AbortSignal,
): Promise<Distribution> {
  const parsed = parseAnyReference(name);
  if (parsed.kind === 'digest') throw new GantryError('system', 'no manifest found for full image ID');
  const reference = withDefaultTag(parsed.reference);
  const { domain, path } = reference;
  return await registries.pull(
    { domain, path, credentials },
    async (repository) => {
      const digest = reference.digest ?? (await repository.resolveTag(reference.tag ?? 'latest', signal)).digest;
      const manifest = await repository.manifest(digest, signal);
      const content = parseManifest(manifest.bytes, manifest.mediaType, reference);
      const platforms =
        content.kind === 'index'
          ? content.manifests.map(({ platform }) => platformFields(platform ?? { os: '', architecture: '' }))
          : await configPlatform(repository, content.config, signal);
      return {
        Descriptor: { mediaType: manifest.mediaType, digest: manifest.digest, size: manifest.bytes.length },
        Platforms: platforms.length === 0 ? null : platforms,
      };
    },
    signal,
  );
}

function platformFields(platform: Platform): DistributionPlatform {
  return {
    architecture: platform.architecture,
    os: platform.os,
    ...(platform.osVersion === undefined ? {} : { 'os.version': platform.osVersion }),
    ...(platform.variant === undefined ? {} : { variant: platform.variant }),
  };
}

/** The platform of a single image; none when its config is not an image's. */
async function configPlatform(
  repository: RemoteRepository,
  config: Descriptor,
  signal: AbortSignal,
): Promise<DistributionPlatform[]> {
  if (config.sizeBytes > CONFIG_LIMIT_BYTES) return [];
  try {
    const { os, architecture, variant } = parseImageConfig(
      await repository.configBlob(config.digest, CONFIG_LIMIT_BYTES, signal),
    );
    if (architecture === '') return [];
    return [platformFields({ os, architecture, ...(variant ? { variant } : {}) })];
  } catch (error) {
    signal.throwIfAborted();
    if (error instanceof GantryError) return [];
    throw error;
  }
}
