/** `docker search`: what a registry finds, filtered as dockerd does. */
import type { RegistryClient, RegistryCredentials, SearchResult } from '#system/registry-http/contract.ts';
import { GantryError } from '#types/errors.ts';

/** Filter keys of ImageSearch. */
export const SEARCH_FILTERS: readonly string[] = ['is-automated', 'is-official', 'stars'];

const DEFAULT_LIMIT = 25;
const MAX_LIMIT = 100;

type Filters = ReadonlyMap<string, readonly string[]>;

function flag(filters: Filters, key: string): boolean | undefined {
  const values = filters.get(key);
  if (values === undefined || values.length === 0) return undefined;
  const isTrue = values.some((value) => value === '1' || value === 'true');
  const isFalse = values.some((value) => value === '0' || value === 'false');
  if (isTrue === isFalse) throw new GantryError('invalid', `invalid filter '${key}=[${values.join(' ')}]'`);
  return isTrue;
}

function leastStars(filters: Filters): number {
  let least = 0;
  for (const value of filters.get('stars') ?? []) {
    if (!/^[+-]?\d+$/.test(value)) {
      throw new GantryError(
        'invalid',
        `invalid filter 'stars=${value}': strconv.Atoi: parsing ${JSON.stringify(value)}: invalid syntax`,
      );
    }
    least = Math.max(least, Number(value));
  }
  return least;
}

/** Searches; an empty term finds nothing in particular, as at the registry. */
export async function searchImages(
  registries: RegistryClient,
  options: { term: string; limit: number; filters: Filters; credentials: RegistryCredentials },
  signal: AbortSignal,
): Promise<SearchResult[]> {
  // Compat: nothing counts as automated any more.
  if (flag(options.filters, 'is-automated') === true) return [];
  const isOfficial = flag(options.filters, 'is-official');
  const stars = leastStars(options.filters);
  const limit = options.limit === 0 ? DEFAULT_LIMIT : options.limit;
  if (limit > MAX_LIMIT) throw new GantryError('invalid', `limit ${limit} is outside the range of [1, ${MAX_LIMIT}]`);
  const found = await registries.search(options.term, { limit, credentials: options.credentials }, signal);
  return found.filter(
    (result) => (isOfficial === undefined || result.is_official === isOfficial) && result.star_count >= stars,
  );
}
