/** Searching a registry: v1 search as Docker Hub has it; a private registry without it is searched by its catalogue. */
import { GantryError } from '#types/errors.ts';
import type { SearchResult } from './contract.ts';
import { RemoteRegistryError } from './errors.ts';
import { readPages } from './repository.ts';
import type { Session } from './session.ts';
import { drop, readBody } from './transport.ts';

/** Bytes of a search answer: at most 100 results. */
const RESULTS_LIMIT_BYTES = 4 * 1024 * 1024;

/** Splits a term into registry and name by docker's rule. */
export function splitSearchTerm(term: string): { index: string; name: string } {
  if (/^https?:\/\//.test(term)) {
    throw new GantryError('invalid', `invalid repository name: repository name (${term}) should not have a scheme`);
  }
  const slash = term.indexOf('/');
  const first = slash < 0 ? '' : term.slice(0, slash);
  if (slash >= 0 && (/[.:]/.test(first) || first === 'localhost')) return { index: first, name: term.slice(slash + 1) };
  return { index: 'docker.io', name: term };
}

export interface SearchQuery {
  readonly index: string;
  readonly name: string;
  readonly limit: number;
  readonly isHub: boolean;
}

/** Searches one endpoint. */
export async function searchIndex(session: Session, query: SearchQuery, signal: AbortSignal): Promise<SearchResult[]> {
  const url = session.url('/v1/search');
  url.searchParams.append('q', query.name);
  url.searchParams.append('n', String(query.limit));
  if (!query.isHub) await session.ping(signal);
  const answer = await session.send({ method: 'GET', url, headers: { 'x-docker-token': 'true' } }, signal);
  if (answer.status === 200) {
    const body = await readBody(answer, RESULTS_LIMIT_BYTES, 'search result');
    const results = resultsOf(body);
    if (results !== undefined) return results.slice(0, query.limit);
    if (query.isHub) throw new GantryError('system', 'error decoding registry search results: invalid JSON');
  }
  drop(answer.body);
  if (query.isHub) {
    throw new RemoteRegistryError('system', `Unexpected status code ${answer.status}`, {
      failure: 'answer',
      status: answer.status,
    });
  }
  return catalogue(session, query, signal);
}

function resultsOf(body: Buffer): SearchResult[] | undefined {
  let value: { results?: unknown } | null;
  try {
    value = JSON.parse(body.toString('utf8')) as typeof value;
  } catch {
    return undefined;
  }
  if (!Array.isArray(value?.results)) return undefined;
  return value.results.filter((item) => typeof item === 'object' && item !== null).map(result);
}

function result(item: Record<string, unknown>): SearchResult {
  return {
    star_count: Number(item['star_count']) || 0,
    is_official: item['is_official'] === true,
    name: String(item['name'] ?? ''),
    // Compat: always false; Docker Hub's value has no meaning any more.
    is_automated: false,
    description: String(item['description'] ?? ''),
  };
}

async function catalogue(session: Session, query: SearchQuery, signal: AbortSignal): Promise<SearchResult[]> {
  const url = session.url('/v2/_catalog');
  url.searchParams.append('n', '1000');
  const wanted = query.name.toLowerCase();
  const names = (await readPages(session, url, 'repositories', signal)).filter((name) => name.includes(wanted));
  // Exact names first, then by length: what was most likely meant.
  names.sort((a, b) => Number(b === wanted) - Number(a === wanted) || a.length - b.length || (a < b ? -1 : 1));
  return names.slice(0, query.limit).map((name) => ({
    star_count: 0,
    is_official: false,
    name: `${query.index}/${name}`,
    is_automated: false,
    description: '',
  }));
}
