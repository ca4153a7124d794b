/** Squashing: the layers of an image above a base become one (`docker build --squash`). The old image stays. */
import { goJson } from '#services/images/config.ts';
import type { Image } from '#services/images/contract.ts';
import type { ImageStore } from '#services/images/store.ts';
import type { TarCodec } from '#services/images/tar-codec.ts';
import { now } from '#system/clock/clock.ts';
import { chainIds } from '#types/digest.ts';
import { GantryError, wrapError } from '#types/errors.ts';
import { importLayer } from './layer.ts';

export interface SquashOptions {
  readonly image: Image;
  /** Its layers stay as they are; without one all become one layer. */
  readonly base: Image | undefined;
}

/** Squashes what was built; a failure says so. */
export async function squashBuild(
  context: { readonly images: ImageStore; readonly tar: TarCodec },
  built: SquashOptions,
  signal?: AbortSignal,
): Promise<Image> {
  try {
    return await squashImage(context, built, signal);
  } catch (error) {
    throw wrapError('error squashing image', error);
  }
}

/** Makes a new image of the same content. Compat: history keeps the steps as empty layers and says what was merged. */
export async function squashImage(
  context: { readonly images: ImageStore; readonly tar: TarCodec },
  { image, base }: SquashOptions,
  signal?: AbortSignal,
): Promise<Image> {
  const { images, tar } = context;
  const kept = base?.config.rootfs.diff_ids ?? [];
  const all = image.config.rootfs.diff_ids;
  if (kept.some((diffId, at) => all[at] !== diffId))
    throw new GantryError('invalid', `image ${image.id} does not lie on ${base?.id}`);
  const top = image.topLayer;
  // Compat: docker fails here (it cannot compare a layer with itself); nothing to merge is no error.
  if (top === undefined || all.length === kept.length) return image;
  using hold = images.hold();
  for (const chainId of chainIds(all)) hold.layers.add(chainId);
  const parent = chainIds(kept).at(-1);
  const difference = images.snapshots.stackDifference(parent, top) as AsyncIterable<Buffer>;
  const layer = await importLayer(difference, { images, tar, hold, parent }, signal);
  const created = now();
  const config = JSON.parse(images.configBytes(image.id).toString('utf8')) as Record<string, unknown>;
  const history = (image.config.history ?? []).map((entry, at) =>
    at < (base?.config.history?.length ?? 0) ? entry : { ...entry, empty_layer: true },
  );
  const comment = base === undefined ? `create new from ${image.id}` : `merge ${image.id} to ${base.id}`;
  config['created'] = created;
  config['rootfs'] = { type: 'layers', diff_ids: [...kept, layer.diffId] };
  config['history'] = [...history, { created, comment }];
  // Compat: the merged image has no parent, though it lies on the base's layers.
  return images.create(Buffer.from(goJson(config)));
}
