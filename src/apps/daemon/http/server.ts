/**
 * The Engine API's HTTP server: node:http, own router, dockerd's headers, versions and error answers.
 *
 * Nothing a client sends ends the process: malformed requests are answered by the parser's error path, handler
 * failures become error answers or an aborted connection. `close` is bounded in time.
 */
import { createServer, type IncomingMessage, type Server, ServerResponse } from 'node:http';
import type { Socket } from 'node:net';
import type { Duplex } from 'node:stream';
import { errorKind, errorMessage, GantryError } from '#types/errors.ts';
import { RequestContext } from './context.ts';
import { errorBody, statusOf } from './errors.ts';
import { parseQuery, unescapeComponent } from './query.ts';
import type { ApiVersion, Route } from './route.ts';
import { type Match, Router } from './router.ts';
import { apiVersion, checkVersion, MAX_API_VERSION, splitVersion, wantsPlainErrors } from './version.ts';

/** As much as Go's server takes; X-Registry-Config carries many credentials. */
export const MAX_HEADER_BYTES: number = 1024 * 1024;
/** Connections at once over all listeners; each costs a descriptor. */
export const MAX_CONNECTIONS = 4096;
/** Time for a client to send its request head. */
const HEADERS_TIMEOUT_MS = 60_000;
/** Idle kept-alive connections are closed after this. Clients pool them, dockerd keeps them for ever. */
const KEEP_ALIVE_TIMEOUT_MS = 300_000;
/** How long `close` waits for answers under way. */
const CLOSE_TIMEOUT_MS = 5_000;

/** How long a hijacked connection may stay half-closed after its handler is done. */
const LINGER_MS = 10_000;

/** Where the server reports what users do not see. */
export interface ServerLog {
  debug(message: string, fields?: Readonly<Record<string, string | number>>): void;
  error(message: string, fields?: Readonly<Record<string, string | number>>): void;
}

export interface ApiServerOptions {
  readonly routes: readonly Route[];
  /** Version in the Server header. */
  readonly engineVersion: string;
  readonly experimental?: boolean;
  readonly minApiVersion?: string;
  readonly log: ServerLog;
}

/** Routes whose connection a handler may take over; an Upgrade header elsewhere is ignored, as in dockerd. */
const HIJACKABLE = /^(\/v[0-9.]+)?\/(containers\/[^/]+\/attach(\/ws)?|exec\/[^/]+\/start|session|grpc)$/;

function pathOf(url: string): string {
  const at = url.indexOf('?');
  return at < 0 ? url : url.slice(0, at);
}

export class ApiServer {
  readonly #router: Router;
  readonly #options: ApiServerOptions;
  readonly #headers: Readonly<Record<string, string>>;
  readonly #servers: Server[] = [];
  readonly #active = new Set<AbortController>();
  readonly #taken = new Set<Duplex>();
  #isClosing = false;
  #connections = 0;
  #requests = 0;

  constructor(options: ApiServerOptions) {
    this.#options = options;
    this.#router = new Router(options.routes);
    this.#headers = {
      'Api-Version': MAX_API_VERSION,
      'Docker-Experimental': String(options.experimental ?? false),
      Ostype: 'linux',
      Server: `Docker/${options.engineVersion} (linux)`,
    };
  }

  /** Requests ever received. */
  get requestCount(): number {
    return this.#requests;
  }

  /** Requests being answered, hijacked connections included. */
  get activeRequests(): number {
    return this.#active.size;
  }

  /** An HTTP server for one listener; the caller makes it listen or feeds it connections. */
  createListener(): Server {
    const server = createServer({
      maxHeaderSize: MAX_HEADER_BYTES,
      headersTimeout: HEADERS_TIMEOUT_MS,
      requestTimeout: 0,
      keepAliveTimeout: KEEP_ALIVE_TIMEOUT_MS,
      shouldUpgradeCallback: (request: IncomingMessage) => HIJACKABLE.test(pathOf(request.url ?? '')),
    });
    server.on('connection', (socket) => this.#admit(socket));
    server.on('request', (request, response) => this.#serve(request, response, undefined));
    server.on('upgrade', (request: IncomingMessage, socket: Duplex, head: Buffer) => {
      const response = new ServerResponse(request);
      response.assignSocket(socket as Socket);
      response.shouldKeepAlive = false;
      response.on('finish', () => socket.end());
      socket.on('error', () => socket.destroy());
      this.#serve(request, response, { socket: socket as Socket, head });
    });
    server.on('clientError', answerClientError);
    this.#servers.push(server);
    return server;
  }

  /** Stops accepting, ends long polls and hijacked connections, waits a bounded time for the rest. */
  async close(timeoutMs: number = CLOSE_TIMEOUT_MS): Promise<void> {
    this.#isClosing = true;
    const closed = this.#servers.map(closeServer);
    const reason = new GantryError('unavailable', 'daemon is shutting down');
    for (const controller of this.#active) controller.abort(reason);
    for (const server of this.#servers) server.closeIdleConnections();
    const { promise, resolve } = Promise.withResolvers<void>();
    const timer = setTimeout(resolve, timeoutMs);
    await Promise.race([Promise.all(closed), promise]);
    clearTimeout(timer);
    for (const duplex of this.#taken) duplex.destroy();
    for (const server of this.#servers) server.closeAllConnections();
  }

  #admit(socket: Socket): void {
    if (this.#connections >= MAX_CONNECTIONS || this.#isClosing) {
      socket.destroy();
      return;
    }
    this.#connections++;
    socket.once('close', () => this.#connections--);
  }

  #serve(request: IncomingMessage, response: ServerResponse, upgraded: Upgraded | undefined): void {
    this.#requests += 1;
    for (const [name, value] of Object.entries(this.#headers)) response.setHeader(name, value);
    // Without a listener, an abort while the body is read would be an uncaught exception.
    request.on('error', () => {});
    response.on('error', () => {});
    const controller = new AbortController();
    this.#active.add(controller);
    if (this.#isClosing) controller.abort(new GantryError('unavailable', 'daemon is shutting down'));
    const call: Call = {
      request,
      response,
      upgraded,
      controller,
      context: undefined,
      version: undefined,
      route: undefined,
    };
    const { socket } = request;
    const gone = (): void => controller.abort(new GantryError('cancelled', 'context canceled'));
    response.on('close', () => {
      if (!response.writableFinished && call.context?.taken === undefined) gone();
    });
    socket.once('close', gone);
    this.#run(call)
      .catch((error: unknown) => this.#fail(call, error))
      .finally(() => {
        this.#active.delete(controller);
        socket.off('close', gone);
      });
  }

  async #run(call: Call): Promise<void> {
    const { request } = call;
    // Absolute form, as clients send it that take us for a proxy: the authority says nothing here.
    const url = (request.url ?? '/').replace(/^https?:\/\/[^/?#]*(?=[/?]|$)/i, '');
    if (!url.startsWith('/')) throw new GantryError('invalid', 'invalid request URI');
    const path = unescapeComponent(pathOf(url));
    const clean = cleanPath(path);
    if (clean !== path) return redirect(call, clean, url);
    const split = splitVersion(path);
    call.version = split.version;
    const match = this.#match(request.method ?? 'GET', split.path);
    if (match === undefined) throw new GantryError('notFound', 'page not found');
    call.route = match.route;
    const version = split.version ?? apiVersion(MAX_API_VERSION);
    checkVersion(version, this.#options.minApiVersion);
    if (match.route.since !== undefined && !version.atLeast(match.route.since)) {
      const { method, path: routePath, since } = match.route;
      throw new GantryError('invalid', `${method} ${routePath} requires minimum API version 1.${since}`);
    }
    call.context = this.#contextOf(call, match, version);
    await match.route.handler(call.context);
    this.#settleTaken(call.context.taken);
  }

  #match(method: string, path: string): Match | undefined {
    if (method === 'OPTIONS') return { route: OPTIONS_ROUTE, params: {} };
    return this.#router.match(method, path);
  }

  #contextOf(call: Call, match: Match, version: ApiVersion): RequestContext {
    const { request, response } = call;
    const url = request.url ?? '/';
    const at = url.indexOf('?');
    return new RequestContext({
      request,
      response,
      route: match.route,
      params: match.params,
      query: parseQuery(at < 0 ? '' : url.slice(at + 1)),
      version,
      signal: call.controller.signal,
      commonHeaders: this.#headers,
      takeSocket: () => this.#takeSocket(call),
    });
  }

  #takeSocket(call: Call): Socket {
    const socket = call.upgraded?.socket ?? call.request.socket;
    call.response.detachSocket(socket);
    if (call.upgraded === undefined) releaseFromParser(socket);
    else if (call.upgraded.head.length > 0) socket.unshift(call.upgraded.head);
    // A body that came after the head makes node hand over a wrapper; the options belong to the socket inside.
    call.request.socket.setTimeout(0);
    call.request.socket.setNoDelay(true);
    socket.on('error', () => {});
    this.#taken.add(socket);
    socket.once('close', () => this.#taken.delete(socket));
    return socket;
  }

  /** The handler of a hijacked connection is done: half-close our side, as dockerd's CloseWrite does. */
  #settleTaken(taken: Duplex | undefined): void {
    if (taken === undefined || taken.destroyed) return;
    taken.end();
    // Unread input would keep the socket open for ever, and so would a client that never closes its side.
    taken.resume();
    const timer = setTimeout(() => taken.destroy(), LINGER_MS).unref();
    taken.once('close', () => clearTimeout(timer));
  }

  #fail(call: Call, error: unknown): void {
    const { request, response, context } = call;
    const status = statusOf(error);
    if (status >= 500 && errorKind(error) !== 'cancelled') {
      const message = `Handler for ${request.method} ${pathOf(request.url ?? '')} returned error: ${errorMessage(error)}`;
      this.#options.log.error(message);
      if (error instanceof Error && !(error instanceof GantryError)) this.#options.log.debug(error.stack ?? '');
    }
    if (context?.taken !== undefined) {
      context.taken.destroy();
      return;
    }
    if (response.headersSent) {
      response.destroy();
      return;
    }
    this.#answerError(call, status, error);
  }

  #answerError(call: Call, status: number, error: unknown): void {
    const { request, response } = call;
    // The socket is null once the connection is gone, whatever the types say.
    if (response.destroyed || (request.socket as Socket | null)?.destroyed !== false) return;
    // An unread body would be taken for the next request.
    if (!request.complete) response.shouldKeepAlive = false;
    if (status === 304) {
      response.writeHead(304).end();
      return;
    }
    // Compat: attach fails with plain text under the stream's content type.
    if (call.route?.path === '/containers/{id}/attach') {
      response.writeHead(status, { 'Content-Type': 'application/vnd.docker.raw-stream', Connection: 'close' });
      response.end(`${errorMessage(error)}\r\n`);
      return;
    }
    const body = errorBody(error, call.version !== undefined && wantsPlainErrors(call.version));
    response.writeHead(status, { 'Content-Type': body.contentType, 'Content-Length': Buffer.byteLength(body.text) });
    if (request.complete || request.method === 'HEAD') response.end(request.method === 'HEAD' ? undefined : body.text);
    else endAfterUpload(request, response, body.text);
  }
}

/**
 * Closing while the client still sends makes its kernel throw the answer away. So the answer goes out whole, what
 * comes is thrown away for a while, and only then the connection ends.
 */
function endAfterUpload(request: IncomingMessage, response: ServerResponse, text: string): void {
  response.write(text);
  const timer = setTimeout(() => response.end(), LINGER_MS).unref();
  const end = (): void => {
    clearTimeout(timer);
    response.end();
  };
  request.once('end', end).once('close', end);
  request.resume();
}

interface Upgraded {
  readonly socket: Socket;
  readonly head: Buffer;
}

interface Call {
  readonly request: IncomingMessage;
  readonly response: ServerResponse;
  readonly upgraded: Upgraded | undefined;
  readonly controller: AbortController;
  context: RequestContext | undefined;
  version: ApiVersion | undefined;
  route: Route | undefined;
}

const OPTIONS_ROUTE: Route = { method: 'OPTIONS', path: '/{any:.*}', handler: (context) => context.empty(200) };

/** Go's path.Clean for an absolute path, keeping a trailing slash. */
function cleanPath(path: string): string {
  if (!/\/\/|\/\.\.?(\/|$)/.test(path)) return path;
  const parts: string[] = [];
  for (const part of path.split('/')) {
    if (part === '..') parts.pop();
    else if (part !== '' && part !== '.') parts.push(part);
  }
  return `/${parts.join('/')}${path.endsWith('/') && parts.length > 0 ? '/' : ''}`;
}

function redirect(call: Call, path: string, url: string): void {
  const at = url.indexOf('?');
  call.response.writeHead(301, { Location: encodeURI(path) + (at < 0 ? '' : url.slice(at)), 'Content-Length': 0 });
  call.response.end();
}

/** Takes a socket from node's HTTP parser although the request was no upgrade: old clients hijack without asking. */
function releaseFromParser(socket: Socket): void {
  // Adding a reader makes node hand the descriptor back from the parser to the stream.
  const noop = (): void => {};
  socket.on('data', noop);
  for (const event of ['data', 'end', 'drain', 'timeout']) socket.removeAllListeners(event);
  socket.pause();
}

function answerClientError(error: Error & { code?: string }, socket: Duplex): void {
  if (!socket.writable || (error.code === 'ECONNRESET' && socket.destroyed)) {
    socket.destroy();
    return;
  }
  const isTooLarge = error.code === 'HPE_HEADER_OVERFLOW';
  const status = isTooLarge ? '431 Request Header Fields Too Large' : '400 Bad Request';
  socket.end(
    `HTTP/1.1 ${status}\r\nContent-Type: text/plain; charset=utf-8\r\nConnection: close\r\n\r\n${status}`,
    () => socket.destroy(),
  );
}

async function closeServer(server: Server): Promise<void> {
  if (!server.listening) return;
  const { promise, resolve } = Promise.withResolvers<void>();
  server.close(() => resolve());
  await promise;
}
