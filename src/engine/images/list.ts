/** `docker images`: the summaries of ImageList, filtered as dockerd's graph-driver store does. */
import type { Image } from '#services/images/contract.ts';
import type { ImageStore } from '#services/images/store.ts';
import { now, parseTime } from '#system/clock/clock.ts';
import type { Digest } from '#types/digest.ts';
import { GantryError } from '#types/errors.ts';
import { matchesReference } from './match-reference.ts';

export interface ImageSummary {
  readonly Containers: number;
  readonly Created: number;
  readonly Id: string;
  readonly Labels: Readonly<Record<string, string>> | null;
  readonly ParentId: string;
  readonly RepoDigests: readonly string[];
  readonly RepoTags: readonly string[];
  readonly SharedSize: number;
  readonly Size: number;
}

type Filters = ReadonlyMap<string, readonly string[]>;

export interface ListImagesOptions {
  readonly all: boolean;
  readonly sharedSize: boolean;
  readonly filters: Filters;
  /** How many containers use an image; undefined leaves -1. */
  readonly containerCount?: (image: Digest) => number;
}

/** Filter keys of ImageList. */
export const LIST_FILTERS: readonly string[] = ['dangling', 'label', 'before', 'since', 'reference', 'until'];

/** Seconds since the epoch of an image's creation; 0 when unknown. */
export function createdSeconds(image: Image): bigint {
  return (createdNs(image) ?? 0n) / 1_000_000_000n;
}

function createdNs(image: Image): bigint | undefined {
  return image.config.created === undefined ? undefined : parseTime(image.config.created);
}

/** Go's strconv.ParseBool as docker's filters read it. */
function boolFilter(filters: Filters, key: string): boolean | undefined {
  const values = filters.get(key);
  if (values === undefined || values.length === 0) return undefined;
  const truthy = values.some((value) => /^(1|true)$/.test(value));
  const falsy = values.some((value) => /^(0|false)$/.test(value));
  if (truthy === falsy) throw new GantryError('invalid', `invalid filter '${key}=[${values.join(' ')}]'`);
  return truthy;
}

/** The `until` of a prune: one at most. */
export function untilNs(values: readonly string[] | undefined): bigint | undefined {
  if (values === undefined || values.length === 0) return undefined;
  if (values.length > 1) throw new GantryError('invalid', 'more than one until filter specified');
  return timeFilterNs(values[0] ?? '');
}

/** A duration back from now, seconds, or a time. */
function timeFilterNs(text: string): bigint {
  const duration = /^(?:(\d+)h)?(?:(\d+)m)?(?:(\d+(?:\.\d+)?)s)?$/.exec(text);
  if (text !== '' && duration !== null) {
    const seconds = Number(duration[1] ?? 0) * 3600 + Number(duration[2] ?? 0) * 60 + Number(duration[3] ?? 0);
    return (parseTime(now()) ?? 0n) - BigInt(Math.round(seconds * 1e9));
  }
  if (/^\d+(\.\d+)?$/.test(text)) return BigInt(Math.round(Number(text) * 1e9));
  const completed = /^\d{4}-\d\d-\d\d$/.test(text)
    ? `${text}T00:00:00Z`
    : /^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?$/.test(text)
      ? `${text}Z`
      : text;
  const time = parseTime(completed);
  if (time === undefined) throw new GantryError('invalid', `failed to parse value as time or duration: "${text}"`);
  return time;
}

/** `label` (all must match) and `label!`. Compat: several of those exclude only what matches all of them. */
export function matchesLabels(labels: Readonly<Record<string, string>>, filters: Filters): boolean {
  const has = (wanted: string): boolean => {
    const equals = wanted.indexOf('=');
    const key = equals < 0 ? wanted : wanted.slice(0, equals);
    return Object.hasOwn(labels, key) && (equals < 0 || labels[key] === wanted.slice(equals + 1));
  };
  const excluded = filters.get('label!') ?? [];
  return (filters.get('label') ?? []).every(has) && !(excluded.length > 0 && excluded.every(has));
}

/** Compat: of several bounds the narrowest counts, in a list. */
function timeBounds(images: ImageStore, filters: Filters): { before: bigint | undefined; since: bigint | undefined } {
  const created = (name: string): bigint[] => {
    const time = createdNs(images.resolve(name));
    return time === undefined ? [] : [time];
  };
  const before = [
    ...(filters.get('before') ?? []).flatMap(created),
    ...(filters.get('until') ?? []).map((text) => timeFilterNs(text)),
  ];
  const since = (filters.get('since') ?? []).flatMap(created);
  const ascending = (a: bigint, b: bigint): number => (a < b ? -1 : 1);
  return { before: before.toSorted(ascending)[0], since: since.toSorted(ascending).at(-1) };
}

/** The summaries, newest first. */
export function listImages(images: ImageStore, options: ListImagesOptions): ImageSummary[] {
  const { filters } = options;
  const dangling = boolFilter(filters, 'dangling') ?? false;
  const { before, since } = timeBounds(images, filters);
  const patterns = filters.get('reference') ?? [];
  const all = images.list();
  const parents = new Set(all.map((image) => image.parent));
  const chosen: { image: Image; tags: readonly string[]; digests: readonly string[] }[] = [];
  for (const image of all) {
    const created = createdNs(image) ?? 0n;
    if (before !== undefined && created >= before) continue;
    if (since !== undefined && created <= since) continue;
    if (!matchesLabels(image.config.config?.Labels ?? {}, filters)) continue;
    const matching = (names: readonly string[]): readonly string[] =>
      patterns.length === 0
        ? names
        : names.filter((name) => patterns.some((pattern) => matchesReference(pattern, name)));
    const tags = matching(image.repoTags);
    const digests = matching(image.repoDigests);
    if (tags.length === 0 && digests.length === 0) {
      if (patterns.length > 0) continue;
      // Compat: intermediate images (children, no name) show only with `all`.
      if (parents.has(image.id) && !options.all && !dangling) continue;
      if (dangling && parents.has(image.id)) continue;
      if (filters.has('dangling') && !dangling) continue;
    } else if (dangling) continue;
    chosen.push({ image, tags, digests });
  }
  const shared = options.sharedSize ? sharedSizes(images) : undefined;
  const summaries = chosen.map(({ image, tags, digests }) => ({
    Containers: options.containerCount?.(image.id) ?? -1,
    Created: Number(createdSeconds(image)),
    Id: image.id,
    Labels: image.config.config?.Labels ?? null,
    ParentId: image.parent ?? '',
    RepoDigests: digests,
    RepoTags: tags,
    SharedSize: shared?.get(image.id) ?? -1,
    Size: image.sizeBytes,
  }));
  return summaries.sort((a, b) => b.Created - a.Created);
}

/** Per image, the bytes of layers that another image has too. */
export function sharedSizes(images: ImageStore): Map<Digest, number> {
  const users = new Map<Digest, number>();
  const all = images.list();
  for (const image of all)
    for (const chainId of images.chain(image.id)) users.set(chainId, (users.get(chainId) ?? 0) + 1);
  const sizes = new Map<Digest, number>();
  for (const image of all) {
    let size = 0;
    for (const chainId of images.chain(image.id)) {
      if ((users.get(chainId) ?? 0) > 1) size += images.snapshots.layer(chainId)?.sizeBytes ?? 0;
    }
    sizes.set(image.id, size);
  }
  return sizes;
}
