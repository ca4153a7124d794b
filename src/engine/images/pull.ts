/**
 * `docker pull`: a reference is resolved at the registry, its manifest (of an index: the entry for the platform) is
 * fetched unless it is here, its layers are taken in, and only then is the image recorded and named.
 */
import { parseImageConfig } from '#services/images/config.ts';
import type { RegistryRecords, StoredManifest } from '#services/images/registry-records.ts';
import type { ImageStore } from '#services/images/store.ts';
import type { TarCodec } from '#services/images/tar-codec.ts';
import type { RegistryClient, RegistryCredentials, RemoteRepository } from '#system/registry-http/contract.ts';
import { RemoteRegistryError } from '#system/registry-http/errors.ts';
import { type Digest, isDigest } from '#types/digest.ts';
import { GantryError } from '#types/errors.ts';
import { formatPlatform, hostPlatform, type Platform } from '#types/platform.ts';
import {
  canonicalName,
  canonicalString,
  familiarName,
  familiarString,
  isNameOnly,
  nameOnly,
  type Reference,
  withTag,
} from '#types/reference.ts';
import { resolveForPlatform } from './inspect.ts';
import { type LayerSource, takeInLayers } from './intake.ts';
import { CONFIG_LIMIT_BYTES, checkImageManifest, type Descriptor, type Manifest, parseManifest } from './manifest.ts';
import { chooseManifests, ownPlatform } from './platform-choice.ts';
import type { WriteProgress } from './progress.ts';
import { pullObserver } from './pull-progress.ts';
import { type EmitEvent, imageAttributes } from './remove.ts';

/** Indexes within indexes are followed this deep. */
const INDEX_DEPTH_LIMIT = 4;

export interface PullContext {
  readonly images: ImageStore;
  readonly tar: TarCodec;
  readonly records: RegistryRecords;
  readonly registries: RegistryClient;
  /** Limits of downloads; read at each use. */
  readonly limits: () => { readonly maxDownloads: number; readonly maxAttempts: number };
  readonly emit: EmitEvent;
}

export interface PullOptions {
  /** Without tag and digest: all tags. */
  readonly reference: Reference;
  readonly platform?: Platform;
  readonly credentials: RegistryCredentials;
  readonly metaHeaders?: Readonly<Record<string, string>>;
  readonly write: WriteProgress;
}

/** Pulls a reference or all tags of a repository. */
export async function pullImage(context: PullContext, options: PullOptions, signal: AbortSignal): Promise<void> {
  const { reference, credentials, metaHeaders = {}, write } = options;
  if (familiarName(reference) === 'scratch') throw new GantryError('forbidden', "'scratch' is a reserved name");
  const access = { domain: reference.domain, path: reference.path, credentials, metaHeaders };
  try {
    await context.registries.pull(
      access,
      async (repository) => {
        const pull = new Pull(context, options, { repository, signal });
        const isNew = isNameOnly(reference) ? await pull.allTags() : await pull.one(reference);
        const status = isNew ? 'Downloaded newer image for' : 'Image is up to date for';
        await write({ status: `Status: ${status} ${familiarString(reference)}` });
      },
      signal,
    );
  } catch (error) {
    throw pullError(error, reference);
  }
  const image = isNameOnly(reference) ? undefined : context.images.named(reference);
  context.emit(
    'image',
    'pull',
    familiarString(reference),
    imageAttributes(image === undefined ? undefined : context.images.get(image), familiarName(reference)),
  );
  await warnOfPlatform(context, options);
}

/** Compat: an image of one platform is taken whatever was asked for, with a warning. */
async function warnOfPlatform(context: PullContext, options: PullOptions): Promise<void> {
  if (options.platform === undefined || isNameOnly(options.reference)) return;
  try {
    resolveForPlatform(context.images, canonicalString(options.reference), options.platform);
  } catch (error) {
    if (!(error instanceof GantryError) || error.kind !== 'notFound') throw error;
    await options.write({ status: `WARNING: ${error.message}` });
  }
}

/** A registry's refusal in docker's words. */
export function pullError(error: unknown, reference: Reference): unknown {
  if (!(error instanceof RemoteRegistryError)) return error;
  const wrap = (prefix: string): GantryError =>
    new GantryError('notFound', `${prefix}: ${error.message}`, { cause: error });
  if (error.failure === 'answer') {
    if (error.code === 'DENIED') {
      const name = familiarName(reference);
      return wrap(`pull access denied for ${name}, repository does not exist or may require 'docker login'`);
    }
    if (error.code === 'MANIFEST_UNKNOWN') return wrap(`manifest for ${familiarString(reference)} not found`);
    if (error.code === 'NAME_UNKNOWN') return wrap(`repository ${familiarName(reference)} not found`);
  }
  return error;
}

interface Chosen {
  readonly manifest: StoredManifest;
  readonly image: Manifest & { kind: 'image' };
  /** The indexes that led to it, outermost first. */
  readonly indexes: readonly StoredManifest[];
}

class Pull {
  readonly #context: PullContext;
  readonly #options: PullOptions;
  readonly #repository: RemoteRepository;
  readonly #signal: AbortSignal;

  constructor(context: PullContext, options: PullOptions, at: { repository: RemoteRepository; signal: AbortSignal }) {
    this.#context = context;
    this.#options = options;
    this.#repository = at.repository;
    this.#signal = at.signal;
  }

  async allTags(): Promise<boolean> {
    let isNew = false;
    for (const tag of await this.#repository.tags(this.#signal)) {
      isNew = (await this.one(withTag(this.#options.reference, tag))) || isNew;
    }
    return isNew;
  }

  /** Pulls one tag or digest; false when the name meant this image already. */
  async one(reference: Reference): Promise<boolean> {
    const { images } = this.#context;
    const outer = await this.#resolve(reference);
    const parsed = parseManifest(outer.bytes, outer.mediaType, reference);
    if (parsed.kind === 'image') checkImageManifest(parsed);
    const id =
      reference.digest === undefined
        ? (reference.tag ?? '')
        : canonicalString({ ...nameOnly(reference), digest: reference.digest });
    await this.#options.write({ status: `Pulling from ${reference.path}`, id });
    const chosen =
      parsed.kind === 'image'
        ? { manifest: outer, image: parsed, indexes: [] }
        : await this.#choose(outer, parsed, reference);
    const image = await this.#takeIn(chosen);
    await this.#options.write({ status: `Digest: ${outer.digest}` });
    const previous = images.named(reference);
    const digested = { ...nameOnly(reference), digest: outer.digest };
    if (images.named(digested) !== image) images.addReference(digested, image);
    if (previous === image) return false;
    if (reference.digest === undefined) images.addReference(reference, image);
    return true;
  }

  /** The manifest a reference names; from here when the registry says that it is still the same. */
  async #resolve(reference: Reference): Promise<StoredManifest> {
    const { digest } = reference;
    if (digest !== undefined) {
      if (!isDigest(digest)) throw new GantryError('invalid', 'invalid checksum digest format');
      const known = this.#context.records.manifest(digest);
      if (known === undefined) return this.#repository.manifest(digest, this.#signal);
      // That it is here is no right to it: the registry is asked as for any other.
      await this.#repository.resolveTag(digest, this.#signal);
      return known;
    }
    const found = await this.#repository.resolveTag(reference.tag ?? 'latest', this.#signal);
    return this.#fetch(found.digest);
  }

  async #fetch(digest: Digest): Promise<StoredManifest> {
    return this.#context.records.manifest(digest) ?? (await this.#repository.manifest(digest, this.#signal));
  }

  async #choose(outer: StoredManifest, index: Manifest & { kind: 'index' }, reference: Reference): Promise<Chosen> {
    const wanted = this.#options.platform ?? ownPlatform();
    const chosen = await this.#search({ index, path: [outer], wanted, reference });
    if (chosen !== undefined) return chosen;
    const text = formatPlatform(this.#options.platform ?? hostPlatform());
    throw new GantryError('notFound', `no matching manifest for ${text} in the manifest list entries`);
  }

  async #search(at: {
    index: Manifest & { kind: 'index' };
    path: readonly StoredManifest[];
    wanted: Platform;
    reference: Reference;
  }): Promise<Chosen | undefined> {
    for (const entry of chooseManifests(at.index.manifests, at.wanted)) {
      if (at.path.length > INDEX_DEPTH_LIMIT) throw new GantryError('invalid', 'indexes are nested too deeply');
      const manifest = await this.#fetch(entry.digest);
      const parsed = parseManifest(manifest.bytes, manifest.mediaType, at.reference);
      if (parsed.kind === 'image') {
        checkImageManifest(parsed);
        return { manifest, image: parsed, indexes: at.path };
      }
      const inner = await this.#search({ ...at, index: parsed, path: [...at.path, manifest] });
      if (inner !== undefined) return inner;
    }
    return undefined;
  }

  /** The image, taken in if it is not here; its manifest and indexes are kept in either case. */
  async #takeIn(chosen: Chosen): Promise<Digest> {
    const { images, records } = this.#context;
    const id = chosen.image.config.digest;
    if (images.get(id) === undefined) await this.#download(chosen);
    const { manifest } = chosen;
    images.setManifest(id, manifest.mediaType, manifest.bytes);
    for (const index of chosen.indexes) records.addIndex(id, index);
    this.#rememberPlaces(chosen);
    return id;
  }

  #rememberPlaces(chosen: Chosen): void {
    const diffIds = this.#context.images.get(chosen.image.config.digest)?.config.rootfs.diff_ids ?? [];
    for (const [index, diffId] of diffIds.entries()) {
      const { digest, sizeBytes } = chosen.image.layers[index] as Descriptor;
      const repository = canonicalName(this.#options.reference);
      if (!this.#repository.isMirror) this.#context.records.addPlace(diffId, { digest, sizeBytes, repository });
    }
  }

  async #download(chosen: Chosen): Promise<void> {
    const { images, tar, limits } = this.#context;
    const bytes = await this.#config(chosen.image.config);
    const config = parseImageConfig(bytes);
    if (config.os !== 'linux') {
      throw new GantryError(
        'invalid',
        `cannot download image with operating system "${config.os}" when requesting "linux"`,
      );
    }
    const diffIds = config.rootfs.diff_ids;
    if (diffIds.length !== chosen.image.layers.length) {
      throw new GantryError('invalid', "layers from manifest don't match image configuration");
    }
    const layers = diffIds.map((diffId, index) => this.#layer(chosen.image.layers[index] as Descriptor, diffId));
    const observe = pullObserver(this.#options.write);
    using hold = images.hold();
    await takeInLayers(layers, { images, tar, hold, observe, ...limits() }, this.#signal);
    this.#signal.throwIfAborted();
    await images.create(bytes, {});
  }

  #layer(layer: Descriptor, diffId: Digest): LayerSource {
    const { digest, sizeBytes } = layer;
    // Whoever else waits for the layer keeps this going after the client has left.
    const open: LayerSource['open'] = (offset, signal) =>
      this.#repository.openBlob({ digest, sizeBytes }, { offset }, signal);
    return { digest, sizeBytes, diffId, open };
  }

  async #config(config: Descriptor): Promise<Buffer> {
    try {
      return await this.#repository.configBlob(config.digest, CONFIG_LIMIT_BYTES, this.#signal);
    } catch (error) {
      if (!(error instanceof RemoteRegistryError)) throw error;
      throw new RemoteRegistryError(error.kind, `error pulling image configuration: ${error.message}`, {
        // It is no answer about the image as a whole.
        failure: error.failure === 'answer' ? 'content' : error.failure,
        code: error.code,
        status: error.status,
        cause: error,
      });
    }
  }
}
