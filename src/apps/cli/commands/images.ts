/** `images`, `history`, `rmi`, `tag`. */

import { humanDuration } from '#types/human-duration.ts';
import { familiarName, parseReference, type Reference, withDefaultTag } from '#types/reference.ts';
import { ExitError } from '../args/usage-error.ts';
import { ApiError, type Json } from '../connection/api.ts';
import { goTime, rfc3339 } from '../format/dates.ts';
import { ellipsis, formatList, type ListLayout } from '../format/table.ts';
import { filtersOf, type Session, segment } from '../session.ts';
import { StructView } from '../template/values.ts';
import { goQuote, humanSize } from '../text/go-text.ts';
import { splitReference } from './container-verbs.ts';
import { platformsOf } from './platforms.ts';

/** An image of GET /images/json. */
export interface ImageSummary {
  readonly Id: string;
  readonly RepoTags: readonly string[] | null;
  readonly RepoDigests: readonly string[] | null;
  readonly Created: number;
  readonly Size: number;
  readonly SharedSize: number;
  readonly Containers: number;
}

/** Titles of the image columns. */
export const IMAGE_HEADERS: Readonly<Record<string, string>> = {
  ID: 'IMAGE ID',
  Repository: 'REPOSITORY',
  Tag: 'TAG',
  Digest: 'DIGEST',
  CreatedSince: 'CREATED',
  CreatedAt: 'CREATED AT',
  Size: 'SIZE',
  Containers: 'CONTAINERS',
  VirtualSize: 'SIZE',
  SharedSize: 'SHARED SIZE',
  UniqueSize: 'UNIQUE SIZE',
};

function imageLayout(digests: boolean): ListLayout {
  const digest = digests ? '{{.Digest}}\t' : '';
  return {
    headers: IMAGE_HEADERS,
    table: `{{.Repository}}\t{{.Tag}}\t${digest}{{.ID}}\t{{if .CreatedSince }}{{.CreatedSince}}{{else}}N/A{{end}}\t{{.Size}}`,
    quiet: '{{.ID}}',
    raw: `repository: {{ .Repository }}\ntag: {{.Tag}}\n${digests ? 'digest: {{.Digest}}\n' : ''}image_id: {{.ID}}\ncreated_at: {{.CreatedAt}}\nvirtual_size: {{.Size}}\n`,
    rawQuiet: 'image_id: {{.ID}}',
  };
}

/** The name a row stands for. */
export interface ImageName {
  readonly repository: string;
  readonly tag: string;
  readonly digest: string;
}

/** One row a tag (and digest); `<none>` where there is none. */
function rowsOf(image: ImageSummary, digests: boolean): ImageName[] {
  const none = '<none>';
  const tags = (image.RepoTags ?? []).filter((tag) => tag !== '<none>:<none>').map(splitReference);
  const refs = (image.RepoDigests ?? [])
    .filter((digest) => digest !== '<none>@<none>')
    .map((digest) => digest.split('@') as [string, string]);
  if (tags.length === 0 && refs.length === 0) return [{ repository: none, tag: none, digest: none }];
  if (!digests) {
    if (tags.length > 0) return tags.map(({ repo, tag }) => ({ repository: repo, tag, digest: none }));
    return [...new Set(refs.map(([repository]) => repository))].map((repository) => ({
      repository,
      tag: none,
      digest: none,
    }));
  }
  const rows: ImageName[] = [];
  for (const { repo, tag } of tags) {
    const own = refs.filter(([repository]) => repository === repo);
    if (own.length === 0) rows.push({ repository: repo, tag, digest: none });
    for (const [, digest] of own) rows.push({ repository: repo, tag, digest });
  }
  for (const [repository, digest] of refs)
    if (!tags.some(({ repo }) => repo === repository)) rows.push({ repository, tag: none, digest });
  return rows;
}

/** An image as templates see it. */
export function imageView(image: ImageSummary, row: ImageName, truncate: boolean): StructView {
  const size = (bytes: number): string => (bytes === -1 ? 'N/A' : humanSize(bytes));
  return new StructView('*formatter.imageContext', {
    ID: () => (truncate ? image.Id.replace(/^sha256:/, '').slice(0, 12) : image.Id),
    Repository: () => row.repository,
    Tag: () => row.tag,
    Digest: () => row.digest,
    CreatedSince: () => `${humanDuration(Date.now() - image.Created * 1000)} ago`,
    CreatedAt: () => goTime(image.Created * 1000),
    Size: () => humanSize(image.Size, 3),
    Containers: () => (image.Containers === -1 ? 'N/A' : String(image.Containers)),
    VirtualSize: () => humanSize(image.Size),
    SharedSize: () => size(image.SharedSize),
    UniqueSize: () => size(image.SharedSize === -1 ? -1 : image.Size - image.SharedSize),
  });
}

const IMAGE_COMMANDS: ReadonlySet<string> = new Set(
  'build history import inspect list load ls prune pull push rm save tag'.split(' '),
);

/** `images`. */
export async function listImages(session: Session): Promise<number> {
  const { flags, args } = session;
  const filters = flags.list('filter');
  const [name] = args;
  if (name !== undefined) filters.push(`reference=${name}`);
  if (flags.bool('tree')) return (await import('./image-tree.ts')).imageTree(session, filters);
  const api = await session.connect();
  const images = await api.json<ImageSummary[] | null>('GET', '/images/json', {
    query: { all: flags.bool('all') || undefined, filters: filtersOf(filters) },
  });
  const format = flags.text('format') || (flags.bool('quiet') ? '' : (session.config.imagesFormat ?? ''));
  const digests = flags.bool('digests') || format.includes('{{.Digest}}');
  const views = [...(images ?? [])]
    .sort((a, b) => b.Created - a.Created)
    .flatMap((image) => rowsOf(image, digests).map((row) => imageView(image, row, !flags.bool('no-trunc'))));
  session.print(formatList(views, imageLayout(flags.bool('digests')), { format, quiet: flags.bool('quiet') }));
  // A command of `image` given to `images` by mistake.
  if (name !== undefined && views.length === 0 && session.command.path === 'images' && IMAGE_COMMANDS.has(name))
    session.warn(`\nNo images found matching "${name}": did you mean "gantry image ${name}"?`);
  return 0;
}

const HISTORY_LAYOUT: ListLayout = {
  headers: {
    ID: 'IMAGE',
    CreatedSince: 'CREATED',
    CreatedAt: 'CREATED AT',
    CreatedBy: 'CREATED BY',
    Size: 'SIZE',
    Comment: 'COMMENT',
  },
  table: '{{.ID}}\t{{.CreatedSince}}\t{{.CreatedBy}}\t{{.Size}}\t{{.Comment}}',
  quiet: '{{.ID}}',
};

/** `history`. */
export async function imageHistory(session: Session): Promise<number> {
  const { flags, args } = session;
  const truncate = !flags.bool('no-trunc');
  const human = flags.bool('human', true);
  const [platform] = platformsOf(session);
  const api = await session.connect();
  const items = await api.json<{ Id: string; Created: number; CreatedBy: string; Size: number; Comment: string }[]>(
    'GET',
    `/images/${segment(args[0] ?? '')}/history`,
    { query: { platform } },
  );
  const rows = items.map((item) => {
    const createdAt = (): string => rfc3339(item.Created);
    const by = item.CreatedBy.replaceAll('\t', ' ');
    return new StructView('*image.historyContext', {
      ID: () => (truncate ? item.Id.replace(/^sha256:/, '').slice(0, 12) : item.Id),
      CreatedSince: () =>
        human ? (item.Created <= 0 ? 'N/A' : `${humanDuration(Date.now() - item.Created * 1000)} ago`) : createdAt(),
      CreatedAt: createdAt,
      CreatedBy: () => (truncate ? ellipsis(by, 45) : by),
      Size: () => (human ? humanSize(item.Size, 3) : String(item.Size)),
      Comment: () => item.Comment,
    });
  });
  session.print(formatList(rows, HISTORY_LAYOUT, { format: flags.text('format'), quiet: flags.bool('quiet') }));
  return 0;
}

/** `rmi`. */
export async function removeImages(session: Session): Promise<number> {
  const { flags, args } = session;
  const platforms = platformsOf(session);
  const api = await session.connect();
  const failures: string[] = [];
  let isFailure = false;
  for (const name of args) {
    try {
      const removed = await api.json<Json[] | null>('DELETE', `/images/${segment(name)}`, {
        query: {
          force: flags.bool('force') || undefined,
          noprune: flags.bool('no-prune') || undefined,
          platforms: platforms.length > 0 ? platforms : undefined,
        },
      });
      for (const item of removed ?? []) {
        if (item['Deleted'] !== undefined) session.print(`Deleted: ${String(item['Deleted'])}\n`);
        else session.print(`Untagged: ${String(item['Untagged'])}\n`);
      }
    } catch (error) {
      if (!(error instanceof ApiError)) throw error;
      if (error.status !== 404) isFailure = true;
      failures.push(error.message);
    }
  }
  if (failures.length === 0) return 0;
  // Compat: with --force a missing image is reported, but is no failure.
  if (flags.bool('force') && !isFailure) {
    session.warn(failures.join('\n'));
    return 0;
  }
  throw new ExitError(1, `${failures.join('\n')}\n`);
}

/** `tag`. */
export async function tagImage(session: Session): Promise<number> {
  const [source = '', target = ''] = session.args;
  const named = withDefaultTag(parseTarget(target));
  if (named.digest !== undefined) throw new ExitError(1, 'refusing to create a tag with a digest reference\n');
  const api = await session.connect();
  await api.json('POST', `/images/${segment(source)}/tag`, { query: { repo: familiarName(named), tag: named.tag } });
  return 0;
}

function parseTarget(text: string): Reference {
  try {
    return parseReference(text);
  } catch (error) {
    throw new ExitError(
      1,
      `Error parsing reference: ${goQuote(text)} is not a valid repository/tag: ${(error as Error).message}\n`,
    );
  }
}
