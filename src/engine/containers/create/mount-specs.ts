/** Docker's mount grammars: `-v source:target:mode`, `--mount` objects and `--volumes-from`, with their texts. */
import { posix } from 'node:path';
import { GantryError } from '#types/errors.ts';
import type { Mount } from '#wire/engine.ts';

const PROPAGATIONS = new Set(['private', 'rprivate', 'slave', 'rslave', 'shared', 'rshared']);
const KINDS: readonly ReadonlySet<string>[] = [
  new Set(['rw', 'ro']),
  new Set(['z', 'Z']),
  PROPAGATIONS,
  new Set(['nocopy']),
  new Set(['consistent', 'cached', 'delegated']),
];
const TMPFS_OPTIONS = new Set(['exec', 'noexec']);

/** Whether a host path exists (bind sources); injected to keep this pure. */
export type PathExists = (path: string) => boolean;

/** A parsed mount, before volumes exist. */
export interface PlannedMount {
  readonly type: 'bind' | 'volume' | 'tmpfs' | 'image';
  /** Host path of a bind, reference of an image; empty otherwise. */
  readonly source: string;
  /** Volume name; empty for an anonymous one. */
  readonly name: string;
  readonly driver: string;
  readonly destination: string;
  readonly mode: string;
  readonly writable: boolean;
  readonly propagation: string;
  readonly copyData: boolean;
  /** `-v` creates a missing bind source; `--mount` only with bind-create-src. */
  readonly createSource: boolean;
  /** The object it was, or is equal to. */
  readonly spec: Mount;
}

function refuse(message: string): never {
  throw new GantryError('invalid', message);
}

function validMode(mode: string): boolean {
  if (mode === '') return true;
  const seen = new Set<number>();
  for (const option of mode.split(',')) {
    const kind = KINDS.findIndex((names) => names.has(option));
    if (kind < 0 || seen.has(kind)) return false;
    seen.add(kind);
  }
  return true;
}

/** Parses one `-v` / HostConfig.Binds entry. */
export function parseBind(raw: string, volumeDriver: string): PlannedMount {
  const bad = (): never => refuse(`invalid volume specification: '${raw}'`);
  const parts = raw.split(':');
  if (parts[0] === '' || parts.length > 3) bad();
  const [first = '', second, mode = ''] = parts;
  if (second !== undefined && parts.length === 2 && validMode(second)) bad();
  if (!validMode(mode)) refuse(`invalid mode: ${mode}`);
  const source = second === undefined ? '' : first;
  const options = mode.split(',');
  const propagation = options.find((option) => PROPAGATIONS.has(option));
  const type = posix.isAbsolute(source) ? 'bind' : 'volume';
  const noCopy = options.includes('nocopy');
  const spec: Mount = {
    Type: type,
    Source: source,
    Target: second ?? first,
    ReadOnly: options.includes('ro'),
    ...(propagation === undefined
      ? {}
      : { BindOptions: { Propagation: propagation as NonNullable<NonNullable<Mount['BindOptions']>['Propagation']> } }),
    ...(noCopy || (type === 'volume' && volumeDriver !== '')
      ? {
          VolumeOptions: {
            ...(noCopy ? { NoCopy: true } : {}),
            ...(type === 'volume' && volumeDriver !== '' ? { DriverConfig: { Name: volumeDriver } } : {}),
          },
        }
      : {}),
  };
  try {
    return { ...planMount(spec, () => true), mode, createSource: true };
  } catch (error) {
    return refuse(`invalid volume specification: '${raw}': ${(error as Error).message}`);
  }
}

/** Validates and plans one HostConfig.Mounts entry. */
export function planMount(spec: Mount, exists: PathExists): PlannedMount {
  validateMount(spec, exists);
  return plan(spec);
}

/** A volume of the image or of `-v /path`. Compat: its path may be relative; it is taken from the root. */
export function planAnonymousVolume(path: string): PlannedMount {
  if (path === '' || clean(path) === '/') validateMount({ Type: 'volume', Target: path }, () => true);
  return plan({ Type: 'volume', Target: path });
}

function plan(spec: Mount): PlannedMount {
  const type = spec.Type as PlannedMount['type'];
  const source = spec.Source ?? '';
  const bind = type === 'bind' || type === 'image';
  return {
    type,
    source: type === 'bind' ? clean(source) : type === 'image' ? source : '',
    name: type === 'volume' ? source : '',
    driver: type === 'volume' ? (spec.VolumeOptions?.DriverConfig?.Name ?? '') : '',
    destination: clean(spec.Target ?? ''),
    mode: '',
    writable: spec.ReadOnly !== true && type !== 'image',
    propagation: bind ? spec.BindOptions?.Propagation || 'rprivate' : '',
    copyData: type === 'volume' && spec.VolumeOptions?.NoCopy !== true,
    createSource: spec.BindOptions?.CreateMountpoint === true,
    spec,
  };
}

function clean(path: string): string {
  const normal = posix.normalize(path);
  return normal.length > 1 && normal.endsWith('/') ? normal.slice(0, -1) : normal;
}

/** Throws docker's `invalid mount config for type …`. */
export function validateMount(spec: Mount, exists: PathExists): void {
  const bad = (message: string): never => refuse(`invalid mount config for type "${spec.Type ?? ''}": ${message}`);
  const target = spec.Target ?? '';
  const absolute = (path: string): void => {
    if (!path.startsWith('/')) bad(`invalid mount path: '${path}' mount path must be absolute`);
  };
  const only = (...fields: ('BindOptions' | 'VolumeOptions' | 'ImageOptions')[]): void => {
    for (const field of fields) if (spec[field] != null) bad(`field ${field} must not be specified`);
  };
  if (target === '') bad('field Target must not be empty');
  if (clean(target) === '/') bad("invalid specification: destination can't be '/'");
  absolute(target);
  const source = spec.Source ?? '';
  switch (spec.Type) {
    case 'bind': {
      if (source === '') bad('field Source must not be empty');
      const propagation = spec.BindOptions?.Propagation;
      if (propagation && !PROPAGATIONS.has(propagation)) bad(`invalid propagation mode: ${propagation}`);
      only('VolumeOptions', 'ImageOptions');
      absolute(source);
      if (!exists(source) && spec.BindOptions?.CreateMountpoint !== true)
        bad(`bind source path does not exist: ${source}`);
      return;
    }
    case 'volume':
      only('BindOptions', 'ImageOptions');
      if (spec.VolumeOptions?.Subpath) {
        if (source === '') bad('must not set Subpath when using anonymous volumes');
        if (!isLocal(spec.VolumeOptions.Subpath)) bad('subpath must be a relative path within the volume');
      }
      if (spec.ReadOnly === true && source === '') bad('must not set ReadOnly mode when using anonymous volumes');
      return;
    case 'tmpfs':
      only('BindOptions', 'ImageOptions');
      if (source !== '') bad('field Source must not be specified');
      try {
        tmpfsData(spec);
      } catch (error) {
        bad((error as Error).message);
      }
      return;
    case 'image':
      only('BindOptions', 'VolumeOptions');
      if (source === '') bad('field Source must not be empty');
      if (spec.ImageOptions?.Subpath && !isLocal(spec.ImageOptions.Subpath)) {
        bad('subpath must be a relative path within the volume');
      }
      return;
    default:
      bad('mount type unknown');
  }
}

function isLocal(path: string): boolean {
  return !path.startsWith('/') && !posix.normalize(path).split('/').includes('..');
}

/** Mount data of a tmpfs mount object: `mode=1777,size=64m,exec`. */
export function tmpfsData(spec: Mount): string {
  const options: string[] = spec.ReadOnly === true ? ['ro'] : [];
  const { Mode: mode = 0, SizeBytes: size = 0, Options: extra } = spec.TmpfsOptions ?? {};
  if (mode !== 0) options.push(`mode=${mode.toString(8)}`);
  if (size !== 0) {
    const unit = (
      [
        ['g', 2 ** 30],
        ['m', 2 ** 20],
        ['k', 2 ** 10],
      ] as const
    ).find(([, bytes]) => size % bytes === 0);
    options.push(unit === undefined ? `size=${size}` : `size=${size / unit[1]}${unit[0]}`);
  }
  for (const option of extra ?? []) {
    const [name = '', value] = option ?? [];
    if (name === '' || (option ?? []).length > 2) refuse('invalid option array length');
    if (!TMPFS_OPTIONS.has(name)) refuse(`invalid option: ${name}`);
    options.push(value === undefined ? name : `${name}=${value}`);
  }
  return options.join(',');
}

/** Parses one `--volumes-from` entry. */
export function parseVolumesFrom(text: string): { readonly container: string; readonly writable: boolean } {
  if (text === '') refuse('volumes-from specification cannot be an empty string');
  const at = text.indexOf(':');
  const mode = at < 0 ? '' : text.slice(at + 1);
  const options = mode.split(',');
  if (!validMode(mode) || options.some((option) => PROPAGATIONS.has(option) || option === 'nocopy')) {
    refuse(`invalid mode: ${mode}`);
  }
  return { container: at < 0 ? text : text.slice(0, at), writable: !options.includes('ro') };
}

/** Throws for a bad `--tmpfs` destination. */
export function checkTmpfsDestination(path: string): void {
  if (clean(path) === '/') refuse("invalid specification: destination can't be '/'");
  if (!path.startsWith('/')) refuse(`invalid mount path: '${path}' mount path must be absolute`);
}
