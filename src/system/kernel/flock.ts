/** Advisory whole-file locks (flock(2)): released by the kernel when the holder ends, however it ends. */
import { closeSync, openSync } from 'node:fs';
import { ERRNO, lastError } from './errno.ts';
import { foreign } from './ffi.ts';
import { libc } from './libc.ts';

const LOCK_EX = 2;
const LOCK_NB = 4;

/** Takes an exclusive lock on `path` (created); undefined when another process holds it. */
export function tryLock(path: string): Disposable | undefined {
  const fd = openSync(path, 'a', 0o600);
  if (libc.flock(fd, LOCK_EX | LOCK_NB) !== 0) {
    const held = foreign().errno() === ERRNO['EAGAIN'];
    const error = lastError('flock', path);
    closeSync(fd);
    if (held) return undefined;
    throw error;
  }
  return { [Symbol.dispose]: () => closeSync(fd) };
}
