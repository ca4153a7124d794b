/**
 * Paths inside a root directory, resolved by the kernel (openat2(2), RESOLVE_IN_ROOT): `..` and absolute
 * links stay inside, magic links are refused, and a concurrent rename or link swap cannot lead outside.
 */
import { closeSync, constants, fstatSync, openSync, readdirSync, readSync } from 'node:fs';
import { decodeBytes, nativePath } from './bytes.ts';
import { ERRNO, KernelError, lastError } from './errno.ts';
import { foreign } from './ffi.ts';
import { AT_EMPTY_PATH, AT_SYMLINK_NOFOLLOW, libc, O_CLOEXEC, O_PATH, SYS } from './libc.ts';

export { AT_FDCWD, O_CLOEXEC, O_PATH } from './libc.ts';

const RESOLVE_NO_MAGICLINKS = 0x02n;
const RESOLVE_BENEATH = 0x08n;
const RESOLVE_IN_ROOT = 0x10n;
const OPEN_HOW_BYTES = 24n;
/** The kernel answers EAGAIN when a rename raced with `..`; more retries than this means an attack. */
const RESOLVE_RETRIES = 128;
/** PATH_MAX: longer link targets do not exist. */
const LINK_TARGET_MAX_BYTES = 4096n;

const how = Buffer.alloc(Number(OPEN_HOW_BYTES));

/** Opens `path` as if `rootFd` were `/`. Returns a close-on-exec file descriptor. */
export function openInRoot(rootFd: number, path: string, flags: number, mode = 0): number {
  return openResolved(rootFd, path, { flags, mode, resolve: RESOLVE_IN_ROOT });
}

/** Opens `path` below `baseFd`; EXDEV when it, or a link on the way, leads out of there. */
export function openBelow(baseFd: number, path: string, flags: number): number {
  return openResolved(baseFd, path, { flags, mode: 0, resolve: RESOLVE_BENEATH });
}

function openResolved(
  rootFd: number,
  path: string,
  { flags, mode, resolve }: { readonly flags: number; readonly mode: number; readonly resolve: bigint },
): number {
  const target = nativePath(path === '' ? '.' : path);
  for (let attempt = 0; attempt < RESOLVE_RETRIES; attempt += 1) {
    how.writeBigUInt64LE(BigInt(flags | O_CLOEXEC), 0);
    how.writeBigUInt64LE(BigInt(flags & constants.O_CREAT ? mode : 0), 8);
    how.writeBigUInt64LE(resolve | RESOLVE_NO_MAGICLINKS, 16);
    const fd = Number(libc.openat2(SYS.openat2, rootFd, target, how, OPEN_HOW_BYTES));
    if (fd >= 0) return fd;
    if (foreign().errno() !== ERRNO['EAGAIN']) throw lastError('open', path);
  }
  throw new KernelError(ERRNO['EAGAIN'] ?? 11, 'open', path);
}

/** Opens a directory to be used as a root. */
export function openRoot(path: string): number {
  return openAt(-100, path, O_PATH | constants.O_DIRECTORY);
}

/** openat(2): `name` should be a single component; add O_NOFOLLOW where it is not trusted. */
export function openAt(directoryFd: number, name: string, flags: number, mode = 0): number {
  const fd = libc.openat(directoryFd, nativePath(name), flags | O_CLOEXEC, mode);
  if (fd < 0) throw lastError('open', name);
  return fd;
}

/** Opens what an O_PATH descriptor stands for, if it is a regular file: opening a device has effects. */
function reopenRegular(pathFd: number, name: string): number {
  if (!fstatSync(pathFd).isFile()) throw new KernelError(ERRNO['EINVAL'] ?? 22, 'open', name);
  return openSync(`/proc/self/fd/${pathFd}`, constants.O_RDONLY);
}

/** Opens a regular file for reading; anything else put in its place meanwhile fails with EINVAL, unopened. */
export function openRegularAt(directoryFd: number, name: string): number {
  const pathFd = openAt(directoryFd, name, O_PATH | constants.O_NOFOLLOW);
  try {
    return reopenRegular(pathFd, name);
  } finally {
    closeSync(pathFd);
  }
}

/** What statx(2) tells, times in nanoseconds. */
export interface FileStat {
  /** Type and permission bits. */
  readonly mode: number;
  readonly links: number;
  readonly uid: number;
  readonly gid: number;
  readonly inode: bigint;
  readonly sizeBytes: number;
  /** Allocated 512-byte blocks. */
  readonly blocks: number;
  readonly accessedNs: bigint;
  readonly modifiedNs: bigint;
  readonly changedNs: bigint;
  readonly deviceMajor: number;
  readonly deviceMinor: number;
  /** `major:minor` of the file system. */
  readonly fileSystem: string;
}

const STATX_BASIC_STATS = 0x7ff;
const statxBuffer = Buffer.alloc(256);
const NS_PER_S = 1_000_000_000n;

function timeAt(offset: number): bigint {
  return statxBuffer.readBigInt64LE(offset) * NS_PER_S + BigInt(statxBuffer.readUInt32LE(offset + 8));
}

function decodeStatx(): FileStat {
  return {
    mode: statxBuffer.readUInt16LE(28),
    links: statxBuffer.readUInt32LE(16),
    uid: statxBuffer.readUInt32LE(20),
    gid: statxBuffer.readUInt32LE(24),
    inode: statxBuffer.readBigUInt64LE(32),
    sizeBytes: Number(statxBuffer.readBigUInt64LE(40)),
    blocks: Number(statxBuffer.readBigUInt64LE(48)),
    accessedNs: timeAt(64),
    modifiedNs: timeAt(112),
    changedNs: timeAt(96),
    deviceMajor: statxBuffer.readUInt32LE(128),
    deviceMinor: statxBuffer.readUInt32LE(132),
    fileSystem: `${statxBuffer.readUInt32LE(136)}:${statxBuffer.readUInt32LE(140)}`,
  };
}

/** lstat of `name` in a directory (a single component); undefined when absent. */
export function statAt(directoryFd: number, name: string): FileStat | undefined {
  if (libc.statx(directoryFd, nativePath(name), AT_SYMLINK_NOFOLLOW, STATX_BASIC_STATS, statxBuffer) !== 0) {
    const error = lastError('lstat', name);
    if (error.code === 'ENOENT') return undefined;
    throw error;
  }
  return decodeStatx();
}

/** stat of an open file; O_PATH descriptors too. */
export function statFd(fd: number): FileStat {
  const done = libc.statx(fd, '', AT_EMPTY_PATH | AT_SYMLINK_NOFOLLOW, STATX_BASIC_STATS, statxBuffer);
  if (done !== 0) throw lastError('fstat', String(fd));
  return decodeStatx();
}

const STATX_ATTR_MOUNT_ROOT = 0x2000n;

/** Whether something is mounted exactly at this path (links not followed); false when absent. */
export function isMountPoint(path: string): boolean {
  if (statAt(-100, path) === undefined) return false;
  return (statxBuffer.readBigUInt64LE(8) & STATX_ATTR_MOUNT_ROOT) !== 0n;
}

/** lstat (or stat, following links inside the root) of a path; undefined when absent. */
export function statInRoot(rootFd: number, path: string, follow = false): FileStat | undefined {
  try {
    const fd = openInRoot(rootFd, path, O_PATH | (follow ? 0 : constants.O_NOFOLLOW));
    try {
      return statFd(fd);
    } finally {
      closeSync(fd);
    }
  } catch (error) {
    if (error instanceof KernelError && (error.code === 'ENOENT' || error.code === 'ENOTDIR')) return undefined;
    throw error;
  }
}

/** Target of the link `name` in a directory; with name '' of the O_PATH descriptor itself. */
export function readLinkAt(directoryFd: number, name: string): string {
  const buffer = Buffer.alloc(Number(LINK_TARGET_MAX_BYTES));
  const length = Number(libc.readlinkat(directoryFd, nativePath(name), buffer, LINK_TARGET_MAX_BYTES));
  if (length < 0) throw lastError('readlink', name);
  return decodeBytes(buffer.subarray(0, length));
}

/** Names in a directory (any descriptor of it), unsorted. */
export function listFd(directoryFd: number): string[] {
  const path = `/proc/self/fd/${directoryFd}`;
  const names = readdirSync(path);
  if (!names.some((name) => name.includes('\ufffd'))) return names;
  return readdirSync(path, { encoding: 'buffer' }).map((name) => decodeBytes(Buffer.from(name)));
}

/** Whole content of a regular file in the root, e.g. /etc/passwd; undefined when absent or not a file. */
export function readFileInRoot(rootFd: number, path: string, maxBytes: number): Buffer | undefined {
  let fd: number;
  try {
    const pathFd = openInRoot(rootFd, path, O_PATH);
    try {
      if (!fstatSync(pathFd).isFile()) return undefined;
      fd = reopenRegular(pathFd, path);
    } finally {
      closeSync(pathFd);
    }
  } catch (error) {
    if (error instanceof KernelError && ['ENOENT', 'ENOTDIR', 'ELOOP'].includes(error.code)) return undefined;
    throw error;
  }
  try {
    const chunks: Buffer[] = [];
    let total = 0;
    for (;;) {
      const chunk = Buffer.allocUnsafe(Math.min(65536, maxBytes - total + 1));
      const length = readSync(fd, chunk);
      if (length === 0) return Buffer.concat(chunks);
      total += length;
      if (total > maxBytes) throw new KernelError(ERRNO['EFBIG'] ?? 27, 'read', path);
      chunks.push(chunk.subarray(0, length));
    }
  } finally {
    closeSync(fd);
  }
}
