/**
 * From planned mounts to a container's mount points: volumes are made (or found) and held, image content is
 * copied into empty ones, mounts of other containers are taken over (`--volumes-from`).
 */
import type { ContainerRecord, ImageMount } from '#services/containers/container.ts';
import { copyUp } from '#services/volumes/copy-up.ts';
import { errorMessage, GantryError } from '#types/errors.ts';
import { type Id, newId } from '#types/ids.ts';
import type { ContainerConfig, HostConfig, MountPoint } from '#wire/engine.ts';
import type { Services } from '../services.ts';
import { removeBundle } from './bundle.ts';
import { type PlannedMount, parseVolumesFrom } from './create/mount-specs.ts';

/** What mount points are made from. */
export interface MountRequest {
  readonly id: Id;
  readonly config: ContainerConfig;
  readonly hostConfig: HostConfig;
  readonly mounts: readonly PlannedMount[];
}

interface MadeMount {
  readonly point: MountPoint;
  /** Fill the volume from the image if it is empty. */
  readonly copyData: boolean;
  readonly image?: ImageMount;
}

/** The mount points of a container. */
export interface MountPoints {
  readonly points: readonly MountPoint[];
  readonly images: readonly ImageMount[];
}

/** Makes the mount points; disposing the result drops the references and the volumes made here. */
export async function makeMounts(services: Services, request: MountRequest): Promise<MountPoints & AsyncDisposable> {
  await using undo = new AsyncDisposableStack();
  const made = new Map<string, MadeMount>();
  undo.defer(() => services.volumes.release(request.id));
  for (const text of request.hostConfig.VolumesFrom ?? []) takeOver(services, request.id, text, made);
  for (const planned of request.mounts) {
    const fromConfig = isFromConfig(planned, request.config);
    if (fromConfig && made.has(planned.destination)) continue;
    made.set(planned.destination, await makeMount(services, request.id, planned, { fromConfig, undo }));
  }
  await populate(services, request.id, [...made.values()]);
  const kept = undo.move();
  const all = [...made.values()];
  return {
    points: all.map(({ point }) => point),
    images: all.flatMap(({ image }) => (image === undefined ? [] : [image])),
    [Symbol.asyncDispose]: () => kept.disposeAsync(),
  };
}

/** Anonymous volumes of the image or of `-v /path` give way to what another container brings. */
function isFromConfig(planned: PlannedMount, config: ContainerConfig): boolean {
  return planned.type === 'volume' && planned.name === '' && planned.destination in (config.Volumes ?? {});
}

function takeOver(services: Services, id: Id, text: string, made: Map<string, MadeMount>): void {
  const { container, writable } = parseVolumesFrom(text);
  const donor = findDonor(services, container);
  for (const point of donor.mounts) {
    // Compat: an image mount stays with its own container.
    if (point.Type === 'image') continue;
    if (point.Type === 'volume' && point.Name) services.volumes.addReference(point.Name, id);
    const rw = writable && point.RW !== false;
    made.set(point.Destination ?? '', { point: { ...point, RW: rw }, copyData: false });
  }
}

// Compat: 400, so that a client does not take it for a missing image.
function findDonor(services: Services, reference: string): ContainerRecord {
  try {
    return services.containers.find(reference).record;
  } catch (error) {
    throw new GantryError('invalid', errorMessage(error), { cause: error });
  }
}

async function makeMount(
  services: Services,
  id: Id,
  planned: PlannedMount,
  options: { readonly fromConfig: boolean; readonly undo: AsyncDisposableStack },
): Promise<MadeMount> {
  const base = { Destination: planned.destination, RW: planned.writable };
  switch (planned.type) {
    case 'bind':
      return {
        copyData: false,
        point: {
          Type: 'bind',
          Source: planned.source,
          ...base,
          Mode: planned.mode,
          Propagation: planned.propagation || 'rprivate',
        },
      };
    case 'tmpfs':
      return { copyData: false, point: { Type: 'tmpfs', Source: '', ...base, Mode: planned.mode, Propagation: '' } };
    case 'volume':
      return await makeVolumeMount(services, id, planned, options);
    case 'image':
      return await makeImageMount(services, planned, options.undo);
    default:
      return planned.type satisfies never;
  }
}

/** A writable snapshot mounted read-only: overlayfs needs no second layer for it. */
async function makeImageMount(
  services: Services,
  planned: PlannedMount,
  undo: AsyncDisposableStack,
): Promise<MadeMount> {
  const image = services.images.resolve(planned.source);
  const snapshot = newId();
  await services.snapshots.prepare(snapshot, image.topLayer);
  undo.defer(() => services.snapshots.remove(snapshot));
  return {
    copyData: false,
    image: { destination: planned.destination, imageId: image.id, snapshot },
    point: {
      Type: 'image',
      Name: planned.source,
      Source: services.snapshots.graphDriverData(snapshot)['MergedDir'] ?? '',
      Destination: planned.destination,
      Mode: planned.mode,
      RW: false,
      Propagation: planned.propagation,
    },
  };
}

async function makeVolumeMount(
  services: Services,
  id: Id,
  planned: PlannedMount,
  options: { readonly fromConfig: boolean; readonly undo: AsyncDisposableStack },
): Promise<MadeMount> {
  const driverConfig = planned.spec.VolumeOptions?.DriverConfig;
  const { volume, created } = await services.volumes.create(planned.name, {
    ...(planned.driver === '' ? {} : { driver: planned.driver }),
    options: driverConfig?.Options ?? {},
    labels: planned.spec.VolumeOptions?.Labels ?? {},
    reference: id,
  });
  const name = volume.Name ?? '';
  if (created) {
    services.events.publish('volume', 'create', name, { driver: volume.Driver ?? 'local' });
    options.undo.defer(async () => {
      services.volumes.release(id, name);
      await services.volumes.remove(name, true);
    });
  }
  return {
    // A part of a volume must be there already: content of the image is for whole ones.
    copyData: planned.copyData && !planned.spec.VolumeOptions?.Subpath,
    point: {
      Type: 'volume',
      Name: name,
      Source: volume.Mountpoint ?? '',
      Destination: planned.destination,
      Driver: volume.Driver ?? 'local',
      // Compat: volumes asked for by the user are shown as shared-relabelled.
      Mode: planned.mode === '' && !options.fromConfig ? 'z' : planned.mode,
      RW: planned.writable,
      Propagation: '',
    },
  };
}

/** Copies what the image has at a mount point into the volume, if that is empty. */
async function populate(services: Services, id: Id, mounts: readonly MadeMount[]): Promise<void> {
  const wanted: MountPoint[] = [];
  for (const { point, copyData } of mounts) {
    if (copyData && point.Type === 'volume' && (await services.volumes.isEmpty(point.Name ?? ''))) wanted.push(point);
  }
  if (wanted.length === 0) return;
  const { paths } = services.settings;
  await services.snapshots.mount(id, paths.rootfs(id));
  try {
    for (const point of wanted) {
      const name = point.Name ?? '';
      const target = await services.volumes.mount(name, id);
      try {
        await copyUp(paths.rootfs(id), point.Destination ?? '', target);
      } finally {
        await services.volumes.unmount(name, id);
      }
    }
  } finally {
    await services.snapshots.unmount(id, paths.rootfs(id));
    removeBundle(paths, id);
  }
}
