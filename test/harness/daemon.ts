/**
 * Daemons for tests: each has its own roots, socket, bridge and subnet, so any number run side by side.
 * With GANTRY_TEST_HOST set, tests run against that Docker-API socket instead, which is how the expectations
 * themselves are checked against the engine Gantry stands in for.
 */
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { closeSync, existsSync, mkdirSync, mkdtempSync, openSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join, resolve } from 'node:path';
import { removeCgroup } from '#system/cgroup/leftovers.ts';
import { type ApiAnswer, request } from './api.ts';
import { busyboxTar } from './busybox.ts';
import { eventually, type Result, Running, type RunOptions, run, startInTerminal } from './processes.ts';

const ROOT: string = resolve(import.meta.dirname, '../..');
const START_TIMEOUT_MS = 20_000;
const STOP_TIMEOUT_MS = 30_000;
const FOREIGN_HOST: string | undefined = process.env['GANTRY_TEST_HOST'];

export interface DaemonOptions {
  /** Further daemon flags. */
  readonly flags?: readonly string[];
  /** Give it a bridge network (default true); without, `-b none`. */
  readonly bridge?: boolean;
  /** Run in a network namespace of its own: the test may change routes, rules and switches of "its host". */
  readonly ownNetwork?: boolean;
  /** Load the busybox image (default true). */
  readonly busybox?: boolean;
  /** The daemon's launcher; this tree's by default. */
  readonly program?: string;
}

/** A daemon under test, and the clients that talk to it. */
export class TestDaemon implements AsyncDisposable {
  /** Whether this is an engine of someone else: tests of our process (kill -9, leaks) do not apply. */
  readonly foreign: boolean;
  readonly directory: string;
  readonly host: string;
  readonly bridge: string;
  readonly subnet: string;
  readonly #options: DaemonOptions;
  #child: ReturnType<typeof spawn> | undefined;
  #released = false;

  constructor(options: DaemonOptions) {
    this.#options = options;
    this.foreign = FOREIGN_HOST !== undefined;
    this.directory = mkdtempSync(join(tmpdir(), 'gantry-test-'));
    mkdirSync(join(this.directory, 'docker-config'));
    this.host = FOREIGN_HOST ?? `unix://${this.directory}/gantry.sock`;
    // Unique by process and time: 10.128/9 split in /24s, far from docker's own default pools.
    const slot = (process.pid * 7 + nextSlot()) % 32_768;
    this.subnet = `10.${128 + (slot >> 8)}.${slot & 255}`;
    this.bridge = `gt${process.pid.toString(36)}${counter.toString(36)}`;
  }

  /** The cgroup all of its containers are in, so that tests see what is left of them. */
  get cgroupParent(): string {
    return `/gantry-test-${this.bridge}`;
  }

  get dataRoot(): string {
    return join(this.directory, 'data');
  }

  get execRoot(): string {
    return join(this.directory, 'exec');
  }

  get socketPath(): string {
    return this.host.replace('unix://', '');
  }

  get pid(): number {
    const pid = this.#child?.pid;
    if (pid === undefined) throw new Error('this daemon has no process of ours');
    return pid;
  }

  /** The daemon's own output so far. */
  get log(): string {
    const file = join(this.directory, 'log');
    return existsSync(file) ? readFileSync(file, 'utf8') : '';
  }

  /** A container name no other test uses. */
  name(purpose: string): string {
    return `${this.bridge}-${nextSlot()}-${purpose}`;
  }

  /** Starts the process and waits until it answers. */
  async start(): Promise<void> {
    if (this.foreign) return;
    if (this.#options.ownNetwork) await this.#makeNetwork();
    else if (this.#options.bridge !== false) await this.#makeBridge();
    const log = openSync(join(this.directory, 'log'), 'a');
    const program = this.#options.program ?? join(ROOT, 'bin/gantryd');
    // The namespace outlives a killed daemon, as a host does.
    const [file = '', ...before] = this.#options.ownNetwork
      ? ['nsenter', `--net=/run/netns/${this.bridge}`, program]
      : [program];
    const child = spawn(file, [...before, ...this.#flags()], {
      stdio: ['ignore', log, log],
      cwd: this.directory,
    });
    closeSync(log);
    this.#child = child;
    let ended = false;
    child.once('exit', () => {
      ended = true;
    });
    child.once('error', () => {
      ended = true;
    });
    await eventually(
      async () => {
        if (ended) throw new Error(`the daemon ended at start:\n${this.log}`);
        return existsSync(this.socketPath) && (await this.#answers());
      },
      { timeoutMs: START_TIMEOUT_MS, what: () => `the daemon to answer; its log:\n${this.log}` },
    );
  }

  /** `-b` names a bridge that exists, as dockerd reads it; the address on it says which subnet to use. */
  async #makeBridge(): Promise<void> {
    if (existsSync(`/sys/class/net/${this.bridge}`)) return;
    for (const args of [
      ['link', 'add', this.bridge, 'type', 'bridge'],
      ['addr', 'add', `${this.subnet}.1/24`, 'dev', this.bridge],
      ['link', 'set', this.bridge, 'up'],
    ]) {
      const done = await run('ip', args);
      if (done.code !== 0) throw new Error(`ip ${args.join(' ')}: ${done.stderr}`);
    }
  }

  async #makeNetwork(): Promise<void> {
    if (existsSync(`/run/netns/${this.bridge}`)) return;
    const made = await run('ip', ['netns', 'add', this.bridge]);
    if (made.code !== 0) throw new Error(`ip netns add: ${made.stderr}`);
    await this.onHost('ip', 'link', 'set', 'lo', 'up');
  }

  /** Runs a program where the daemon is: in its network namespace, or on this host. */
  onHost(...command: string[]): Promise<Result> {
    const [file = '', ...args] = this.#options.ownNetwork
      ? ['nsenter', `--net=/run/netns/${this.bridge}`, ...command]
      : command;
    return run(file, args);
  }

  #flags(): string[] {
    return [
      '--data-root',
      this.dataRoot,
      '--exec-root',
      this.execRoot,
      '-H',
      this.host,
      '-p',
      join(this.directory, 'pid'),
      '-b',
      this.#options.bridge === false ? 'none' : this.bridge,
      '--cgroup-parent',
      this.cgroupParent,
      ...(this.#options.flags ?? []),
    ];
  }

  async #answers(): Promise<boolean> {
    try {
      return (await this.api('GET', '/_ping')).status === 200;
    } catch {
      return false;
    }
  }

  /** SIGKILL, as a crash. */
  async kill(): Promise<void> {
    await this.#end('SIGKILL');
  }

  /** SIGTERM, waiting for the orderly end; returns the exit code. */
  async stop(): Promise<number> {
    return this.#end('SIGTERM');
  }

  async #end(signal: NodeJS.Signals): Promise<number> {
    const child = this.#child;
    if (child === undefined || child.exitCode !== null || child.signalCode !== null) return child?.exitCode ?? 0;
    const exited = once(child, 'exit');
    child.kill(signal);
    const timer = setTimeout(() => child.kill('SIGKILL'), STOP_TIMEOUT_MS);
    const [code] = await exited;
    clearTimeout(timer);
    return Number(code ?? 1000);
  }

  get #clientEnvironment(): Record<string, string> {
    return {
      DOCKER_HOST: this.host,
      DOCKER_CONFIG: join(this.directory, 'docker-config'),
      DOCKER_BUILDKIT: '0',
      DOCKER_CLI_HINTS: 'false',
    };
  }

  #runOptions(options: RunOptions): RunOptions {
    return { ...options, env: { ...this.#clientEnvironment, ...options.env } };
  }

  /** Runs the docker CLI. */
  docker(args: readonly string[], options: RunOptions = {}): Promise<Result> {
    return run('docker', args, this.#runOptions(options));
  }

  /** Runs the docker CLI, requires success, and returns its trimmed standard output. */
  async ok(...args: string[]): Promise<string> {
    const result = await this.docker(args);
    if (result.code !== 0) {
      throw new Error(`docker ${args.join(' ')} exited with ${result.code}: ${result.stderr}${result.stdout}`);
    }
    return result.stdout.replace(/\n$/, '');
  }

  /** Starts the docker CLI with its standard input held open. */
  startDocker(args: readonly string[], options: RunOptions = {}): Running {
    return new Running('docker', args, { holdInput: true, ...this.#runOptions(options) });
  }

  /** Starts the docker CLI in a terminal. */
  dockerInTerminal(args: readonly string[]): Running {
    return startInTerminal('docker', args, this.#runOptions({}));
  }

  /** Runs our own CLI. */
  gantry(args: readonly string[], options: RunOptions = {}): Promise<Result> {
    return run(join(ROOT, 'bin/gantry'), args, this.#runOptions(options));
  }

  /** One request to the Engine API. */
  api(method: string, path: string, body?: unknown): Promise<ApiAnswer> {
    return request(this.socketPath, { method, path, body });
  }

  /** `docker inspect -f`. */
  inspect(name: string, format: string): Promise<string> {
    return this.ok('inspect', '-f', format, name);
  }

  /** Waits until `docker inspect -f` prints the expected text. */
  async becomes(name: string, format: string, expected: string): Promise<void> {
    let last = '';
    await eventually(
      async () => {
        last = await this.inspect(name, format);
        return last === expected;
      },
      { what: () => `${format} of ${name} to be ${expected}; it is ${last}` },
    );
  }

  /** Imports busybox as `busybox:latest` with `sh` as its command. */
  async loadBusybox(): Promise<void> {
    const present = await this.docker(['image', 'inspect', 'busybox:latest']);
    if (present.code === 0) return;
    await this.ok(
      'import',
      '-c',
      'CMD ["sh"]',
      '-c',
      `ENV PATH=${CONTAINER_PATH}`,
      await busyboxTar(),
      'busybox:latest',
    );
  }

  /** Removes every container, stops the daemon, removes its directory. */
  async [Symbol.asyncDispose](): Promise<void> {
    if (this.#released) return;
    this.#released = true;
    try {
      // Only a running daemon can take its containers away.
      if (this.#child !== undefined && this.#child.signalCode !== null) await this.start().catch(() => undefined);
      if (this.foreign || this.#child?.exitCode === null) {
        const ids = (
          await this.docker(['ps', '-aq', ...(this.foreign ? ['--filter', `name=^/${this.bridge}-`] : [])])
        ).stdout
          .split('\n')
          .filter((id) => id !== '');
        if (ids.length > 0) await this.docker(['rm', '-fv', ...ids]);
      }
    } finally {
      await this.stop();
      if (existsSync(`/sys/class/net/${this.bridge}`)) await run('ip', ['link', 'del', this.bridge]);
      if (existsSync(`/run/netns/${this.bridge}`)) await run('ip', ['netns', 'del', this.bridge]);
      removeCgroup(this.cgroupParent);
      rmSync(this.directory, { recursive: true, force: true });
    }
  }
}

const CONTAINER_PATH = '/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin';

let counter = 0;
function nextSlot(): number {
  counter += 1;
  return counter * 97;
}

/** Starts a daemon with busybox in it. */
export async function startDaemon(options: DaemonOptions = {}): Promise<TestDaemon> {
  const daemon = new TestDaemon(options);
  try {
    await daemon.start();
    if (options.busybox !== false) await daemon.loadBusybox();
    return daemon;
  } catch (error) {
    await daemon[Symbol.asyncDispose]().catch(() => undefined);
    throw error;
  }
}
