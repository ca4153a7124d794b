/**
 * Volume use-cases: list, create, remove and prune, with docker's filters and events.
 * A volume is removed only while no container refers to it; the service checks that again at each removal.
 */
import { errorMessage, GantryError } from '#types/errors.ts';
import type { Volume, VolumeCreateOptions } from '#wire/engine.ts';
import { matchesLabels } from '../containers/list.ts';
import type { Services } from '../services.ts';

/** Keys the `filters` parameter of the list accepts. */
export const VOLUME_FILTER_KEYS: readonly string[] = ['dangling', 'driver', 'label', 'name'];
/** Keys the `filters` parameter of prune accepts. */
export const VOLUME_PRUNE_FILTER_KEYS: readonly string[] = ['all', 'label', 'label!'];

type Filters = ReadonlyMap<string, readonly string[]>;
type VolumeServices = Pick<Services, 'events' | 'logger' | 'volumes'>;

const TRUE: readonly string[] = ['1', 'true'];
const FALSE: readonly string[] = ['0', 'false'];

let isPruning = false;

/** The volumes a filter selects, by name. Throws `invalid` for bad filter values. */
export function listVolumes(services: Pick<Services, 'volumes'>, filters: Filters): Volume[] {
  const dangling = booleanFilter(filters, 'dangling');
  const names = filters.get('name') ?? [];
  const drivers = filters.get('driver') ?? [];
  return services.volumes.list().filter((volume) => {
    // Compat: any of several names or drivers, but all of several labels.
    if (names.length > 0 && !names.some((name) => volume.Name.includes(name))) return false;
    if (drivers.length > 0 && !drivers.includes(volume.Driver)) return false;
    if (!matchesLabels(volume.Labels ?? {}, filters.get('label') ?? [])) return false;
    return dangling === undefined || dangling === (services.volumes.references(volume.Name).length === 0);
  });
}

/** `docker volume create`: makes the volume or finds the one of that name. */
export async function createVolume(services: VolumeServices, request: VolumeCreateOptions): Promise<Volume> {
  if (request.ClusterVolumeSpec) {
    throw new GantryError('notImplemented', 'cluster volumes are not implemented by this version of Gantry');
  }
  const { volume, created } = await services.volumes.create(request.Name ?? '', {
    ...(request.Driver ? { driver: request.Driver } : {}),
    options: request.DriverOpts ?? {},
    labels: request.Labels ?? {},
  });
  if (created) services.events.publish('volume', 'create', volume.Name, { driver: volume.Driver });
  return volume;
}

/** `docker volume rm`. `force` ignores a missing volume. */
export async function removeVolume(services: VolumeServices, name: string, force: boolean): Promise<void> {
  const volume = services.volumes.list().find((candidate) => candidate.Name === name);
  await services.volumes.remove(name, force);
  if (volume !== undefined) services.events.publish('volume', 'destroy', name, { driver: volume.Driver });
}

/** `docker volume prune`: removes unused volumes; named ones only with `all`. Throws `conflict` while another prune runs. */
export async function pruneVolumes(
  services: VolumeServices,
  filters: Filters,
  allByDefault: boolean,
): Promise<{ VolumesDeleted: string[]; SpaceReclaimed: number }> {
  if (isPruning) throw new GantryError('conflict', 'a prune operation is already running');
  isPruning = true;
  try {
    const all = booleanFilter(filters, 'all') ?? allByDefault;
    const deleted: string[] = [];
    let reclaimed = 0;
    for (const { Name } of services.volumes.list().filter((volume) => isPrunable(services, volume, { filters, all }))) {
      const bytes = await services.volumes.sizeBytes(Name);
      try {
        await removeVolume(services, Name, false);
      } catch (error) {
        services.logger.warn('could not remove volume', { volume: Name, error: errorMessage(error) });
        continue;
      }
      deleted.push(Name);
      reclaimed += bytes;
    }
    services.events.publish('volume', 'prune', '', { reclaimed: String(reclaimed) });
    return { VolumesDeleted: deleted, SpaceReclaimed: reclaimed };
  } finally {
    isPruning = false;
  }
}

function isPrunable(
  services: VolumeServices,
  volume: Volume,
  options: { readonly filters: Filters; readonly all: boolean },
): boolean {
  const { filters, all } = options;
  if (volume.Driver !== 'local' || services.volumes.references(volume.Name).length > 0) return false;
  if (!all && !services.volumes.isAnonymous(volume.Name)) return false;
  const labels = volume.Labels ?? {};
  const without = filters.get('label!') ?? [];
  return matchesLabels(labels, filters.get('label') ?? []) && !without.some((label) => matchesLabels(labels, [label]));
}

function booleanFilter(filters: Filters, key: string): boolean | undefined {
  const values = filters.get(key);
  if (values === undefined || values.length === 0) return undefined;
  const yes = values.some((value) => TRUE.includes(value));
  const no = values.some((value) => FALSE.includes(value));
  // Compat: one of the two, not both, and nothing else alone.
  if (yes === no) throw new GantryError('invalid', `invalid filter '${key}=[${values.join(' ')}]'`);
  return yes;
}
