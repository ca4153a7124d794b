/**
 * `docker push`: each layer is skipped, mounted from another repository or uploaded, several at once; then the configs,
 * the manifests, and last the tag. An image that came from a registry goes out with the manifest it came with.
 */
import { gzipLayer } from '#services/images/gzip-layer.ts';
import type { LayerPlace, RegistryRecords } from '#services/images/registry-records.ts';
import type { ImageStore } from '#services/images/store.ts';
import type { RegistryClient, RegistryCredentials, RemoteRepository } from '#system/registry-http/contract.ts';
import { RemoteRegistryError } from '#system/registry-http/errors.ts';
import { type Digest, digestHex } from '#types/digest.ts';
import { GantryError } from '#types/errors.ts';
import { shortId } from '#types/ids.ts';
import type { Platform } from '#types/platform.ts';
import { canonicalName, familiarName, familiarString, isNameOnly, nameOnly, type Reference } from '#types/reference.ts';
import { resolveForPlatform } from './inspect.ts';
import { progressMessage, retryText, type WriteProgress } from './progress.ts';
import { pullError } from './pull.ts';
import { type ImagePush, type LayerPush, makeManifest, type PushedLayer, planTag, type TagPush } from './push-plan.ts';
import { type EmitEvent, imageAttributes } from './remove.ts';

/** Repositories tried to mount one layer from (docker's most). */
const MOUNT_ATTEMPTS_LIMIT = 4;
/** Digests looked for in the target, for a layer that is compressed on the way (docker's most). */
const LOOKUP_LIMIT = 3;
/** Bars move at most this often. */
const STEP_INTERVAL_MS = 100;

export interface PushContext {
  readonly images: ImageStore;
  readonly records: RegistryRecords;
  readonly registries: RegistryClient;
  /** Layers uploaded at once; read at each use. */
  readonly uploads: () => number;
  readonly emit: EmitEvent;
}

export interface PushOptions {
  /** With a tag, or the name alone for all tags. */
  readonly reference: Reference;
  readonly platform?: Platform;
  readonly credentials: RegistryCredentials;
  readonly metaHeaders?: Readonly<Record<string, string>>;
  readonly write: WriteProgress;
}

/** Pushes a tag or all tags of a name. */
export async function pushImage(context: PushContext, options: PushOptions, signal: AbortSignal): Promise<void> {
  const { images, registries, emit } = context;
  const { reference, credentials, metaHeaders = {}, write, platform } = options;
  if (platform !== undefined && !isNameOnly(reference)) {
    resolveForPlatform(images, familiarString(reference), platform);
  }
  await write({ status: `The push refers to repository [${canonicalName(reference)}]` });
  if (images.referencesByName(reference).length === 0) {
    throw new GantryError('system', `An image does not exist locally with the tag: ${familiarName(reference)}`);
  }
  const access = { domain: reference.domain, path: reference.path, credentials, metaHeaders };
  try {
    await registries.push(access, (repository) => new Push(context, options, { repository, signal }).run(), signal);
  } catch (error) {
    throw pullError(error, reference);
  }
  const image = images.named(reference);
  const attributes = imageAttributes(image === undefined ? undefined : images.get(image), familiarName(reference));
  emit('image', 'push', familiarString(reference), attributes);
}

class Push {
  readonly #context: PushContext;
  readonly #options: PushOptions;
  readonly #repository: RemoteRepository;
  readonly #signal: AbortSignal;
  /** Layers known to be in the target, by diffID and digest. */
  readonly #done = new Map<string, PushedLayer>();

  constructor(context: PushContext, options: PushOptions, at: { repository: RemoteRepository; signal: AbortSignal }) {
    this.#context = context;
    this.#options = options;
    this.#repository = at.repository;
    this.#signal = at.signal;
  }

  async run(): Promise<void> {
    const { reference } = this.#options;
    const { images } = this.#context;
    if (reference.digest !== undefined) throw new GantryError('system', 'cannot push a digest reference');
    if (reference.tag !== undefined) {
      const image = images.named(reference);
      if (image === undefined) throw new GantryError('system', `tag does not exist: ${familiarString(reference)}`);
      return this.#tag(reference, image);
    }
    const tagged = images.referencesByName(reference).filter((entry) => entry.reference.tag !== undefined);
    if (tagged.length === 0) throw new GantryError('system', `no tags to push for ${familiarName(reference)}`);
    for (const entry of tagged) await this.#tag(entry.reference, entry.image);
  }

  async #tag(reference: Reference, id: Digest): Promise<void> {
    const { images, records } = this.#context;
    const image = images.get(id);
    if (image === undefined)
      throw new GantryError('system', `could not find image from tag ${familiarString(reference)}`);
    const wholeIndex = this.#options.platform === undefined;
    const plan = planTag({ images, records }, image, { reference, wholeIndex });
    // What is being pushed must not be collected meanwhile.
    using hold = images.hold();
    for (const { layers } of plan.images) for (const { blob } of layers) hold.lease.digests.add(blob.digest);
    await this.#layers(plan);
    const tag = reference.tag ?? 'latest';
    const sent = await this.#manifests(plan, tag);
    await this.#options.write({ status: `${tag}: digest: ${sent.digest} size: ${sent.sizeBytes}` });
    images.addReference({ ...nameOnly(reference), digest: sent.digest }, id);
    await this.#options.write({ progressDetail: {}, aux: { Tag: tag, Digest: sent.digest, Size: sent.sizeBytes } });
  }

  async #manifests(plan: TagPush, tag: string): Promise<{ digest: Digest; sizeBytes: number }> {
    const { images } = this.#context;
    let last: { digest: Digest; sizeBytes: number } | undefined;
    for (const push of plan.images) {
      await this.#config(push.image.id);
      const manifest = push.manifest ?? this.#made(push);
      const at = plan.index === undefined ? tag : push.manifest?.digest;
      const digest = await this.#repository.putManifest(at ?? tag, manifest, this.#signal);
      images.setManifest(push.image.id, manifest.mediaType, manifest.bytes);
      last = { digest, sizeBytes: manifest.bytes.length };
    }
    if (plan.index !== undefined) {
      const digest = await this.#repository.putManifest(tag, plan.index, this.#signal);
      last = { digest, sizeBytes: plan.index.bytes.length };
    }
    if (last === undefined) throw new GantryError('system', 'nothing to push');
    return last;
  }

  #made(push: ImagePush): { mediaType: string; bytes: Buffer } {
    const config = { digest: push.image.id, sizeBytes: this.#context.images.configBytes(push.image.id).length };
    return makeManifest(
      config,
      push.layers.map((layer) => this.#done.get(keyOf(layer)) as PushedLayer),
    );
  }

  async #config(id: Digest): Promise<void> {
    if ((await this.#repository.blobSize(id, this.#signal)) !== undefined) return;
    const bytes = this.#context.images.configBytes(id);
    const open = async function* (): AsyncGenerator<Buffer> {
      yield bytes;
    };
    await this.#repository.uploadBlob({ digest: id, sizeBytes: bytes.length, open }, this.#signal);
  }

  /** Brings all layers of a plan to the registry; the first failure ends the others. */
  async #layers(plan: TagPush): Promise<void> {
    const wanted = new Map(plan.images.flatMap(({ layers }) => layers).map((layer) => [keyOf(layer), layer]));
    // Compat: docker tells of the top layer first.
    const queue = [...wanted.values()].reverse();
    for (const layer of queue) await this.#say(layer, 'Preparing');
    const limit = Math.max(1, this.#context.uploads());
    for (const layer of queue.slice(limit)) await this.#say(layer, 'Waiting');
    const failed = new AbortController();
    const signal = AbortSignal.any([this.#signal, failed.signal]);
    const worker = async (): Promise<void> => {
      for (let layer = queue.shift(); layer !== undefined; layer = queue.shift()) {
        signal.throwIfAborted();
        await this.#layer(layer, signal);
      }
    };
    const workers = Array.from({ length: Math.min(limit, queue.length) }, () =>
      worker().catch((error: unknown) => {
        failed.abort(bareError(error));
        throw error;
      }),
    );
    await Promise.allSettled(workers);
    // The first failure is the one to tell; the others followed from it.
    signal.throwIfAborted();
  }

  #say(layer: LayerPush, status: string): Promise<void> | void {
    return this.#options.write({ status, progressDetail: {}, id: nameOf(layer) });
  }

  async #layer(layer: LayerPush, signal: AbortSignal): Promise<void> {
    if (this.#done.has(keyOf(layer))) return this.#say(layer, 'Layer already exists');
    const known = this.#known(layer);
    for (const place of known.slice(0, LOOKUP_LIMIT)) {
      const sizeBytes = await this.#repository.blobSize(place.digest, signal);
      if (sizeBytes === undefined) continue;
      this.#settle(layer, { digest: place.digest, sizeBytes: place.sizeBytes });
      return this.#say(layer, 'Layer already exists');
    }
    const mounted = await this.#mount(layer, known, signal);
    if (mounted !== undefined) {
      this.#settle(layer, mounted);
      return this.#say(layer, `Mounted from ${mounted.from}`);
    }
    this.#settle(layer, await this.#upload(layer, signal));
    return this.#say(layer, 'Pushed');
  }

  /** Digests the layer may have at a registry, each once; the target's own first. */
  #known(layer: LayerPush): LayerPlace[] {
    const target = canonicalName(this.#options.reference);
    const { digest, sizeBytes } = layer.blob;
    if (!layer.isCompressed) return [{ digest, sizeBytes, repository: target }];
    const places = this.#context.records.places(layer.diffId).filter((place) => place.digest !== digest);
    places.sort((a, b) => Number(b.repository === target) - Number(a.repository === target));
    return [...new Map(places.map((place) => [place.digest, place])).values()];
  }

  async #mount(
    layer: LayerPush,
    known: readonly LayerPlace[],
    signal: AbortSignal,
  ): Promise<(LayerPlace & { from: string }) | undefined> {
    const { reference } = this.#options;
    const prefix = `${reference.domain}/`;
    const candidates = this.#context.records
      .places(layer.diffId)
      .filter(({ repository, digest }) => {
        if (!repository.startsWith(prefix) || repository === canonicalName(reference)) return false;
        return known.some((place) => place.digest === digest);
      })
      .slice(0, MOUNT_ATTEMPTS_LIMIT);
    for (const place of candidates) {
      const from = place.repository.slice(prefix.length);
      if (await this.#repository.mountBlob(place.digest, from, signal)) return { ...place, from };
      this.#context.records.removePlace(layer.diffId, place);
    }
    return undefined;
  }

  async #upload(layer: LayerPush, signal: AbortSignal): Promise<{ digest: Digest; sizeBytes: number }> {
    const { content } = this.#context.images;
    const { digest, sizeBytes } = layer.blob;
    const report = this.#reporter(layer);
    const onRetry = (pauseMs: number): void => {
      const said = this.#say(layer, retryText(Math.ceil(pauseMs / 1000)));
      void Promise.resolve(said).catch(() => undefined);
    };
    const read = (): AsyncIterable<Buffer> => content.read(digest);
    if (!layer.isCompressed) {
      return this.#repository.uploadBlob({ open: read, digest, sizeBytes, onProgress: report, onRetry }, signal);
    }
    return this.#repository.uploadBlob({ open: () => gzipLayer(counted(read(), report)), onRetry }, signal);
  }

  #reporter(layer: LayerPush): (currentBytes: number) => void {
    let shown = Number.NEGATIVE_INFINITY;
    const total = layer.blob.sizeBytes;
    return (current) => {
      const now = performance.now();
      if (current < total && now - shown < STEP_INTERVAL_MS) return;
      shown = now;
      // A slow client must not hold the upload; what it did not take is dropped with its connection.
      void Promise.resolve(this.#options.write(progressMessage(nameOf(layer), 'Pushing', { current, total }))).catch(
        () => undefined,
      );
    };
  }

  #settle(layer: LayerPush, stored: { digest: Digest; sizeBytes: number }): void {
    const { digest, sizeBytes } = stored;
    this.#done.set(keyOf(layer), { digest, sizeBytes, isZstd: layer.blob.compression === 'zstd' });
    const repository = canonicalName(this.#options.reference);
    this.#context.records.addPlace(layer.diffId, { digest, sizeBytes, repository });
  }
}

const keyOf = (layer: LayerPush): string => `${layer.diffId} ${layer.isCompressed ? 'gzip' : layer.blob.digest}`;
const nameOf = (layer: LayerPush): string => shortId(digestHex(layer.diffId));

/** Compat: of missing credentials docker tells without the request that wanted them. */
function bareError(error: unknown): unknown {
  return error instanceof RemoteRegistryError && error.code === 'NO_CREDENTIALS' ? (error.cause ?? error) : error;
}

async function* counted(source: AsyncIterable<Buffer>, report: (bytes: number) => void): AsyncGenerator<Buffer> {
  let current = 0;
  for await (const chunk of source) {
    current += chunk.length;
    yield chunk;
    report(current);
  }
}
