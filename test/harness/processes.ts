/**
 * Runs programs for tests: captured output, input, a time limit, and optionally a terminal.
 * A program that outlives its limit is killed and the call fails, so no test leaves one behind.
 */
import { type ChildProcessWithoutNullStreams, spawn } from 'node:child_process';
import { once } from 'node:events';

/** Longest any one command of a test may take. */
const COMMAND_TIMEOUT_MS = 60_000;

export interface RunOptions {
  readonly input?: string | Buffer;
  /** Leave standard input open until the process ends. */
  readonly holdInput?: boolean;
  readonly env?: Readonly<Record<string, string>>;
  readonly cwd?: string;
  readonly timeoutMs?: number;
}

/** What a finished process left. */
export interface Result {
  readonly code: number;
  readonly stdout: string;
  readonly stderr: string;
  readonly stdoutBytes: Buffer;
}

/** A started process whose output is being collected. */
export class Running {
  readonly child: ChildProcessWithoutNullStreams;
  readonly done: Promise<Result>;
  #stdout: Buffer[] = [];
  #stderr: Buffer[] = [];

  constructor(file: string, args: readonly string[], options: RunOptions = {}) {
    this.child = spawn(file, args, { env: { ...process.env, ...options.env }, cwd: options.cwd, stdio: 'pipe' });
    const limit = options.timeoutMs ?? COMMAND_TIMEOUT_MS;
    let late = false;
    const timer = setTimeout(() => {
      late = true;
      this.child.kill('SIGKILL');
    }, limit);
    this.child.stdout.on('data', (chunk: Buffer) => this.#stdout.push(chunk));
    this.child.stderr.on('data', (chunk: Buffer) => this.#stderr.push(chunk));
    this.child.stdin.on('error', () => undefined);
    if (options.input !== undefined) this.child.stdin.write(options.input);
    if (options.holdInput !== true) this.child.stdin.end();
    this.done = once(this.child, 'close').then(([code, signal]) => {
      clearTimeout(timer);
      if (late)
        throw new Error(`${file} ${args.join(' ')} took longer than ${limit} ms; output so far:\n${this.output}`);
      const bytes = Buffer.concat(this.#stdout);
      return {
        code: signal === null ? Number(code) : 1000,
        stdout: bytes.toString(),
        stderr: Buffer.concat(this.#stderr).toString(),
        stdoutBytes: bytes,
      };
    });
    this.done.catch(() => undefined);
  }

  /** Both streams so far. */
  get output(): string {
    return Buffer.concat([...this.#stdout, ...this.#stderr]).toString();
  }

  get stdout(): string {
    return Buffer.concat(this.#stdout).toString();
  }

  type(text: string): void {
    this.child.stdin.write(text);
  }

  /** Waits until the output so far matches. */
  async shows(pattern: RegExp, timeoutMs: number = 15_000): Promise<string> {
    await eventually(() => pattern.test(this.output), { timeoutMs, what: () => `${pattern} in:\n${this.output}` });
    return this.output;
  }
}

/** Runs to the end. */
export function run(file: string, args: readonly string[], options: RunOptions = {}): Promise<Result> {
  return new Running(file, args, options).done;
}

/** Runs with a terminal of its own (util-linux `script` makes it). */
export function startInTerminal(file: string, args: readonly string[], options: RunOptions = {}): Running {
  const line = [file, ...args].map((word) => `'${word.replaceAll("'", "'\\''")}'`).join(' ');
  return new Running('script', ['-qefc', line, '/dev/null'], { ...options, holdInput: true });
}

export interface EventuallyOptions {
  readonly timeoutMs?: number;
  readonly what?: string | (() => string);
}

/** Polls until the condition holds; fails naming what was awaited. */
export async function eventually(
  condition: () => boolean | Promise<boolean>,
  options: EventuallyOptions = {},
): Promise<void> {
  const limit = options.timeoutMs ?? 15_000;
  const end = performance.now() + limit;
  while (!(await condition())) {
    if (performance.now() > end) {
      const what = typeof options.what === 'function' ? options.what() : (options.what ?? 'the condition');
      throw new Error(`waited ${limit} ms for ${what}`);
    }
    await new Promise((resolve) => setTimeout(resolve, 25));
  }
}
