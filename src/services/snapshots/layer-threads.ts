/**
 * The threads that extract layers: as many as there are processors, within a limit, started when there is work and
 * ended when there was none for a while, so that an idle daemon has none.
 */
import { closeSync, openSync } from 'node:fs';
import { availableParallelism } from 'node:os';
import { pathToFileURL } from 'node:url';
import { Worker } from 'node:worker_threads';
import { GantryError } from '#types/errors.ts';
import type { LayerFile } from './contract.ts';
import type { ExtractedLayer, LayerAnswer, LayerTask } from './layer-worker.ts';

/** More threads than this wait for the disk, and each takes memory. */
const THREADS_MAX = 4;
/** An unused thread ends after this time. */
const IDLE_MS = 5_000;
/** JavaScript heap of one thread. */
const HEAP_MAX_MEBIBYTES = 128;
/** Of that, for short-lived objects: small, so that buffers are given back early. */
const YOUNG_MAX_MEBIBYTES = 4;

/** The thread's file: beside this one in the sources, beside the bundle's entry in a bundle. */
function layerWorker(): URL {
  if (import.meta.url.endsWith('.ts')) return new URL('./layer-worker.ts', import.meta.url);
  return new URL('layer-worker.mjs', pathToFileURL(process.argv[1] ?? ''));
}

interface Job {
  readonly task: LayerTask;
  readonly settle: (answer: LayerAnswer) => void;
}

interface Thread {
  readonly worker: Worker;
  job: Job | undefined;
  idle: NodeJS.Timeout | undefined;
}

function failure(error: unknown): LayerAnswer {
  return { kind: 'system', message: `the layer thread failed: ${String(error)}`, code: undefined };
}

/** A pool of layer threads. */
export class LayerThreads {
  readonly #limit = Math.max(1, Math.min(THREADS_MAX, availableParallelism()));
  readonly #threads = new Set<Thread>();
  readonly #queue: Job[] = [];

  /** Extracts a file, which may still grow, into `directory`. */
  async extract(file: LayerFile, directory: string, signal?: AbortSignal): Promise<ExtractedLayer> {
    signal?.throwIfAborted();
    const { growth, hashFile = false } = file;
    const fileFd = openSync(file.path, 'r');
    const abandon = (): void => growth.abandon();
    signal?.addEventListener('abort', abandon, { once: true });
    try {
      const answer = await this.#run({ task: 'extract', fileFd, memory: growth.memory, directory, hashFile });
      signal?.throwIfAborted();
      if ('extracted' in answer) return answer.extracted;
      throw errorOf(answer);
    } finally {
      signal?.removeEventListener('abort', abandon);
      closeSync(fileFd);
    }
  }

  /** Writes the file system of `directory` to the disk. */
  async sync(directory: string): Promise<void> {
    const answer = await this.#run({ task: 'sync', directory });
    if (!('synced' in answer)) throw errorOf(answer);
  }

  #run(task: LayerTask): Promise<LayerAnswer> {
    const { promise, resolve } = Promise.withResolvers<LayerAnswer>();
    this.#queue.push({ task, settle: resolve });
    this.#dispatch();
    return promise;
  }

  #dispatch(): void {
    while (this.#queue.length > 0) {
      let thread = [...this.#threads].find(({ job }) => job === undefined);
      if (thread === undefined && this.#threads.size < this.#limit) thread = this.#start();
      if (thread === undefined) return;
      clearTimeout(thread.idle);
      thread.worker.ref();
      thread.job = this.#queue.shift() as Job;
      thread.worker.postMessage(thread.job.task);
    }
  }

  #start(): Thread {
    const worker = new Worker(layerWorker(), {
      resourceLimits: { maxOldGenerationSizeMb: HEAP_MAX_MEBIBYTES, maxYoungGenerationSizeMb: YOUNG_MAX_MEBIBYTES },
      // Descriptors opened by native calls are closed by those who opened them.
      trackUnmanagedFds: false,
    });
    const thread: Thread = { worker, job: undefined, idle: undefined };
    this.#threads.add(thread);
    const finish = (answer: LayerAnswer): void => {
      const { job } = thread;
      thread.job = undefined;
      job?.settle(answer);
    };
    worker.on('message', (answer: LayerAnswer) => {
      finish(answer);
      this.#rest(thread);
      this.#dispatch();
    });
    worker.on('error', (error) => finish(failure(error)));
    worker.on('exit', (code) => {
      clearTimeout(thread.idle);
      this.#threads.delete(thread);
      finish(failure(`exit status ${code}`));
      this.#dispatch();
    });
    return thread;
  }

  #rest(thread: Thread): void {
    // A daemon that ends does not wait for an unused thread.
    thread.worker.unref();
    thread.idle = setTimeout(() => {
      this.#threads.delete(thread);
      void thread.worker.terminate();
    }, IDLE_MS);
    thread.idle.unref();
  }
}

function errorOf(answer: LayerAnswer): Error {
  if (!('kind' in answer)) return new Error('the layer thread answered another question');
  const cause = answer.code === undefined ? undefined : Object.assign(new Error(answer.message), { code: answer.code });
  return new GantryError(answer.kind, answer.message, cause === undefined ? {} : { cause });
}
