/** OOM kills counted by a cgroup, and the removal of empty cgroups that a killed shim left behind. */
import { readdirSync, rmdirSync } from 'node:fs';
import { join } from 'node:path';
import { cgroupDirectories, parseFlat } from './statistics.ts';
import { controllerMounts, type HostFiles, hostFiles } from './support.ts';

/** Number of processes the OOM killer took in the cgroup of `pid`; 0 when unknown. */
export function oomKills(pid: number, files: HostFiles = hostFiles): number {
  const directories = cgroupDirectories(pid, files);
  const memory = directories.get('memory');
  const file =
    memory === undefined ? join(directories.get('') ?? '/', 'memory.events') : join(memory, 'memory.oom_control');
  return parseFlat(files.read(file))['oom_kill'] ?? 0;
}

/**
 * Removes the cgroup `path` (as in the spec's `cgroupsPath`, cgroupfs form) and its children from every hierarchy.
 * Only empty cgroups can be removed, so nothing alive is ever touched.
 */
export function removeCgroup(path: string, files: HostFiles = hostFiles): void {
  if (!path.startsWith('/') || path === '/' || path.split('/').includes('..')) return;
  const mountInfo = files.read('/proc/self/mountinfo');
  const mounts = new Set(controllerMounts(mountInfo).values());
  for (const line of mountInfo.split('\n')) {
    if (!line.includes(' - cgroup2 ')) continue;
    const target = line.split(' ')[4];
    if (target !== undefined) mounts.add(target);
  }
  for (const mount of mounts) removeEmpty(join(mount, path));
}

function removeEmpty(directory: string): void {
  try {
    for (const entry of readdirSync(directory, { withFileTypes: true })) {
      if (entry.isDirectory()) removeEmpty(join(directory, entry.name));
    }
    rmdirSync(directory);
  } catch {
    // Gone already, or still in use: either is not ours to force.
  }
}
