/** Operations on containers, one method each, and `run`: a container that removes itself when disposed. */
import type { Readable } from 'node:stream';
import type {
  ContainerCreateRequest,
  ContainerCreateResponse,
  ContainerInspectResponse,
  ContainerPruneResponse,
  ContainerStatsResponse,
  ContainerSummary,
  ContainerTopResponse,
  ContainerUpdateRequest,
  ContainerUpdateResponse,
  ContainerWaitResponse,
  FilesystemChange,
} from '#wire/engine.ts';
import { type Connection, encodeFilters, type FilterValues, MULTIPLEXED_STREAM, segment } from './connection.ts';
import { demultiplex, type HijackedStream, type OutputChunk } from './streams.ts';

export interface ListContainersOptions {
  readonly all?: boolean;
  readonly limit?: number;
  readonly size?: boolean;
  readonly filters?: FilterValues;
  readonly signal?: AbortSignal;
}

export interface CreateContainerOptions extends ContainerCreateRequest {
  readonly name?: string;
  readonly platform?: string;
}

export interface StopOptions {
  readonly signal?: string;
  /** Seconds before SIGKILL; -1 waits for ever. */
  readonly timeoutSeconds?: number;
}

export interface LogsOptions {
  readonly follow?: boolean;
  readonly stdout?: boolean;
  readonly stderr?: boolean;
  readonly since?: string | number;
  readonly until?: string | number;
  readonly timestamps?: boolean;
  readonly tail?: string | number;
  readonly details?: boolean;
  readonly signal?: AbortSignal;
}

export interface AttachOptions {
  readonly stdin?: boolean;
  readonly stdout?: boolean;
  readonly stderr?: boolean;
  readonly logs?: boolean;
  readonly stream?: boolean;
  readonly detachKeys?: string;
  readonly signal?: AbortSignal;
}

export type WaitCondition = 'not-running' | 'next-exit' | 'removed';

/** What `HEAD …/archive` tells about a path. */
export interface PathStat {
  readonly name: string;
  readonly size: number;
  readonly mode: number;
  readonly mtime: string;
  readonly linkTarget: string;
}

/** A container made by `run`; disposing of it removes it by force. */
export class RunningContainer implements AsyncDisposable {
  readonly id: string;
  readonly warnings: readonly string[];
  readonly #containers: Containers;

  constructor(containers: Containers, created: ContainerCreateResponse) {
    this.#containers = containers;
    this.id = created.Id;
    this.warnings = created.Warnings;
  }

  /** Waits for the end; its exit code. */
  async wait(signal?: AbortSignal): Promise<number> {
    return (await this.#containers.wait(this.id, 'not-running', signal)).StatusCode;
  }

  logs(options: LogsOptions = {}): AsyncGenerator<OutputChunk, void, undefined> {
    return this.#containers.logs(this.id, options);
  }

  inspect(signal?: AbortSignal): Promise<ContainerInspectResponse> {
    return this.#containers.inspect(this.id, { signal });
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.#containers.remove(this.id, { force: true, volumes: true }).catch((error: unknown) => {
      // Gone already, or on its way: that is what was wanted.
      const kind = (error as { kind?: string }).kind;
      if (kind !== 'notFound' && kind !== 'conflict') throw error;
    });
  }
}

function path(id: string, rest = ''): string {
  return `/containers/${segment(id)}${rest}`;
}

export class Containers {
  readonly #connection: Connection;

  constructor(connection: Connection) {
    this.#connection = connection;
  }

  list(options: ListContainersOptions = {}): Promise<ContainerSummary[]> {
    const { all, limit, size, filters, signal } = options;
    const query = { all, limit, size, filters: encodeFilters(filters) };
    return this.#connection.json('GET', '/containers/json', { query, signal });
  }

  create(options: CreateContainerOptions, signal?: AbortSignal): Promise<ContainerCreateResponse> {
    const { name, platform, ...body } = options;
    return this.#connection.json('POST', '/containers/create', { query: { name, platform }, body, signal });
  }

  /** Creates and starts; remove it with `await using` or by disposing of it. */
  async run(options: CreateContainerOptions, signal?: AbortSignal): Promise<RunningContainer> {
    await using stack = new AsyncDisposableStack();
    const container = stack.use(new RunningContainer(this, await this.create(options, signal)));
    await this.start(container.id, { signal });
    stack.move();
    return container;
  }

  inspect(
    id: string,
    options: { size?: boolean; signal?: AbortSignal | undefined } = {},
  ): Promise<ContainerInspectResponse> {
    return this.#connection.json('GET', path(id, '/json'), { query: { size: options.size }, signal: options.signal });
  }

  start(id: string, options: { detachKeys?: string; signal?: AbortSignal | undefined } = {}): Promise<void> {
    return this.#connection.done('POST', path(id, '/start'), {
      query: { detachKeys: options.detachKeys },
      signal: options.signal,
    });
  }

  stop(id: string, options: StopOptions = {}, signal?: AbortSignal): Promise<void> {
    return this.#connection.done('POST', path(id, '/stop'), {
      query: { signal: options.signal, t: options.timeoutSeconds },
      signal,
    });
  }

  restart(id: string, options: StopOptions = {}, signal?: AbortSignal): Promise<void> {
    return this.#connection.done('POST', path(id, '/restart'), {
      query: { signal: options.signal, t: options.timeoutSeconds },
      signal,
    });
  }

  kill(id: string, killSignal?: string, signal?: AbortSignal): Promise<void> {
    return this.#connection.done('POST', path(id, '/kill'), { query: { signal: killSignal }, signal });
  }

  pause(id: string, signal?: AbortSignal): Promise<void> {
    return this.#connection.done('POST', path(id, '/pause'), { signal });
  }

  unpause(id: string, signal?: AbortSignal): Promise<void> {
    return this.#connection.done('POST', path(id, '/unpause'), { signal });
  }

  rename(id: string, name: string, signal?: AbortSignal): Promise<void> {
    return this.#connection.done('POST', path(id, '/rename'), { query: { name }, signal });
  }

  remove(
    id: string,
    options: { force?: boolean; volumes?: boolean; link?: boolean; signal?: AbortSignal } = {},
  ): Promise<void> {
    const { force, volumes, link, signal } = options;
    return this.#connection.done('DELETE', path(id), { query: { force, v: volumes, link }, signal });
  }

  wait(id: string, condition: WaitCondition = 'not-running', signal?: AbortSignal): Promise<ContainerWaitResponse> {
    return this.#connection.json('POST', path(id, '/wait'), { query: { condition }, signal });
  }

  update(id: string, changes: ContainerUpdateRequest, signal?: AbortSignal): Promise<ContainerUpdateResponse> {
    return this.#connection.json('POST', path(id, '/update'), { body: changes, signal });
  }

  top(id: string, psArgs?: string, signal?: AbortSignal): Promise<ContainerTopResponse> {
    return this.#connection.json('GET', path(id, '/top'), { query: { ps_args: psArgs }, signal });
  }

  changes(id: string, signal?: AbortSignal): Promise<FilesystemChange[]> {
    return this.#connection.json('GET', path(id, '/changes'), { signal });
  }

  resize(id: string, height: number, width: number): Promise<void> {
    return this.#connection.done('POST', path(id, '/resize'), { query: { h: height, w: width } });
  }

  /** Samples once a second until the loop is left. */
  stats(id: string, signal?: AbortSignal): AsyncGenerator<ContainerStatsResponse, void, undefined> {
    return this.#connection.lines('GET', path(id, '/stats'), { query: { stream: true }, signal });
  }

  /** One sample; `oneShot` does not wait for a second reading. */
  statsOnce(id: string, options: { oneShot?: boolean; signal?: AbortSignal } = {}): Promise<ContainerStatsResponse> {
    return this.#connection.json('GET', path(id, '/stats'), {
      query: { stream: false, 'one-shot': options.oneShot },
      signal: options.signal,
    });
  }

  /** Log output; stdout and stderr unless told otherwise. */
  async *logs(id: string, options: LogsOptions = {}): AsyncGenerator<OutputChunk, void, undefined> {
    const { signal, stdout = true, stderr = true, ...query } = options;
    const response = await this.#connection.request('GET', path(id, '/logs'), {
      query: { stdout, stderr, ...query },
      signal,
    });
    const source = response as AsyncIterable<Buffer>;
    if (await this.#isMultiplexed(id, response.headers['content-type'])) yield* demultiplex(source);
    else for await (const data of source) yield { stream: 'stdout', data };
  }

  /** Before API 1.42 the content type does not tell, only the container does. */
  async #isMultiplexed(id: string, contentType: string | undefined): Promise<boolean> {
    if (contentType === MULTIPLEXED_STREAM) return true;
    const version = await this.#connection.version();
    if (Number(version.split('.')[1]) >= 42) return false;
    return (await this.inspect(id)).Config?.Tty !== true;
  }

  /** Attaches to the main process; stdout, stderr and live output unless told otherwise. */
  attach(id: string, options: AttachOptions = {}): Promise<HijackedStream> {
    const { signal, stdin, stdout = true, stderr = true, stream = true, logs, detachKeys } = options;
    return this.#connection.hijack(path(id, '/attach'), {
      query: { stdin, stdout, stderr, stream, logs, detachKeys },
      signal,
    });
  }

  /** The file system as a tar stream. */
  async export(id: string, signal?: AbortSignal): Promise<Readable> {
    return await this.#connection.request('GET', path(id, '/export'), { signal });
  }

  async statPath(id: string, filePath: string, signal?: AbortSignal): Promise<PathStat> {
    const response = await this.#connection.request('HEAD', path(id, '/archive'), {
      query: { path: filePath },
      signal,
    });
    response.resume();
    const header = String(response.headers['x-docker-container-path-stat'] ?? '');
    return JSON.parse(Buffer.from(header, 'base64').toString('utf8')) as PathStat;
  }

  /** A path of the container as a tar stream. */
  async getArchive(id: string, filePath: string, signal?: AbortSignal): Promise<Readable> {
    return await this.#connection.request('GET', path(id, '/archive'), { query: { path: filePath }, signal });
  }

  /** Extracts a tar stream at a directory of the container. */
  putArchive(
    id: string,
    filePath: string,
    tar: Readable,
    options: { copyUidGid?: boolean; noOverwriteDirNonDir?: boolean; signal?: AbortSignal } = {},
  ): Promise<void> {
    const query = {
      path: filePath,
      copyUIDGID: options.copyUidGid,
      noOverwriteDirNonDir: options.noOverwriteDirNonDir,
    };
    const headers = { 'Content-Type': 'application/x-tar' };
    return this.#connection.done('PUT', path(id, '/archive'), { query, stream: tar, headers, signal: options.signal });
  }

  prune(filters?: FilterValues, signal?: AbortSignal): Promise<ContainerPruneResponse> {
    return this.#connection.json('POST', '/containers/prune', { query: { filters: encodeFilters(filters) }, signal });
  }
}
