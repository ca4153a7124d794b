/** The daemon's PID file: refuses to start beside a living process named in it, and goes away on a clean stop. */
import { existsSync, mkdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { dirname } from 'node:path';
import { GantryError } from '#types/errors.ts';

/** Writes the file; disposing removes it. Throws `conflict` with dockerd's text when its process lives. */
export function writePidfile(path: string): Disposable {
  if (path === '') return { [Symbol.dispose]: () => undefined };
  const known = existsSync(path) ? Number.parseInt(readFileSync(path, 'utf8'), 10) : 0;
  if (known > 0 && known !== process.pid && isRunning(known)) {
    throw new GantryError(
      'conflict',
      `process with PID ${known} is still running; ensure it is not running or delete ${path}`,
    );
  }
  mkdirSync(dirname(path), { recursive: true, mode: 0o755 });
  writeFileSync(path, String(process.pid), { mode: 0o644 });
  return { [Symbol.dispose]: () => rmSync(path, { force: true }) };
}

/** A zombie has its process table entry only: it holds nothing any more. */
function isRunning(pid: number): boolean {
  try {
    const stat = readFileSync(`/proc/${pid}/stat`, 'utf8');
    return !/^\) [ZX]/.test(stat.slice(stat.lastIndexOf(')')));
  } catch {
    return false;
  }
}
