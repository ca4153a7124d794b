/** What the kernel tells of the CPU. */
import { readFileSync } from 'node:fs';

/** The text of /proc/cpuinfo; empty where it cannot be read. */
export function cpuInfo(): string {
  try {
    return readFileSync('/proc/cpuinfo', 'utf8');
  } catch {
    return '';
  }
}
