/**
 * The CLI's view of the typed client: answers stay untyped JSON because templates run on them, and errors read as
 * docker prints them. The connection itself is the client's.
 */
import type { IncomingMessage } from 'node:http';
import type { Socket } from 'node:net';
import type { Readable } from 'node:stream';
import { CLIENT_API_VERSION, Connection, isVersionLess } from '#client/connection.ts';
import { parseEndpoint, type TlsSettings } from '#client/endpoint.ts';
import { jsonLines as clientJsonLines, type HijackedStream } from '#client/streams.ts';
import { type QueryValues, type RequestSettings, ResponseError, readText } from '#client/transport.ts';
import { GantryError } from '#types/errors.ts';
import type { Endpoint, TlsPaths } from '../config/endpoint.ts';
import { CLI_VERSION } from '../version.ts';

/** A failed call; `message` is what the user sees. Status 0: the daemon did not answer. */
export class ApiError extends Error {
  override readonly name = 'ApiError';
  readonly status: number;

  constructor(status: number, message: string, options?: { cause?: unknown }) {
    super(message, options);
    this.status = status;
  }
}

/** Query values; undefined ones are left out. */
export type Query = QueryValues;

/** The optional parts of a call. */
export type CallOptions = RequestSettings;

/** Any JSON object of the API. */
export type Json = Record<string, unknown>;

/** A connection taken over for a process's streams. */
export type Hijacked = HijackedStream;

export { CLIENT_API_VERSION };

function tlsSettings(paths: TlsPaths | undefined): TlsSettings | undefined {
  if (paths === undefined) return undefined;
  const { readFileSync, existsSync } = process.getBuiltinModule('node:fs');
  const read = (path: string): Buffer | undefined => (existsSync(path) ? readFileSync(path) : undefined);
  return { ca: read(paths.ca), cert: read(paths.cert), key: read(paths.key), verify: paths.verify };
}

function asApiError(error: unknown): unknown {
  if (error instanceof ResponseError)
    return new ApiError(error.status, `Error response from daemon: ${error.message}`, { cause: error });
  return error instanceof GantryError ? new ApiError(0, error.message, { cause: error }) : error;
}

/** The connection. */
export class Api {
  readonly endpoint: Endpoint;
  readonly #connection: Connection;

  /** `headers`: HttpHeaders of config.json. `address`: where to connect when that is not the endpoint's host. */
  constructor(endpoint: Endpoint, options: { headers?: Readonly<Record<string, string>>; address?: string } = {}) {
    this.endpoint = endpoint;
    this.#connection = new Connection({
      endpoint: parseEndpoint(options.address ?? endpoint.host, tlsSettings(endpoint.tls)),
      version: process.env['DOCKER_API_VERSION'] || undefined,
      headers: { ...options.headers, 'User-Agent': `Gantry-Client/${CLI_VERSION} (linux)` },
    });
  }

  /** The version spoken; this CLI's newest before the negotiation. */
  get version(): string {
    return this.#connection.knownVersion ?? CLIENT_API_VERSION;
  }

  /** Settles the version, so that a stream given to the next call is read at once. */
  async negotiate(): Promise<void> {
    await this.#asked(this.#connection.version());
  }

  async serverVersion(): Promise<Json> {
    return (await this.#asked(this.#connection.serverVersion())) as Json;
  }

  /** Whether the negotiated version is at least this one. */
  atLeast(version: string): boolean {
    return !isVersionLess(this.version, version);
  }

  /** Refuses a flag the daemon's API does not have yet, in docker's words. */
  async requireVersion(version: string, flag: string): Promise<void> {
    await this.negotiate();
    if (!this.atLeast(version))
      throw new ApiError(
        0,
        `"--${flag}" requires API version ${version}, but the Docker daemon API version is ${this.version}`,
      );
  }

  /** A call whose answer is JSON (or empty). */
  async json<T = Json>(method: string, path: string, options: CallOptions = {}): Promise<T> {
    const text = await this.#asked(this.open(method, path, options).then((response) => readText(response)));
    return (text === '' ? {} : JSON.parse(text)) as T;
  }

  /** A call whose answer is a stream. Errors are thrown before it begins. */
  open(method: string, path: string, options: CallOptions = {}): Promise<IncomingMessage> {
    return this.#asked(this.#connection.request(method, path, options));
  }

  /** A bare connection to the daemon. */
  async dial(): Promise<Socket> {
    return this.#asked(this.#connection.dial());
  }

  /** A call that upgrades to a raw connection. */
  hijack(path: string, options: CallOptions = {}): Promise<Hijacked> {
    return this.#asked(this.#connection.hijack(path, options));
  }

  async #asked<T>(promise: Promise<T>): Promise<T> {
    try {
      return await promise;
    } catch (error) {
      throw asApiError(error);
    }
  }
}

/** Parses an object; integers that a JavaScript number cannot hold become bigints. */
function parseExact(text: string): Json {
  const exact = (_key: string, value: unknown, context?: { source: string }): unknown =>
    typeof value === 'number' && !Number.isSafeInteger(value) && /^-?\d+$/.test(context?.source ?? '')
      ? BigInt(context?.source ?? 0)
      : value;
  return JSON.parse(text, exact as (key: string, value: unknown) => unknown) as Json;
}

/** The JSON values of a stream, one at a time. */
export function jsonLines(response: Readable): AsyncGenerator<Json, void, undefined> {
  return clientJsonLines<Json>(response as AsyncIterable<Buffer>, parseExact);
}
