/**
 * HTTP to one daemon: requests, hijacked connections, error answers. Knows nothing of the API's operations.
 *
 * Node's modules are fetched when first used, so that importing the client costs next to nothing.
 */
import type { Agent, ClientRequest, IncomingMessage, RequestOptions } from 'node:http';
import type { Socket } from 'node:net';
import type { Duplex, Readable } from 'node:stream';
import { type ErrorKind, GantryError } from '#types/errors.ts';
import { connectionError, type Endpoint } from './endpoint.ts';

/** Error answers are short; what is longer is cut. */
const MAX_ERROR_BYTES = 256 * 1024;
/** JSON answers; `docker inspect` of thousands of containers stays far below. */
const MAX_ANSWER_BYTES = 512 * 1024 * 1024;

/** Compat: the host name docker's own client uses for unix sockets. */
const UNIX_HOST_NAME = 'api.moby.localhost';

const KIND_BY_STATUS: Readonly<Record<number, ErrorKind>> = {
  304: 'notModified',
  400: 'invalid',
  401: 'unauthorized',
  403: 'forbidden',
  404: 'notFound',
  409: 'conflict',
  429: 'tooManyRequests',
  501: 'notImplemented',
  503: 'unavailable',
};

/** An error answer of the daemon; the message is the daemon's own. */
export class ResponseError extends GantryError {
  readonly status: number;

  constructor(status: number, message: string) {
    super(KIND_BY_STATUS[status] ?? (status < 500 ? 'invalid' : 'system'), message);
    this.status = status;
  }
}

export type QueryValue = string | number | boolean | readonly string[] | undefined;

/** Query parameters; undefined ones are left out, booleans become 1 and 0, objects belong in as JSON texts. */
export type QueryValues = Readonly<Record<string, QueryValue>>;

export interface RequestSettings {
  readonly query?: QueryValues | undefined;
  /** Sent as JSON. */
  readonly body?: unknown;
  /** Sent as it is, chunked. */
  readonly stream?: Readable | undefined;
  readonly headers?: Readonly<Record<string, string>> | undefined;
  readonly signal?: AbortSignal | undefined;
}

/** Encodes a query with its leading `?`; empty for none. */
export function encodeQuery(query: QueryValues | undefined): string {
  const search = new URLSearchParams();
  for (const [key, value] of Object.entries(query ?? {})) {
    if (value === undefined) continue;
    if (typeof value === 'boolean') search.append(key, value ? '1' : '0');
    else if (typeof value === 'object') for (const item of value) search.append(key, item);
    else search.append(key, String(value));
  }
  return search.size === 0 ? '' : `?${search}`;
}

/** Reads a whole answer as text; throws `system` past a limit. */
export async function readText(response: IncomingMessage, limitBytes: number = MAX_ANSWER_BYTES): Promise<string> {
  const chunks: Buffer[] = [];
  let sizeBytes = 0;
  for await (const chunk of response as AsyncIterable<Buffer>) {
    sizeBytes += chunk.length;
    if (sizeBytes > limitBytes) throw new GantryError('system', `answer is larger than ${limitBytes} bytes`);
    chunks.push(chunk);
  }
  return Buffer.concat(chunks).toString('utf8');
}

/** The daemon's error answer as an error with its message. */
export async function errorOfResponse(response: IncomingMessage): Promise<ResponseError> {
  const status = response.statusCode ?? 500;
  const text = (await readText(response, MAX_ERROR_BYTES).catch(() => '')).trim();
  try {
    const { message } = JSON.parse(text) as { message?: unknown };
    if (typeof message === 'string') return new ResponseError(status, message);
  } catch {
    // Plain text, from an old daemon or a proxy.
  }
  return new ResponseError(
    status,
    text === '' ? `request returned ${status} ${response.statusMessage ?? ''}`.trim() : text,
  );
}

/** A connection taken over from HTTP. */
export interface TakenConnection {
  readonly socket: Socket;
  readonly contentType: string;
}

/** An abort ends a stream that is being read as `cancelled`, not as a connection that broke. */
export function endWithSignal(stream: Duplex | Readable, signal: AbortSignal | undefined): void {
  if (signal === undefined) return;
  const abort = (): void => {
    stream.destroy(new GantryError('cancelled', 'context canceled', { cause: signal.reason }));
  };
  signal.addEventListener('abort', abort, { once: true });
  stream.once('close', () => signal.removeEventListener('abort', abort));
}

export class Transport implements Disposable {
  readonly endpoint: Endpoint;
  readonly #headers: Readonly<Record<string, string>>;
  #agent: Agent | undefined;

  constructor(endpoint: Endpoint, headers: Readonly<Record<string, string>>) {
    this.endpoint = endpoint;
    this.#headers = headers;
  }

  /** Sends a request; resolves with the answer's head. Statuses of 400 and more are thrown with the daemon's message. */
  async send(method: string, path: string, settings: RequestSettings = {}): Promise<IncomingMessage> {
    const { promise, resolve, reject } = Promise.withResolvers<IncomingMessage>();
    const request = this.#open(method, path, settings);
    request.on('response', resolve);
    request.on('error', (error) => reject(connectionError(this.endpoint, error)));
    this.#sendBody(request, settings, reject);
    const response = await promise;
    // A break-off later shows on the response; without a listener it would end the process.
    request.on('error', () => {});
    endWithSignal(response, settings.signal);
    if ((response.statusCode ?? 500) >= 400) throw await errorOfResponse(response);
    return response;
  }

  /** The text of a short answer; over a unix socket node:http is not even loaded for it. */
  async getText(path: string): Promise<string> {
    if (this.endpoint.kind === 'unix') {
      const { getOnce } = await import('./get-once.ts');
      try {
        const text = await getOnce(this.endpoint.socketPath, path, { Host: UNIX_HOST_NAME, ...this.#headers });
        if (text !== undefined) return text;
      } catch (error) {
        throw connectionError(this.endpoint, error as Error);
      }
    }
    return await readText(await this.send('GET', path));
  }

  /** Opens a connection and leaves it alone. */
  async dial(signal?: AbortSignal): Promise<Socket> {
    const { endpoint } = this;
    const { promise, resolve, reject } = Promise.withResolvers<Socket>();
    const options = { allowHalfOpen: true, ...(signal === undefined ? {} : { signal }) };
    let socket: Socket;
    if (endpoint.kind === 'unix')
      socket = process.getBuiltinModule('node:net').connect({ ...options, path: endpoint.socketPath });
    else if (endpoint.tls === undefined)
      socket = process
        .getBuiltinModule('node:net')
        .connect({ ...options, host: endpoint.hostname, port: endpoint.port });
    else
      socket = process
        .getBuiltinModule('node:tls')
        .connect({ ...options, ...(this.#target() as import('node:tls').ConnectionOptions) });
    const failed = (error: Error): void => reject(connectionError(endpoint, error));
    socket.once('error', failed);
    socket.once(endpoint.kind === 'tcp' && endpoint.tls !== undefined ? 'secureConnect' : 'connect', () => {
      socket.off('error', failed);
      resolve(socket);
    });
    return await promise;
  }

  /** Asks for an upgrade to `protocol` and takes the connection over. */
  async upgrade(
    method: string,
    path: string,
    settings: RequestSettings & { readonly protocol: string },
  ): Promise<TakenConnection> {
    const { promise, resolve, reject } = Promise.withResolvers<TakenConnection>();
    const headers = { ...settings.headers, Connection: 'Upgrade', Upgrade: settings.protocol };
    const request = this.#open(method, path, { ...settings, headers });
    request.on('upgrade', (response, socket, head: Buffer) => {
      if (head.length > 0) socket.unshift(head);
      socket.on('error', () => {});
      resolve({ socket: socket as Socket, contentType: String(response.headers['content-type'] ?? '') });
    });
    request.on('response', (response) => {
      if ((response.statusCode ?? 500) < 400) {
        response.destroy();
        reject(new GantryError('system', `unable to upgrade to ${settings.protocol}, received ${response.statusCode}`));
      } else errorOfResponse(response).then(reject, reject);
    });
    request.on('error', (error) => reject(connectionError(this.endpoint, error)));
    this.#sendBody(request, settings, reject);
    return await promise;
  }

  [Symbol.dispose](): void {
    this.#agent?.destroy();
    this.#agent = undefined;
  }

  #open(method: string, path: string, settings: RequestSettings): ClientRequest {
    const hasJson = settings.body !== undefined && settings.stream === undefined;
    const options: RequestOptions = {
      ...this.#target(),
      method,
      path,
      agent: this.#agentInUse(),
      headers: { ...this.#headers, ...(hasJson ? { 'Content-Type': 'application/json' } : {}), ...settings.headers },
    };
    if (settings.signal !== undefined) options.signal = settings.signal;
    const module = this.#isTls() ? process.getBuiltinModule('node:https') : process.getBuiltinModule('node:http');
    return module.request(options);
  }

  #sendBody(request: ClientRequest, settings: RequestSettings, reject: (error: Error) => void): void {
    const { body, stream } = settings;
    if (stream !== undefined) {
      stream.on('error', (error) => {
        reject(error);
        request.destroy();
      });
      stream.pipe(request);
    } else if (body === undefined) {
      // Go's servers want a length on POST even without a body.
      if (request.method !== 'GET' && request.method !== 'HEAD') request.setHeader('Content-Length', 0);
      request.end();
    } else {
      const text = JSON.stringify(body);
      request.setHeader('Content-Length', Buffer.byteLength(text));
      request.end(text);
    }
  }

  #isTls(): boolean {
    return this.endpoint.kind === 'tcp' && this.endpoint.tls !== undefined;
  }

  #target(): RequestOptions {
    const { endpoint } = this;
    if (endpoint.kind === 'unix') return { socketPath: endpoint.socketPath, setHost: true, host: UNIX_HOST_NAME };
    const { tls } = endpoint;
    const target = { host: endpoint.hostname, port: endpoint.port };
    return tls === undefined
      ? target
      : ({
          ...target,
          ca: tls.ca,
          cert: tls.cert,
          key: tls.key,
          rejectUnauthorized: tls.verify ?? true,
        } as RequestOptions);
  }

  #agentInUse(): Agent {
    const module = this.#isTls() ? process.getBuiltinModule('node:https') : process.getBuiltinModule('node:http');
    this.#agent ??= new module.Agent({ keepAlive: true });
    return this.#agent;
  }
}
