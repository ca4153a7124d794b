/** `docker system df`: what images, containers, volumes and the build cache take on disk. */
import { listContainers } from '../containers/list.ts';
import { listImages } from '../images/list.ts';
import type { Services } from '../services.ts';

export type DataUsageKind = 'container' | 'image' | 'volume' | 'build-cache';

const NO_FILTERS: ReadonlyMap<string, readonly string[]> = new Map();
let running: Promise<Measured> | undefined;

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
  running ??= measure(services).finally(() => {
    running = undefined;
  });
  const all = await running;
  return {
    LayersSize: wanted.has('image') ? all.layersSize : 0,
    Images: wanted.has('image') ? all.images : null,
    Containers: wanted.has('container') ? all.containers : null,
    Volumes: wanted.has('volume') ? all.volumes : null,
    BuildCache: wanted.has('build-cache') ? [] : null,
    ...(apiMinor < 42 ? { BuilderSize: 0 } : {}),
  };
}

async function measure(services: Services): Promise<Measured> {
  const containers = await listContainers(services, {
    all: true,
    limit: 0,
    size: true,
    since: '',
    before: '',
    filters: NO_FILTERS,
  });
  const uses = services.containers.all().map(({ record }) => record.imageId);
  const containerCount = (id: string): number => uses.filter((used) => used === id).length;
  const images = await listImages(services.images, {
    all: false,
    sharedSize: true,
    filters: NO_FILTERS,
    containerCount,
  });
  const layersSize = services.snapshots.layers().reduce((sum, layer) => sum + layer.sizeBytes, 0);
  return {
    layersSize,
    containers,
    // Compat: here, unlike in the list of images, no digests is null.
    images: images.map((row) => (row.RepoDigests.length === 0 ? { ...row, RepoDigests: null } : row)),
    volumes: await volumeUsage(services),
  };
}

async function volumeUsage(services: Services): Promise<object[]> {
  const rows: object[] = [];
  for (const volume of services.volumes.list()) {
    const name = volume.Name ?? '';
    const Size = await services.volumes.sizeBytes(name);
    rows.push({ ...volume, UsageData: { Size, RefCount: services.volumes.references(name).length } });
  }
  return rows;
}
