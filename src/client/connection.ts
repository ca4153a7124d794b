/** A negotiated connection to a daemon: what every group of operations calls. */
import type { IncomingMessage } from 'node:http';
import type { Socket } from 'node:net';
import type { SystemVersion } from '#wire/engine.ts';
import type { Endpoint } from './endpoint.ts';
import { HijackedStream, jsonLines } from './streams.ts';
import { encodeQuery, endWithSignal, type RequestSettings, readText, Transport } from './transport.ts';

/** Newest API version this client speaks. */
export const CLIENT_API_VERSION = '1.51';
/** What daemons without an Api-Version header are taken for. */
const OLDEST_API_VERSION = '1.24';

export const MULTIPLEXED_STREAM = 'application/vnd.docker.multiplexed-stream';

/** What a ping tells. */
export interface PingInfo {
  readonly apiVersion: string;
  readonly osType: string;
  readonly isExperimental: boolean;
  readonly builderVersion: string;
  readonly swarm: string;
}

/** Whether version `a` is lower than `b`. */
export function isVersionLess(a: string, b: string): boolean {
  const [aMajor = 0, aMinor = 0] = a.split('.').map(Number);
  const [bMajor = 0, bMinor = 0] = b.split('.').map(Number);
  return aMajor !== bMajor ? aMajor < bMajor : aMinor < bMinor;
}

function lowerVersion(server: string): string {
  return isVersionLess(server, CLIENT_API_VERSION) ? server : CLIENT_API_VERSION;
}

export interface ConnectionSettings {
  readonly endpoint: Endpoint;
  /** Fixed API version; undefined negotiates by a ping before the first request. */
  readonly version: string | undefined;
  readonly headers: Readonly<Record<string, string>>;
}

export class Connection implements Disposable {
  readonly transport: Transport;
  #version: string | undefined;
  #negotiation: Promise<string> | undefined;

  constructor(settings: ConnectionSettings) {
    this.transport = new Transport(settings.endpoint, settings.headers);
    this.#version = settings.version;
  }

  /** The API version spoken, negotiated when needed. Never above CLIENT_API_VERSION. */
  async version(signal?: AbortSignal): Promise<string> {
    if (this.#version !== undefined) return this.#version;
    this.#negotiation ??= this.ping(signal).then((info) => lowerVersion(info.apiVersion));
    try {
      this.#version = await this.#negotiation;
    } finally {
      // A failed negotiation is tried again by the next request.
      this.#negotiation = undefined;
    }
    return this.#version;
  }

  /** The version spoken so far; undefined before the negotiation. */
  get knownVersion(): string | undefined {
    return this.#version;
  }

  /** `GET /version`; before a negotiation its answer serves as one, which saves a round trip. */
  async serverVersion(): Promise<SystemVersion> {
    if (this.#version !== undefined) return await this.json('GET', '/version');
    const answer = JSON.parse(await this.transport.getText('/version')) as SystemVersion;
    this.#version = lowerVersion(answer.ApiVersion ?? OLDEST_API_VERSION);
    return answer;
  }

  async ping(signal?: AbortSignal): Promise<PingInfo> {
    const response = await this.transport.send('HEAD', '/_ping', { signal });
    response.resume();
    const header = (name: string): string => String(response.headers[name] ?? '');
    return {
      apiVersion: header('api-version') || OLDEST_API_VERSION,
      osType: header('ostype') || 'linux',
      isExperimental: header('docker-experimental') === 'true',
      builderVersion: header('builder-version'),
      swarm: header('swarm'),
    };
  }

  /** Any request below `/v1.NN`; the answer's body is the caller's to read. */
  async request(method: string, path: string, settings: RequestSettings = {}): Promise<IncomingMessage> {
    const version = await this.version(settings.signal);
    return await this.transport.send(method, `/v${version}${path}${encodeQuery(settings.query)}`, settings);
  }

  /** A request with a JSON answer; undefined for an empty one. */
  async json<T>(method: string, path: string, settings: RequestSettings = {}): Promise<T> {
    const text = await readText(await this.request(method, path, settings));
    return (text === '' ? undefined : JSON.parse(text)) as T;
  }

  /** A request without an answer worth reading. */
  async done(method: string, path: string, settings: RequestSettings = {}): Promise<void> {
    await readText(await this.request(method, path, settings));
  }

  /** A request answered by JSON lines. Leaving the loop ends the request. */
  async *lines<T>(method: string, path: string, settings: RequestSettings = {}): AsyncGenerator<T, void, undefined> {
    yield* jsonLines<T>((await this.request(method, path, settings)) as AsyncIterable<Buffer>);
  }

  /** A connection without HTTP on it. */
  async dial(signal?: AbortSignal): Promise<Socket> {
    return await this.transport.dial(signal);
  }

  /** A request that takes the connection over. */
  async hijack(path: string, settings: RequestSettings = {}): Promise<HijackedStream> {
    const version = await this.version(settings.signal);
    const url = `/v${version}${path}${encodeQuery(settings.query)}`;
    const taken = await this.transport.upgrade('POST', url, { ...settings, protocol: 'tcp' });
    endWithSignal(taken.socket, settings.signal);
    return new HijackedStream(taken.socket, taken.contentType === MULTIPLEXED_STREAM);
  }

  [Symbol.dispose](): void {
    this.transport[Symbol.dispose]();
  }
}

/** A name or ID as one path segment. */
export function segment(name: string): string {
  return encodeURIComponent(name);
}

/** An image name in a path: slashes stay. */
export function imagePath(name: string): string {
  return encodeURIComponent(name).replaceAll('%2F', '/').replaceAll('%3A', ':').replaceAll('%40', '@');
}

/** Filter values by key, as callers write them. */
export type FilterValues = Readonly<Record<string, readonly string[]>>;

/** The `filters` parameter. */
export function encodeFilters(filters: FilterValues | undefined): string | undefined {
  if (filters === undefined) return undefined;
  const entries = Object.entries(filters).map(([key, values]) => [
    key,
    Object.fromEntries(values.map((value) => [value, true])),
  ]);
  return entries.length === 0 ? undefined : JSON.stringify(Object.fromEntries(entries));
}
