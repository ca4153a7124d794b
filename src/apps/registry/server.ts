/**
 * The registry's HTTP server: limits first, then who is asking, then one use-case. Nothing a client sends ends the
 * process; failures become the spec's error bodies, or an aborted connection once an answer has begun.
 */
import { createServer, type IncomingMessage, type Server, type ServerResponse } from 'node:http';
import { createServer as createTlsServer, type Server as TlsServer } from 'node:https';
import type { AddressInfo, Socket } from 'node:net';
import type { Caller, RegistryServices } from '#engine/registry/services.ts';
import { type Actor, type Credentials, parseAuthorization } from '#services/registry/access/access.ts';
import type { RepositoryName } from '#services/registry/contract.ts';
import { MAX_MANIFEST_BYTES } from '#services/registry/manifest.ts';
import { DistributionError } from '#types/distribution-error.ts';
import { errorMessage } from '#types/errors.ts';
import { asDistributionError, errorBody, statusOf } from './answers.ts';
import { Exchange } from './exchange.ts';
import { serveBlob } from './handlers/blobs.ts';
import { serveCatalog, serveReferrers, serveTags } from './handlers/discovery.ts';
import { serveManifest } from './handlers/manifests.ts';
import { serveToken } from './handlers/token.ts';
import { beginUpload, serveUpload } from './handlers/uploads.ts';
import type { RegistryMetrics } from './metrics.ts';
import { servePage } from './pages/pages.ts';
import { matchRoute, methodsOf, type Route } from './routes.ts';

const MAX_HEADER_BYTES = 32 * 1024;
const MAX_CONNECTIONS = 2048;
/** Connections of one address at once. */
const MAX_CONNECTIONS_PER_ADDRESS = 512;
/** Requests with a body at once; each holds a descriptor and a buffer. */
const MAX_WRITES = 128;
/** Blobs being sent at once; each holds a descriptor and two chunks. */
const MAX_DOWNLOADS = 256;
/** Bytes of manifests being received at once; these are held in memory. */
const MAX_MANIFESTS_IN_FLIGHT_BYTES = 32 * 1024 * 1024;
const HEADERS_TIMEOUT_MS = 15_000;
const KEEP_ALIVE_TIMEOUT_MS = 60_000;
/** A connection on which nothing moves for this long is cut. */
const SILENCE_MS = 60_000;
/** How much of an unwanted body, and for how long, is thrown away before its answer, so that the client sees that. */
const MAX_DISCARDED_BYTES = 32 * 1024 * 1024;
const DISCARD_MS = 1_500;
const CLOSE_TIMEOUT_MS = 10_000;

export interface ServerLog {
  info(message: string, fields?: Readonly<Record<string, string | number>>): void;
  error(message: string, fields?: Readonly<Record<string, string | number>>): void;
}

export interface TlsMaterial {
  readonly cert: Buffer;
  readonly key: Buffer;
}

export interface RegistryServerOptions {
  readonly services: RegistryServices;
  readonly metrics: RegistryMetrics;
  readonly log: ServerLog;
  /** Empty: by each request's Host. */
  readonly externalUrl: string;
  readonly tls: TlsMaterial | undefined;
}

/** One authorised request below /v2/<repository>/. */
export interface Call {
  readonly exchange: Exchange;
  readonly services: RegistryServices;
  readonly caller: Caller;
  readonly repository: RepositoryName;
  /** Last part of the path, not checked. */
  readonly reference: string;
}

/** Serves one registry. */
export class RegistryServer {
  readonly #options: RegistryServerOptions;
  readonly #server: Server | TlsServer;
  readonly #perAddress = new Map<string, number>();
  readonly #active = new Set<AbortController>();
  #writes = 0;
  #manifestBytes = 0;
  #downloads = 0;

  constructor(options: RegistryServerOptions) {
    this.#options = options;
    const limits = {
      maxHeaderSize: MAX_HEADER_BYTES,
      headersTimeout: HEADERS_TIMEOUT_MS,
      requestTimeout: 0,
      keepAliveTimeout: KEEP_ALIVE_TIMEOUT_MS,
    };
    const serve = (request: IncomingMessage, response: ServerResponse): void => void this.#serve(request, response);
    this.#server =
      options.tls === undefined
        ? createServer(limits, serve)
        : createTlsServer({ ...limits, ...options.tls, minVersion: 'TLSv1.2' }, serve);
    this.#server.maxConnections = MAX_CONNECTIONS;
    this.#server.setTimeout(SILENCE_MS);
    this.#server.on('connection', (socket: Socket) => this.#admit(socket));
  }

  /** Takes a new certificate for connections from now on. */
  set tls(tls: TlsMaterial) {
    if ('setSecureContext' in this.#server) this.#server.setSecureContext({ ...tls, minVersion: 'TLSv1.2' });
  }

  /** Begins to listen; the port in use. */
  async listen(host: string, port: number): Promise<number> {
    const { promise, resolve, reject } = Promise.withResolvers<void>();
    this.#server.once('error', reject);
    this.#server.listen({ host, port }, resolve);
    await promise;
    this.#server.off('error', reject);
    this.#server.on('error', (error) => this.#options.log.error('listener failed', { error: errorMessage(error) }));
    return (this.#server.address() as AddressInfo).port;
  }

  /** Stops accepting, gives answers under way a bounded time, then cuts them. */
  async close(): Promise<void> {
    const { promise, resolve } = Promise.withResolvers<void>();
    this.#server.close(() => resolve());
    this.#server.closeIdleConnections();
    const timer = setTimeout(() => {
      for (const controller of this.#active) controller.abort(new DistributionError('UNAVAILABLE'));
      this.#server.closeAllConnections();
    }, CLOSE_TIMEOUT_MS);
    await promise;
    clearTimeout(timer);
  }

  #admit(socket: Socket): void {
    const address = socket.remoteAddress ?? '';
    const count = (this.#perAddress.get(address) ?? 0) + 1;
    if (count > MAX_CONNECTIONS_PER_ADDRESS) {
      socket.destroy();
      return;
    }
    this.#perAddress.set(address, count);
    socket.once('close', () => {
      const left = (this.#perAddress.get(address) ?? 1) - 1;
      if (left === 0) this.#perAddress.delete(address);
      else this.#perAddress.set(address, left);
    });
  }

  async #serve(request: IncomingMessage, response: ServerResponse): Promise<void> {
    const begun = performance.now();
    request.on('error', () => undefined);
    response.on('error', () => undefined);
    const controller = new AbortController();
    this.#active.add(controller);
    response.once('close', () => {
      if (!response.writableFinished)
        controller.abort(new DistributionError('UNAVAILABLE', { message: 'the client went away' }));
    });
    response.setHeader('Docker-Distribution-Api-Version', 'registry/2.0');
    response.setHeader('X-Content-Type-Options', 'nosniff');
    const { externalUrl } = this.#options;
    const exchange = new Exchange({ request, response, externalUrl, signal: controller.signal });
    let kind = 'other';
    try {
      kind = await this.#dispatch(exchange, (found) => {
        kind = found;
      });
    } catch (error) {
      await discardRest(request);
      this.#fail(exchange, error);
      // The rest of a larger one is not waited for.
      if (!request.complete) response.once('finish', () => request.destroy());
    } finally {
      this.#active.delete(controller);
      this.#record(exchange, kind, (performance.now() - begun) / 1000);
    }
  }

  #record(exchange: Exchange, route: string, seconds: number): void {
    const { response, method, path, actor, remote } = exchange;
    this.#options.metrics.record({
      route,
      method,
      status: response.statusCode,
      seconds,
      bytesIn: exchange.bytesIn,
      bytesOut: exchange.bytesOut,
    });
    // The query is left out: it may hold what is not for logs.
    this.#options.log.info('request', {
      method,
      path: path.slice(0, 500),
      status: response.statusCode,
      ms: Math.round(seconds * 1000),
      user: actor?.user ?? '-',
      remote,
    });
  }

  async #dispatch(exchange: Exchange, found: (kind: string) => void): Promise<string> {
    const { services } = this.#options;
    const { path } = exchange;
    if (path === '/' || path === '/ui' || path.startsWith('/ui/')) {
      found('page');
      await servePage(exchange, services);
      return 'page';
    }
    if (path === '/token') {
      found('token');
      await serveToken(exchange, services);
      return 'token';
    }
    if (path === '/metrics') {
      found('metrics');
      await this.#serveMetrics(exchange);
      return 'metrics';
    }
    const route = matchRoute(path);
    if (route === undefined) {
      exchange.bytes(404, '404 page not found\n', { 'Content-Type': 'text/plain; charset=utf-8' });
      return 'other';
    }
    found(route.kind);
    await this.#serveRoute(exchange, route);
    return route.kind;
  }

  async #serveRoute(exchange: Exchange, route: Route): Promise<void> {
    const { services } = this.#options;
    const methods = methodsOf(route);
    if (!(exchange.method in methods)) {
      exchange.response.setHeader('Allow', Object.keys(methods).join(', '));
      throw new DistributionError('UNSUPPORTED');
    }
    const actor = await this.#identify(exchange, route);
    exchange.actor = actor;
    const caller = exchange.caller(actor);
    const { repository, reference } = route;
    if (repository === undefined) {
      if (route.kind === 'catalog') serveCatalog(exchange, services, caller);
      else exchange.json(200, {});
      return;
    }
    const call: Call = { exchange, services, caller, repository, reference };
    using _place = this.#placeFor(exchange, route);
    switch (route.kind) {
      case 'manifest':
        return await serveManifest(call);
      case 'blob':
        return await serveBlob(call);
      case 'uploads':
        return await beginUpload(call);
      case 'upload':
        return await serveUpload(call);
      case 'tags':
        return await serveTags(call);
      default:
        return serveReferrers(call);
    }
  }

  /** A place among the requests that hold memory while they last. Throws TOOMANYREQUESTS. */
  #placeFor(exchange: Exchange, route: Route): Disposable {
    const isWrite = exchange.method === 'PATCH' || exchange.method === 'PUT' || exchange.method === 'POST';
    const isManifest = isWrite && route.kind === 'manifest';
    const manifestBytes = isManifest ? Math.min(exchange.contentLength ?? MAX_MANIFEST_BYTES, MAX_MANIFEST_BYTES) : 0;
    const isFull = this.#writes >= MAX_WRITES || this.#manifestBytes + manifestBytes > MAX_MANIFESTS_IN_FLIGHT_BYTES;
    const isDownload = exchange.method === 'GET' && route.kind === 'blob';
    if ((isWrite && isFull) || (isDownload && this.#downloads >= MAX_DOWNLOADS)) {
      exchange.response.setHeader('Retry-After', '1');
      throw new DistributionError('TOOMANYREQUESTS');
    }
    const count = isWrite ? 1 : 0;
    this.#writes += count;
    this.#manifestBytes += manifestBytes;
    const downloads = isDownload ? 1 : 0;
    this.#downloads += downloads;
    return {
      [Symbol.dispose]: () => {
        this.#writes -= count;
        this.#manifestBytes -= manifestBytes;
        this.#downloads -= downloads;
      },
    };
  }

  /** Who asks; throws UNAUTHORIZED (with the challenge set) or DENIED. */
  async #identify(exchange: Exchange, route: Route): Promise<Actor> {
    const { access } = this.#options.services;
    const action = methodsOf(route)[exchange.method];
    const { repository } = route;
    const scope =
      repository === undefined ? (route.kind === 'catalog' ? 'registry:catalog:*' : '') : scopeOf(repository, action);
    try {
      const actor = await access.identify(credentialsOf(exchange, this.#options.services));
      const isAnonymous = actor.user === undefined && access.mode.kind !== 'open';
      if (repository === undefined || action === undefined) {
        // The base tells clients how to log in; the catalogue shows each what is his.
        if (isAnonymous && exchange.request.headers.authorization === undefined)
          throw new DistributionError('UNAUTHORIZED');
        if (route.kind === 'catalog' && !actor.mayList) throw new DistributionError('UNAUTHORIZED');
        return actor;
      }
      if (actor.may(action, repository)) return actor;
      if (isAnonymous || access.mode.kind === 'token' || access.mode.kind === 'foreign') {
        throw new DistributionError('UNAUTHORIZED', {
          detail: [{ Type: 'repository', Class: '', Name: repository, Action: action }],
        });
      }
      throw new DistributionError('DENIED');
    } catch (error) {
      if (error instanceof DistributionError && error.code === 'UNAUTHORIZED')
        challenge(exchange, this.#options.services, scope);
      throw error;
    }
  }

  async #serveMetrics(exchange: Exchange): Promise<void> {
    if (exchange.method !== 'GET' && exchange.method !== 'HEAD') throw new DistributionError('UNSUPPORTED');
    const actor = await loginActor(exchange, this.#options.services);
    exchange.actor = actor;
    if (!actor.isAdministrator) {
      if (actor.user !== undefined) throw new DistributionError('DENIED');
      challengeBasic(exchange, this.#options.services);
      throw new DistributionError('UNAUTHORIZED');
    }
    exchange.bytes(200, this.#options.metrics.render(), { 'Content-Type': 'text/plain; version=0.0.4; charset=utf-8' });
  }

  #fail(exchange: Exchange, thrown: unknown): void {
    const error = asDistributionError(thrown);
    const { response, signal } = exchange;
    if (error.code === 'UNKNOWN' && !signal.aborted) {
      const cause = error.cause instanceof Error ? (error.cause.stack ?? error.cause.message) : String(error.cause);
      this.#options.log.error('request failed', { path: exchange.path.slice(0, 500), error: cause });
    }
    if (response.headersSent || signal.aborted) {
      response.destroy();
      return;
    }
    for (const name of ['Content-Length', 'ETag', 'Docker-Content-Digest']) response.removeHeader(name);
    exchange.bytes(statusOf(error), errorBody(error), { 'Content-Type': 'application/json; charset=utf-8' });
  }
}

/** What a request brings; where there are no users it is not looked at. */
function credentialsOf(exchange: Exchange, services: RegistryServices): Credentials {
  if (services.access.mode.kind === 'open') return { kind: 'none' };
  return parseAuthorization(exchange.request.headers.authorization);
}

/** The actor of Basic credentials, for pages; wrong ones get a new challenge. */
export async function loginActor(exchange: Exchange, services: RegistryServices): Promise<Actor> {
  try {
    return await services.access.login(credentialsOf(exchange, services));
  } catch (error) {
    if (error instanceof DistributionError && error.code === 'UNAUTHORIZED') challengeBasic(exchange, services);
    throw error;
  }
}

/** Asks for Basic credentials. */
export function challengeBasic(exchange: Exchange, services: RegistryServices): void {
  const { mode } = services.access;
  const realm = mode.kind === 'basic' ? mode.realm : 'registry';
  exchange.response.setHeader('WWW-Authenticate', `Basic realm="${realm}"`);
}

function challenge(exchange: Exchange, services: RegistryServices, scope: string): void {
  const { mode } = services.access;
  if (mode.kind === 'basic') challengeBasic(exchange, services);
  if (mode.kind === 'basic' || mode.kind === 'open') return;
  const realm = mode.realm === '' ? `${exchange.baseUrl}/token` : mode.realm;
  const hasToken = exchange.request.headers.authorization !== undefined;
  const parts = [
    `realm="${realm}"`,
    `service="${mode.service}"`,
    ...(scope === '' ? [] : [`scope="${scope}"`]),
    ...(hasToken ? ['error="insufficient_scope"'] : []),
  ];
  exchange.response.setHeader('WWW-Authenticate', `Bearer ${parts.join(',')}`);
}

function scopeOf(repository: RepositoryName, action: string | undefined): string {
  return `repository:${repository}:${action === 'push' ? 'pull,push' : action}`;
}

/** Reads on, so that a client that first sends everything gets to see its answer; bounded in bytes and time. */
async function discardRest(request: IncomingMessage): Promise<void> {
  if (request.complete || request.destroyed || request.readableEnded) return;
  const { promise, resolve } = Promise.withResolvers<void>();
  let bytes = 0;
  request.on('data', (chunk: Buffer) => {
    bytes += chunk.length;
    if (bytes > MAX_DISCARDED_BYTES) resolve();
  });
  request.once('end', resolve);
  request.once('close', resolve);
  request.resume();
  const timer = setTimeout(resolve, DISCARD_MS);
  await promise;
  clearTimeout(timer);
}
