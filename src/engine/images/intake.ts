/**
 * Taking an image's layers in, wherever they come from: each becomes a blob of the content store and a committed
 * snapshot over the one before it. Bytes are verified against the blob's digest and size, the uncompressed tar
 * against the diffID; what is here already (by chainID, or by blob) is not opened. Several layers come at once, and
 * one that several callers want comes once; they are committed together.
 */
import type { ImageStore, LayerHold } from '#services/images/store.ts';
import type { TarCodec } from '#services/images/tar-codec.ts';
import type { Digest } from '#types/digest.ts';
import { GantryError } from '#types/errors.ts';
import {
  applyBlob,
  chainUnder,
  checkStaged,
  commitBlobs,
  LAYER_DEPTH_LIMIT,
  PROGRESS_INTERVAL_MS,
  type StagedBlob,
} from './layer.ts';
import { type ArrivedLayer, flightKey, Gate, LayerFlight } from './layer-flight.ts';

/** One layer to take in. */
export interface LayerSource {
  /** Digest and size of the bytes as they travel, e.g. of a manifest's descriptor. */
  readonly digest: Digest;
  readonly sizeBytes: number;
  /** Digest of the uncompressed tar, from the image's config. */
  readonly diffId: Digest;
  /** The bytes from `offset` on. Called again, with what is there already, when a transfer breaks. */
  open(offset: number, signal: AbortSignal): Promise<AsyncIterable<Buffer>>;
}

/** What is told of one layer while it is taken in; the use-case words it for its client. */
export type LayerStep =
  | { readonly step: 'exists' }
  | { readonly step: 'waiting' }
  | { readonly step: 'downloading' | 'extracting'; readonly current: number; readonly total: number }
  | { readonly step: 'verifying' | 'downloaded' | 'complete' }
  | { readonly step: 'retrying'; readonly seconds: number };

export interface IntakeOptions {
  readonly images: ImageStore;
  readonly tar: TarCodec;
  /** Keeps layers and blobs until the image that needs them is recorded. */
  readonly hold: LayerHold;
  readonly observe: (layer: LayerSource, step: LayerStep) => Promise<void> | void;
  /** Layers downloaded at once, over all callers; the last caller's word counts (`--max-concurrent-downloads`). */
  readonly maxDownloads?: number;
  /** Attempts for one layer (`--max-download-attempts`). */
  readonly maxAttempts?: number;
  /** One second of waiting before a further attempt; for tests. */
  readonly secondMs?: number;
}

/** Compat: dockerd's defaults. */
const DOWNLOADS_MAX = 3;
const ATTEMPTS_MAX = 5;

/** What the callers of one store share. */
interface Shared {
  readonly downloads: Gate;
  readonly flights: Map<string, LayerFlight>;
}

const sharedByStore = new WeakMap<ImageStore, Shared>();

function sharedOf(images: ImageStore): Shared {
  const known = sharedByStore.get(images);
  if (known !== undefined) return known;
  const shared: Shared = { downloads: new Gate(DOWNLOADS_MAX), flights: new Map() };
  sharedByStore.set(images, shared);
  return shared;
}

/** A layer of this call that is not here yet. */
interface Pending {
  readonly layer: LayerSource;
  readonly flight: LayerFlight;
}

/** Tells the caller steps in order, one at a time; its failure (a client that is gone) ends the intake. */
class Teller {
  readonly failed: AbortController = new AbortController();
  readonly #observe: IntakeOptions['observe'];
  #last: Promise<void> = Promise.resolve();
  #waiting = 0;

  constructor(observe: IntakeOptions['observe']) {
    this.#observe = observe;
  }

  /** Steps that only say how far something is are left out while the caller has not taken the ones before. */
  tell(layer: LayerSource, step: LayerStep): void {
    if (this.#waiting > 0 && 'current' in step && step.current < step.total) return;
    this.#waiting += 1;
    this.#last = this.#last
      .then(() => (this.failed.signal.aborted ? undefined : this.#observe(layer, step)))
      .catch((error: unknown) => this.failed.abort(error))
      .finally(() => {
        this.#waiting -= 1;
      });
  }

  /** Everything was told. */
  async drain(): Promise<void> {
    await this.#last;
    this.failed.signal.throwIfAborted();
  }
}

/** Takes layers in, lowest first. When it returns, the whole chain is committed and held by `options.hold`. */
export async function takeInLayers(
  layers: readonly LayerSource[],
  options: IntakeOptions,
  signal: AbortSignal,
): Promise<void> {
  if (layers.length > LAYER_DEPTH_LIMIT) throw new GantryError('invalid', 'max depth exceeded');
  const teller = new Teller(options.observe);
  const ended = AbortSignal.any([signal, teller.failed.signal]);
  await using joined = new AsyncDisposableStack();
  const { parent, missing } = await splitPresent(layers, options, teller);
  const pending = missing.map((layer) => join(layer, options, { teller, joined }));
  await commitInOrder(pending, { ...options, parent, teller }, ended);
  await teller.drain();
}

/** Passes over the layers that are here, telling them; the rest, and what it lies on. */
async function splitPresent(
  layers: readonly LayerSource[],
  { images, hold }: IntakeOptions,
  teller: Teller,
): Promise<{ parent: Digest | undefined; missing: readonly LayerSource[] }> {
  let parent: Digest | undefined;
  for (const [index, layer] of layers.entries()) {
    const chainId = chainUnder(parent, layer.diffId);
    hold.layers.add(chainId);
    if (images.snapshots.layer(chainId) === undefined || images.layerBlob(layer.diffId) === undefined)
      return { parent, missing: layers.slice(index) };
    teller.tell(layer, { step: 'exists' });
    parent = chainId;
  }
  return { parent, missing: [] };
}

/** Joins the flight of a layer, starting it where there is none. */
function join(
  layer: LayerSource,
  options: IntakeOptions,
  { teller, joined }: { teller: Teller; joined: AsyncDisposableStack },
): Pending {
  const { images, hold } = options;
  const { flights, downloads } = sharedOf(images);
  downloads.limit = options.maxDownloads ?? DOWNLOADS_MAX;
  hold.lease.digests.add(layer.digest);
  const known = images.layerBlob(layer.diffId);
  if (known !== undefined) hold.lease.digests.add(known.digest);
  const key = flightKey(layer);
  let flight = flights.get(key);
  if (flight === undefined) {
    const limits = { downloads, attempts: options.maxAttempts ?? ATTEMPTS_MAX, secondMs: options.secondMs ?? 1000 };
    const started: LayerFlight = new LayerFlight(layer, {
      images,
      limits,
      ended: () => {
        if (flights.get(key) === started) flights.delete(key);
      },
    });
    flight = started;
    flights.set(key, flight);
  }
  joined.use(flight.join((step) => teller.tell(layer, step)));
  return { layer, flight };
}

interface CommitOptions extends IntakeOptions {
  readonly parent: Digest | undefined;
  readonly teller: Teller;
}

/**
 * Commits layers when all have arrived, in one step: each step waits for the disk, behind all that is being written
 * there. Layers that need their parents' files are made one by one.
 */
async function commitInOrder(pending: readonly Pending[], options: CommitOptions, signal: AbortSignal): Promise<void> {
  let { parent } = options;
  const ahead = options.images.snapshots.stagesAhead;
  for (const each of pending) {
    await arrival(each, options.teller, signal);
    if (!ahead) parent = await commitRun([each], { ...options, parent }, signal);
  }
  if (ahead) await commitRun(pending, options, signal);
}

/** Waits for a layer whose turn it is, telling how far its extraction is. A failure of a later one shows at its turn. */
async function arrival({ layer, flight }: Pending, teller: Teller, signal: AbortSignal): Promise<ArrivedLayer> {
  signal.throwIfAborted();
  const { promise: gone, reject } = Promise.withResolvers<never>();
  const abort = (): void => reject(signal.reason);
  signal.addEventListener('abort', abort, { once: true });
  const timer = setInterval(() => {
    const { growth } = flight;
    if (growth.isComplete) teller.tell(layer, { step: 'extracting', current: growth.consumed, total: layer.sizeBytes });
  }, PROGRESS_INTERVAL_MS);
  try {
    return await Promise.race([flight.arrived, gone]);
  } finally {
    clearInterval(timer);
    signal.removeEventListener('abort', abort);
  }
}

/** Commits layers that have arrived, over `parent`; returns the new top. */
async function commitRun(
  run: readonly Pending[],
  options: CommitOptions,
  signal: AbortSignal,
): Promise<Digest | undefined> {
  const { images, tar, hold, teller } = options;
  let { parent } = options;
  const staged: StagedBlob[] = [];
  for (const { layer, flight } of run) {
    const total = layer.sizeBytes;
    const chainId = chainUnder(parent, layer.diffId);
    hold.layers.add(chainId);
    const arrived = await flight.arrived;
    if (arrived.staged === undefined) {
      const source = { images, tar, hold, parent, expected: layer.diffId };
      teller.tell(layer, { step: 'extracting', current: 0, total });
      await applyBlob(arrived.stored, source, signal);
    } else {
      checkStaged(arrived.staged, layer.diffId);
      staged.push({ stored: arrived.stored, staged: arrived.staged });
    }
    teller.tell(layer, { step: 'extracting', current: total, total });
    parent = chainId;
  }
  if (staged.length > 0) await commitBlobs(staged, { images, tar, hold, parent: options.parent }, signal);
  for (const { layer } of run) teller.tell(layer, { step: 'complete' });
  return parent;
}
