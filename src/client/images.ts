/** Operations on images, the classic build and commit. */
import type { Readable } from 'node:stream';
import { GantryError } from '#types/errors.ts';
import { parsePlatform } from '#types/platform.ts';
import type {
  AuthConfig,
  BuildPruneResponse,
  ContainerConfig,
  DistributionInspect,
  IDResponse,
  ImageDeleteResponseItem,
  ImageHistoryResponseItem,
  ImageInspect,
  ImagePruneResponse,
  ImageSearchResponseItem,
  ImageSummary,
} from '#wire/engine.ts';
import { type Connection, encodeFilters, type FilterValues, imagePath } from './connection.ts';
import type { QueryValues } from './transport.ts';

/** A line of a progress stream. */
export interface ProgressMessage {
  readonly id?: string;
  readonly status?: string;
  readonly stream?: string;
  readonly progress?: string;
  readonly progressDetail?: { readonly current?: number; readonly total?: number };
  readonly error?: string;
  readonly errorDetail?: { readonly code?: number; readonly message?: string };
  readonly aux?: unknown;
}

export type Progress = AsyncGenerator<ProgressMessage, void, undefined>;

/** Credentials as a header's value; the padding is needed, dockerd takes the header for none without it. */
export function encodeCredentials(value: unknown): string {
  return Buffer.from(JSON.stringify(value)).toString('base64').replaceAll('+', '-').replaceAll('/', '_');
}

function authHeader(auth: AuthConfig | undefined): Record<string, string> {
  return auth === undefined ? {} : { 'X-Registry-Auth': encodeCredentials(auth) };
}

/** `linux/arm64/v8` as the API takes it in a query. */
function platformText(platform: string | undefined): string | undefined {
  if (platform === undefined) return undefined;
  const { os, architecture, variant } = parsePlatform(platform);
  return JSON.stringify({ os, architecture, ...(variant === undefined ? {} : { variant }) });
}

function platformTexts(platforms: readonly string[] | undefined): string[] | undefined {
  return platforms?.flatMap((platform) => platformText(platform) ?? []);
}

/**
 * Reads a progress stream to its end: the messages' `aux` values, or a GantryError when a message tells of a failure,
 * which a stream does after its status was 200.
 */
export async function completed(progress: Progress): Promise<unknown[]> {
  const results: unknown[] = [];
  for await (const message of progress) {
    const failure = message.errorDetail?.message ?? message.error;
    if (failure !== undefined) throw new GantryError('system', failure);
    if (message.aux !== undefined && message.aux !== null) results.push(message.aux);
  }
  return results;
}

const TAR = { 'Content-Type': 'application/x-tar' };

export class Images {
  readonly #connection: Connection;

  constructor(connection: Connection) {
    this.#connection = connection;
  }

  list(
    options: {
      all?: boolean;
      filters?: FilterValues;
      digests?: boolean;
      sharedSize?: boolean;
      /** Describe each platform of an image. */
      manifests?: boolean;
      signal?: AbortSignal;
    } = {},
  ): Promise<ImageSummary[]> {
    const { all, digests, sharedSize, manifests, filters, signal } = options;
    const query = { all, digests, 'shared-size': sharedSize, manifests, filters: encodeFilters(filters) };
    return this.#connection.json('GET', '/images/json', { query, signal });
  }

  /** An image's description, of one platform (`linux/arm64`) if it has several. */
  inspect(
    name: string,
    options: { platform?: string; manifests?: boolean; signal?: AbortSignal } = {},
  ): Promise<ImageInspect> {
    const query = { platform: platformText(options.platform), manifests: options.manifests };
    return this.#connection.json('GET', `/images/${imagePath(name)}/json`, { query, signal: options.signal });
  }

  /** The layers of an image and what made them, newest first. */
  history(
    name: string,
    options: { platform?: string; signal?: AbortSignal } = {},
  ): Promise<ImageHistoryResponseItem[]> {
    const query = { platform: platformText(options.platform) };
    return this.#connection.json('GET', `/images/${imagePath(name)}/history`, { query, signal: options.signal });
  }

  tag(name: string, target: { repo: string; tag?: string }, signal?: AbortSignal): Promise<void> {
    return this.#connection.done('POST', `/images/${imagePath(name)}/tag`, { query: { ...target }, signal });
  }

  remove(
    name: string,
    options: { force?: boolean; noPrune?: boolean; platforms?: readonly string[]; signal?: AbortSignal } = {},
  ): Promise<ImageDeleteResponseItem[]> {
    const { force, noPrune, platforms, signal } = options;
    return this.#connection.json('DELETE', `/images/${imagePath(name)}`, {
      query: { force, noprune: noPrune, platforms: platformTexts(platforms) },
      signal,
    });
  }

  prune(filters?: FilterValues, signal?: AbortSignal): Promise<ImagePruneResponse> {
    return this.#connection.json('POST', '/images/prune', { query: { filters: encodeFilters(filters) }, signal });
  }

  /** Searches Docker Hub, or the registry that the term begins with. */
  search(
    term: string,
    options: { limit?: number; filters?: FilterValues; auth?: AuthConfig; signal?: AbortSignal } = {},
  ): Promise<ImageSearchResponseItem[]> {
    const query = { term, limit: options.limit, filters: encodeFilters(options.filters) };
    const headers = authHeader(options.auth);
    return this.#connection.json('GET', '/images/search', { query, headers, signal: options.signal });
  }

  /**
   * Pulls an image; without `tag` (a tag or a digest) every tag. Failures after the beginning come as `error` messages:
   * `completed` reads the stream and throws them.
   */
  pull(
    image: { name: string; tag?: string; platform?: string },
    options: { auth?: AuthConfig; signal?: AbortSignal } = {},
  ): Progress {
    const query = { fromImage: image.name, tag: image.tag, platform: image.platform };
    return this.#connection.lines('POST', '/images/create', {
      query,
      headers: authHeader(options.auth),
      signal: options.signal,
    });
  }

  /** Pushes a tag, or every tag without one; a platform alone instead of the whole index. */
  push(
    name: string,
    options: { tag?: string; platform?: string; auth?: AuthConfig; signal?: AbortSignal } = {},
  ): Progress {
    const query = { tag: options.tag, platform: platformText(options.platform) };
    const headers = authHeader(options.auth ?? {});
    return this.#connection.lines('POST', `/images/${imagePath(name)}/push`, {
      query,
      headers,
      signal: options.signal,
    });
  }

  /** Makes an image of one layer from a tar stream. */
  import(
    tar: Readable,
    options: {
      repo?: string;
      tag?: string;
      message?: string;
      changes?: readonly string[];
      platform?: string;
      signal?: AbortSignal;
    } = {},
  ): Progress {
    const { signal, ...query } = options;
    return this.#connection.lines('POST', '/images/create', {
      query: { fromSrc: '-', ...query },
      stream: tar,
      headers: TAR,
      signal,
    });
  }

  /** Takes images in from an archive that `save` wrote. */
  load(
    tar: Readable,
    options: { quiet?: boolean; platforms?: readonly string[]; signal?: AbortSignal } = {},
  ): Progress {
    return this.#connection.lines('POST', '/images/load', {
      query: { quiet: options.quiet, platform: platformTexts(options.platforms) },
      stream: tar,
      headers: TAR,
      signal: options.signal,
    });
  }

  /** Images as a tar stream that is a docker-archive and an OCI layout in one. */
  async save(
    names: readonly string[],
    options: { platforms?: readonly string[]; signal?: AbortSignal } = {},
  ): Promise<Readable> {
    const query = { names, platform: platformTexts(options.platforms) };
    return await this.#connection.request('GET', '/images/get', { query, signal: options.signal });
  }

  /** Classic build of a context tar; `query` holds the operation's own parameters (t, dockerfile, buildargs …). */
  build(
    context: Readable,
    query: QueryValues,
    options: { registryConfig?: Readonly<Record<string, AuthConfig>>; signal?: AbortSignal } = {},
  ): Progress {
    const { registryConfig, signal } = options;
    const auth: Record<string, string> =
      registryConfig === undefined ? {} : { 'X-Registry-Config': encodeCredentials(registryConfig) };
    return this.#connection.lines('POST', '/build', { query, stream: context, headers: { ...TAR, ...auth }, signal });
  }

  /** Frees build cache: what dangles, or `all` that is unused, down to `keepBytes`. */
  pruneBuildCache(
    options: { all?: boolean; keepBytes?: number; filters?: FilterValues; signal?: AbortSignal } = {},
  ): Promise<BuildPruneResponse> {
    const query = {
      all: options.all,
      'reserved-space': options.keepBytes,
      'keep-storage': options.keepBytes,
      filters: encodeFilters(options.filters),
    };
    return this.#connection.json('POST', '/build/prune', { query, signal: options.signal });
  }

  /** Makes an image of a container. */
  commit(
    container: string,
    options: {
      repo?: string;
      tag?: string;
      comment?: string;
      author?: string;
      pause?: boolean;
      changes?: readonly string[];
      config?: ContainerConfig;
      signal?: AbortSignal;
    } = {},
  ): Promise<IDResponse> {
    const { config, signal, changes, ...rest } = options;
    const query = { container, ...rest, changes: changes?.join('\n') };
    return this.#connection.json('POST', '/commit', { query, body: config ?? {}, signal });
  }

  /** What a registry has under a name: its digest and platforms, without pulling it. */
  distribution(name: string, options: { auth?: AuthConfig; signal?: AbortSignal } = {}): Promise<DistributionInspect> {
    return this.#connection.json('GET', `/distribution/${imagePath(name)}/json`, {
      headers: authHeader(options.auth),
      signal: options.signal,
    });
  }

  /** Gantry's own: makes a base image (`busybox`, `debian:bookworm`) on the daemon's host, without a registry. */
  bootstrap(name: string, signal?: AbortSignal): Progress {
    return this.#connection.lines('POST', '/gantry/images/bootstrap', { query: { name }, signal });
  }
}
