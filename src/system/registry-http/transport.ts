/**
 * HTTP to one registry and the hosts it refers to: TLS as configured, proxies, redirects, time limits.
 *
 * Authorization goes to the origin it was made for and nowhere else, whatever a redirect says. An answer's body is the
 * caller's to read or to drop; every wait has a limit. The HTTP library is loaded with the first request.
 */
import type { Readable } from 'node:stream';
import { createSecureContext } from 'node:tls';
import type { Dispatcher } from 'undici';
import { GantryError } from '#types/errors.ts';
import type { HostCertificates } from './certificates.ts';
import { contentError, withRequest } from './errors.ts';
import { networkError } from './network-errors.ts';
import { type ProxySettings, proxyFor } from './proxies.ts';

/** How long a registry may be silent. */
export interface Timeouts {
  /** TCP and TLS. */
  readonly connectMs: number;
  /** From request to answer; a registry may hash a whole layer before it answers a commit. */
  readonly answerMs: number;
  /** Between two pieces of a body. */
  readonly bodyMs: number;
  /** The first contact, where nothing has to be computed (docker's 15 s). */
  readonly pingMs: number;
}

export const TIMEOUTS: Timeouts = { connectMs: 30_000, answerMs: 300_000, bodyMs: 60_000, pingMs: 15_000 };

/** Redirects followed for one request, as in Go. */
const REDIRECT_LIMIT = 10;
/** Connections kept to one origin: layers of several pulls at once, and a few small requests. */
const CONNECTIONS_LIMIT = 64;
const KEEP_ALIVE_MS = 4_000;

export interface HttpCall {
  readonly method: 'GET' | 'HEAD' | 'POST' | 'PUT' | 'PATCH' | 'DELETE';
  readonly url: URL;
  readonly headers: Readonly<Record<string, string>>;
  /** These are sent to the URL's own origin only. */
  readonly authorization?: string | undefined;
  readonly originHeaders?: Readonly<Record<string, string>> | undefined;
  readonly body?: Buffer | string | Readable | undefined;
  readonly answerTimeoutMs?: number;
}

export interface HttpAnswer {
  readonly status: number;
  /** Where the answer came from, redirects followed. */
  readonly url: URL;
  header(name: string): string;
  readonly body: Readable;
}

interface TransportOptions {
  readonly certificates: HostCertificates;
  readonly verifyTls: boolean;
  readonly proxies: ProxySettings;
  readonly userAgent: string;
  readonly timeouts: Timeouts;
}

/** Sends requests with one TLS configuration. Idle connections end by themselves: a download may outlive its pull. */
export class Transport {
  readonly #options: TransportOptions;
  readonly #dispatchers = new Map<string, Dispatcher>();

  constructor(options: TransportOptions) {
    this.#options = options;
  }

  get timeouts(): Timeouts {
    return this.#options.timeouts;
  }

  /** Sends a request and follows redirects of those that only read. Throws for what kept it from an answer. */
  async send(call: HttpCall, signal: AbortSignal): Promise<HttpAnswer> {
    let url = call.url;
    for (let hop = 0; ; hop += 1) {
      const answer = await this.#once(call, url, signal);
      const location = answer.header('location');
      const follows = [301, 302, 303, 307, 308].includes(answer.status) && location !== '';
      if (!follows || (call.method !== 'GET' && call.method !== 'HEAD')) return answer;
      drop(answer.body);
      if (hop >= REDIRECT_LIMIT) {
        throw withRequest(call.method, call.url.href, contentError(`stopped after ${REDIRECT_LIMIT} redirects`));
      }
      url = redirectTarget(location, url, call);
    }
  }

  async #once(call: HttpCall, url: URL, signal: AbortSignal): Promise<HttpAnswer> {
    const { timeouts, userAgent } = this.#options;
    signal.throwIfAborted();
    const own = url.origin === call.url.origin ? call.originHeaders : {};
    const headers: Record<string, string> = { 'user-agent': userAgent, ...own, ...call.headers };
    if (call.authorization !== undefined && url.origin === call.url.origin)
      headers['authorization'] = call.authorization;
    try {
      const dispatcher = await this.#dispatcher(url);
      const response = await dispatcher.request({
        origin: url.origin,
        path: url.pathname + url.search,
        method: call.method,
        headers,
        body: call.body ?? null,
        signal,
        headersTimeout: call.answerTimeoutMs ?? timeouts.answerMs,
        bodyTimeout: timeouts.bodyMs,
      });
      // Without a listener, a body that breaks after it was dropped would be an uncaught exception.
      response.body.on('error', () => {});
      return {
        status: response.statusCode,
        url,
        header: (name) => String(response.headers[name] ?? ''),
        body: response.body,
      };
    } catch (error) {
      signal.throwIfAborted();
      // The first URL is named: a redirect's may carry a signature.
      throw withRequest(call.method, call.url.href, networkError(error, url));
    }
  }

  async #dispatcher(url: URL): Promise<Dispatcher> {
    const proxy = proxyFor(url, this.#options.proxies);
    const key = `${url.protocol}${proxy ?? ''}`;
    const known = this.#dispatchers.get(key);
    if (known !== undefined) return known;
    // A bundle gives a CommonJS package as the default export only.
    const { Agent, ProxyAgent } = (await import('undici')).default;
    const tls = url.protocol === 'https:' ? this.#tls() : {};
    const shared = {
      connections: CONNECTIONS_LIMIT,
      pipelining: 1,
      keepAliveTimeout: KEEP_ALIVE_MS,
      keepAliveMaxTimeout: KEEP_ALIVE_MS,
    };
    const connect = { timeout: this.#options.timeouts.connectMs, ...tls };
    const made =
      proxy === undefined
        ? new Agent({ ...shared, connect })
        : new ProxyAgent({ ...shared, uri: proxy, requestTls: connect, proxyTls: { timeout: connect.timeout } });
    this.#dispatchers.set(key, made);
    return made;
  }

  #tls(): object {
    const { certificates, verifyTls } = this.#options;
    if (!verifyTls) return { rejectUnauthorized: false };
    const ca = certificates.ca;
    const client = certificates.certificates;
    try {
      return {
        rejectUnauthorized: true,
        secureContext: createSecureContext({
          ...(ca === undefined ? {} : { ca: [...ca] }),
          ...(client.length === 0 ? {} : { cert: client.map(({ cert }) => cert), key: client.map(({ key }) => key) }),
        }),
      };
    } catch (error) {
      throw new GantryError('invalid', `registry certificates: ${(error as Error).message}`, { cause: error });
    }
  }
}

function redirectTarget(location: string, from: URL, call: HttpCall): URL {
  const fail = (why: string): Error => withRequest(call.method, call.url.href, contentError(why));
  if (!URL.canParse(location, from.href)) throw fail('failed to parse Location header');
  const url = new URL(location, from.href);
  if (url.protocol !== 'https:' && url.protocol !== 'http:')
    throw fail(`unsupported protocol scheme "${url.protocol.slice(0, -1)}"`);
  if (from.protocol === 'https:' && url.protocol === 'http:')
    throw fail('refusing a redirect from HTTPS to plain HTTP');
  url.username = '';
  url.password = '';
  return url;
}

/** What is read of an unwanted body to keep its connection. */
const DUMP_LIMIT_BYTES = 64 * 1024;

/** Gives an answer's body up. */
export function drop(body: Readable & { dump?: (options: { limit: number }) => Promise<void> }): void {
  if (body.dump === undefined || body.readableDidRead) body.destroy();
  else body.dump({ limit: DUMP_LIMIT_BYTES }).catch(() => body.destroy());
}

/** Reads a body of bounded size. */
export async function readBody(answer: HttpAnswer, limitBytes: number, what: string): Promise<Buffer> {
  const chunks: Buffer[] = [];
  let sizeBytes = 0;
  for await (const chunk of answer.body as AsyncIterable<Buffer>) {
    sizeBytes += chunk.length;
    if (sizeBytes > limitBytes) {
      drop(answer.body);
      throw contentError(`${what} is larger than ${limitBytes} bytes`);
    }
    chunks.push(chunk);
  }
  return Buffer.concat(chunks, sizeBytes);
}
