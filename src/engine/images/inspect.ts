/** `docker image inspect` and `docker history`. */
import { orderRunConfig } from '#services/images/config.ts';
import type { Image } from '#services/images/contract.ts';
import type { ImageStore } from '#services/images/store.ts';
import { GantryError } from '#types/errors.ts';
import { formatPlatform, matchesPlatform, type Platform } from '#types/platform.ts';
import { familiarString } from '#types/reference.ts';
import { createdSeconds } from './list.ts';

/** Container-only fields, present with zero values below 1.50. */
const CONTAINER_ONLY_FIELDS = [
  'Hostname',
  'Domainname',
  'AttachStdin',
  'AttachStdout',
  'AttachStderr',
  'Tty',
  'OpenStdin',
  'StdinOnce',
  'Image',
];

const ZERO_TIME = '0001-01-01T00:00:00Z';

/** The platform an image was made for. */
export function imagePlatform(image: Image): Platform {
  const { os, architecture, variant } = image.config;
  return { os, architecture, ...(variant === undefined ? {} : { variant }) };
}

/** Resolves and, when a platform is asked for, checks it. */
export function resolveForPlatform(images: ImageStore, name: string, platform?: Platform): Image {
  const image = images.resolve(name);
  if (platform !== undefined && !matchesPlatform(platform, imagePlatform(image))) {
    throw new GantryError(
      'notFound',
      `image with reference ${name} was found but its platform (${formatPlatform(imagePlatform(image))}) does not match the specified platform (${formatPlatform(platform)})`,
    );
  }
  return image;
}

/** Whether a client's API version is at least 1.`minor`. */
type AtLeast = (minor: number) => boolean;

/** The answer of ImageInspect for the client's API version. */
export function inspectImage(
  images: ImageStore,
  name: string,
  options: { platform?: Platform; atLeast: AtLeast },
): Record<string, unknown> {
  const image = resolveForPlatform(images, name, options.platform);
  const { config } = image;
  const { atLeast } = options;
  const run = orderRunConfig(config.config ?? {});
  if (atLeast(50)) for (const field of CONTAINER_ONLY_FIELDS) delete run[field];
  const containerConfig = (config as { container_config?: Record<string, unknown> }).container_config;
  const created = config.created ?? (atLeast(44) ? undefined : ZERO_TIME);
  return {
    Id: image.id,
    RepoTags: image.repoTags,
    RepoDigests: image.repoDigests,
    Parent: image.parent ?? '',
    Comment: config.comment || (config.history?.at(-1)?.comment ?? ''),
    ...(created === undefined ? {} : { Created: created }),
    ...(atLeast(45) ? {} : { Container: config.container ?? '', ContainerConfig: containerConfig ?? null }),
    DockerVersion: config.docker_version ?? '',
    Author: config.author ?? '',
    Config: config.config === undefined ? null : run,
    Architecture: config.architecture,
    ...(config.variant ? { Variant: config.variant } : {}),
    Os: config.os,
    ...(config['os.version'] ? { OsVersion: config['os.version'] } : {}),
    Size: image.sizeBytes,
    ...(atLeast(44) ? {} : { VirtualSize: image.sizeBytes }),
    GraphDriver: {
      Data: image.topLayer === undefined ? null : images.snapshots.layerDriverData(image.topLayer),
      Name: images.snapshots.driver,
    },
    RootFS: { Type: 'layers', ...(config.rootfs.diff_ids.length === 0 ? {} : { Layers: config.rootfs.diff_ids }) },
    Metadata: { LastTagTime: image.lastTagTime },
  };
}

export interface HistoryItem {
  Id: string;
  Created: number;
  CreatedBy: string;
  Tags: readonly string[] | null;
  Size: number;
  Comment: string;
}

/** The answer of ImageHistory: newest first; IDs only where an ancestor image is here. */
export function imageHistory(images: ImageStore, name: string, platform?: Platform): HistoryItem[] {
  const image = resolveForPlatform(images, name, platform);
  const chain = images.chain(image.id);
  const items: HistoryItem[] = [];
  let layer = 0;
  for (const entry of image.config.history ?? []) {
    let size = 0;
    if (entry.empty_layer !== true) {
      const chainId = chain[layer];
      if (chainId === undefined) throw new GantryError('system', 'too many non-empty layers in History section');
      size = images.snapshots.layer(chainId)?.sizeBytes ?? 0;
      layer += 1;
    }
    const created = entry.created === undefined ? 0 : Math.floor(Date.parse(entry.created) / 1000) || 0;
    items.unshift({
      Id: '<missing>',
      Created: created,
      CreatedBy: entry.created_by ?? '',
      Tags: null,
      Size: size,
      Comment: entry.comment ?? '',
    });
  }
  let at: Image | undefined = image;
  for (const item of items) {
    if (at === undefined) break;
    item.Id = at.id;
    item.Tags =
      at.repoTags.length === 0
        ? null
        : images
            .references(at.id)
            .filter((reference) => reference.digest === undefined)
            .map(familiarString);
    if (item.Created === 0) item.Created = Number(createdSeconds(at));
    at = at.parent === undefined ? undefined : images.get(at.parent);
  }
  return items;
}
