/**
 * The C library functions the kernel modules use, bound once per thread. `syscall` is bound under several
 * names for calls without a wrapper in Debian 12's libc; those numbers are the same on x86-64 and arm64.
 */
import { type Library, openLibrary } from './ffi.ts';

const SIGNATURES = {
  mount: { returns: 'i32', arguments: ['string', 'string', 'string', 'u64', 'string'] },
  umount2: { returns: 'i32', arguments: ['string', 'i32'] },
  unshare: { returns: 'i32', arguments: ['i32'] },
  setns: { returns: 'i32', arguments: ['i32', 'i32'] },
  fchdir: { returns: 'i32', arguments: ['i32'] },
  openat: { returns: 'i32', arguments: ['i32', 'string', 'i32', 'u32'] },
  mkdirat: { returns: 'i32', arguments: ['i32', 'string', 'u32'] },
  mknodat: { returns: 'i32', arguments: ['i32', 'string', 'u32', 'u64'] },
  unlinkat: { returns: 'i32', arguments: ['i32', 'string', 'i32'] },
  symlinkat: { returns: 'i32', arguments: ['string', 'i32', 'string'] },
  readlinkat: { returns: 'i64', arguments: ['i32', 'string', 'pointer', 'u64'] },
  linkat: { returns: 'i32', arguments: ['i32', 'string', 'i32', 'string', 'i32'] },
  renameat2: { returns: 'i32', arguments: ['i32', 'string', 'i32', 'string', 'u32'] },
  renameat: { returns: 'i32', arguments: ['i32', 'string', 'i32', 'string'] },
  fchownat: { returns: 'i32', arguments: ['i32', 'string', 'u32', 'u32', 'i32'] },
  fchmodat: { returns: 'i32', arguments: ['i32', 'string', 'u32', 'i32'] },
  utimensat: { returns: 'i32', arguments: ['i32', 'string', 'pointer', 'i32'] },
  futimens: { returns: 'i32', arguments: ['i32', 'pointer'] },
  statx: { returns: 'i32', arguments: ['i32', 'string', 'i32', 'u32', 'pointer'] },
  getxattr: { returns: 'i64', arguments: ['string', 'string', 'pointer', 'u64'] },
  lgetxattr: { returns: 'i64', arguments: ['string', 'string', 'pointer', 'u64'] },
  fgetxattr: { returns: 'i64', arguments: ['i32', 'string', 'pointer', 'u64'] },
  setxattr: { returns: 'i32', arguments: ['string', 'string', 'pointer', 'u64', 'i32'] },
  lsetxattr: { returns: 'i32', arguments: ['string', 'string', 'pointer', 'u64', 'i32'] },
  fsetxattr: { returns: 'i32', arguments: ['i32', 'string', 'pointer', 'u64', 'i32'] },
  listxattr: { returns: 'i64', arguments: ['string', 'pointer', 'u64'] },
  llistxattr: { returns: 'i64', arguments: ['string', 'pointer', 'u64'] },
  flistxattr: { returns: 'i64', arguments: ['i32', 'pointer', 'u64'] },
  removexattr: { returns: 'i32', arguments: ['string', 'string'] },
  lremovexattr: { returns: 'i32', arguments: ['string', 'string'] },
  fremovexattr: { returns: 'i32', arguments: ['i32', 'string'] },
  socket: { returns: 'i32', arguments: ['i32', 'i32', 'i32'] },
  bind: { returns: 'i32', arguments: ['i32', 'pointer', 'u32'] },
  connect: { returns: 'i32', arguments: ['i32', 'pointer', 'u32'] },
  if_nametoindex: { returns: 'u32', arguments: ['string'] },
  listen: { returns: 'i32', arguments: ['i32', 'i32'] },
  sendto: { returns: 'i64', arguments: ['i32', 'pointer', 'u64', 'i32', 'pointer', 'u32'] },
  recv: { returns: 'i64', arguments: ['i32', 'pointer', 'u64', 'i32'] },
  setsockopt: { returns: 'i32', arguments: ['i32', 'i32', 'i32', 'pointer', 'u32'] },
  getsockname: { returns: 'i32', arguments: ['i32', 'pointer', 'pointer'] },
  close: { returns: 'i32', arguments: ['i32'] },
  flock: { returns: 'i32', arguments: ['i32', 'i32'] },
  syncfs: { returns: 'i32', arguments: ['i32'] },
  sync_file_range: { returns: 'i32', arguments: ['i32', 'i64', 'i64', 'u32'] },
  prctl: { returns: 'i32', arguments: ['i32', 'u64', 'u64', 'u64', 'u64'] },
  madvise: { returns: 'i32', arguments: ['u64', 'u64', 'i32'] },
  openat2: { symbol: 'syscall', returns: 'i64', arguments: ['i64', 'i32', 'string', 'pointer', 'u64'] },
  fsopen: { symbol: 'syscall', returns: 'i64', arguments: ['i64', 'string', 'i64'] },
  fsconfig: { symbol: 'syscall', returns: 'i64', arguments: ['i64', 'i32', 'i64', 'string', 'string', 'i64'] },
  /** Calls that take numbers only: fsmount, pidfd_open, pidfd_send_signal with a null siginfo. */
  call: { symbol: 'syscall', returns: 'i64', arguments: ['i64', 'i64', 'i64', 'i64', 'i64'] },
  openTree: { symbol: 'syscall', returns: 'i64', arguments: ['i64', 'i64', 'string', 'i64'] },
  moveMount: { symbol: 'syscall', returns: 'i64', arguments: ['i64', 'i64', 'string', 'i64', 'string', 'i64'] },
  mountSetattr: { symbol: 'syscall', returns: 'i64', arguments: ['i64', 'i64', 'string', 'i64', 'pointer', 'i64'] },
  schedSetaffinity: { symbol: 'sched_setaffinity', returns: 'i32', arguments: ['i32', 'u64', 'pointer'] },
  setpriority: { returns: 'i32', arguments: ['i32', 'u32', 'i32'] },
} as const;

/** Numbers of system calls reached through `syscall`. */
export const SYS = {
  pidfdSendSignal: 424n,
  openTree: 428n,
  moveMount: 429n,
  fsopen: 430n,
  fsconfig: 431n,
  fsmount: 432n,
  pidfdOpen: 434n,
  openat2: 437n,
  mountSetattr: 442n,
} as const;

/** The bound C library. */
export const libc: Library<typeof SIGNATURES>['calls'] = openLibrary('libc.so.6', SIGNATURES).calls;

export const AT_FDCWD = -100;
export const AT_SYMLINK_NOFOLLOW = 0x100;
export const AT_REMOVEDIR = 0x200;
export const AT_SYMLINK_FOLLOW = 0x400;
export const AT_EMPTY_PATH = 0x1000;
export const O_PATH = 0o10000000;
export const O_CLOEXEC = 0o2000000;
