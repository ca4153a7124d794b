/**
 * mount(2), umount2(2), the file-descriptor mount API, and /proc/self/mountinfo (proc(5)).
 * All calls are synchronous; errors name the call as Go's `mount` helpers do.
 */
import { readFileSync } from 'node:fs';
import { nativePath } from './bytes.ts';
import { lastError } from './errno.ts';
import { libc, SYS } from './libc.ts';

export const MS_RDONLY = 1n;
export const MS_NOSUID = 2n;
export const MS_NODEV = 4n;
export const MS_NOEXEC = 8n;
export const MS_REMOUNT = 32n;
export const MS_NOATIME = 1024n;
export const MS_BIND = 4096n;
export const MS_MOVE = 8192n;
export const MS_REC = 16384n;
export const MS_UNBINDABLE: bigint = 1n << 17n;
export const MS_PRIVATE: bigint = 1n << 18n;
export const MS_SLAVE: bigint = 1n << 19n;
export const MS_SHARED: bigint = 1n << 20n;
export const MS_RELATIME: bigint = 1n << 21n;

export const MNT_FORCE = 1;
export const MNT_DETACH = 2;
export const UMOUNT_NOFOLLOW = 8;

/** The kernel takes at most one page of option text. */
export const MOUNT_DATA_MAX_BYTES = 4095;

export interface MountOptions {
  readonly type?: string;
  readonly flags?: bigint;
  /** Options of the file system, comma separated. */
  readonly data?: string;
}

/** Mounts `source` at `target`. */
export function mount(source: string, target: string, options: MountOptions = {}): void {
  const { type = '', flags = 0n, data = '' } = options;
  const done = libc.mount(nativePath(source), nativePath(target), type, flags, nativePath(data));
  if (done !== 0) throw lastError('mount', `${source}:${target}`);
}

/** Bind mounts; `readOnly` needs the second step the kernel asks for. */
export function bindMount(
  source: string,
  target: string,
  options: { recursive?: boolean; readOnly?: boolean } = {},
): void {
  const flags = MS_BIND | (options.recursive === true ? MS_REC : 0n);
  mount(source, target, { flags });
  if (options.readOnly === true) remountReadOnly(target);
}

/** Makes a bind mount read-only, keeping its other flags. */
export function remountReadOnly(target: string): void {
  const entry = readMounts().findLast((candidate) => candidate.mountPoint === target);
  let flags = MS_REMOUNT | MS_BIND | MS_RDONLY;
  for (const [name, flag] of LOCKED_FLAGS) if (entry?.options.includes(name) === true) flags |= flag;
  mount('', target, { flags });
}

const LOCKED_FLAGS: readonly (readonly [string, bigint])[] = [
  ['nosuid', MS_NOSUID],
  ['nodev', MS_NODEV],
  ['noexec', MS_NOEXEC],
  ['noatime', MS_NOATIME],
  ['relatime', MS_RELATIME],
];

export type Propagation = 'private' | 'shared' | 'slave' | 'unbindable';

/** Sets how mounts under `target` propagate. */
export function setPropagation(target: string, propagation: Propagation, recursive = false): void {
  const flag = { private: MS_PRIVATE, shared: MS_SHARED, slave: MS_SLAVE, unbindable: MS_UNBINDABLE }[propagation];
  mount('', target, { flags: flag | (recursive ? MS_REC : 0n) });
}

/** Unmounts; `flags` such as MNT_DETACH. Symbolic links are never followed. */
export function unmount(target: string, flags = 0): void {
  if (libc.umount2(nativePath(target), flags | UMOUNT_NOFOLLOW) !== 0) throw lastError('umount', target);
}

/** Unmounts if mounted; false when nothing was mounted there or the path is gone. */
export function tryUnmount(target: string, flags = 0): boolean {
  if (libc.umount2(nativePath(target), flags | UMOUNT_NOFOLLOW) === 0) return true;
  const error = lastError('umount', target);
  if (error.code === 'EINVAL' || error.code === 'ENOENT') return false;
  throw error;
}

const FSCONFIG_SET_FLAG = 0n;
const FSCONFIG_SET_STRING = 1n;
const FSCONFIG_CMD_CREATE = 6n;
const FSOPEN_CLOEXEC = 1n;
const FSMOUNT_CLOEXEC = 1n;
const MOVE_MOUNT_F_EMPTY_PATH = 4n;

/**
 * Mounts a file system option by option, so that no limit of one page applies (overlay's `lowerdir+`).
 * An option without value is a flag.
 */
export function mountWithOptions(type: string, target: string, options: readonly (readonly [string, string?])[]): void {
  const context = Number(libc.fsopen(SYS.fsopen, type, FSOPEN_CLOEXEC));
  if (context < 0) throw lastError('fsopen', type);
  let mounted = -1;
  try {
    for (const [name, value] of options) {
      const command = value === undefined ? FSCONFIG_SET_FLAG : FSCONFIG_SET_STRING;
      const text = value === undefined ? null : nativePath(value);
      if (libc.fsconfig(SYS.fsconfig, context, command, name, text, 0n) !== 0n) throw lastError('fsconfig', name);
    }
    if (libc.fsconfig(SYS.fsconfig, context, FSCONFIG_CMD_CREATE, null, null, 0n) !== 0n) {
      throw lastError('mount', `${type}:${target}`);
    }
    mounted = Number(libc.call(SYS.fsmount, BigInt(context), FSMOUNT_CLOEXEC, 0n, 0n));
    if (mounted < 0) throw lastError('fsmount', type);
    const moved = libc.moveMount(
      SYS.moveMount,
      BigInt(mounted),
      '',
      -100n,
      nativePath(target),
      MOVE_MOUNT_F_EMPTY_PATH,
    );
    if (moved !== 0n) throw lastError('move_mount', target);
  } finally {
    if (mounted >= 0) libc.close(mounted);
    libc.close(context);
  }
}

/** One line of mountinfo. */
export interface MountEntry {
  readonly id: number;
  readonly parentId: number;
  /** `major:minor`. */
  readonly device: string;
  /** Path inside the file system that is mounted. */
  readonly root: string;
  readonly mountPoint: string;
  readonly options: readonly string[];
  /** `shared:1`, `master:2` … */
  readonly propagation: readonly string[];
  readonly type: string;
  readonly source: string;
  readonly superOptions: readonly string[];
}

/** Parses mountinfo text; lines it cannot read are left out. */
export function parseMountInfo(text: string): MountEntry[] {
  const entries: MountEntry[] = [];
  for (const line of text.split('\n')) {
    const [left = '', right = ''] = line.split(' - ', 2);
    const [id, parentId, device, root, mountPoint, options, ...propagation] = left.split(' ');
    const [type, source, superOptions] = right.split(' ');
    if (device === undefined || root === undefined || mountPoint === undefined || type === undefined) continue;
    entries.push({
      id: Number(id),
      parentId: Number(parentId),
      device,
      root: unescapeOctal(root),
      mountPoint: unescapeOctal(mountPoint),
      options: (options ?? '').split(','),
      propagation,
      type,
      source: unescapeOctal(source ?? ''),
      superOptions: unescapeOctal(superOptions ?? '').split(','),
    });
  }
  return entries;
}

function unescapeOctal(text: string): string {
  return text.includes('\\')
    ? text.replace(/\\([0-7]{3})/g, (_, digits: string) => String.fromCharCode(Number.parseInt(digits, 8)))
    : text;
}

/** The mounts this process sees. */
export function readMounts(): MountEntry[] {
  return parseMountInfo(readFileSync('/proc/self/mountinfo', 'utf8'));
}
