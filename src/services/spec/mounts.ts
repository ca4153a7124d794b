/** The OCI mounts of a container: docker's defaults, overridden by and followed by the user's, shallow first. */
import { posix } from 'node:path';
import { GantryError } from '#types/errors.ts';
import type { OciMount } from '#types/oci.ts';
import type { HostConfig } from '#wire/engine.ts';

/** A bind or volume mount with its host path, or a tmpfs (`source` is `tmpfs`, `tmpfsOptions` its data). */
export interface ContainerMount {
  readonly source: string;
  readonly destination: string;
  readonly writable: boolean;
  readonly propagation: string;
  readonly nonRecursive?: boolean;
  readonly readOnlyNonRecursive?: boolean;
  readonly readOnlyForceRecursive?: boolean;
  readonly tmpfsOptions?: string;
}

const NO_EXEC_DEV = ['nosuid', 'noexec', 'nodev'];

const DEFAULT_MOUNTS: readonly OciMount[] = [
  { destination: '/proc', type: 'proc', source: 'proc', options: NO_EXEC_DEV },
  {
    destination: '/dev',
    type: 'tmpfs',
    source: 'tmpfs',
    options: ['nosuid', 'strictatime', 'mode=755', 'size=65536k'],
  },
  {
    destination: '/dev/pts',
    type: 'devpts',
    source: 'devpts',
    options: ['nosuid', 'noexec', 'newinstance', 'ptmxmode=0666', 'mode=0620', 'gid=5'],
  },
  { destination: '/sys', type: 'sysfs', source: 'sysfs', options: [...NO_EXEC_DEV, 'ro'] },
  { destination: '/sys/fs/cgroup', type: 'cgroup', source: 'cgroup', options: ['ro', ...NO_EXEC_DEV] },
  { destination: '/dev/mqueue', type: 'mqueue', source: 'mqueue', options: NO_EXEC_DEV },
  { destination: '/dev/shm', type: 'tmpfs', source: 'shm', options: [...NO_EXEC_DEV, 'mode=1777'] },
];

const KEPT_WRITABLE = new Set(['/proc', '/dev/pts', '/dev/shm', '/dev/mqueue', '/dev']);

export interface MountPlan {
  readonly mounts: OciMount[];
  readonly rootfsPropagation: string | undefined;
}

/** Plans all mounts. `recursiveReadOnly`: the kernel (5.12) and the runtime can do it. */
export function planMounts(options: {
  readonly hostConfig: HostConfig;
  readonly mounts: readonly ContainerMount[];
  readonly recursiveReadOnly: boolean;
  readonly writableCgroups: boolean;
}): MountPlan {
  const { hostConfig } = options;
  const depth = (path: string): number => posix.normalize(path).split('/').length;
  const wanted = [...options.mounts].sort((a, b) => depth(a.destination) - depth(b.destination));
  const taken = new Set(wanted.map((mount) => mount.destination));
  const mounts = DEFAULT_MOUNTS.filter((mount) => keepDefault(mount, taken, hostConfig)).map((mount) =>
    adjustDefault(mount, hostConfig, options.writableCgroups),
  );
  let rootfsPropagation: string | undefined;
  for (const mount of wanted) {
    if (mount.propagation.endsWith('shared')) rootfsPropagation = 'shared';
    else if (mount.propagation.endsWith('slave')) rootfsPropagation ??= 'rslave';
    mounts.push(mount.tmpfsOptions === undefined ? bind(mount, options.recursiveReadOnly) : tmpfs(mount));
  }
  return { mounts, rootfsPropagation };
}

function keepDefault(mount: OciMount, taken: ReadonlySet<string>, hostConfig: HostConfig): boolean {
  if (taken.has(mount.destination)) return false;
  if (taken.has('/dev') && mount.destination.startsWith('/dev/')) return false;
  return !(mount.destination === '/dev/shm' && hostConfig.IpcMode === 'none');
}

function adjustDefault(mount: OciMount, hostConfig: HostConfig, writableCgroups: boolean): OciMount {
  let options = mount.options;
  if (mount.destination === '/dev/shm') options = [...options, `size=${hostConfig.ShmSize ?? 0}`];
  if (hostConfig.ReadonlyRootfs === true && !KEPT_WRITABLE.has(mount.destination) && !options.includes('ro')) {
    options = [...options, 'ro'];
  }
  const clear =
    (mount.destination === '/sys' && hostConfig.Privileged === true) || (mount.type === 'cgroup' && writableCgroups);
  return { ...mount, options: clear ? options.filter((option) => option !== 'ro') : options };
}

function bind(mount: ContainerMount, recursiveReadOnly: boolean): OciMount {
  if (mount.readOnlyNonRecursive === true && mount.readOnlyForceRecursive === true) {
    throw new GantryError(
      'invalid',
      'mount options conflict: ReadOnlyNonRecursive && BindOptions.ReadOnlyForceRecursive',
    );
  }
  if (mount.readOnlyForceRecursive === true && !recursiveReadOnly) {
    throw new GantryError('system', 'recursive read-only mounts are not supported by the kernel or the runtime');
  }
  const options = [mount.nonRecursive === true ? 'bind' : 'rbind'];
  if (!mount.writable) options.push(recursiveReadOnly && mount.readOnlyNonRecursive !== true ? 'rro' : 'ro');
  if (mount.propagation !== '') options.push(mount.propagation);
  return { destination: mount.destination, type: 'bind', source: mount.source, options };
}

const OPPOSITES: readonly (readonly string[])[] = [
  ['ro', 'rw'],
  ['exec', 'noexec'],
  ['suid', 'nosuid'],
  ['dev', 'nodev'],
  ['sync', 'async'],
  ['atime', 'noatime'],
  ['private', 'rprivate', 'shared', 'rshared', 'slave', 'rslave', 'unbindable', 'runbindable'],
];
const TMPFS_FLAGS = new Set([
  ...OPPOSITES.flat(),
  'defaults',
  'remount',
  'dirsync',
  'mand',
  'nomand',
  'diratime',
  'nodiratime',
  'bind',
  'rbind',
  'relatime',
  'norelatime',
  'strictatime',
  'nostrictatime',
]);
const TMPFS_KEYS = new Set(['mode', 'uid', 'gid', 'size', 'nr_blocks', 'nr_inodes', 'mpol']);

/** Later options win over earlier ones of the same meaning; unknown ones are refused. */
export function mergeTmpfsOptions(options: readonly string[]): string[] {
  const chosen = new Map<string, string>();
  for (const option of options) {
    const key = option.split('=')[0] ?? '';
    if (option.includes('=') ? !TMPFS_KEYS.has(key) : !TMPFS_FLAGS.has(option)) {
      throw new GantryError('system', `invalid tmpfs option "${option}"`);
    }
    const group = OPPOSITES.find((names) => names.includes(option))?.[0] ?? key;
    chosen.delete(group);
    chosen.set(group, option);
  }
  return [...chosen.values()];
}

function tmpfs(mount: ContainerMount): OciMount {
  const given = (mount.tmpfsOptions ?? '').split(',').filter((option) => option !== '');
  const options = mergeTmpfsOptions(['noexec', 'nosuid', 'nodev', 'rprivate', ...given]);
  return { destination: mount.destination, type: 'tmpfs', source: 'tmpfs', options };
}
