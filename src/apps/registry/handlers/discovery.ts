/** The catalogue, tags and referrers, in pages linked by RFC 8288 headers. */
import { listReferrers, listRepositories, listTags } from '#engine/registry/discover.ts';
import type { Caller, RegistryServices } from '#engine/registry/services.ts';
import type { Descriptor, PageRequest } from '#services/registry/contract.ts';
import { OCI_INDEX } from '#services/registry/manifest.ts';
import { parseRegistryDigest } from '#services/registry/names.ts';
import { DistributionError } from '#types/distribution-error.ts';
import type { Exchange } from '../exchange.ts';
import type { Call } from '../server.ts';

/** Names in one answer, asked for or not. */
const MAX_PAGE = 1000;
const DEFAULT_CATALOG_PAGE = 100;

function pageRequest(exchange: Exchange, unasked: number): PageRequest {
  const text = exchange.query.get('n');
  const last = exchange.query.get('last') ?? '';
  if (text === null || text === '') return { last, limit: unasked };
  if (!/^\d{1,9}$/.test(text))
    throw new DistributionError('PAGINATION_NUMBER_INVALID', { detail: { n: text.slice(0, 20) } });
  return { last, limit: Math.min(Number(text), MAX_PAGE) };
}

function linkHeader(path: string, parameters: Readonly<Record<string, string>>): Record<string, string> {
  return { Link: `<${path}?${new URLSearchParams(parameters)}>; rel="next"` };
}

function nextLink(
  path: string,
  page: PageRequest,
  answer: { names: readonly string[]; hasMore: boolean },
): Record<string, string> {
  const last = answer.names.at(-1);
  if (!answer.hasMore || last === undefined) return {};
  return linkHeader(path, { last, n: String(page.limit) });
}

/** GET /v2/_catalog. */
export function serveCatalog(exchange: Exchange, services: RegistryServices, caller: Caller): void {
  const page = pageRequest(exchange, DEFAULT_CATALOG_PAGE);
  const answer = page.limit === 0 ? { names: [], hasMore: false } : listRepositories(services, caller, page);
  exchange.json(200, { repositories: answer.names }, nextLink('/v2/_catalog', page, answer));
}

/** GET …/tags/list. */
export async function serveTags(call: Call): Promise<void> {
  const { exchange, services, repository } = call;
  const page = pageRequest(exchange, MAX_PAGE);
  const answer = await listTags(services, repository, page, exchange.signal);
  exchange.json(200, { name: repository, tags: answer.names }, nextLink(`/v2/${repository}/tags/list`, page, answer));
}

/** GET …/referrers/<digest>: an index made for the answer. */
export function serveReferrers(call: Call): void {
  const { exchange, services, repository } = call;
  const subject = parseRegistryDigest(call.reference);
  const artifactType = exchange.query.get('artifactType') ?? '';
  const last = exchange.query.get('last') ?? '';
  const { descriptors, next } = listReferrers(services, repository, { subject, artifactType, last });
  const filter = artifactType === '' ? {} : { artifactType };
  exchange.json(
    200,
    { schemaVersion: 2, mediaType: OCI_INDEX, manifests: descriptors.map(encode) },
    {
      'Content-Type': OCI_INDEX,
      ...(artifactType === '' ? {} : { 'OCI-Filters-Applied': 'artifactType' }),
      ...(next === undefined ? {} : linkHeader(`/v2/${repository}/referrers/${subject}`, { ...filter, last: next })),
    },
  );
}

function encode({ sizeBytes, ...descriptor }: Descriptor): object {
  return { ...descriptor, size: sizeBytes };
}
