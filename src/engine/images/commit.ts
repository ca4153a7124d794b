/** Making a child image: from a container's changes (`docker commit`) or from a build step. */
import { encodeImageConfig } from '#services/images/config.ts';
import type { Image, ImageHistoryEntry, ImageRunConfig } from '#services/images/contract.ts';
import { type ImageStore, type LayerHold, noSuchImage } from '#services/images/store.ts';
import { now } from '#system/clock/clock.ts';
import type { Digest } from '#types/digest.ts';
import { hostPlatform } from '#types/platform.ts';
import type { Reference } from '#types/reference.ts';
import { applyChanges } from './changes.ts';
import { commitSnapshot } from './layer.ts';
import { type EmitEvent, imageAttributes } from './remove.ts';
import { nameImage } from './tag.ts';

export interface ChildImageOptions {
  readonly parent: Image | undefined;
  /** The new layer; undefined for a change of config only. */
  readonly diffId: Digest | undefined;
  readonly config: ImageRunConfig;
  readonly createdBy: string;
  readonly author?: string;
  readonly comment?: string;
  readonly container?: string;
  /** The config the step ran with; the build cache compares it. */
  readonly containerConfig?: ImageRunConfig;
}

/** Registers an image one history entry above its parent. */
export function createChildImage(images: ImageStore, options: ChildImageOptions): Promise<Image> {
  const { parent } = options;
  const created = now();
  const entry: ImageHistoryEntry = {
    created,
    ...(options.author ? { author: options.author } : {}),
    created_by: options.createdBy,
    ...(options.comment ? { comment: options.comment } : {}),
    ...(options.diffId === undefined ? { empty_layer: true } : {}),
  };
  const host = hostPlatform();
  const variant = parent === undefined ? host.variant : parent.config.variant;
  const bytes = encodeImageConfig({
    architecture: parent?.config.architecture || host.architecture,
    os: parent?.config.os ?? host.os,
    ...(variant === undefined ? {} : { variant }),
    created,
    ...(options.author === undefined ? {} : { author: options.author }),
    ...(options.comment === undefined ? {} : { comment: options.comment }),
    ...(options.container === undefined ? {} : { container: options.container }),
    ...(options.containerConfig === undefined ? {} : { containerConfig: options.containerConfig }),
    config: options.config,
    diffIds: [...(parent?.config.rootfs.diff_ids ?? []), ...(options.diffId === undefined ? [] : [options.diffId])],
    history: [...(parent?.config.history ?? []), entry],
  });
  return images.create(bytes, parent === undefined ? {} : { parent: parent.id });
}

/** What commit needs to know of a container. */
export interface CommittedContainer {
  readonly id: string;
  readonly imageId: Digest;
  /** Key of its writable snapshot. */
  readonly snapshotKey: string;
  readonly config: ImageRunConfig;
  /** The command it ran, for the history. */
  readonly command: readonly string[];
}

export interface CommitOptions {
  /** Fields that are set win over the container's (docker merges: the body first, the container for the rest). */
  readonly config?: ImageRunConfig;
  readonly changes: readonly string[];
  readonly author: string;
  readonly comment: string;
  readonly reference?: Reference;
}

const isSet = (value: unknown): boolean =>
  value !== undefined &&
  value !== null &&
  value !== '' &&
  value !== false &&
  (typeof value !== 'object' || Object.keys(value).length > 0);

/** docker's merge of two configs: own fields first, lists from the image where unset, maps united. */
export function mergeRunConfig(own: ImageRunConfig, base: ImageRunConfig): ImageRunConfig {
  const merged: Record<string, unknown> = {
    ...base,
    ...Object.fromEntries(Object.entries(own).filter(([, value]) => isSet(value))),
  };
  for (const map of ['Labels', 'Volumes', 'ExposedPorts'] as const) {
    if (isSet(own[map]) || isSet(base[map])) merged[map] = { ...(base[map] as object), ...(own[map] as object) };
  }
  const env = [...(own.Env ?? [])];
  const names = new Set(env.map((pair) => pair.split('=', 1)[0]));
  for (const pair of base.Env ?? []) if (!names.has(pair.split('=', 1)[0])) env.push(pair);
  if (env.length > 0) merged['Env'] = env;
  if (isSet(own.Entrypoint) && !isSet(own.Cmd)) merged['Cmd'] = null;
  return merged;
}

/** The image the new one is a child of; without it there is no history to continue. */
function parentOf(images: ImageStore, container: CommittedContainer): Image {
  const parent = images.get(container.imageId);
  if (parent === undefined) throw noSuchImage(container.imageId);
  return parent;
}

/** Commits a container. The caller pauses it meanwhile if asked to. */
export async function commitContainer(
  context: { images: ImageStore; emit: EmitEvent },
  container: CommittedContainer,
  options: CommitOptions,
  signal?: AbortSignal,
): Promise<Image> {
  const { images, emit } = context;
  // Compat: without a config of the request's own, changes apply to the container's.
  const changed = applyChanges(options.config ?? container.config, options.changes);
  const config = mergeRunConfig(changed, container.config);
  using hold: LayerHold = images.hold();
  parentOf(images, container);
  const layer = await commitSnapshot(images, container.snapshotKey, { hold }, signal);
  const image = await createChildImage(images, {
    // It may have been removed, by force, while the layer was written.
    parent: parentOf(images, container),
    diffId: layer?.diffId,
    config,
    createdBy: container.command.join(' '),
    author: options.author,
    comment: options.comment,
    container: container.id,
    containerConfig: container.config,
  });
  emit('image', 'create', image.id, imageAttributes(image, image.id));
  if (options.reference !== undefined) nameImage(images, image.id, { reference: options.reference, emit });
  return images.get(image.id) ?? image;
}
