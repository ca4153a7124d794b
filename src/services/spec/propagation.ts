/**
 * Whether a bind mount's wanted propagation is possible: the mount its source lies on must itself be shared
 * (or, for slave, receive from a peer). mountinfo is read as proc(5) describes it.
 */
import { GantryError } from '#types/errors.ts';

/** Throws docker's error when `source` lies on a mount that cannot propagate so. */
export function checkPropagation(mountInfo: string, source: string, propagation: string): void {
  const shared = propagation === 'shared' || propagation === 'rshared';
  const slave = propagation === 'slave' || propagation === 'rslave';
  if (!shared && !slave) return;
  const mount = mountOf(mountInfo, source);
  if (mount === undefined) throw new GantryError('system', `could not find source mount of ${source}`);
  const tags = mount.tags.map((tag) => tag.split(':', 1)[0]);
  if (tags.includes('shared') || (slave && tags.includes('master'))) return;
  const wanted = shared ? 'a shared mount' : 'a shared or slave mount';
  throw new GantryError('system', `path ${source} is mounted on ${mount.point} but it is not ${wanted}`);
}

/** The mount with the longest mount point above `path`; of equals the last, which hides the others. */
function mountOf(mountInfo: string, path: string): { point: string; tags: readonly string[] } | undefined {
  let found: { point: string; tags: readonly string[] } | undefined;
  for (const line of mountInfo.split('\n')) {
    const fields = line.split(' ');
    const point = unescapeOctal(fields[4] ?? '');
    if (point === '' || !(point === '/' || path === point || path.startsWith(`${point}/`))) continue;
    if (found === undefined || point.length >= found.point.length) {
      found = { point, tags: fields.slice(6, fields.indexOf('-', 6)) };
    }
  }
  return found;
}

function unescapeOctal(text: string): string {
  return text.replace(/\\([0-7]{3})/g, (_match, octal: string) => String.fromCharCode(Number.parseInt(octal, 8)));
}
