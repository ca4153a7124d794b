/**
 * What the engine asks of a container runtime: containerd's shim v2 Task API, one connection a shim.
 *
 * Life of a task: create → start → (exec …) → wait resolves → delete → shutdown. The shim is its own
 * process group and survives this daemon; `connect` finds it again by the address saved at start.
 * Errors are GantryErrors whose message is the runtime's own text (docker's wording is added in engine/).
 */

/** How a shim is started. */
export interface ShimStartOptions {
  /** Container ID; also the shim's ID. */
  readonly id: string;
  /** containerd namespace, e.g. `moby`. */
  readonly namespace: string;
  /** Directory with config.json (and rootfs). The shim runs with this as its working directory. */
  readonly bundle: string;
  /** Shim type as docker writes it (`io.containerd.runc.v2`) or an absolute path of a shim binary. */
  readonly shim: string;
  /** Debug output of the shim goes to the daemon's log. */
  readonly debug: boolean;
}

/** Options of the runc shim (containerd.runc.v1.Options). */
export interface RuncOptions {
  readonly binaryName?: string;
  readonly root?: string;
  readonly systemdCgroup?: boolean;
  readonly noNewKeyring?: boolean;
}

export interface Stdio {
  /** FIFO paths; empty string where the stream is not wanted. */
  readonly stdin: string;
  readonly stdout: string;
  readonly stderr: string;
  readonly terminal: boolean;
}

export interface CreateTaskOptions {
  readonly id: string;
  readonly bundle: string;
  readonly stdio: Stdio;
  readonly runc: RuncOptions;
}

export interface ExecTaskOptions {
  readonly id: string;
  readonly execId: string;
  readonly stdio: Stdio;
  /** OCI runtime-spec `process` object. */
  readonly process: object;
}

export interface ExitStatus {
  readonly exitStatus: number;
  /** RFC 3339 with nanoseconds. */
  readonly exitedAt: string;
}

export type TaskStatus = 'unknown' | 'created' | 'running' | 'stopped' | 'paused' | 'pausing';

export interface TaskState extends ExitStatus {
  readonly status: TaskStatus;
  readonly pid: number;
}

/** Events a shim publishes on its own. */
export type ShimEvent =
  | {
      readonly type: 'exit';
      readonly containerId: string;
      readonly execId: string;
      readonly pid: number;
      readonly exit: ExitStatus;
    }
  | { readonly type: 'oom'; readonly containerId: string };

/** A connected shim. Disposing closes the connection only; the shim and its tasks go on. */
export interface Shim extends AsyncDisposable {
  /** Address to hand to `ShimLauncher.connect` after a restart. */
  readonly address: string;
  readonly pid: number;
  /** Resolves when the connection is lost (shim died or was shut down). */
  readonly closed: Promise<void>;
  create(options: CreateTaskOptions, signal?: AbortSignal): Promise<{ pid: number }>;
  start(id: string, execId?: string, signal?: AbortSignal): Promise<{ pid: number }>;
  exec(options: ExecTaskOptions, signal?: AbortSignal): Promise<void>;
  /** Resolves when the process (of the task, or of the exec) has exited; also when it had already. */
  wait(id: string, execId?: string, signal?: AbortSignal): Promise<ExitStatus>;
  kill(id: string, signalNumber: number, options?: { execId?: string; all?: boolean }): Promise<void>;
  delete(id: string, execId?: string): Promise<ExitStatus>;
  state(id: string, execId?: string): Promise<TaskState>;
  /** All process IDs of the task, in the host's PID namespace. */
  pids(id: string): Promise<number[]>;
  pause(id: string): Promise<void>;
  resume(id: string): Promise<void>;
  resizePty(id: string, size: { width: number; height: number }, execId?: string): Promise<void>;
  closeStdin(id: string, execId?: string): Promise<void>;
  /** Applies OCI `linux.resources`. */
  update(id: string, resources: object): Promise<void>;
  /** Ends the shim when it has no task left. */
  shutdown(id: string): Promise<void>;
}

/** Starts and finds shims. */
export interface ShimLauncher extends AsyncDisposable {
  start(options: ShimStartOptions, signal?: AbortSignal): Promise<Shim>;
  /** Throws `unavailable` when nobody listens at the address. */
  connect(address: string, signal?: AbortSignal): Promise<Shim>;
  /** Cleans up after a shim that died: `<shim> delete` in the bundle. */
  cleanup(options: ShimStartOptions): Promise<void>;
  /** Events of all shims started by (or reporting to) this launcher. */
  subscribe(listener: (event: ShimEvent) => void): Disposable;
}
