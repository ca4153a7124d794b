/**
 * `docker rmi` and `docker image prune` with the rules of dockerd's graph-driver store: a name only untags
 * while others remain; the last one deletes the image, its layers and its dangling parents.
 */
import type { Image } from '#services/images/contract.ts';
import type { ImageStore } from '#services/images/store.ts';
import type { Digest } from '#types/digest.ts';
import { GantryError } from '#types/errors.ts';
import { shortId } from '#types/ids.ts';
import { canonicalName, familiarString, parseReference, type Reference, withDefaultTag } from '#types/reference.ts';
import { createdSeconds, matchesLabels, untilNs } from './list.ts';

/** A container's use of an image. */
export interface ImageUse {
  readonly containerId: string;
  readonly imageId: Digest;
  readonly running: boolean;
}

/** Publishes `docker events`. */
export type EmitEvent = (
  type: string,
  action: string,
  actorId: string,
  attributes: Readonly<Record<string, string>>,
) => void;

export interface RemovalContext {
  readonly images: ImageStore;
  /** Every container's image. */
  readonly uses: () => readonly ImageUse[];
  readonly emit: EmitEvent;
}

export interface RemovedItem {
  readonly Untagged?: string;
  readonly Deleted?: string;
}

/** Event attributes of an image: its labels, then the name. */
export function imageAttributes(image: Image | undefined, name: string): Record<string, string> {
  return { ...(image?.config.config?.Labels ?? {}), name };
}

const short = (id: Digest): string => shortId(id.slice(id.indexOf(':') + 1));

interface Removal extends RemovalContext {
  readonly records: RemovedItem[];
}

/** Removes a reference or an image; returns what was untagged and deleted. */
export async function removeImage(
  context: RemovalContext,
  name: string,
  options: { force: boolean; prune: boolean },
): Promise<RemovedItem[]> {
  const { images } = context;
  const image = images.resolve(name);
  const removal: Removal = { ...context, records: [] };
  const byId = image.id.startsWith(name) || image.id.slice('sha256:'.length).startsWith(name);
  if (byId) {
    if (isSingleReference(images.references(image.id))) {
      checkConflict(context, image.id, { soft: !options.force, references: false });
      untagAll(removal, image.id);
    }
  } else if (!removeByName(removal, image, { name, force: options.force })) {
    return removal.records;
  }
  await deleteImage(removal, image.id, { ...options, quiet: !byId });
  return removal.records;
}

/** Untags; true when nothing names the image any more. */
function removeByName(removal: Removal, image: Image, options: { name: string; force: boolean }): boolean {
  const { images, records, emit } = removal;
  if (!options.force && isSingleReference(images.references(image.id))) {
    const user = removal.uses().find((use) => use.imageId === image.id);
    if (user !== undefined) {
      throw new GantryError(
        'conflict',
        `conflict: unable to remove repository reference "${options.name}" (must force) - container ${shortId(user.containerId)} is using its referenced image ${short(image.id)}`,
      );
    }
  }
  const reference = withDefaultTag(parseReference(options.name));
  images.removeReference(reference);
  emit('image', 'untag', image.id, imageAttributes(image, image.id));
  records.push({ Untagged: familiarString(reference) });
  let rest = images.references(image.id);
  const name = canonicalName(reference);
  const sameName = (other: Reference): boolean => canonicalName(other) === name;
  if (reference.digest === undefined && !rest.some((other) => other.digest === undefined && sameName(other))) {
    for (const digest of rest.filter(sameName)) {
      images.removeReference(digest);
      records.push({ Untagged: familiarString(digest) });
    }
    rest = rest.filter((other) => !sameName(other));
  }
  return rest.length === 0;
}

/** One tag, with at most digests of the same repository beside it. */
function isSingleReference(references: readonly Reference[]): boolean {
  if (references.length <= 1) return references.length === 1;
  const tags = references.filter((reference) => reference.digest === undefined);
  if (tags.length > 1) return false;
  const digestNames = new Set(references.filter((reference) => reference.digest !== undefined).map(canonicalName));
  const single = tags[0] ?? (references[0] as Reference);
  return digestNames.size === 1 && digestNames.has(canonicalName(single));
}

function untagAll(removal: Removal, id: Digest): void {
  for (const reference of removal.images.references(id)) {
    removal.images.removeReference(reference);
    removal.emit('image', 'untag', id, imageAttributes(removal.images.get(id), id));
    removal.records.push({ Untagged: familiarString(reference) });
  }
}

class DeleteConflict extends GantryError {
  readonly used: boolean;

  constructor(message: string, used: boolean) {
    super('conflict', message);
    this.used = used;
  }
}

function checkConflict(context: RemovalContext, id: Digest, options: { soft: boolean; references: boolean }): void {
  const fail = (how: string, why: string, used = false): never => {
    throw new DeleteConflict(`conflict: unable to delete ${short(id)} (${how}) - ${why}`, used);
  };
  if (context.images.children(id).length > 0) fail('cannot be forced', 'image has dependent child images');
  const uses = context.uses().filter((use) => use.imageId === id);
  const running = uses.find((use) => use.running);
  if (running !== undefined)
    fail('cannot be forced', `image is being used by running container ${shortId(running.containerId)}`, true);
  if (!options.soft) return;
  if (options.references && context.images.references(id).length > 0)
    fail('must be forced', 'image is referenced in multiple repositories');
  const stopped = uses[0];
  if (stopped !== undefined)
    fail('must be forced', `image is being used by stopped container ${shortId(stopped.containerId)}`, true);
}

async function deleteImage(
  removal: Removal,
  id: Digest,
  options: { force: boolean; prune: boolean; quiet: boolean },
): Promise<void> {
  const { images } = removal;
  try {
    checkConflict(removal, id, { soft: !options.force, references: true });
  } catch (error) {
    if (!(error instanceof DeleteConflict)) throw error;
    const dangling = images.references(id).length === 0 && images.children(id).length === 0;
    if (options.quiet && (!dangling || error.used)) return;
    throw error;
  }
  const image = images.get(id);
  untagAll(removal, id);
  const layers = await images.remove(id);
  // Compat: the image is gone when this is told, and its labels with it.
  removal.emit('image', 'delete', id, { name: id });
  removal.records.push({ Deleted: id }, ...layers.map((chainId) => ({ Deleted: chainId })));
  const parent = image?.parent;
  if (options.prune && parent !== undefined && images.get(parent) !== undefined) {
    await deleteImage(removal, parent, { force: false, prune: true, quiet: true });
  }
}

/** Filter keys of ImagePrune. */
export const PRUNE_FILTERS: readonly string[] = ['dangling', 'label', 'label!', 'until'];

/** Deletes unused images: dangling ones, or with `dangling=false` all that no container uses. */
export async function pruneImages(
  context: RemovalContext,
  filters: ReadonlyMap<string, readonly string[]>,
  signal?: AbortSignal,
): Promise<{ ImagesDeleted: RemovedItem[] | null; SpaceReclaimed: number }> {
  const { images } = context;
  const danglingOnly = readDangling(filters.get('dangling') ?? []);
  const until = untilNs(filters.get('until'));
  const deleted: RemovedItem[] = [];
  const before = layerSizes(images);
  for (const image of images.list().filter((candidate) => isPruned(images, candidate, { until, filters }))) {
    if (signal?.aborted) break;
    if (images.get(image.id) === undefined) continue;
    // Compat: an image that is named by digests only counts as dangling.
    if (danglingOnly && image.repoTags.length > 0) continue;
    if (danglingOnly && images.children(image.id).length > 0) continue;
    const names = [...image.repoTags, ...image.repoDigests];
    for (const name of names.length === 0 ? [image.id] : names) {
      if (images.get(image.id) === undefined) break;
      try {
        deleted.push(...(await removeImage(context, name, { force: false, prune: true })));
      } catch (error) {
        // In use, or removed by someone else: it stays.
        if (!(error instanceof GantryError) || (error.kind !== 'conflict' && error.kind !== 'notFound')) throw error;
      }
    }
  }
  // Blobs that no image came to need: of transfers that were broken off, for example.
  let reclaimed = await images.collection.collect();
  for (const item of deleted) reclaimed += before.get(item.Deleted ?? '') ?? 0;
  context.emit('image', 'prune', '', { reclaimed: String(reclaimed) });
  return { ImagesDeleted: deleted.length === 0 ? null : deleted, SpaceReclaimed: reclaimed };
}

/** Go's reading of a boolean filter with a default: any one true value wins. */
function readDangling(values: readonly string[]): boolean {
  if (values.length === 0) return true;
  if (values.some((value) => value === '0' || value === 'false')) return false;
  if (values.some((value) => value === '1' || value === 'true')) return true;
  throw new GantryError('invalid', `invalid filter 'dangling=[${values.join(' ')}]'`);
}

/** Whether the filters choose an image; intermediate ones go with their children. */
function isPruned(
  images: ImageStore,
  image: Image,
  by: { until: bigint | undefined; filters: ReadonlyMap<string, readonly string[]> },
): boolean {
  if (images.references(image.id).length === 0 && images.children(image.id).length > 0) return false;
  if (by.until !== undefined && createdSeconds(image) * 1_000_000_000n > by.until) return false;
  // Compat: an image without run-time part has no labels to be judged by.
  return image.config.config === undefined || matchesLabels(image.config.config.Labels ?? {}, by.filters);
}

function layerSizes(images: ImageStore): Map<string, number> {
  return new Map(images.snapshots.layers().map((layer) => [layer.chainId, layer.sizeBytes]));
}
