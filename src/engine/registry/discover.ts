/** Lists: repositories the caller may pull, tags of one, manifests that refer to another. */
import type { Descriptor, Page, PageRequest, RepositoryName } from '#services/registry/contract.ts';
import type { Digest } from '#types/digest.ts';
import { DistributionError } from '#types/distribution-error.ts';
import type { Caller, RegistryServices } from './services.ts';

/** Rows read at once when some may be hidden from the caller. */
const BATCH = 500;
/** Bytes of descriptors in one page of referrers: the manifest limit of the spec. */
const MAX_REFERRERS_BYTES: number = 3 * 1024 * 1024;

/** One page of the repositories the caller may pull. */
export function listRepositories(services: RegistryServices, caller: Caller, page: PageRequest): Page {
  const { actor } = caller;
  if (actor.isAdministrator) return services.store.listRepositories(page);
  const names: string[] = [];
  let { last } = page;
  for (;;) {
    const batch = services.store.listRepositories({ last, limit: BATCH });
    for (const name of batch.names) {
      if (!actor.may('pull', name)) continue;
      if (names.length === page.limit) return { names, hasMore: true };
      names.push(name);
    }
    last = batch.names.at(-1) ?? last;
    if (!batch.hasMore) return { names, hasMore: false };
  }
}

/** One page of tags. Throws NAME_UNKNOWN. */
export async function listTags(
  services: RegistryServices,
  repository: RepositoryName,
  page: PageRequest,
  signal: AbortSignal,
): Promise<Page> {
  const upstream = await services.upstream?.tags(repository, page, signal);
  if (upstream !== undefined) return upstream;
  if (!services.store.isKnown(repository))
    throw new DistributionError('NAME_UNKNOWN', { detail: { name: repository } });
  return services.store.listTags(repository, page);
}

/** Manifests whose subject is `subject`, of one type when asked, in pages. */
export function listReferrers(
  services: RegistryServices,
  repository: RepositoryName,
  request: { subject: Digest; artifactType: string; last: string },
): { descriptors: Descriptor[]; next: string | undefined } {
  const descriptors: Descriptor[] = [];
  let { last } = request;
  let bytes = 0;
  for (;;) {
    const batch = services.store.referrers(repository, request.subject, { last, limit: BATCH });
    for (const descriptor of batch) {
      bytes += JSON.stringify(descriptor).length;
      if (bytes > MAX_REFERRERS_BYTES && descriptors.length > 0) return { descriptors, next: last };
      last = descriptor.digest;
      if (request.artifactType === '' || descriptor.artifactType === request.artifactType) descriptors.push(descriptor);
    }
    if (batch.length < BATCH) return { descriptors, next: undefined };
  }
}
