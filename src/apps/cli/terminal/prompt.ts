/** Questions to the user: a line, a line that is not shown, yes or no. */
import { ExitError } from '../args/usage-error.ts';

/** An answer longer than this is not typed. */
const MAX_ANSWER_BYTES = 64 * 1024;
const INTERRUPTED_CODE = 130;
const INTERRUPT = 3;
const END_OF_INPUT = 4;
const BACKSPACES: ReadonlySet<number> = new Set([8, 127]);
const LINE_ENDS: ReadonlySet<number> = new Set([10, 13]);

interface Typed {
  readonly bytes: number[];
  readonly done: boolean;
}

function takeTyped(bytes: number[], chunk: Buffer, raw: boolean): Typed & { readonly rest: Buffer } {
  for (const [index, byte] of chunk.entries()) {
    if (LINE_ENDS.has(byte)) return { bytes, done: true, rest: chunk.subarray(index + 1) };
    if (raw && byte === INTERRUPT) throw new ExitError(INTERRUPTED_CODE);
    if (raw && byte === END_OF_INPUT) return { bytes, done: true, rest: chunk.subarray(index + 1) };
    if (raw && BACKSPACES.has(byte)) bytes.pop();
    else bytes.push(byte);
    if (bytes.length > MAX_ANSWER_BYTES) throw new ExitError(1, 'the answer is too long\n');
  }
  return { bytes, done: false, rest: Buffer.alloc(0) };
}

/** Asks, and reads one line; what follows it stays for the next question. */
async function readLine(message: string, raw: boolean): Promise<string> {
  const input = process.stdin;
  const { promise, resolve, reject } = Promise.withResolvers<string>();
  let typed: number[] = [];
  const finish = (): void => resolve(Buffer.from(typed).toString('utf8').trim());
  const onData = (chunk: Buffer): void => {
    try {
      const taken = takeTyped(typed, chunk, raw);
      typed = taken.bytes;
      if (!taken.done) return;
      input.off('data', onData).pause();
      if (taken.rest.length > 0) input.unshift(taken.rest);
      finish();
    } catch (error) {
      reject(error as Error);
    }
  };
  input.on('data', onData).once('end', finish);
  // The terminal stops showing what is typed before the question is there to be answered.
  if (raw) input.setRawMode(true);
  process.stdout.write(message);
  input.ref?.();
  input.resume();
  try {
    return await promise;
  } finally {
    input.off('data', onData).off('end', finish).pause();
    if (raw) input.setRawMode(false);
    // A paused terminal must not keep the process.
    input.unref?.();
  }
}

/** Asks for a line. */
export async function ask(message: string): Promise<string> {
  return await readLine(message, false);
}

/** Asks for a line that the terminal does not show. */
export async function askSecret(message: string): Promise<string> {
  return await readLine(message, process.stdin.isTTY);
}

/** Asks a yes/no question; only `y` agrees. */
export async function confirm(question: string): Promise<boolean> {
  return (await ask(`${question} [y/N] `)).toLowerCase() === 'y';
}
