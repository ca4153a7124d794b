/**
 * Shims (and their start helpers) that nobody can reach: a daemon that died while one was starting left it
 * without a known address. A shim's working directory is its bundle, which names it beyond doubt.
 */
import { readdirSync, readFileSync, readlinkSync } from 'node:fs';

/** Kills shims whose working directory is `bundle`; containers are other processes and are not touched. */
export function killStrayShims(bundle: string): void {
  for (const name of readdirSync('/proc')) {
    if (!/^\d+$/.test(name) || !isShimIn(name, bundle)) continue;
    try {
      process.kill(Number(name), 'SIGKILL');
    } catch {
      // It ended by itself.
    }
  }
}

function isShimIn(pid: string, bundle: string): boolean {
  try {
    if (readlinkSync(`/proc/${pid}/cwd`) !== bundle) return false;
    // Compat: shims take `-namespace`, `-id` and `-address`, whatever their binary is called.
    const words = readFileSync(`/proc/${pid}/cmdline`, 'utf8').split('\0');
    return words.includes('-namespace') && words.includes('-id');
  } catch {
    return false;
  }
}
