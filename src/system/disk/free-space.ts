/**
 * Room that unpacking leaves on a disk. What a compressed archive becomes is not known before it is read, so a bomb is
 * stopped by what it does to the disk, not by its ratio: a database, a log and a removal still find room afterwards.
 */
import { statfsSync } from 'node:fs';
import { GantryError } from '#types/errors.ts';

/** Free space is asked for each time so many bytes were unpacked; what is smaller is never refused. */
export const FREE_SPACE_STEP_BYTES: number = 1024 * 1024;
/** Bytes that stay free: a hundredth of the disk, on large disks this much. */
const RESERVE_MAX_BYTES = 256 * 1024 * 1024;
const RESERVE_PART = 100;

export interface DiskSpace {
  readonly totalBytes: number;
  readonly freeBytes: number;
}

/** Whether a disk has less than its reserve left. */
export function isBelowReserve({ totalBytes, freeBytes }: DiskSpace): boolean {
  return freeBytes < Math.min(RESERVE_MAX_BYTES, totalBytes / RESERVE_PART);
}

function diskSpace(path: string): DiskSpace {
  const { bsize, blocks, bavail } = statfsSync(path);
  return { totalBytes: bsize * blocks, freeBytes: bsize * bavail };
}

/** Passes on what is being unpacked below `directory`; fails when that would use up the disk. */
export async function* withinFreeSpace(
  source: AsyncIterable<Buffer>,
  directory: string,
  space: (path: string) => DiskSpace = diskSpace,
): AsyncGenerator<Buffer> {
  let unchecked = 0;
  for await (const chunk of source) {
    unchecked += chunk.length;
    if (unchecked >= FREE_SPACE_STEP_BYTES) {
      unchecked = 0;
      const { freeBytes, totalBytes } = space(directory);
      if (isBelowReserve({ freeBytes, totalBytes })) throw fullDisk(freeBytes);
    }
    yield chunk;
  }
}

function fullDisk(freeBytes: number): GantryError {
  const text = `no space left on device: unpacking stopped with ${freeBytes} bytes free`;
  return new GantryError('system', text, { cause: Object.assign(new Error(text), { code: 'ENOSPC' }) });
}
