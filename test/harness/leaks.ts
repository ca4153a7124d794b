/**
 * What a daemon holds of the host, so that a test can compare before and after. Only things that carry the
 * daemon's own marks are read: its directories, its bridge, its subnet, its processes; other tests run beside.
 */
import { globSync, readdirSync, readFileSync, readlinkSync } from 'node:fs';
import { join } from 'node:path';
import type { TestDaemon } from './daemon.ts';
import { run } from './processes.ts';

/** Kind → sorted entries. */
export type HostState = Readonly<Record<string, readonly string[]>>;

/** Reads everything at once. */
export async function readHostState(daemon: TestDaemon): Promise<HostState> {
  const links = (await run('ip', ['-o', 'link', 'show', 'master', daemon.bridge])).stdout.split('\n');
  const rules = (await run('nft', ['list', 'ruleset'])).stdout.split('\n');
  return {
    mounts: linesWith(readFileSync('/proc/self/mountinfo', 'utf8'), daemon.directory).map(
      (line) => line.split(' ')[4] ?? '',
    ),
    links: links.filter((line) => line !== '').map((line) => line.split(': ')[1] ?? line),
    rules: rules
      .filter((line) => line.includes(daemon.subnet) || line.includes(daemon.bridge))
      .map((line) => line.trim()),
    processes: processesOf(daemon.directory),
    descriptors: descriptorsOf(daemon.pid),
    cgroups: cgroupsOf(daemon),
    namespaces: globSync('netns/*', { cwd: daemon.execRoot }).toSorted(),
    tables: await tablesOf(daemon),
    files: globSync('**', { cwd: daemon.execRoot }).map(withoutWarmName).toSorted(),
  };
}

/** The shim kept ready for the next container has another name each time. */
function withoutWarmName(path: string): string {
  return path.replace(/warm-[0-9a-f]+/, 'warm-*');
}

/** Cgroups below the daemon's own parent (the harness gives each daemon one), in every hierarchy. */
function cgroupsOf(daemon: TestDaemon): string[] {
  return globSync(`/sys/fs/cgroup/{*,.}${daemon.cgroupParent}/*/`).toSorted();
}

/** Whole nftables tables that mention the daemon's bridge, by name. */
async function tablesOf(daemon: TestDaemon): Promise<string[]> {
  const tables = (await run('nft', ['list', 'ruleset'])).stdout.split(/^(?=table )/m);
  return tables.filter((table) => table.includes(daemon.bridge)).map((table) => table.split(' {')[0] ?? '');
}

function linesWith(text: string, mark: string): string[] {
  return text.split('\n').filter((line) => line.includes(mark));
}

/** Processes whose command line or working directory points into the daemon's directories. */
function processesOf(directory: string): string[] {
  const found: string[] = [];
  for (const pid of readdirSync('/proc').filter((name) => /^\d+$/.test(name))) {
    try {
      const command = readFileSync(join('/proc', pid, 'cmdline'), 'utf8').replaceAll('\0', ' ');
      const cwd = readlinkSync(join('/proc', pid, 'cwd'));
      if (!command.includes(directory) && !cwd.startsWith(directory)) continue;
      // A shim kept warm for the next container is no leak; it is counted without its number.
      found.push(command.split(' ')[0] ?? '');
    } catch {
      // It ended meanwhile.
    }
  }
  return found.toSorted();
}

/** Open descriptors without numbers that change by themselves. */
function descriptorsOf(pid: number): string[] {
  const found: string[] = [];
  for (const name of readdirSync(`/proc/${pid}/fd`)) {
    try {
      found.push(withoutWarmName(readlinkSync(`/proc/${pid}/fd/${name}`).replace(/\[\d+\]/, '')));
    } catch {
      // Closed meanwhile.
    }
  }
  // Client connections come and go with requests.
  return found.filter((target) => !target.startsWith('socket:')).toSorted();
}

/** What is there now and was not before. */
export function leftovers(before: HostState, now: HostState): string[] {
  return Object.entries(now).flatMap(([kind, entries]) => {
    const known = [...(before[kind] ?? [])];
    return entries
      .filter((entry) => {
        const index = known.indexOf(entry);
        if (index >= 0) known.splice(index, 1);
        return index < 0;
      })
      .map((entry) => `${kind}: ${entry}`);
  });
}
