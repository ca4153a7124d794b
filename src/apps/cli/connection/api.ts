/**
 * The CLI's connection to the Engine API: version negotiation, JSON calls, byte streams and hijacked
 * connections over unix, TCP and TLS. Responses stay untyped JSON because templates run on them.
 */
import type { IncomingMessage } from 'node:http';
import type { Socket } from 'node:net';
import type { Duplex, Readable } from 'node:stream';
import type { Endpoint } from '../config/endpoint.ts';
import { CLI_VERSION } from '../version.ts';

/** An answer of the daemon that is an error; `message` is what the user sees after the prefix. */
export class ApiError extends Error {
  override readonly name = 'ApiError';
  readonly status: number;

  constructor(status: number, message: string) {
    super(message);
    this.status = status;
  }
}

/** Query values; undefined ones are left out. */
export type Query = Readonly<Record<string, string | number | boolean | readonly string[] | undefined>>;

/** The optional parts of a call. */
export interface CallOptions {
  readonly query?: Query;
  readonly body?: unknown;
  readonly stream?: Readable | undefined;
  readonly headers?: Readonly<Record<string, string>>;
}

/** Any JSON object of the API. */
export type Json = Record<string, unknown>;

/** The newest API version this CLI speaks. */
export const CLIENT_API_VERSION = '1.51';

/** A hijacked connection: `stream` is raw after the headers. */
export interface Hijacked {
  readonly socket: Socket;
  readonly isMultiplexed: boolean;
}

function encodeQuery(query: Query): string {
  const parts: string[] = [];
  for (const [key, value] of Object.entries(query)) {
    if (value === undefined) continue;
    for (const one of Array.isArray(value) ? value : [value]) {
      parts.push(
        `${encodeURIComponent(key)}=${encodeURIComponent(one === true ? '1' : one === false ? '0' : String(one))}`,
      );
    }
  }
  return parts.length === 0 ? '' : `?${parts.join('&')}`;
}

function compareVersions(a: string, b: string): number {
  const [aMajor = 0, aMinor = 0] = a.split('.').map(Number);
  const [bMajor = 0, bMinor = 0] = b.split('.').map(Number);
  return aMajor - bMajor || aMinor - bMinor;
}

/** The connection. */
export class Api {
  readonly endpoint: Endpoint;
  version: string = process.env['DOCKER_API_VERSION'] || CLIENT_API_VERSION;
  serverOs = 'linux';
  #negotiated = (process.env['DOCKER_API_VERSION'] ?? '') !== '';

  constructor(endpoint: Endpoint) {
    this.endpoint = endpoint;
  }

  /** Asks the daemon for its version once and speaks the lower of both. */
  async negotiate(): Promise<void> {
    if (this.#negotiated) return;
    this.#negotiated = true;
    const response = await this.#send('HEAD', '/_ping', {});
    response.resume();
    const server = response.headers['api-version'];
    this.serverOs = String(response.headers['ostype'] ?? 'linux');
    if (typeof server === 'string' && compareVersions(server, this.version) < 0) this.version = server;
  }

  /** GET /version without negotiating first: its answer carries the version, which saves a round trip. */
  async serverVersion(): Promise<Json> {
    if (this.#negotiated) return this.json('GET', '/version');
    const answer = JSON.parse((await this.#getQuickly('/version')) ?? (await this.#getText('/version'))) as Json;
    const server = answer['ApiVersion'];
    if (typeof server === 'string' && compareVersions(server, this.version) < 0) this.version = server;
    this.#negotiated = true;
    return answer;
  }

  /** Whether the negotiated version is at least this one. */
  atLeast(version: string): boolean {
    return compareVersions(this.version, version) >= 0;
  }

  /** A call whose answer is JSON (or empty). */
  async json<T = Json>(method: string, path: string, options: CallOptions = {}): Promise<T> {
    const response = await this.open(method, path, options);
    const text = await readAll(response);
    return (text === '' ? {} : JSON.parse(text)) as T;
  }

  /** A call whose answer is a stream. Errors are thrown before it begins. */
  async open(method: string, path: string, options: CallOptions = {}): Promise<IncomingMessage> {
    await this.negotiate();
    const response = await this.#send(method, `/v${this.version}${path}${encodeQuery(options.query ?? {})}`, options);
    if ((response.statusCode ?? 500) >= 400) throw await errorOf(response);
    return response;
  }

  /** A call that upgrades to a raw connection. */
  async hijack(path: string, options: CallOptions = {}): Promise<Hijacked> {
    await this.negotiate();
    const http = process.getBuiltinModule('node:http');
    const body = options.body === undefined ? '' : JSON.stringify(options.body);
    const { promise, resolve, reject } = Promise.withResolvers<Hijacked>();
    const request = http.request({
      ...this.#target(),
      method: 'POST',
      path: `/v${this.version}${path}${encodeQuery(options.query ?? {})}`,
      headers: {
        ...this.#headers(),
        'Content-Type': 'application/json',
        'Content-Length': Buffer.byteLength(body),
        Connection: 'Upgrade',
        Upgrade: 'tcp',
      },
    });
    request.on('upgrade', (response, socket: Duplex, head) => {
      if (head.length > 0) socket.unshift(head);
      const type = String(response.headers['content-type'] ?? '');
      resolve({ socket: socket as Socket, isMultiplexed: type.includes('multiplexed') });
    });
    request.on('response', (response) => {
      errorOf(response).then(reject, reject);
    });
    request.on('error', (error) => reject(this.#connectError(error)));
    request.end(body);
    return promise;
  }

  #target(): Record<string, unknown> {
    const { host, tls } = this.endpoint;
    if (host.startsWith('unix://')) return { socketPath: host.slice(7) };
    const url = new URL(host.replace(/^tcp:/, 'http:'));
    const target = { host: url.hostname.replace(/^\[|\]$/g, ''), port: url.port || (tls === undefined ? 80 : 443) };
    if (tls === undefined) return target;
    const { readFileSync, existsSync } = process.getBuiltinModule('node:fs');
    const read = (path: string): Buffer | undefined => (existsSync(path) ? readFileSync(path) : undefined);
    const settings = { ca: read(tls.ca), cert: read(tls.cert), key: read(tls.key), rejectUnauthorized: tls.verify };
    return {
      ...target,
      createConnection: () =>
        process.getBuiltinModule('node:tls').connect({ ...target, port: Number(target.port), ...settings }),
    };
  }

  #headers(): Record<string, string> {
    return {
      Host: this.endpoint.host.startsWith('unix://') ? 'docker' : new URL(this.endpoint.host).host,
      'User-Agent': `Gantry-Client/${CLI_VERSION} (linux)`,
    };
  }

  #send(method: string, path: string, options: CallOptions): Promise<IncomingMessage> {
    const http = process.getBuiltinModule('node:http');
    const { promise, resolve, reject } = Promise.withResolvers<IncomingMessage>();
    const headers: Record<string, string | number> = { ...this.#headers(), ...options.headers };
    const body = options.body === undefined ? undefined : JSON.stringify(options.body);
    if (body !== undefined) {
      headers['Content-Type'] = 'application/json';
      headers['Content-Length'] = Buffer.byteLength(body);
    } else if (method === 'POST' && options.stream === undefined) headers['Content-Length'] = 0;
    const request = http.request({ ...this.#target(), method, path, headers }, resolve);
    request.on('error', (error) => reject(this.#connectError(error)));
    if (options.stream !== undefined) options.stream.on('error', reject).pipe(request);
    else request.end(body);
    return promise;
  }

  async #getText(path: string): Promise<string> {
    const response = await this.#send('GET', path, {});
    if ((response.statusCode ?? 500) >= 400) throw await errorOf(response);
    return readAll(response);
  }

  /** One short GET over a unix socket without loading node:http; undefined where that does not fit. */
  async #getQuickly(path: string): Promise<string | undefined> {
    if (!this.endpoint.host.startsWith('unix://')) return undefined;
    const { getOnce } = await import('./get-once.ts');
    try {
      return await getOnce(this.endpoint.host.slice('unix://'.length), path, this.#headers());
    } catch (error) {
      throw this.#connectError(error as Error);
    }
  }

  #connectError(error: Error & { code?: string }): Error {
    const code = error.code ?? '';
    if (code === 'EACCES') {
      return new ApiError(
        0,
        `permission denied while trying to connect to the Docker daemon socket at ${this.endpoint.host}`,
      );
    }
    if (['ENOENT', 'ECONNREFUSED', 'ENOTSOCK', 'EHOSTUNREACH', 'ETIMEDOUT'].includes(code)) {
      return new ApiError(
        0,
        `Cannot connect to the Docker daemon at ${this.endpoint.host}. Is the docker daemon running?`,
      );
    }
    return error;
  }
}

/** Reads a whole response as text. */
export async function readAll(response: Readable): Promise<string> {
  const chunks: Buffer[] = [];
  for await (const chunk of response) chunks.push(chunk as Buffer);
  return Buffer.concat(chunks).toString('utf8');
}

async function errorOf(response: IncomingMessage): Promise<ApiError> {
  const text = await readAll(response);
  let message = text.trim();
  try {
    message = String((JSON.parse(text) as Json)['message'] ?? message);
  } catch {
    // Compat: some answers are plain text.
  }
  if (message === '') message = `request returned ${response.statusMessage ?? ''} for API route and version`;
  return new ApiError(response.statusCode ?? 500, `Error response from daemon: ${message}`);
}

/** Parses an object; integers that a JavaScript number cannot hold become bigints. */
function parseExact(text: string): Json {
  const exact = (_key: string, value: unknown, context?: { source: string }): unknown =>
    typeof value === 'number' && !Number.isSafeInteger(value) && /^-?\d+$/.test(context?.source ?? '')
      ? BigInt(context?.source ?? 0)
      : value;
  return JSON.parse(text, exact as (key: string, value: unknown) => unknown) as Json;
}

/** The JSON values of a stream of concatenated objects, one at a time. */
export async function* jsonLines(response: Readable): AsyncGenerator<Json> {
  let rest = '';
  const decoder = new TextDecoder();
  for await (const chunk of response) {
    rest += decoder.decode(chunk as Uint8Array, { stream: true });
    let newline = rest.indexOf('\n');
    while (newline !== -1) {
      const line = rest.slice(0, newline).trim();
      rest = rest.slice(newline + 1);
      if (line !== '') yield parseExact(line);
      newline = rest.indexOf('\n');
    }
  }
  if (rest.trim() !== '') yield parseExact(rest);
}
