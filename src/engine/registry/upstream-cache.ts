/**
 * A pull-through cache: what is here and still true is given from here; what is not is fetched once, however many ask,
 * verified and stored while it is streamed. When the upstream cannot be reached, what is here is given.
 */
import { randomUUID } from 'node:crypto';
import { rm, writeFile } from 'node:fs/promises';
import type { Page, PageRequest, RepositoryName, StoredManifest } from '#services/registry/contract.ts';
import { GrowingBlob } from '#services/registry/growing-blob.ts';
import { type ParsedManifest, parseManifest } from '#services/registry/manifest.ts';
import type { ManifestReference } from '#services/registry/names.ts';
import type { RegistryStore } from '#services/registry/store.ts';
import type { Digest } from '#types/digest.ts';
import { DistributionError } from '#types/distribution-error.ts';
import { errorMessage } from '#types/errors.ts';
import type { ReadableBlob } from './pull-blob.ts';
import type { Upstream } from './upstream.ts';

/** A tag checked this recently is not checked again. */
const RECHECK_MS = 10_000;
/** Blobs fetched at once. */
const MAX_FETCHES = 32;

export interface UpstreamCacheOptions {
  readonly store: RegistryStore;
  readonly upstream: Upstream;
  readonly now: () => number;
  readonly warn: (message: string) => void;
  /** Ends what is being fetched. */
  readonly stopping: AbortSignal;
  /** Largest blob that is fetched. */
  readonly maxBlobBytes: number;
  /** Bytes the whole cache may have; undefined: as much as the disk takes. */
  readonly maxTotalBytes: number | undefined;
}

/** The cache of one upstream. */
export class UpstreamCache {
  readonly counts: { hits: number; misses: number; stale: number } = { hits: 0, misses: 0, stale: 0 };
  readonly #options: UpstreamCacheOptions;
  readonly #fetches = new Map<string, Promise<GrowingBlob | undefined>>();
  readonly #manifests = new Map<string, Promise<StoredManifest | undefined>>();

  constructor(options: UpstreamCacheOptions) {
    this.#options = options;
  }

  /** A manifest by tag or digest; undefined when the upstream has none such. */
  async manifest(
    repository: RepositoryName,
    reference: ManifestReference,
    signal: AbortSignal,
  ): Promise<StoredManifest | undefined> {
    const { store, now } = this.#options;
    const cached = store.manifest(repository, reference);
    const isFresh =
      reference.kind === 'digest' || (store.tag(repository, reference.tag)?.checkedAtMs ?? 0) > now() - RECHECK_MS;
    if (cached !== undefined) store.touchManifest(repository, cached.digest);
    if (cached !== undefined && isFresh) {
      this.counts.hits += 1;
      return cached;
    }
    const key = `${repository} ${reference.kind === 'tag' ? reference.tag : reference.digest}`;
    // Shared by all who ask now, so it does not end with the first of them.
    const fetching =
      this.#manifests.get(key) ??
      this.#refresh(repository, reference, cached).finally(() => this.#manifests.delete(key));
    this.#manifests.set(key, fetching);
    return await untilAborted(fetching, signal);
  }

  async #refresh(
    repository: RepositoryName,
    reference: ManifestReference,
    cached: StoredManifest | undefined,
  ): Promise<StoredManifest | undefined> {
    const { store, upstream } = this.#options;
    const name = reference.kind === 'tag' ? reference.tag : reference.digest;
    try {
      if (cached !== undefined && reference.kind === 'tag') {
        const digest = await upstream.tagDigest(repository, name, this.#options.stopping);
        if (digest === undefined) return undefined;
        if (digest === cached.digest || store.manifest(repository, { kind: 'digest', digest }) !== undefined) {
          store.setTag(repository, reference.tag, digest);
          this.counts.hits += 1;
          return store.manifest(repository, { kind: 'digest', digest });
        }
      }
      this.counts.misses += 1;
      const fetched = await upstream.manifest(repository, name, this.#options.stopping);
      if (fetched === undefined) return undefined;
      const { digest, bytes } = fetched;
      const parsed: ParsedManifest = parseManifest(bytes, fetched.mediaType);
      store.putManifest(repository, {
        digest,
        bytes,
        parsed,
        isCached: true,
        ...(reference.kind === 'tag' ? { tag: reference.tag } : {}),
      });
      return store.manifest(repository, { kind: 'digest', digest });
    } catch (error) {
      return this.#stale(cached, error);
    }
  }

  #stale(cached: StoredManifest | undefined, error: unknown): StoredManifest {
    this.#options.warn(`upstream: ${errorMessage(error)}`);
    if (cached === undefined) throw unreachable(error);
    this.counts.stale += 1;
    return cached;
  }

  /** A blob that is not here (or not linked here) yet. */
  async blob(repository: RepositoryName, digest: Digest, signal: AbortSignal): Promise<ReadableBlob | undefined> {
    const key = `${repository} ${digest}`;
    let growing = this.#fetches.get(key);
    if (growing === undefined) {
      if (this.#fetches.size >= MAX_FETCHES)
        throw new DistributionError('TOOMANYREQUESTS', { message: 'too many fetches from the upstream at once' });
      this.counts.misses += 1;
      growing = this.#fetch(repository, digest, () => this.#fetches.delete(key));
      this.#fetches.set(key, growing);
    }
    return await untilAborted(growing, signal);
  }

  /** Begins a fetch; resolves when its size is known. The download goes on when its readers leave. */
  async #fetch(repository: RepositoryName, digest: Digest, ended: () => void): Promise<GrowingBlob | undefined> {
    const { store, upstream, stopping } = this.#options;
    const begun = Promise.withResolvers<GrowingBlob | undefined>();
    const path = store.files.uploadPath(randomUUID());
    const take = async (sizeBytes: number, open: () => Promise<AsyncIterable<Buffer>>): Promise<void> => {
      this.#requireRoom(sizeBytes);
      const source = await open();
      await writeFile(path, '', { mode: 0o600, flag: 'wx' });
      const growing = new GrowingBlob(path, { place: store.files.path(digest), digest, sizeBytes });
      begun.resolve(growing);
      await growing.fill(source);
      store.addBlob(repository, { path, digest, sizeBytes });
    };
    upstream
      .blob(repository, digest, take, stopping)
      .then((isFound) => {
        if (!isFound) begun.resolve(undefined);
      })
      .catch(async (error: unknown) => {
        this.#options.warn(`upstream: ${digest}: ${errorMessage(error)}`);
        begun.reject(error instanceof DistributionError ? error : unreachable(error));
        await rm(path, { force: true });
      })
      .finally(ended);
    return await begun.promise;
  }

  /** Throws DENIED when a blob is too large for the cache. */
  #requireRoom(sizeBytes: number): void {
    const { store, maxBlobBytes, maxTotalBytes } = this.#options;
    const room = Math.min(maxBlobBytes, (maxTotalBytes ?? Number.POSITIVE_INFINITY) - store.totals().blobBytes);
    if (sizeBytes <= room) return;
    const limit = `the cache has room for ${Math.max(0, room)} bytes`;
    throw new DistributionError('DENIED', { message: `requested access to the resource is denied: ${limit}` });
  }

  /** Tags of the upstream; those here when it cannot be reached. */
  async tags(repository: RepositoryName, page: PageRequest, signal: AbortSignal): Promise<Page | undefined> {
    try {
      const all = await this.#options.upstream.tags(repository, signal);
      const names = all?.filter((tag) => tag > page.last).toSorted();
      return names && { names: names.slice(0, page.limit), hasMore: names.length > page.limit };
    } catch (error) {
      this.#options.warn(`upstream: ${errorMessage(error)}`);
      return undefined;
    }
  }
}

function unreachable(cause: unknown): DistributionError {
  return new DistributionError('UNAVAILABLE', { message: 'the upstream registry cannot be reached', cause });
}

async function untilAborted<T>(work: Promise<T>, signal: AbortSignal): Promise<T> {
  const { promise, reject } = Promise.withResolvers<never>();
  const abort = (): void => reject(signal.reason);
  signal.addEventListener('abort', abort, { once: true });
  try {
    return await Promise.race([work, promise]);
  } finally {
    signal.removeEventListener('abort', abort);
  }
}
