/**
 * `docker system df`: what images, containers, volumes and the build cache take on disk. Unlike the sizes of `images`
 * and `ps -s` (bytes of files), these are allocated bytes of everything kept, so that their sum is what du tells of
 * the data root (0067).
 */
import { readdir } from 'node:fs/promises';
import { join } from 'node:path';
import { allocatedBytes } from '#system/disk/allocated.ts';
import type { Digest } from '#types/digest.ts';
import type { Id } from '#types/ids.ts';
import { listContainers } from '../containers/list.ts';
import { listImages } from '../images/list.ts';
import type { Services } from '../services.ts';

export type DataUsageKind = 'container' | 'image' | 'volume' | 'build-cache';

const NO_FILTERS: ReadonlyMap<string, readonly string[]> = new Map();
/** A measurement that is under way, by the services it measures. */
const running = new WeakMap<Services, Promise<Measured>>();

interface Measured {
  readonly layersSize: number;
  readonly images: readonly object[];
  readonly containers: readonly object[];
  readonly volumes: readonly object[];
}

/** The answer of `GET /system/df`. Concurrent calls share one measurement. */
export async function dataUsage(
  services: Services,
  wanted: ReadonlySet<DataUsageKind>,
  apiMinor: number,
): Promise<object> {
  const measuring = running.get(services) ?? measure(services).finally(() => running.delete(services));
  running.set(services, measuring);
  const all = await measuring;
  const images =
    apiMinor < 44 ? all.images.map((row) => ({ ...row, VirtualSize: (row as ImageRow).Size })) : all.images;
  return {
    LayersSize: wanted.has('image') ? all.layersSize : 0,
    Images: wanted.has('image') ? images : null,
    Containers: wanted.has('container') ? all.containers : null,
    Volumes: wanted.has('volume') ? all.volumes : null,
    BuildCache: wanted.has('build-cache') ? [] : null,
    ...(apiMinor < 42 ? { BuilderSize: 0 } : {}),
  };
}

type ImageRow = ReturnType<typeof listImages>[number];

async function measure(services: Services): Promise<Measured> {
  const trees = await services.snapshots.diskUsage();
  const images = await imageUsage(services, trees.layers);
  let layersSize = trees.sharedBytes + images.blobBytes + (await metadataBytes(services));
  for (const bytes of trees.layers.values()) layersSize += bytes;
  return {
    layersSize,
    images: images.rows,
    containers: await containerUsage(services, trees.snapshots),
    volumes: await volumeUsage(services),
  };
}

/** Configs, manifests and references lie in the database. */
async function metadataBytes({ settings }: Services): Promise<number> {
  let sizeBytes = 0;
  for (const suffix of ['', '-wal', '-shm', '-reserve'])
    sizeBytes += await allocatedBytes(`${settings.paths.database}${suffix}`);
  return sizeBytes;
}

/** Rows as `images` has them, with what each layer and its blob take; what two images have counts as shared. */
async function imageUsage(
  { images, containers, settings }: Services,
  trees: ReadonlyMap<Digest, number>,
): Promise<{ rows: object[]; blobBytes: number }> {
  const uses = containers.all().map(({ record }) => record.imageId);
  const containerCount = (id: string): number => uses.filter((used) => used === id).length;
  const rows = listImages(images, { all: false, sharedSize: true, filters: NO_FILTERS, containerCount });
  const parts = new Map<Digest, Map<string, number>>();
  const users = new Map<string, number>();
  for (const image of images.list()) {
    const own = new Map<string, number>();
    for (const chainId of images.chain(image.id)) own.set(`layer ${chainId}`, trees.get(chainId) ?? 0);
    for (const diffId of image.config.rootfs.diff_ids) {
      const blob = images.layerBlob(diffId);
      if (blob !== undefined) own.set(`blob ${blob.digest}`, await allocatedBytes(images.content.path(blob.digest)));
    }
    parts.set(image.id, own);
    for (const part of own.keys()) users.set(part, (users.get(part) ?? 0) + 1);
  }
  let blobBytes = 0;
  for (const name of ['blobs', 'ingest']) blobBytes += await allocatedBytes(join(settings.paths.dataRoot, name));
  const sum = (own: ReadonlyMap<string, number> | undefined, least: number): number =>
    [...(own ?? [])].reduce((total, [part, bytes]) => total + ((users.get(part) ?? 0) >= least ? bytes : 0), 0);
  return {
    blobBytes,
    rows: rows.map((row) => ({
      ...row,
      // Compat: here, unlike in the list of images, no digests is null.
      RepoDigests: row.RepoDigests.length === 0 ? null : row.RepoDigests,
      Size: sum(parts.get(row.Id as Digest), 1),
      SharedSize: sum(parts.get(row.Id as Digest), 2),
    })),
  };
}

/** Rows as `ps -s` has them, with the blocks of what was written and of the log. */
async function containerUsage(services: Services, written: ReadonlyMap<string, number>): Promise<object[]> {
  const rows = await listContainers(services, {
    all: true,
    limit: 0,
    size: true,
    since: '',
    before: '',
    filters: NO_FILTERS,
  });
  return Promise.all(
    rows.map(async (row) => {
      const { SizeRw: _, ...rest } = row;
      const id = row.Id as Id;
      const sizeBytes = (written.get(id) ?? 0) + (await logBytes(services.settings.paths.container(id)));
      return sizeBytes === 0 ? rest : { ...rest, SizeRw: sizeBytes };
    }),
  );
}

/** Blocks of a container's logs, rotated ones too. The small files beside them are the daemon's, not counted. */
async function logBytes(directory: string): Promise<number> {
  let sizeBytes = 0;
  for (const name of await readdir(directory).catch(() => [])) {
    if (/\.log(\.|$)|^local-logs$/.test(name))
      sizeBytes += await allocatedBytes(join(directory, name), { belowOnly: true });
  }
  return sizeBytes;
}

async function volumeUsage(services: Services): Promise<object[]> {
  const rows: object[] = [];
  for (const volume of services.volumes.list()) {
    const name = volume.Name ?? '';
    // What is mounted there lies elsewhere, and may be no file system that counts blocks.
    const isElsewhere = Object.keys(volume.Options ?? {}).length > 0;
    const Size = isElsewhere
      ? await services.volumes.sizeBytes(name)
      : await allocatedBytes(volume.Mountpoint ?? '', { belowOnly: true });
    rows.push({ ...volume, UsageData: { Size, RefCount: services.volumes.references(name).length } });
  }
  return rows;
}
