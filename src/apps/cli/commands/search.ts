/** `search`: images of Docker Hub or of a named registry, through the daemon. */
import { credentialsHeader, findCredentials, HUB_KEY } from '../config/credentials.ts';
import { ellipsis, formatList, type ListLayout } from '../format/table.ts';
import { filtersOf, type Session } from '../session.ts';
import { StructView } from '../template/values.ts';

interface SearchResult {
  readonly name: string;
  readonly description: string;
  readonly star_count: number;
  readonly is_official: boolean;
}

const LAYOUT: ListLayout = {
  headers: { Name: 'NAME', Description: 'DESCRIPTION', StarCount: 'STARS', IsOfficial: 'OFFICIAL' },
  table: '{{.Name}}\t{{.Description}}\t{{.StarCount}}\t{{.IsOfficial}}',
  quiet: '{{.Name}}',
};
const DESCRIPTION_WIDTH = 45;

/** The credentials' key of the registry a term names. */
function serverOf(term: string): string {
  const [first = '', ...rest] = term.split('/');
  const isHost = rest.length > 0 && (/[.:]/.test(first) || first === 'localhost');
  return !isHost || first === 'docker.io' || first === 'index.docker.io' ? HUB_KEY : first;
}

function view(result: SearchResult, truncate: boolean, asJson: boolean): StructView {
  const description = (result.description ?? '').replace(/[\n\r]/g, ' ');
  const truth = (value: boolean): string => (asJson ? String(value) : value ? '[OK]' : '');
  return new StructView('*registry.searchContext', {
    Name: () => result.name,
    Description: () => (truncate ? ellipsis(description, DESCRIPTION_WIDTH) : description),
    StarCount: () => String(result.star_count ?? 0),
    IsOfficial: () => truth(result.is_official === true),
  });
}

/** `search`. */
export async function searchCommand(session: Session): Promise<number> {
  const { flags, args } = session;
  const [term = ''] = args;
  const filters = flags.list('filter');
  if (filters.some((filter) => /^is-automated=/.test(filter)))
    session.warn(
      'WARNING: the "is-automated" filter is deprecated, and searching for "is-automated=true" will not yield any results in future.',
    );
  // What cannot be read is left out; the search then fails by itself if it has to.
  const credentials = await findCredentials(session, serverOf(term)).catch(() => ({}));
  const api = await session.connect();
  const results = await api.json<SearchResult[] | null>('GET', '/images/search', {
    query: { term, limit: flags.number('limit') || undefined, filters: filtersOf(filters) },
    headers: { 'X-Registry-Auth': credentialsHeader(credentials) },
  });
  const format = flags.text('format');
  const asJson = format === 'json' || /\{\{\s*json\s+\.\s*\}\}/.test(format);
  const rows = (results ?? []).map((result) => view(result, !flags.bool('no-trunc'), asJson));
  session.print(formatList(rows, LAYOUT, { format, quiet: false }));
  return 0;
}
