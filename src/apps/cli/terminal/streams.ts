/**
 * Joins the user's terminal to a hijacked connection: raw mode, detach keys, window size, signal proxy,
 * half-close at the end of stdin.
 */
import type { Socket } from 'node:net';
import type { Writable } from 'node:stream';
import type { OutputChunk } from '#client/streams.ts';
import { ExitError } from '../args/usage-error.ts';
import { type Api, ApiError, type Hijacked } from '../connection/api.ts';

/** How a connection is joined. */
export interface JoinOptions {
  readonly tty: boolean;
  readonly stdin: boolean;
  readonly detachKeys: string;
}

/** Thrown when the user typed the detach keys. */
export class Detached extends Error {}

const DEFAULT_DETACH_KEYS = 'ctrl-p,ctrl-q';

/** `ctrl-p,ctrl-q` as bytes; throws with docker's text. */
export function parseDetachKeys(text: string): Buffer {
  const bytes = (text === '' ? DEFAULT_DETACH_KEYS : text).split(',').map((key) => {
    if ([...key].length === 1) return key.charCodeAt(0);
    const match = /^ctrl-([a-zA-Z@[\\\]^_])$/.exec(key);
    if (match === null) throw new ExitError(1, `invalid detach keys (${text}): Unknown character: '${key}'\n`);
    return (match[1] ?? '').toUpperCase().charCodeAt(0) & 31;
  });
  return Buffer.from(bytes);
}

/** Finds the detach sequence in typed bytes and holds back a possible beginning of it. */
export class DetachScanner {
  readonly #keys: Buffer;
  #matched = 0;

  constructor(keys: Buffer) {
    this.#keys = keys;
  }

  /** What to send on, and whether the sequence is complete. */
  push(chunk: Buffer): { output: Buffer; detached: boolean } {
    const out: number[] = [];
    for (const byte of chunk) {
      if (byte === this.#keys[this.#matched]) {
        if (++this.#matched === this.#keys.length) return { output: Buffer.from(out), detached: true };
        continue;
      }
      out.push(...this.#keys.subarray(0, this.#matched));
      this.#matched = byte === this.#keys[0] ? 1 : 0;
      if (this.#matched === 0) out.push(byte);
    }
    return { output: Buffer.from(out), detached: false };
  }
}

async function write(target: Writable, chunk: Buffer): Promise<void> {
  if (!target.write(chunk)) await new Promise<void>((resolve) => target.once('drain', resolve));
}

/** Copies a process's output to stdout and stderr until it ends. */
export async function copyOutput(output: AsyncIterable<OutputChunk>): Promise<void> {
  for await (const { stream, data } of output) await write(stream === 'stderr' ? process.stderr : process.stdout, data);
}

function pumpStdin(socket: Socket, options: JoinOptions): { detached: Promise<never>; stop: () => void } {
  const { promise, reject } = Promise.withResolvers<never>();
  promise.catch(() => undefined);
  const stdin = process.stdin;
  const scanner = options.tty ? new DetachScanner(parseDetachKeys(options.detachKeys)) : undefined;
  const onData = (chunk: Buffer): void => {
    const { output, detached } = scanner?.push(chunk) ?? { output: chunk, detached: false };
    if (output.length > 0 && !socket.write(output)) {
      stdin.pause();
      socket.once('drain', () => stdin.resume());
    }
    if (detached) reject(new Detached('read escape sequence'));
  };
  const onEnd = (): void => {
    socket.end();
  };
  stdin.on('data', onData).once('end', onEnd);
  if (options.tty && stdin.isTTY) stdin.setRawMode(true);
  stdin.resume();
  return {
    detached: promise,
    stop: () => {
      stdin.off('data', onData).off('end', onEnd);
      if (options.tty && stdin.isTTY) stdin.setRawMode(false);
      stdin.pause();
      stdin.unref?.();
    },
  };
}

/** Copies both ways until the output ends; rejects with Detached when the user detaches. */
export async function joinStreams(connection: Hijacked, options: JoinOptions): Promise<void> {
  const socket = connection.duplex;
  const input = options.stdin ? pumpStdin(socket, options) : undefined;
  socket.on('error', () => undefined);
  try {
    const output = copyOutput(connection.output(!options.tty));
    await (input === undefined ? output : Promise.race([output, input.detached]));
  } catch (error) {
    if ((error as { code?: string }).code !== 'ECONNRESET') throw error;
  } finally {
    input?.stop();
    socket.destroy();
  }
}

/** Refuses `-t` with input that is no terminal. */
export function checkTty(stdin: boolean, tty: boolean): void {
  if (stdin && tty && !process.stdin.isTTY) throw new ExitError(1, 'the input device is not a TTY\n');
}

/** Keeps the remote terminal at the size of this one; returns the function that stops it. */
export function followSize(api: Api, path: string): () => void {
  const resize = (): void => {
    const { rows, columns } = process.stdout;
    if (!rows || !columns) return;
    api.open('POST', path, { query: { h: rows, w: columns } }).then(
      (response) => response.resume(),
      () => undefined,
    );
  };
  resize();
  process.on('SIGWINCH', resize);
  return () => process.off('SIGWINCH', resize);
}

const NOT_PROXIED = new Set([
  'SIGKILL',
  'SIGSTOP',
  'SIGCHLD',
  'SIGPIPE',
  'SIGURG',
  'SIGPROF',
  'SIGWINCH',
  'SIGSEGV',
  'SIGILL',
  'SIGFPE',
  'SIGBUS',
  'SIGTRAP',
  'SIGVTALRM',
  'SIGIO',
  'SIGPOLL',
  'SIGUNUSED',
  'SIGIOT',
  'SIGABRT',
  'SIGSTKFLT',
  'SIGUSR1',
]);

/** Forwards this process's signals to the container; returns the function that stops it. */
export function proxySignals(api: Api, id: string): () => void {
  const signals = Object.keys(process.getBuiltinModule('node:os').constants.signals).filter(
    (name) => !NOT_PROXIED.has(name) || name === 'SIGUSR1',
  ) as NodeJS.Signals[];
  const forward = (signal: NodeJS.Signals): void => {
    api.open('POST', `/containers/${id}/kill`, { query: { signal: signal.slice(3) } }).then(
      (response) => response.resume(),
      (error: unknown) => {
        if (!(error instanceof ApiError)) throw error;
      },
    );
  };
  const installed: NodeJS.Signals[] = [];
  for (const signal of signals) {
    try {
      process.on(signal, forward);
      installed.push(signal);
    } catch {
      // Some signals cannot be caught.
    }
  }
  return () => {
    for (const signal of installed) process.off(signal, forward);
  };
}
