/**
 * The two engines of a comparison: ours, and dockerd with its containerd, each with its own roots, socket, and
 * network. dockerd lives in network and mount namespaces of its own, so it cannot touch this machine's firewall.
 */
import { type ChildProcess, execFileSync, spawn } from 'node:child_process';
import { once } from 'node:events';
import { existsSync, globSync, mkdtempSync, openSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { busyboxTar } from '../test/harness/busybox.ts';
import { startDaemon } from '../test/harness/daemon.ts';
import { eventually, run } from '../test/harness/processes.ts';

const START_TIMEOUT_MS = 30_000;

/** One side of a comparison. */
export interface Engine extends AsyncDisposable {
  readonly name: string;
  readonly environment: Readonly<Record<string, string>>;
  /** Process IDs of the daemon and what belongs to it, without containers and their shims. */
  daemonPids(): number[];
  /** Process IDs of the shims. */
  shimPids(): number[];
  /** Arguments of nsenter that lead into the network the daemon lives in. */
  readonly networkNamespace: readonly string[];
}

/** Processes with `mark` in their command line, except those whose program matches `except`. */
function processesWith(mark: string, program: RegExp): number[] {
  return globSync('/proc/[0-9]*/cmdline').flatMap((file) => {
    try {
      const words = readFileSync(file, 'utf8').split('\0');
      return program.test(words[0] ?? '') && words.some((word) => word.includes(mark))
        ? [Number(file.split('/')[2])]
        : [];
    } catch {
      return [];
    }
  });
}

/** Our daemon, of the release under `release`. */
export async function startGantry(release: string): Promise<Engine> {
  const daemon = await startDaemon({ program: join(release, 'bin/gantryd') });
  return {
    name: 'gantry',
    environment: { DOCKER_HOST: daemon.host, DOCKER_CONFIG: join(daemon.directory, 'docker-config') },
    daemonPids: () => [daemon.pid, ...descendantsOf(daemon.pid)],
    networkNamespace: ['-n', '-t', String(daemon.pid)],
    shimPids: () => processesWith(daemon.directory, /shim/).concat(processesByDirectory(daemon.directory)),
    [Symbol.asyncDispose]: () => daemon[Symbol.asyncDispose](),
  };
}

function descendantsOf(pid: number): number[] {
  const children = globSync(`/proc/${pid}/task/*/children`).flatMap((file) => readFileSync(file, 'utf8').split(' '));
  return children.map(Number).filter((child) => child > 0 && !isShim(child));
}

function isShim(pid: number): boolean {
  return readFileSync(`/proc/${pid}/cmdline`, 'utf8').includes('shim');
}

function processesByDirectory(directory: string): number[] {
  return globSync('/proc/[0-9]*').flatMap((path) => {
    const pid = Number(path.split('/')[2]);
    try {
      const cwd = execFileSync('readlink', [join(path, 'cwd')], { encoding: 'utf8' });
      return cwd.startsWith(directory) && isShim(pid) ? [pid] : [];
    } catch {
      return [];
    }
  });
}

/** Debian's dockerd; undefined when it is not installed. */
export async function startDockerd(): Promise<Engine | undefined> {
  const binary = ['/usr/sbin/dockerd', '/usr/bin/dockerd'].find((path) => existsSync(path));
  if (binary === undefined) return undefined;
  const directory = mkdtempSync(join(tmpdir(), 'gantry-bench-'));
  const host = `unix://${directory}/docker.sock`;
  const environment = { DOCKER_HOST: host, DOCKER_CONFIG: directory };
  const log = openSync(join(directory, 'log'), 'a');
  const roots = `--data-root ${directory}/data --exec-root ${directory}/exec -p ${directory}/pid`;
  const command = `ip link set lo up; exec ${binary} ${roots} -H ${host} --bip 10.211.0.1/24`;
  const child = spawn('unshare', ['--net', '--mount', 'sh', '-c', command], { stdio: ['ignore', log, log] });
  const engine: Engine = {
    name: 'dockerd',
    environment,
    daemonPids: () => [child.pid ?? 0, ...descendantsOf(child.pid ?? 0)],
    networkNamespace: ['-n', '-t', String(child.pid)],
    shimPids: () => processesWith(directory, /shim/),
    [Symbol.asyncDispose]: () => stop(child, directory),
  };
  try {
    await eventually(() => child.exitCode === null && existsSync(`${directory}/docker.sock`), {
      timeoutMs: START_TIMEOUT_MS,
      what: () => `dockerd to start:\n${readFileSync(join(directory, 'log'), 'utf8').slice(-2_000)}`,
    });
    const made = await run('docker', ['import', '-c', 'CMD ["sh"]', await busyboxTar(), 'busybox:latest'], {
      env: environment,
    });
    if (made.code !== 0) throw new Error(made.stderr);
    return engine;
  } catch (error) {
    await stop(child, directory);
    throw error;
  }
}

async function stop(child: ChildProcess, directory: string): Promise<void> {
  if (child.exitCode === null) {
    const exited = once(child, 'exit');
    child.kill('SIGTERM');
    await exited;
  }
  rmSync(directory, { recursive: true, force: true });
}

/** Proportional memory of processes, in KiB. */
export function proportionalMemory(pids: readonly number[]): number {
  let total = 0;
  for (const pid of new Set(pids)) {
    try {
      total += Number(/^Pss:\s+(\d+)/m.exec(readFileSync(`/proc/${pid}/smaps_rollup`, 'utf8'))?.[1] ?? 0);
    } catch {
      // It ended meanwhile.
    }
  }
  return total;
}
