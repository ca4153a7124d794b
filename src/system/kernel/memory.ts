/**
 * Gives memory back that an idle process does not need: pages of program text and constants that were touched
 * once at start. They stay in the page cache and are mapped again when used, a microsecond each.
 *
 * Only mappings of files that were never written to (no private copy of any page) are let go.
 */
import { readFileSync } from 'node:fs';
import { libc } from './libc.ts';

const MADV_DONTNEED = 4;
const MAPPING = /^([0-9a-f]+)-([0-9a-f]+) r-(?:x|-)p \S+ \S+ [1-9]\d*\s+\/.*$/;

interface Mapping {
  readonly start: bigint;
  readonly end: bigint;
}

/** Read-only file mappings without private pages, from the text of /proc/self/smaps. */
export function droppableMappings(smaps: string): Mapping[] {
  const found: Mapping[] = [];
  let current: Mapping | undefined;
  for (const line of smaps.split('\n')) {
    if (/^[0-9a-f]+-[0-9a-f]+ /.test(line)) {
      const match = MAPPING.exec(line);
      current = match === null ? undefined : { start: BigInt(`0x${match[1]}`), end: BigInt(`0x${match[2]}`) };
    } else if (current !== undefined && line.startsWith('Anonymous:')) {
      if (/^Anonymous:\s+0 kB$/.test(line)) found.push(current);
      current = undefined;
    }
  }
  return found;
}

/** Unmaps what is only cached. Harmless at any time; the next use of a page is a minor fault. */
export function releaseFilePages(): void {
  for (const { start, end } of droppableMappings(readFileSync('/proc/self/smaps', 'utf8'))) {
    libc.madvise(start, end - start, MADV_DONTNEED);
  }
}
