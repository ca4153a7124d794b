/** Processes by file descriptor (pidfd_open(2)): a signal can never reach another process that reused the PID. */
import { closeSync } from 'node:fs';
import { lastError } from './errno.ts';
import { libc, SYS } from './libc.ts';

const PR_SET_CHILD_SUBREAPER = 36;
const PRIO_PROCESS = 0;

/** Opens a process; undefined when it is gone. */
export function openProcess(pid: number): number | undefined {
  const fd = Number(libc.call(SYS.pidfdOpen, BigInt(pid), 0n, 0n, 0n));
  if (fd >= 0) return fd;
  const error = lastError('pidfd_open', String(pid));
  if (error.code === 'ESRCH') return undefined;
  throw error;
}

/** Sends a signal through a pidfd; false when the process is gone. Signal 0 only asks. */
export function signalProcess(pidFd: number, signal: number): boolean {
  if (libc.call(SYS.pidfdSendSignal, BigInt(pidFd), BigInt(signal), 0n, 0n) === 0n) return true;
  const error = lastError('pidfd_send_signal', String(pidFd));
  if (error.code === 'ESRCH') return false;
  throw error;
}

/** Opens, signals, closes. False when there is no such process. */
export function killProcess(pid: number, signal: number): boolean {
  const fd = openProcess(pid);
  if (fd === undefined) return false;
  try {
    return signalProcess(fd, signal);
  } finally {
    closeSync(fd);
  }
}

/** Orphaned descendants become children of this process. */
export function becomeSubreaper(): void {
  if (libc.prctl(PR_SET_CHILD_SUBREAPER, 1n, 0n, 0n, 0n) !== 0) throw lastError('prctl', 'PR_SET_CHILD_SUBREAPER');
}

/** Nice value of a thread or process; 0 is the calling thread. */
export function setNice(pid: number, nice: number): void {
  if (libc.setpriority(PRIO_PROCESS, pid, nice) !== 0) throw lastError('setpriority', String(pid));
}
