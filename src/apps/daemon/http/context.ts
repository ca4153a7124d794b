/**
 * One request's RouteContext: decoding on first use, the ways to answer, and taking over the connection.
 *
 * Exactly one answer is begun per request; after `hijack` or `websocket` the response object is never used.
 */
import type { IncomingMessage, ServerResponse } from 'node:http';
import type { Socket } from 'node:net';
import type { Duplex } from 'node:stream';
import { setTimeout as delay } from 'node:timers/promises';
import { GantryError } from '#types/errors.ts';
import { readBody, readOptionalBody } from './body.ts';
import type { ApiVersion, HijackOptions, Query, Route, RouteContext } from './route.ts';
import { acceptHandshake, webSocketDuplex } from './websocket.ts';

/** How long a byte stream's first chunk may keep the head back, so that an early failure gets its own status. */
const EARLY_FAILURE_MS = 20;

/** What the server knows about a request before its handler runs. */
export interface RequestParts {
  readonly request: IncomingMessage;
  readonly response: ServerResponse;
  readonly route: Route;
  readonly params: Readonly<Record<string, string>>;
  readonly query: Query;
  readonly version: ApiVersion;
  readonly signal: AbortSignal;
  /** Frees the socket from the HTTP parser; bytes already read come first. */
  takeSocket(): Socket;
  /** Header lines every answer carries. */
  readonly commonHeaders: Readonly<Record<string, string>>;
}

/** Waits until `response` takes more, or is closed. */
async function drained(response: ServerResponse): Promise<void> {
  const { promise, resolve } = Promise.withResolvers<void>();
  const done = (): void => resolve();
  response.once('drain', done);
  response.once('close', done);
  if (response.destroyed || response.closed) done();
  await promise;
  response.off('drain', done);
  response.off('close', done);
}

export class RequestContext implements RouteContext {
  readonly request: IncomingMessage;
  readonly response: ServerResponse;
  readonly params: Readonly<Record<string, string>>;
  readonly query: Query;
  readonly version: ApiVersion;
  readonly signal: AbortSignal;
  readonly #parts: RequestParts;
  /** Set once the connection was taken over. */
  taken: Duplex | undefined;

  constructor(parts: RequestParts) {
    this.#parts = parts;
    this.request = parts.request;
    this.response = parts.response;
    this.params = parts.params;
    this.query = parts.query;
    this.version = parts.version;
    this.signal = parts.signal;
  }

  body<T>(schema: string): Promise<T> {
    return readBody<T>(this.request, schema);
  }

  optionalBody<T>(schema: string): Promise<T | undefined> {
    return readOptionalBody<T>(this.request, schema);
  }

  json(value: unknown, status = 200): void {
    this.#send(status, 'application/json', `${JSON.stringify(value)}\n`);
  }

  text(value: string, status = 200): void {
    this.#send(status, 'text/plain; charset=utf-8', value);
  }

  empty(status: number): void {
    if (status !== 204 && status !== 304) this.response.setHeader('Content-Length', 0);
    this.response.writeHead(status).end();
  }

  jsonLines(): { write(value: unknown): Promise<void>; end(): void } {
    const { response } = this;
    if (!response.headersSent) response.writeHead(200, { 'Content-Type': 'application/json' });
    response.flushHeaders();
    return {
      write: async (value) => {
        if (response.destroyed) throw new GantryError('cancelled', 'context canceled');
        if (!response.write(`${JSON.stringify(value)}\n`)) await drained(response);
      },
      end: () => void response.end(),
    };
  }

  async bytes(contentType: string, source: AsyncIterable<Buffer>): Promise<void> {
    const { response } = this;
    const iterator = source[Symbol.asyncIterator]();
    let next = iterator.next();
    await Promise.race([next, delay(EARLY_FAILURE_MS, undefined, { ref: false })]);
    response.writeHead(200, { 'Content-Type': contentType });
    response.flushHeaders();
    try {
      for (let item = await next; item.done !== true; item = await next) {
        if (response.destroyed) return;
        if (!response.write(item.value)) await drained(response);
        next = iterator.next();
      }
      response.end();
    } finally {
      await iterator.return?.();
    }
  }

  async hijack(options: HijackOptions): Promise<Duplex> {
    const socket = this.#parts.takeSocket();
    this.taken = socket;
    socket.write(this.#hijackHead(options));
    return socket;
  }

  #hijackHead(options: HijackOptions): string {
    // Compat: dockerd writes the head by hand; exec start copies the common headers, attach does not.
    const isExec = this.#parts.route.path.startsWith('/exec/');
    const common = isExec ? Object.entries(this.#parts.commonHeaders) : [];
    const extra = common.map(([name, value]) => `${name}: ${value}\r\n`).join('');
    if (this.request.headers.upgrade === undefined) {
      return `HTTP/1.1 200 OK\r\nContent-Type: application/vnd.docker.raw-stream\r\n${extra}\r\n`;
    }
    return `HTTP/1.1 101 UPGRADED\r\nContent-Type: ${options.contentType}\r\nConnection: Upgrade\r\nUpgrade: tcp\r\n${extra}\r\n`;
  }

  async websocket(): Promise<Duplex> {
    const head = acceptHandshake(this.request);
    const socket = this.#parts.takeSocket();
    socket.write(head);
    const duplex = webSocketDuplex(socket, this.version.atLeast(28) ? 'binary' : 'text');
    this.taken = duplex;
    return duplex;
  }

  #send(status: number, contentType: string, body: string): void {
    const { response } = this;
    if (response.headersSent || response.destroyed) return;
    response.writeHead(status, { 'Content-Type': contentType, 'Content-Length': Buffer.byteLength(body) });
    response.end(body);
  }
}
