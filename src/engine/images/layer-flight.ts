/**
 * One layer on its way in, shared by everybody who wants it: its bytes are fetched once (again from where they broke
 * off, a limited number of times), verified, and extracted while they come. It ends when the last one leaves.
 */
import { setTimeout as delay } from 'node:timers/promises';
import type { Ingest } from '#services/content/contract.ts';
import type { ImageStore } from '#services/images/store.ts';
import type { StagedLayer } from '#services/snapshots/contract.ts';
import { FileGrowth } from '#system/disk/growing-file.ts';
import { RemoteRegistryError } from '#system/registry-http/errors.ts';
import type { Digest } from '#types/digest.ts';
import { errorKind, GantryError } from '#types/errors.ts';
import type { LayerSource, LayerStep } from './intake.ts';
import { PROGRESS_INTERVAL_MS, type StoredLayerSource, stageBlob } from './layer.ts';

/** Compat: dockerd waits this much longer before each further attempt. */
const RETRY_STEP_SECONDS = 5;
/** How often, and after which pause, a file that someone else still writes is asked for again. */
const INGEST_TRIES = 100;
const INGEST_PAUSE_MS = 100;

/** Lets a limited number of holders in, in the order they came. */
export class Gate {
  limit: number;
  #inside = 0;
  readonly #queue: (() => void)[] = [];

  constructor(limit: number) {
    this.limit = limit;
  }

  get isFull(): boolean {
    return this.#inside >= this.limit;
  }

  /** Waits for a place; dispose to give it up. */
  async enter(signal: AbortSignal): Promise<Disposable> {
    signal.throwIfAborted();
    if (this.isFull) {
      const { promise, resolve, reject } = Promise.withResolvers<void>();
      const abort = (): void => {
        this.#queue.splice(this.#queue.indexOf(resolve), 1);
        reject(signal.reason);
      };
      this.#queue.push(resolve);
      signal.addEventListener('abort', abort, { once: true });
      await promise;
      signal.removeEventListener('abort', abort);
    } else {
      this.#inside += 1;
    }
    let left = false;
    return {
      [Symbol.dispose]: () => {
        if (left) return;
        left = true;
        // The place is handed on: who waits is inside from now.
        const next = this.#queue.shift();
        if (next === undefined) this.#inside -= 1;
        else next();
      },
    };
  }
}

export interface FlightLimits {
  readonly downloads: Gate;
  readonly attempts: number;
  /** One second; shorter in tests. */
  readonly secondMs: number;
}

/** Where a layer's bytes are, and its files where they could be extracted ahead. */
export interface ArrivedLayer {
  readonly stored: StoredLayerSource;
  readonly staged: StagedLayer | undefined;
}

/** See the head of the file. */
export class LayerFlight {
  readonly arrived: Promise<ArrivedLayer>;
  /** How far extraction is in the layer's bytes, and of how many. */
  growth: FileGrowth = new FileGrowth();
  readonly #layer: LayerSource;
  readonly #images: ImageStore;
  readonly #limits: FlightLimits;
  readonly #ended: () => void;
  readonly #observers = new Set<(step: LayerStep) => void>();
  readonly #abort = new AbortController();
  #last: LayerStep | undefined;

  constructor(layer: LayerSource, context: { images: ImageStore; limits: FlightLimits; ended: () => void }) {
    this.#layer = layer;
    this.#images = context.images;
    this.#limits = context.limits;
    this.#ended = context.ended;
    // Begins a turn later, so that whoever asked for it can observe it from the start.
    this.arrived = Promise.resolve().then(() => this.#run(this.#abort.signal));
    this.arrived.catch(() => {});
  }

  /** Joins in; dispose the result to leave. */
  join(observe: (step: LayerStep) => void): AsyncDisposable {
    // A function of its own for everyone: the same one may join twice.
    const observer = (step: LayerStep): void => observe(step);
    this.#observers.add(observer);
    if (this.#last !== undefined) observer(this.#last);
    return { [Symbol.asyncDispose]: () => this.#leave(observer) };
  }

  async #leave(observer: (step: LayerStep) => void): Promise<void> {
    if (!this.#observers.delete(observer) || this.#observers.size > 0) return;
    this.#ended();
    this.#abort.abort(new DOMException('nobody wants this layer any more', 'AbortError'));
    const arrived = await this.arrived.catch(() => undefined);
    arrived?.staged?.[Symbol.dispose]();
  }

  #tell(step: LayerStep): void {
    this.#last = step;
    for (const observer of this.#observers) observer(step);
  }

  async #run(signal: AbortSignal): Promise<ArrivedLayer> {
    const present = this.#present();
    if (present === undefined) return this.#download(signal);
    this.#tell({ step: 'downloaded' });
    if (!this.#images.snapshots.stagesAhead) return { stored: present, staged: undefined };
    this.growth = FileGrowth.complete(present.sizeBytes);
    return { stored: present, staged: await stageBlob(this.#images, present, { growth: this.growth, signal }) };
  }

  /** The layer's bytes where they are here already, perhaps compressed in another way. */
  #present(): StoredLayerSource | undefined {
    const { content } = this.#images;
    const size = content.size(this.#layer.digest);
    if (size !== undefined) return { digest: this.#layer.digest, sizeBytes: size };
    const known = this.#images.layerBlob(this.#layer.diffId);
    return known !== undefined && content.has(known.digest) ? known : undefined;
  }

  async #download(signal: AbortSignal): Promise<ArrivedLayer> {
    const { snapshots } = this.#images;
    if (this.#limits.downloads.isFull) this.#tell({ step: 'waiting' });
    using _place = await this.#limits.downloads.enter(signal);
    await using ingest = await this.#openIngest(signal);
    this.growth = ingest.growth;
    const staging = snapshots.stagesAhead ? snapshots.stage(ingest, signal) : Promise.resolve(undefined);
    staging.catch(() => {});
    try {
      await this.#fetch(ingest, signal);
      this.#tell({ step: 'verifying' });
      const stored = await this.#verify(ingest);
      this.#tell({ step: 'downloaded' });
      _place[Symbol.dispose]();
      return { stored, staged: await staging };
    } catch (error) {
      ingest.growth.abandon();
      (await staging.catch(() => undefined))?.[Symbol.dispose]();
      throw error;
    }
  }

  /** A flight that was given up a moment ago may still be letting go of the file. */
  async #openIngest(signal: AbortSignal): Promise<Ingest> {
    const { digest, sizeBytes } = this.#layer;
    for (let tries = 1; ; tries += 1) {
      try {
        return await this.#images.content.ingest({ expected: { digest, sizeBytes } }, signal);
      } catch (error) {
        if (errorKind(error) !== 'conflict' || tries >= INGEST_TRIES) throw error;
        await delay(INGEST_PAUSE_MS, undefined, { signal });
      }
    }
  }

  async #verify(ingest: Ingest): Promise<StoredLayerSource> {
    try {
      return await ingest.commit();
    } catch (error) {
      if (!(error instanceof GantryError)) throw error;
      throw new GantryError('invalid', `filesystem layer verification failed for digest ${this.#layer.digest}`, {
        cause: error,
      });
    }
  }

  /** Fetches what is missing, going on where a transfer broke off. */
  async #fetch(ingest: Ingest, signal: AbortSignal): Promise<void> {
    for (let attempt = 1; ingest.offset < this.#layer.sizeBytes || attempt === 1; attempt += 1) {
      try {
        await this.#transfer(ingest, signal);
      } catch (error) {
        if (signal.aborted || !isTransient(error) || attempt >= this.#limits.attempts) throw error;
        await this.#pause(attempt * RETRY_STEP_SECONDS, signal);
      }
    }
  }

  async #transfer(ingest: Ingest, signal: AbortSignal): Promise<void> {
    const { sizeBytes: total, digest } = this.#layer;
    if (ingest.offset >= total && ingest.offset > 0) return;
    this.#tell({ step: 'downloading', current: ingest.offset, total });
    let told = performance.now();
    for await (const chunk of await this.#layer.open(ingest.offset, signal)) {
      signal.throwIfAborted();
      await ingest.append(chunk);
      if (performance.now() - told < PROGRESS_INTERVAL_MS) continue;
      told = performance.now();
      this.#tell({ step: 'downloading', current: ingest.offset, total });
    }
    signal.throwIfAborted();
    if (ingest.offset < total)
      throw new GantryError('unavailable', `layer ${digest} broke off after ${ingest.offset} of ${total} bytes`);
    this.#tell({ step: 'downloading', current: total, total });
  }

  async #pause(seconds: number, signal: AbortSignal): Promise<void> {
    for (let left = seconds; left > 0; left -= 1) {
      this.#tell({ step: 'retrying', seconds: left });
      await delay(this.#limits.secondMs, undefined, { signal });
    }
  }
}

/** What a full disk and a used-up quota answer: asking the registry again frees no space. */
const FULL_DISK_CODES: ReadonlySet<unknown> = new Set(['ENOSPC', 'EDQUOT']);

function isFullDisk(error: unknown): boolean {
  for (let at = error; at instanceof Error; at = at.cause) {
    if (FULL_DISK_CODES.has((at as NodeJS.ErrnoException).code)) return true;
  }
  return false;
}

/**
 * Whether trying again may help: not when the server said no, nor when the bytes are wrong, nor when our own disk is
 * full. Of the client errors only 408 passes by itself. Compat: 429 is final, as in docker; a pause that the registry
 * names with it was kept before it came here.
 */
export function isTransient(error: unknown): boolean {
  if (isFullDisk(error)) return false;
  const status = error instanceof RemoteRegistryError ? error.status : 0;
  if (status >= 400 && status < 500) return status === 408;
  return !['invalid', 'unauthorized', 'forbidden', 'notFound', 'notImplemented', 'tooManyRequests'].includes(
    errorKind(error),
  );
}

/** Flights by what they carry. */
export function flightKey(layer: { digest: Digest; diffId: Digest }): string {
  return `${layer.digest} ${layer.diffId}`;
}
