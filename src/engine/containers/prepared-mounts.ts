/**
 * Mounts of a run that need one of their own in its bundle: parts of volumes (`volume-subpath`) and images.
 *
 * Invariant: a part is opened by the kernel below its base and mounted by that descriptor, so that nobody who writes
 * in the volume meanwhile can put another place of the host in its stead.
 */
import { closeSync, existsSync, fstatSync, mkdirSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import type { ContainerRecord } from '#services/containers/container.ts';
import { hasCode } from '#system/kernel/errno.ts';
import { MNT_DETACH, MS_BIND, MS_REC, mount, tryUnmount } from '#system/kernel/mount.ts';
import { O_PATH, openBelow, openRoot } from '#system/kernel/path.ts';
import { GantryError } from '#types/errors.ts';
import type { Services } from '../services.ts';
import { preparedMountsPath } from './bundle.ts';

/** What is mounted, by destination in the container; disposing unmounts it. */
export interface PreparedMounts extends AsyncDisposable {
  readonly sources: ReadonlyMap<string, string>;
}

/** Mounts them all. `volumes` maps volume names to where their content lies. */
export async function prepareMounts(
  services: Pick<Services, 'settings' | 'snapshots'>,
  record: ContainerRecord,
  volumes: ReadonlyMap<string, string>,
): Promise<PreparedMounts> {
  const sources = new Map<string, string>();
  await using undo = new AsyncDisposableStack();
  undo.defer(() => releasePreparedMounts(services, record));
  const directory = preparedMountsPath(services.settings.paths, record.id);
  for (const [index, { destination, subpath, volume, image }] of plannedMounts(record).entries()) {
    mkdirSync(directory, { recursive: true, mode: 0o700 });
    let base = volumes.get(volume ?? '') ?? '';
    if (image !== undefined) {
      base = imagePath(directory, image);
      await services.snapshots.mount(image, base);
    }
    sources.set(destination, subpath === '' ? base : mountPart(base, subpath, join(directory, `part-${index}`)));
  }
  const kept = undo.move();
  return { sources, [Symbol.asyncDispose]: () => kept.disposeAsync() };
}

/** Undoes `prepareMounts`, whoever did it: also for a run that outlived its daemon. */
export async function releasePreparedMounts(
  services: Pick<Services, 'settings' | 'snapshots'>,
  record: ContainerRecord,
): Promise<void> {
  const directory = preparedMountsPath(services.settings.paths, record.id);
  if (!existsSync(directory)) return;
  for (const [index, { image }] of plannedMounts(record).entries()) {
    tryUnmount(join(directory, `part-${index}`), MNT_DETACH);
    if (image === undefined) continue;
    const path = imagePath(directory, image);
    if (existsSync(path)) await services.snapshots.unmount(image, path);
  }
}

const imagePath = (directory: string, snapshot: string): string => join(directory, `image-${snapshot}`);

interface PlannedPart {
  readonly destination: string;
  /** Empty: all of it. */
  readonly subpath: string;
  readonly volume: string | undefined;
  /** Key of the snapshot that shows the image. */
  readonly image: string | undefined;
}

function plannedMounts(record: ContainerRecord): PlannedPart[] {
  const specified = new Map((record.hostConfig.Mounts ?? []).map((spec) => [spec.Target, spec]));
  return record.mounts.flatMap(({ Type, Name, Destination = '' }): PlannedPart[] => {
    const spec = specified.get(Destination);
    if (Type === 'image') {
      const image = (record.imageMounts ?? []).find((one) => one.destination === Destination);
      const { Subpath: subpath } = spec?.ImageOptions ?? {};
      return [{ destination: Destination, subpath: subpath ?? '', volume: undefined, image: image?.snapshot }];
    }
    const subpath = Type === 'volume' ? spec?.VolumeOptions?.Subpath : undefined;
    return subpath ? [{ destination: Destination, subpath, volume: Name, image: undefined }] : [];
  });
}

/** Mounts `base`/`subpath`, a directory or a file, at `target`. */
function mountPart(base: string, subpath: string, target: string): string {
  const part = openPart(base, subpath);
  try {
    if (fstatSync(part).isDirectory()) mkdirSync(target, { recursive: true });
    else writeFileSync(target, '');
    mount(`/proc/self/fd/${part}`, target, { flags: MS_BIND | MS_REC });
    return target;
  } finally {
    closeSync(part);
  }
}

/** Links are followed as long as they stay below, so what is opened is never a link itself. */
function openPart(base: string, subpath: string): number {
  const root = openRoot(base);
  try {
    return openBelow(root, subpath, O_PATH);
  } catch (error) {
    if (hasCode(error, 'EXDEV')) {
      const message = `path concatenation escapes the base directory, base: ${base}, subpath: ${subpath}`;
      throw new GantryError('invalid', message, { cause: error });
    }
    if (!hasCode(error, 'ENOENT', 'ENOTDIR', 'ELOOP')) throw error;
    const path = join(base, subpath);
    throw new GantryError('notFound', `cannot access path ${path}: lstat ${path}: no such file or directory`, {
      cause: error,
    });
  } finally {
    closeSync(root);
  }
}
