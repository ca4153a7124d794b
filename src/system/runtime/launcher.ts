/**
 * Starts shims and finds running ones again (containerd shim v2, runtime/v2/README.md).
 *
 * Invariant: a started shim belongs to nobody but its own process group; this process keeps only a
 * connection, the `log` FIFO's reading end and the event socket, all of which can be made anew.
 */
import { spawn } from 'node:child_process';
import { accessSync, constants, statSync } from 'node:fs';
import { basename, delimiter, isAbsolute, join } from 'node:path';
import { errorMessage, GantryError } from '#types/errors.ts';
import type { Shim, ShimEvent, ShimLauncher, ShimStartOptions } from './contract.ts';
import { directSocketPath, isKnownShim, removeDeadSockets, startDirectly } from './direct.ts';
import { drainFifo, makeFifo } from './fifo.ts';
import { BOOTSTRAP_RESULT } from './messages.ts';
import { decode } from './protobuf.ts';
import { connectShim, parseShimAddress, removeDeadSocket, type ShimAddress, type TaskShim } from './shim.ts';
import { ShimEventServer } from './shim-events.ts';
import { killStrayShims } from './stray.ts';
import { isGrouped, WarmShims } from './warm.ts';

/** Sockets of shims started directly, in the launcher's directory; short, because their paths must be. */
const SOCKETS = 's';
/** A shim's start helper prints one short record. */
const MAX_START_OUTPUT_BYTES = 64 * 1024;
/** containerd allows 5 s to reach a shim; a loaded machine may need most of it to start one. */
const START_TIMEOUT_MS = 30_000;
/** A leftover that does not answer hangs, for ever, on a log that its daemon no longer reads. */
const WARM_CONNECT_TIMEOUT_MS = 3_000;

export interface ShimLauncherOptions {
  /** Directory of this daemon for its event socket and warm shims, e.g. `/run/gantry/shim`; must exist. */
  readonly directory: string;
  /** Namespace of shims found by `connect`. */
  readonly namespace: string;
  /** Receives the text shims write to their log. */
  readonly log?: (text: string) => void;
  /** Keep one idle runc shim ready (2.5 MB); it takes the shim's start out of a container's start. */
  readonly warmShims?: 0 | 1;
}

/** Opens the event socket and returns the launcher. */
export async function openShimLauncher(options: ShimLauncherOptions): Promise<ShimLauncher> {
  const socketPath = join(options.directory, 'events.sock');
  const events = await ShimEventServer.listen(socketPath);
  await removeDeadSockets(join(options.directory, SOCKETS));
  const launcher = new ContainerdShimLauncher(options, events, socketPath);
  if (options.warmShims === 1) await launcher.warmUp();
  return launcher;
}

/** Finds a shim's binary: `io.containerd.runc.v2` is `containerd-shim-runc-v2` in PATH. */
export function shimBinary(shim: string, path: string = process.env['PATH'] ?? ''): string {
  if (isAbsolute(shim)) {
    if (isExecutable(shim)) return shim;
    throw new GantryError(
      'invalid',
      `invalid runtime name ${shim}, correct runtime name should be either format like \`io.containerd.runc.v1\` or a full path to the binary`,
    );
  }
  const parts = shim.split('.');
  if (parts.length < 2 || parts.some((part) => part === '' || part.includes('/'))) {
    throw new GantryError(
      'invalid',
      `invalid runtime name ${shim}, correct runtime name should be either format like \`io.containerd.runc.v1\` or a full path to the binary`,
    );
  }
  const name = `containerd-shim-${parts.at(-2)}-${parts.at(-1)}`;
  for (const directory of path.split(delimiter)) {
    const candidate = join(directory, name);
    if (isAbsolute(candidate) && isExecutable(candidate)) return candidate;
  }
  throw new GantryError(
    'system',
    `failed to resolve runtime path: runtime "${shim}" binary not installed "${name}": file does not exist`,
  );
}

function isExecutable(path: string): boolean {
  try {
    accessSync(path, constants.X_OK);
    return statSync(path).isFile();
  } catch {
    return false;
  }
}

/** Reads what a shim printed at start: plain address (1.x), JSON (2.0 to 2.2) or protobuf (2.3). */
export function parseStartOutput(output: Buffer): ShimAddress {
  const text = output.toString('utf8').trim();
  if (text.startsWith('unix://') || text.startsWith('/')) return parseShimAddress(text);
  const record = text.startsWith('{') ? jsonRecord(text) : decode<StartRecord>(BOOTSTRAP_RESULT, output);
  if (record.protocol !== undefined && record.protocol !== '' && record.protocol !== 'ttrpc') {
    throw new GantryError('notImplemented', `shim protocol ${record.protocol} is not supported`);
  }
  if (record.version !== 2 && record.version !== 3) {
    throw new GantryError('notImplemented', `unsupported shim version (${record.version}): not implemented`);
  }
  return { path: parseShimAddress(record.address).path, version: record.version };
}

interface StartRecord {
  readonly version: number;
  readonly address: string;
  readonly protocol?: string;
}

function jsonRecord(text: string): StartRecord {
  try {
    return JSON.parse(text) as StartRecord;
  } catch (error) {
    throw new GantryError('system', `unreadable answer of shim: ${errorMessage(error)}`, { cause: error });
  }
}

/** While its connection is open the process lives, so the ID is still its own. */
function killShim(shim: TaskShim): void {
  try {
    process.kill(shim.pid, 'SIGKILL');
  } catch {
    // It ended by itself.
  }
}

class ContainerdShimLauncher implements ShimLauncher {
  readonly #options: ShimLauncherOptions;
  readonly #events: ShimEventServer;
  readonly #environment: NodeJS.ProcessEnv;
  readonly #eventSocket: string;
  readonly #warm: WarmShims;
  /** Connected shims by the bundle they serve: one started idle has another working directory. */
  readonly #serving = new Map<string, TaskShim>();
  /** Binaries that were asked whether they may be started directly. */
  readonly #known = new Map<string, Promise<boolean>>();

  constructor(options: ShimLauncherOptions, events: ShimEventServer, eventSocket: string) {
    this.#options = options;
    this.#events = events;
    this.#eventSocket = eventSocket;
    this.#environment = {
      PATH: process.env['PATH'],
      TTRPC_ADDRESS: eventSocket,
      MAX_SHIM_VERSION: '3',
      GOMAXPROCS: '2',
      ...(process.env['NOTIFY_SOCKET'] === undefined ? {} : { NOTIFY_SOCKET: process.env['NOTIFY_SOCKET'] }),
    };
    this.#warm = new WarmShims(join(options.directory, 'warm'), {
      launch: (warm) => this.#launch(warm),
      connect: (address) =>
        connectShim(parseShimAddress(address), options.namespace, AbortSignal.timeout(WARM_CONNECT_TIMEOUT_MS)),
      namespace: options.namespace,
    });
  }

  async warmUp(): Promise<void> {
    await this.#warm.open();
  }

  async start(options: ShimStartOptions, signal?: AbortSignal): Promise<Shim> {
    const shim = (await this.#warm.take(options)) ?? (await this.#launch(options, signal));
    this.#serving.set(options.bundle, shim);
    void shim.closed.then(() => {
      if (this.#serving.get(options.bundle) === shim) this.#serving.delete(options.bundle);
    });
    return shim;
  }

  async connect(address: string, signal?: AbortSignal): Promise<Shim> {
    const shim = await connectShim(parseShimAddress(address), this.#options.namespace, signal);
    this.#drainLog(`/proc/${shim.pid}/cwd/log`, shim);
    return shim;
  }

  async cleanup(options: ShimStartOptions): Promise<void> {
    killStrayShims(options.bundle, 'all');
    const serving = this.#serving.get(options.bundle);
    if (serving !== undefined) killShim(serving);
    try {
      await this.#run(options, ['-bundle', options.bundle, 'delete'], AbortSignal.timeout(START_TIMEOUT_MS));
    } finally {
      await removeDeadSocket(options.bundle);
    }
  }

  subscribe(listener: (event: ShimEvent) => void): Disposable {
    return this.#events.subscribe(listener);
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.#warm[Symbol.asyncDispose]();
    await this.#events[Symbol.asyncDispose]();
  }

  async #launch(options: ShimStartOptions, signal?: AbortSignal): Promise<TaskShim> {
    const logPath = join(options.bundle, 'log');
    makeFifo(logPath);
    // The shim blocks opening its log until someone reads, so the reader comes first.
    const log = drainFifo(logPath, (text) => this.#options.log?.(text));
    try {
      const timeout = AbortSignal.timeout(START_TIMEOUT_MS);
      const limit = signal === undefined ? timeout : AbortSignal.any([signal, timeout]);
      const shim = (await this.#launchDirectly(options, limit)) ?? (await this.#launchOfficially(options, limit));
      void shim.closed.then(() => log[Symbol.dispose]());
      return shim;
    } catch (error) {
      log[Symbol.dispose]();
      throw error;
    }
  }

  async #launchOfficially(options: ShimStartOptions, signal: AbortSignal): Promise<TaskShim> {
    const output = await this.#run(options, ['start'], signal);
    return await connectShim(parseStartOutput(output), options.namespace, signal);
  }

  /** Undefined when the shim must be started the official way, or did not come up: that way then tells what is wrong. */
  async #launchDirectly(options: ShimStartOptions, signal: AbortSignal): Promise<TaskShim | undefined> {
    const binary = shimBinary(options.shim);
    const socketDirectory = join(this.#options.directory, SOCKETS);
    const path = directSocketPath(socketDirectory, options.id);
    if (path === undefined || isGrouped(options.bundle) || !(await this.#isKnown(binary))) return undefined;
    const start = { binary, arguments: this.#flags(options), environment: this.#environment, socketDirectory };
    try {
      return await startDirectly(options, path, start, signal);
    } catch (error) {
      if (signal.aborted) throw error;
      this.#options.log?.(`shim ${options.id} did not come up by itself: ${errorMessage(error)}\n`);
      return undefined;
    }
  }

  /** Asked once for each binary; one that is replaced meanwhile is of the same package. */
  #isKnown(binary: string): Promise<boolean> {
    const known = this.#known.get(binary) ?? isKnownShim(binary);
    this.#known.set(binary, known);
    return known;
  }

  #flags(options: ShimStartOptions): string[] {
    // The address only serves to make socket names distinct between daemons; nobody listens to gRPC there.
    const flags = ['-namespace', options.namespace, '-id', options.id, '-address', this.#eventSocket];
    return options.debug ? [...flags, '-debug'] : flags;
  }

  /** Best effort: a shim whose log nobody reads still works. */
  #drainLog(path: string, shim: TaskShim): void {
    try {
      const log = drainFifo(path, (text) => this.#options.log?.(text));
      void shim.closed.then(() => log[Symbol.dispose]());
    } catch (error) {
      this.#options.log?.(`log of shim ${shim.pid} is not readable: ${errorMessage(error)}\n`);
    }
  }

  async #run(options: ShimStartOptions, action: readonly string[], signal: AbortSignal): Promise<Buffer> {
    const binary = shimBinary(options.shim);
    const child = spawn(binary, [...this.#flags(options), ...action], {
      cwd: options.bundle,
      env: this.#environment,
      stdio: ['ignore', 'pipe', 'pipe'],
      signal,
    });
    const stdout: Buffer[] = [];
    const stderr: Buffer[] = [];
    collect(child.stdout, stdout);
    collect(child.stderr, stderr);
    const { promise, resolve, reject } = Promise.withResolvers<number | null>();
    child.on('error', reject);
    child.on('close', resolve);
    let code: number | null;
    try {
      code = await promise;
    } catch (error) {
      if (signal.aborted)
        throw new GantryError('cancelled', `${basename(binary)}: start was cancelled`, { cause: error });
      throw new GantryError('system', `failed to start shim: ${errorMessage(error)}`, { cause: error });
    }
    if (code === 0) return Buffer.concat(stdout);
    const text = Buffer.concat([...stderr, ...stdout])
      .toString('utf8')
      .trim();
    throw new GantryError('system', `failed to start shim: ${text}: exit status ${code ?? 'unknown'}: unknown`);
  }
}

function collect(source: NodeJS.ReadableStream, into: Buffer[]): void {
  let size = 0;
  source.on('data', (chunk: Buffer) => {
    size += chunk.length;
    if (size <= MAX_START_OUTPUT_BYTES) into.push(chunk);
  });
}
