/** Volumes of a run: mounted before the process starts, released after it ended, each with docker's event. */
import { existsSync, mkdirSync } from 'node:fs';
import type { ContainerRecord } from '#services/containers/container.ts';
import { wrapError } from '#types/errors.ts';
import type { Services } from '../services.ts';

/** Mounts every volume of the container; disposing the result undoes it. Returns where each volume's content lies. */
export async function mountVolumes(
  services: Pick<Services, 'events' | 'volumes'>,
  record: ContainerRecord,
): Promise<{ readonly paths: ReadonlyMap<string, string> } & AsyncDisposable> {
  await using undo = new AsyncDisposableStack();
  const paths = new Map<string, string>();
  makeBindSources(record);
  for (const mount of record.mounts) {
    if (mount.Type !== 'volume' || !mount.Name) continue;
    const name = mount.Name;
    try {
      paths.set(name, await services.volumes.mount(name, record.id));
    } catch (error) {
      throw wrapError(`error while mounting volume '${mount.Source ?? ''}'`, error);
    }
    undo.defer(() => services.volumes.unmount(name, record.id));
    services.events.publish('volume', 'mount', name, {
      container: record.id,
      destination: mount.Destination ?? '',
      driver: mount.Driver ?? 'local',
      propagation: mount.Propagation ?? '',
      'read/write': String(mount.RW ?? true),
    });
  }
  const kept = undo.move();
  return { paths, [Symbol.asyncDispose]: () => kept.disposeAsync() };
}

/** Makes missing sources of `-v` binds, and of `--mount` ones that ask for it. */
export function makeBindSources(record: ContainerRecord): void {
  const strict = new Set(
    (record.hostConfig.Mounts ?? [])
      .filter((wanted) => wanted.Type === 'bind' && wanted.BindOptions?.CreateMountpoint !== true)
      .map((wanted) => wanted.Target),
  );
  for (const { Type, Source, Destination } of record.mounts) {
    if (Type !== 'bind' || !Source || strict.has(Destination) || existsSync(Source)) continue;
    try {
      mkdirSync(Source, { recursive: true, mode: 0o755 });
    } catch (error) {
      throw wrapError(`error while creating mount source path '${Source}'`, error);
    }
  }
}

/** Takes the volumes of a run that outlived the daemon; they are mounted already, so nothing is told. */
export async function holdVolumes(services: Pick<Services, 'volumes'>, record: ContainerRecord): Promise<void> {
  for (const mount of record.mounts) {
    if (mount.Type === 'volume' && mount.Name) await services.volumes.mount(mount.Name, record.id);
  }
}

/** Releases what `mountVolumes` took. */
export async function releaseVolumes(
  services: Pick<Services, 'events' | 'volumes'>,
  record: ContainerRecord,
): Promise<void> {
  for (const mount of record.mounts) {
    if (mount.Type !== 'volume' || !mount.Name) continue;
    await services.volumes.unmount(mount.Name, record.id);
    services.events.publish('volume', 'unmount', mount.Name, { container: record.id, driver: mount.Driver ?? 'local' });
  }
}
