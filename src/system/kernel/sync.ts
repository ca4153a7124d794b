/** Getting what was written onto the disk. These calls block: call `syncFileSystem` on a thread of its own. */
import { lastError } from './errno.ts';
import { libc } from './libc.ts';

const SYNC_FILE_RANGE_WRITE = 2;

/** Lets the kernel begin to write a range of a file out, without waiting for the disk. A hint: failures do not matter. */
export function startWriteBack(fd: number, offset: number, length: number): void {
  libc.sync_file_range(fd, BigInt(offset), BigInt(length), SYNC_FILE_RANGE_WRITE);
}

/** Writes a whole file system's dirty data to disk. */
export function syncFileSystem(fd: number): void {
  if (libc.syncfs(fd) !== 0) throw lastError('syncfs', String(fd));
}
