/** Operations on images, the classic build and commit. */
import type { Readable } from 'node:stream';
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
  if (auth === undefined) return {};
  return { 'X-Registry-Auth': encodeCredentials(auth) };
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
      signal?: AbortSignal;
    } = {},
  ): Promise<ImageSummary[]> {
    const { all, digests, sharedSize, filters, signal } = options;
    const query = { all, digests, 'shared-size': sharedSize, filters: encodeFilters(filters) };
    return this.#connection.json('GET', '/images/json', { query, signal });
  }

  inspect(name: string, signal?: AbortSignal): Promise<ImageInspect> {
    return this.#connection.json('GET', `/images/${imagePath(name)}/json`, { signal });
  }

  history(name: string, signal?: AbortSignal): Promise<ImageHistoryResponseItem[]> {
    return this.#connection.json('GET', `/images/${imagePath(name)}/history`, { signal });
  }

  tag(name: string, target: { repo: string; tag?: string }, signal?: AbortSignal): Promise<void> {
    return this.#connection.done('POST', `/images/${imagePath(name)}/tag`, { query: { ...target }, signal });
  }

  remove(
    name: string,
    options: { force?: boolean; noPrune?: boolean; signal?: AbortSignal } = {},
  ): Promise<ImageDeleteResponseItem[]> {
    const { force, noPrune, signal } = options;
    return this.#connection.json('DELETE', `/images/${imagePath(name)}`, {
      query: { force, noprune: noPrune },
      signal,
    });
  }

  prune(filters?: FilterValues, signal?: AbortSignal): Promise<ImagePruneResponse> {
    return this.#connection.json('POST', '/images/prune', { query: { filters: encodeFilters(filters) }, signal });
  }

  search(
    term: string,
    options: { limit?: number; filters?: FilterValues; signal?: AbortSignal } = {},
  ): Promise<ImageSearchResponseItem[]> {
    const query = { term, limit: options.limit, filters: encodeFilters(options.filters) };
    return this.#connection.json('GET', '/images/search', { query, signal: options.signal });
  }

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

  push(
    name: string,
    options: { tag?: string; platform?: string; auth?: AuthConfig; signal?: AbortSignal } = {},
  ): Progress {
    const query = { tag: options.tag, platform: options.platform };
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

  load(tar: Readable, options: { quiet?: boolean; signal?: AbortSignal } = {}): Progress {
    return this.#connection.lines('POST', '/images/load', {
      query: { quiet: options.quiet },
      stream: tar,
      headers: TAR,
      signal: options.signal,
    });
  }

  /** Images as a docker-archive tar stream. */
  async save(names: readonly string[], signal?: AbortSignal): Promise<Readable> {
    return await this.#connection.request('GET', '/images/get', { query: { names }, signal });
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

  pruneBuildCache(
    options: { all?: boolean; filters?: FilterValues; signal?: AbortSignal } = {},
  ): Promise<BuildPruneResponse> {
    const query = { all: options.all, filters: encodeFilters(options.filters) };
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

  distribution(name: string, options: { auth?: AuthConfig; signal?: AbortSignal } = {}): Promise<DistributionInspect> {
    return this.#connection.json('GET', `/distribution/${imagePath(name)}/json`, {
      headers: authHeader(options.auth),
      signal: options.signal,
    });
  }
}
