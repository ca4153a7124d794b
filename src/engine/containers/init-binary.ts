/** Finds the minimal init that `--init` puts in front of a container's process. */
import { accessSync, constants } from 'node:fs';
import { delimiter, isAbsolute, join } from 'node:path';

/** Names to look for, docker's own first; Debian's package tini brings `tini-static`, which needs nothing of the image. */
const NAMES: readonly string[] = ['docker-init', 'tini-static', 'catatonit', 'tini'];

/** Absolute path of the init binary; undefined when the host has none. */
export function initBinary(configured: string, path: string = process.env['PATH'] ?? ''): string | undefined {
  const names = configured === '' ? NAMES : [configured];
  for (const name of names) {
    if (isAbsolute(name)) return name;
    for (const directory of [...path.split(delimiter), '/usr/libexec/docker']) {
      const candidate = join(directory, name);
      if (isExecutable(candidate)) return candidate;
    }
  }
  return undefined;
}

function isExecutable(path: string): boolean {
  try {
    accessSync(path, constants.X_OK);
    return true;
  } catch {
    return false;
  }
}
