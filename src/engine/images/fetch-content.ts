/** Lost content by digest, from the registry it came from. Nobody's credentials are at hand then: what is public comes back. */
import type { RegistryClient } from '#system/registry-http/contract.ts';
import { GantryError } from '#types/errors.ts';
import type { ContentFetcher } from '../system/fsck/finding.ts';

/** Fetches through the registry client. */
export function contentFetcher(registries: RegistryClient): ContentFetcher {
  return {
    fetch: ({ repository: { domain, path }, digest, kind, sizeBytes }, signal) =>
      registries.pull(
        { domain, path, credentials: {} },
        async (repository) => {
          if (kind === 'manifest') return once((await repository.manifest(digest, signal)).bytes);
          const size = sizeBytes ?? (await repository.blobSize(digest, signal));
          if (size === undefined) throw new GantryError('notFound', 'blob unknown to registry');
          return repository.openBlob({ digest, sizeBytes: size }, 0, signal);
        },
        signal,
      ),
  };
}

async function* once(bytes: Buffer): AsyncGenerator<Buffer> {
  yield bytes;
}
