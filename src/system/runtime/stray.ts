/**
 * Shims (and their start helpers) that nobody can reach: a daemon that died while one was starting left it
 * without a known address. A shim's working directory is its bundle, which names it beyond doubt.
 */
import { readdirSync, readFileSync, readlinkSync } from 'node:fs';

/** Which shims may be killed: all, or only those that look after nothing. */
export type StrayChoice = 'all' | 'idle';

/** Kills shims whose working directory is `bundle`; containers are other processes and are not touched. */
export function killStrayShims(bundle: string, choice: StrayChoice): void {
  for (const name of readdirSync('/proc')) {
    if (!/^\d+$/.test(name) || !isShimIn(name, bundle)) continue;
    if (choice === 'idle' && hasChildren(name)) continue;
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

/** A container's first process is its shim's child. When the kernel does not tell, the answer is the careful one. */
function hasChildren(pid: string): boolean {
  try {
    return readdirSync(`/proc/${pid}/task`).some(
      (thread) => readFileSync(`/proc/${pid}/task/${thread}/children`, 'utf8').trim() !== '',
    );
  } catch {
    return true;
  }
}
