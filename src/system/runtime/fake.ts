/**
 * A runtime in memory for tests of the engine: tasks that live until killed or told to exit.
 *
 * Invariant: answers as the real shim does for the same order of calls (the shared suite in test/kernel
 * runs on both); it starts no process and touches no file.
 */
import { formatNs, nowNs } from '#system/clock/clock.ts';
import { GantryError } from '#types/errors.ts';
import type {
  CreateTaskOptions,
  ExecTaskOptions,
  ExitStatus,
  Shim,
  ShimEvent,
  ShimLauncher,
  ShimStartOptions,
  TaskState,
  TaskStatus,
} from './contract.ts';

const SIGNAL_EXIT_BASE = 128;
const NOT_EXITED: ExitStatus = { exitStatus: 0, exitedAt: '0001-01-01T00:00:00Z' };

interface FakeProcess {
  readonly pid: number;
  status: TaskStatus;
  exit: ExitStatus;
  readonly exited: PromiseWithResolvers<ExitStatus>;
}

/** What tests decide about a fake process. */
export interface FakeBehaviour {
  /** Called when a process is created or exec'd; throwing fails the call with the error's text. */
  onCreate?(options: CreateTaskOptions | ExecTaskOptions): void;
  /** Called after a process has started; an exit code ends it at once. */
  onStart?(id: string, execId: string): number | undefined;
  /** Signals that do not end a process. */
  readonly ignoredSignals?: readonly number[];
}

/** Launcher of fake shims. */
export class FakeShimLauncher implements ShimLauncher {
  readonly behaviour: FakeBehaviour;
  readonly shims: Map<string, FakeShim> = new Map();
  readonly cleanedUp: string[] = [];
  readonly #listeners = new Set<(event: ShimEvent) => void>();
  #nextPid = 1000;

  constructor(behaviour: FakeBehaviour = {}) {
    this.behaviour = behaviour;
  }

  async start(options: ShimStartOptions, signal?: AbortSignal): Promise<FakeShim> {
    if (signal?.aborted === true) throw new GantryError('cancelled', 'context canceled');
    const shim = new FakeShim(this, `unix:///fake/${options.id}`, this.takePid());
    this.shims.set(shim.address, shim);
    return shim;
  }

  async connect(address: string): Promise<FakeShim> {
    const shim = this.shims.get(address);
    if (shim === undefined) throw new GantryError('unavailable', `connect ENOENT ${address}`);
    return shim;
  }

  async cleanup(options: ShimStartOptions): Promise<void> {
    this.cleanedUp.push(options.id);
  }

  subscribe(listener: (event: ShimEvent) => void): Disposable {
    this.#listeners.add(listener);
    return { [Symbol.dispose]: () => void this.#listeners.delete(listener) };
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.#listeners.clear();
  }

  takePid(): number {
    this.#nextPid += 1;
    return this.#nextPid;
  }

  publish(event: ShimEvent): void {
    for (const listener of this.#listeners) listener(event);
  }
}

/** One fake shim. */
export class FakeShim implements Shim {
  readonly address: string;
  readonly pid: number;
  readonly closed: Promise<void>;
  /** What was asked for, e.g. to check resizes and updates. */
  readonly calls: { readonly method: string; readonly arguments: readonly unknown[] }[] = [];
  readonly #launcher: FakeShimLauncher;
  readonly #processes = new Map<string, FakeProcess>();
  readonly #resolveClosed: () => void;
  #isClosed = false;

  constructor(launcher: FakeShimLauncher, address: string, pid: number) {
    this.#launcher = launcher;
    this.address = address;
    this.pid = pid;
    const { promise, resolve } = Promise.withResolvers<void>();
    this.closed = promise;
    this.#resolveClosed = resolve;
  }

  async create(options: CreateTaskOptions): Promise<{ pid: number }> {
    this.#record('create', options);
    this.#launcher.behaviour.onCreate?.(options);
    return { pid: this.#add(options.id, '').pid };
  }

  async exec(options: ExecTaskOptions): Promise<void> {
    this.#record('exec', options);
    this.#find(options.id, '');
    this.#launcher.behaviour.onCreate?.(options);
    this.#add(options.id, options.execId);
  }

  async start(id: string, execId = ''): Promise<{ pid: number }> {
    this.#record('start', id, execId);
    const found = this.#find(id, execId);
    found.status = 'running';
    const code = this.#launcher.behaviour.onStart?.(id, execId);
    if (code !== undefined) setImmediate(() => this.exit(id, execId, code));
    return { pid: found.pid };
  }

  async wait(id: string, execId = '', signal?: AbortSignal): Promise<ExitStatus> {
    this.#record('wait', id, execId);
    const found = this.#find(id, execId);
    const aborted = Promise.withResolvers<never>();
    const onAbort = (): void => aborted.reject(new GantryError('cancelled', 'context canceled'));
    if (signal?.aborted === true) onAbort();
    signal?.addEventListener('abort', onAbort, { once: true });
    const lost = this.closed.then(() => Promise.reject(closedError()));
    try {
      return await Promise.race([found.exited.promise, aborted.promise, lost]);
    } finally {
      signal?.removeEventListener('abort', onAbort);
    }
  }

  async kill(id: string, signalNumber: number, options: { execId?: string; all?: boolean } = {}): Promise<void> {
    this.#record('kill', id, signalNumber, options);
    const found = this.#find(id, options.execId ?? '');
    if (found.status === 'stopped') throw new GantryError('notFound', 'process already finished: not found');
    if (this.#launcher.behaviour.ignoredSignals?.includes(signalNumber) !== true) {
      this.exit(id, options.execId ?? '', SIGNAL_EXIT_BASE + signalNumber);
    }
  }

  async delete(id: string, execId = ''): Promise<ExitStatus> {
    this.#record('delete', id, execId);
    const found = this.#find(id, execId);
    if (found.status === 'running' || found.status === 'paused') {
      throw new GantryError('conflict', 'cannot delete a running process: failed precondition');
    }
    this.#processes.delete(keyOf(id, execId));
    return found.exit;
  }

  async state(id: string, execId = ''): Promise<TaskState> {
    const found = this.#find(id, execId);
    return { ...found.exit, status: found.status, pid: found.pid };
  }

  async pids(id: string): Promise<number[]> {
    this.#find(id, '');
    return [...this.#processes].filter(([key]) => key.startsWith(`${id}/`)).map(([, one]) => one.pid);
  }

  async pause(id: string): Promise<void> {
    this.#record('pause', id);
    this.#find(id, '').status = 'paused';
  }

  async resume(id: string): Promise<void> {
    this.#record('resume', id);
    this.#find(id, '').status = 'running';
  }

  async resizePty(id: string, size: { width: number; height: number }, execId = ''): Promise<void> {
    this.#record('resizePty', id, size, execId);
    this.#find(id, execId);
  }

  async closeStdin(id: string, execId = ''): Promise<void> {
    this.#record('closeStdin', id, execId);
    this.#find(id, execId);
  }

  async update(id: string, resources: object): Promise<void> {
    this.#record('update', id, resources);
    this.#find(id, '');
  }

  async shutdown(id: string): Promise<void> {
    if (this.#isClosed || this.#processes.size > 0) return;
    this.#record('shutdown', id);
    this.die();
  }

  /** The fake's connection is the shim itself: it can be connected to again. */
  async [Symbol.asyncDispose](): Promise<void> {}

  /** Ends a process as if it had exited by itself. */
  exit(id: string, execId: string, exitStatus: number): void {
    const found = this.#processes.get(keyOf(id, execId));
    if (found === undefined || found.status === 'stopped') return;
    found.status = 'stopped';
    found.exit = { exitStatus, exitedAt: formatNs(nowNs()) };
    found.exited.resolve(found.exit);
    this.#launcher.publish({ type: 'exit', containerId: id, execId, pid: found.pid, exit: found.exit });
  }

  /** Reports a process killed for lack of memory. */
  oom(id: string): void {
    this.#launcher.publish({ type: 'oom', containerId: id });
  }

  /** Ends the shim: with tasks left, this is a crash. */
  die(): void {
    this.#isClosed = true;
    this.#launcher.shims.delete(this.address);
    this.#resolveClosed();
  }

  #record(method: string, ...values: unknown[]): void {
    if (this.#isClosed) throw closedError();
    this.calls.push({ method, arguments: values });
  }

  #add(id: string, execId: string): FakeProcess {
    if (this.#processes.has(keyOf(id, execId))) {
      throw new GantryError('conflict', `id ${execId === '' ? id : execId}: already exists`);
    }
    const exited = Promise.withResolvers<ExitStatus>();
    const made: FakeProcess = { pid: this.#launcher.takePid(), status: 'created', exit: NOT_EXITED, exited };
    this.#processes.set(keyOf(id, execId), made);
    return made;
  }

  #find(id: string, execId: string): FakeProcess {
    if (this.#isClosed) throw closedError();
    const found = this.#processes.get(keyOf(id, execId));
    if (found !== undefined) return found;
    throw new GantryError(
      'notFound',
      execId === '' ? 'container not created: not found' : 'process does not exist: not found',
    );
  }
}

function keyOf(id: string, execId: string): string {
  return `${id}/${execId}`;
}

function closedError(): GantryError {
  return new GantryError('unavailable', 'ttrpc: closed: unavailable');
}
