/**
 * Checks passwords against bcrypt hashes in a worker, started at the first check. The queue is bounded: guesses are
 * refused, not stored up. A success is remembered for a while under a keyed hash, never as text.
 */
import { createHmac, randomBytes } from 'node:crypto';
import { pathToFileURL } from 'node:url';
import { Worker } from 'node:worker_threads';
import { DistributionError } from '#types/distribution-error.ts';

/** Checks waiting for the worker: a few seconds' worth. */
const MAX_WAITING = 64;
/** How long a password that was right is taken without a new check. */
const REMEMBER_MS = 5 * 60_000;
const MAX_REMEMBERED = 1000;

function workerScript(): URL {
  if (import.meta.url.endsWith('.ts')) return new URL('./bcrypt-worker.ts', import.meta.url);
  return new URL('bcrypt-worker.mjs', pathToFileURL(process.argv[1] ?? ''));
}

/** Answers whether a password has a hash. */
export class PasswordChecker implements AsyncDisposable {
  readonly #key = randomBytes(32);
  readonly #remembered = new Map<string, number>();
  readonly #waiting = new Map<number, PromiseWithResolvers<boolean>>();
  #worker: Worker | undefined;
  #next = 0;

  /** Whether `password` belongs to `hash`. Throws TOOMANYREQUESTS. */
  async check(password: string, hash: string): Promise<boolean> {
    const key = createHmac('sha256', this.#key).update(`${hash}\0${password}`).digest('base64');
    const until = this.#remembered.get(key);
    if (until !== undefined && until > performance.now()) return true;
    if (!(await this.#compare(password, hash))) return false;
    this.#remembered.set(key, performance.now() + REMEMBER_MS);
    const [oldest] = this.#remembered.keys();
    if (this.#remembered.size > MAX_REMEMBERED && oldest !== undefined) this.#remembered.delete(oldest);
    return true;
  }

  #compare(password: string, hash: string): Promise<boolean> {
    if (this.#waiting.size >= MAX_WAITING) {
      throw new DistributionError('TOOMANYREQUESTS', { message: 'too many logins at once' });
    }
    const answer = Promise.withResolvers<boolean>();
    const id = this.#next++;
    this.#waiting.set(id, answer);
    this.#worker ??= this.#start();
    this.#worker.postMessage({ id, password, hash });
    return answer.promise;
  }

  #start(): Worker {
    const worker = new Worker(workerScript());
    worker.unref();
    worker.on('message', ({ id, isEqual }: { id: number; isEqual: boolean }) => {
      this.#waiting.get(id)?.resolve(isEqual);
      this.#waiting.delete(id);
    });
    worker.on('error', (error) => {
      this.#worker = undefined;
      for (const answer of this.#waiting.values()) answer.reject(error);
      this.#waiting.clear();
    });
    return worker;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.#worker?.terminate();
  }
}
