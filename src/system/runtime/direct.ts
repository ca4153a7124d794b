/**
 * Starts the runc shim itself, without the helper process of the official start protocol: one program start less for
 * each container, and a Go runtime no larger than the shim's work asks for.
 *
 * Invariant: only for the shim whose ways are known, containerd 1.x's `containerd-shim-runc-v2`; what it finds (its
 * socket as descriptor 3, the `address` file, its working directory) is what its own helper would have given it.
 */
import { execFile, spawn } from 'node:child_process';
import { closeSync, existsSync, mkdirSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { basename, join } from 'node:path';
import { promisify } from 'node:util';
import { listenUnix } from '#system/kernel/socket.ts';
import type { ShimStartOptions } from './contract.ts';
import { connectShim, removeIfDead, type ShimAddress, type TaskShim } from './shim.ts';

const RUNC_SHIM = 'containerd-shim-runc-v2';
const KNOWN_VERSION = /^\s*Version:\s+v?1\./m;
/** sun_path, with its final NUL, has 108 bytes. */
const SOCKET_PATH_MAX_BYTES = 107;
const VERSION_TIMEOUT_MS = 10_000;
const VERSION_OUTPUT_MAX_BYTES = 64 * 1024;
/** Sockets looked at on start; more would mean something else is wrong. */
const MAX_SOCKETS = 10_000;
/** The kernel kills the shim a little sooner than us. */
const OOM_SCORE_STEP = 1;
const OOM_SCORE_MAX = 1000;

/** How the shim is run; the same as for its helper. */
export interface DirectStart {
  readonly binary: string;
  /** Flags both ways have in common. */
  readonly arguments: readonly string[];
  readonly environment: NodeJS.ProcessEnv;
  /** Where its socket is made. */
  readonly socketDirectory: string;
}

/** Whether this binary may be started so. Asks it for its version. */
export async function isKnownShim(binary: string): Promise<boolean> {
  if (basename(binary) !== RUNC_SHIM) return false;
  try {
    const limits = { timeout: VERSION_TIMEOUT_MS, maxBuffer: VERSION_OUTPUT_MAX_BYTES };
    const { stdout } = await promisify(execFile)(binary, ['-v'], limits);
    return KNOWN_VERSION.test(stdout);
  } catch {
    return false;
  }
}

/** Whether a socket for this shim has a path the kernel takes. */
export function directSocketPath(directory: string, id: string): string | undefined {
  const path = join(directory, id.slice(0, 32));
  return Buffer.byteLength(path) <= SOCKET_PATH_MAX_BYTES ? path : undefined;
}

/** Removes sockets nobody listens on: a daemon and its shim may have been killed before either could. */
export async function removeDeadSockets(directory: string): Promise<void> {
  if (!existsSync(directory)) return;
  for (const name of readdirSync(directory).slice(0, MAX_SOCKETS)) await removeIfDead(join(directory, name));
}

/**
 * Starts the shim and connects. The socket is listened on before the shim exists, so that the connection waits for it
 * in the kernel and nothing is polled. Nothing remains when it fails.
 */
export async function startDirectly(
  options: ShimStartOptions,
  path: string,
  start: DirectStart,
  signal: AbortSignal,
): Promise<TaskShim> {
  const address: ShimAddress = { path, version: 2 };
  mkdirSync(start.socketDirectory, { recursive: true, mode: 0o700 });
  rmSync(path, { force: true });
  // Before the socket: the shim removes it by this note when it ends, and so do we when it was killed.
  writeFileSync(join(options.bundle, 'address'), `unix://${path}`, { mode: 0o600 });
  const listener = listenUnix(path);
  let child: ReturnType<typeof spawn> | undefined;
  try {
    child = spawn(start.binary, start.arguments, {
      cwd: options.bundle,
      // One thread of Go at a time is enough for what it does, and a quarter of its memory less.
      env: { ...start.environment, GOMAXPROCS: '1' },
      // A process group of its own: it outlives us, and signals to us are not for it.
      detached: true,
      stdio: ['ignore', 'ignore', 'ignore', listener],
    });
    child.unref();
    child.on('error', () => undefined);
    if (child.pid !== undefined) raiseOomScore(child.pid);
  } finally {
    closeSync(listener);
  }
  try {
    return await connectShim(address, options.namespace, signal);
  } catch (error) {
    child.kill('SIGKILL');
    rmSync(path, { force: true });
    throw error;
  }
}

function raiseOomScore(pid: number): void {
  try {
    const own = Number(readFileSync('/proc/self/oom_score_adj', 'utf8'));
    writeFileSync(`/proc/${pid}/oom_score_adj`, String(Math.min(own + OOM_SCORE_STEP, OOM_SCORE_MAX)));
  } catch {
    // It ended, or this host does not let us.
  }
}
