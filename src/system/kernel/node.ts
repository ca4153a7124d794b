/**
 * Making and changing directory entries relative to an open directory. Names are single components and
 * links are never followed, so none of these can be led elsewhere.
 */
import { nativePath } from './bytes.ts';
import { lastError } from './errno.ts';
import { AT_REMOVEDIR, AT_SYMLINK_NOFOLLOW, libc } from './libc.ts';

export const S_IFMT = 0o170000;
export const S_IFSOCK = 0o140000;
export const S_IFLNK = 0o120000;
export const S_IFREG = 0o100000;
export const S_IFBLK = 0o060000;
export const S_IFDIR = 0o040000;
export const S_IFCHR = 0o020000;
export const S_IFIFO = 0o010000;

/** Linux's packed device number. */
export function makeDevice(major: number, minor: number): bigint {
  const [high, low] = [BigInt(major), BigInt(minor)];
  return (low & 0xffn) | ((high & 0xfffn) << 8n) | ((low & ~0xffn) << 12n) | ((high & ~0xfffn) << 32n);
}

function check(result: number, syscall: string, name: string): void {
  if (result !== 0) throw lastError(syscall, name);
}

export function makeDirectoryAt(directoryFd: number, name: string, mode: number): void {
  check(libc.mkdirat(directoryFd, nativePath(name), mode), 'mkdir', name);
}

/** A device, FIFO or socket; `mode` includes the type. */
export function makeNodeAt(directoryFd: number, name: string, mode: number, device = 0n): void {
  check(libc.mknodat(directoryFd, nativePath(name), mode, device), 'mknod', name);
}

export function makeLinkAt(directoryFd: number, name: string, target: string): void {
  check(libc.symlinkat(nativePath(target), directoryFd, nativePath(name)), 'symlink', `${target} ${name}`);
}

/** Hard link of `from.name` as `to.name`. */
export function hardLinkAt(from: { fd: number; name: string }, to: { fd: number; name: string }): void {
  const done = libc.linkat(from.fd, nativePath(from.name), to.fd, nativePath(to.name), 0);
  check(done, 'link', `${from.name} ${to.name}`);
}

export function removeAt(directoryFd: number, name: string, directory = false): void {
  check(
    libc.unlinkat(directoryFd, nativePath(name), directory ? AT_REMOVEDIR : 0),
    directory ? 'rmdir' : 'unlink',
    name,
  );
}

export function changeOwnerAt(directoryFd: number, name: string, owner: { uid: number; gid: number }): void {
  check(libc.fchownat(directoryFd, nativePath(name), owner.uid, owner.gid, AT_SYMLINK_NOFOLLOW), 'lchown', name);
}

/** chmod; the entry must not be a symbolic link that someone else can swap (links have no mode). */
export function changeModeAt(directoryFd: number, name: string, mode: number): void {
  check(libc.fchmodat(directoryFd, nativePath(name), mode, 0), 'chmod', name);
}

const RENAME_EXCHANGE = 2;

/** Two paths swap what they name, in one step (renameat2(2)). */
export function exchangePaths(one: string, other: string): void {
  check(libc.renameat2(-100, nativePath(one), -100, nativePath(other), RENAME_EXCHANGE), 'rename', `${one} ${other}`);
}

const times = Buffer.alloc(32);
const NS_PER_S = 1_000_000_000n;

function writeTime(offset: number, ns: bigint): void {
  const remainder = ((ns % NS_PER_S) + NS_PER_S) % NS_PER_S;
  times.writeBigInt64LE((ns - remainder) / NS_PER_S, offset);
  times.writeBigInt64LE(remainder, offset + 8);
}

/** Sets access and modification time exactly. */
export function changeTimesAt(directoryFd: number, name: string, ns: { accessed: bigint; modified: bigint }): void {
  writeTime(0, ns.accessed);
  writeTime(16, ns.modified);
  check(libc.utimensat(directoryFd, nativePath(name), times, AT_SYMLINK_NOFOLLOW), 'utimensat', name);
}

/** Like `changeTimesAt` for an open file. */
export function changeTimesFd(fd: number, ns: { accessed: bigint; modified: bigint }): void {
  writeTime(0, ns.accessed);
  writeTime(16, ns.modified);
  check(libc.futimens(fd, times), 'futimens', String(fd));
}
