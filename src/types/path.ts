/** Paths as text. Nothing here looks at a file system: names in a container are resolved by the kernel. */

/** Removes `.`, `..` and doubled slashes; never leaves the root. */
export function cleanRelative(path: string): string {
  const parts: string[] = [];
  for (const part of path.split('/')) {
    if (part === '' || part === '.') continue;
    if (part === '..') parts.pop();
    else parts.push(part);
  }
  return parts.join('/');
}
