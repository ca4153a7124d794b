/**
 * A check of a whole daemon, like fsck: everything it holds of the host must belong to a container it knows.
 * Unlike a comparison of before and after, it can be made at any quiet moment.
 */
import { globSync, readdirSync, readFileSync, readlinkSync } from 'node:fs';
import { join } from 'node:path';
import type { TestDaemon } from './daemon.ts';
import { run } from './processes.ts';

const ID = /[0-9a-f]{64}/;

/** What no container accounts for, one line each. */
export async function orphans(daemon: TestDaemon): Promise<string[]> {
  const known = idsOf(await daemon.ok('ps', '-aq', '--no-trunc'));
  const alive = idsOf(await daemon.ok('ps', '-q', '--no-trunc', '-f', 'status=running', '-f', 'status=paused'));
  const networked = alive.size === 0 ? 0 : await countEndpoints(daemon, [...alive]);
  const ports = (await run('ip', ['-o', 'link', 'show', 'master', daemon.bridge])).stdout.split('\n').filter(Boolean);
  return [
    ...mountsWithout(daemon, alive),
    ...directories(join(daemon.execRoot, 'containers'), alive, 'bundle'),
    ...directories(join(daemon.dataRoot, 'containers'), known, 'container directory'),
    ...globSync(`/sys/fs/cgroup/{*,.}${daemon.cgroupParent}/*/`)
      .filter(isOutside(alive))
      .map((path) => `cgroup ${path}`),
    ...(ports.length === networked ? [] : [`${ports.length} links on the bridge for ${networked} endpoints`]),
    ...(await shimsWithout(daemon, alive.size)),
    ...namespacesWithout(daemon, alive.size),
    ...(await mentions(daemon, networked)),
  ];
}

function idsOf(text: string): Set<string> {
  return new Set(text.split('\n').filter((id) => id !== ''));
}

function isOutside(ids: ReadonlySet<string>): (text: string) => boolean {
  return (text) => {
    const id = ID.exec(text)?.[0];
    return id !== undefined && !ids.has(id);
  };
}

function mountsWithout(daemon: TestDaemon, alive: ReadonlySet<string>): string[] {
  const targets = readFileSync('/proc/self/mountinfo', 'utf8')
    .split('\n')
    .map((line) => line.split(' ')[4] ?? '');
  return targets
    .filter((target) => target.startsWith(join(daemon.execRoot, 'containers')))
    .filter(isOutside(alive))
    .map((target) => `mount ${target}`);
}

function directories(parent: string, ids: ReadonlySet<string>, what: string): string[] {
  return readdirSync(parent)
    .filter((name) => !ids.has(name))
    .map((name) => `${what} ${join(parent, name)}`);
}

async function countEndpoints(daemon: TestDaemon, ids: readonly string[]): Promise<number> {
  const modes = await daemon.ok('inspect', '-f', '{{.HostConfig.NetworkMode}}', ...ids);
  return modes.split('\n').filter((mode) => mode === 'bridge' || mode === 'default').length;
}

/** One shim a running container, and one kept warm. */
async function shimsWithout(daemon: TestDaemon, running: number): Promise<string[]> {
  const shims: string[] = [];
  for (const pid of readdirSync('/proc').filter((name) => /^\d+$/.test(name))) {
    try {
      if (!readlinkSync(`/proc/${pid}/cwd`).startsWith(daemon.execRoot)) continue;
      shims.push(`${pid} ${readFileSync(`/proc/${pid}/cmdline`, 'utf8').replaceAll('\0', ' ')}`);
    } catch {
      // It ended meanwhile.
    }
  }
  return shims.length <= running + 1 ? [] : [`${shims.length} shims for ${running} containers:\n${shims.join('\n')}`];
}

/** One namespace a running container, and at most a few kept ready. */
function namespacesWithout(daemon: TestDaemon, running: number): string[] {
  const names = readdirSync(join(daemon.execRoot, 'netns'));
  const mounted = readFileSync('/proc/self/mountinfo', 'utf8')
    .split('\n')
    .filter((line) => line.includes(join(daemon.execRoot, 'netns')));
  return [names.length, mounted.length].every((count) => count <= running + READY_NAMESPACES)
    ? []
    : [`${names.length} namespace files and ${mounted.length} mounts for ${running} containers: ${names.join(' ')}`];
}

/** Namespaces prepared ahead of the next container. */
const READY_NAMESPACES = 1;

/** Container addresses in rules must not outnumber the endpoints. */
async function mentions(daemon: TestDaemon, endpoints: number): Promise<string[]> {
  const rules = (await run('nft', ['list', 'ruleset'])).stdout;
  const pattern = new RegExp(`${daemon.subnet.replaceAll('.', '\\.')}\\.(\\d+)\\b`, 'g');
  const hosts = new Set(
    [...rules.matchAll(pattern)].map((match) => match[1]).filter((host) => host !== '0' && host !== '1'),
  );
  return hosts.size <= endpoints ? [] : [`rules mention ${hosts.size} addresses for ${endpoints} endpoints`];
}
