/**
 * Authenticated requests to one endpoint: it is pinged once for its challenge, requests carry what that asks for, and
 * a refused one is authorised anew, once. What may be repeated safely is, after a pause, a bounded number of times.
 */
import { setTimeout as delay } from 'node:timers/promises';
import { type Challenge, parseChallenges } from './challenge.ts';
import type { RegistryCredentials } from './contract.ts';
import type { Endpoint } from './endpoints.ts';
import { RemoteRegistryError, withRequest } from './errors.ts';
import { basicAuthorization, failed, type TokenRequest, type Tokens } from './tokens.ts';
import { drop, type HttpAnswer, type HttpCall, type Transport } from './transport.ts';

/** Attempts of one request, the first included. */
const ATTEMPTS_LIMIT = 4;
const FIRST_PAUSE_MS = 250;
/** A registry that wants a longer pause is not waited for; its answer is the error. */
const RETRY_AFTER_LIMIT_MS = 60_000;
const RETRIED_STATUSES: ReadonlySet<number> = new Set([429, 500, 502, 503, 504]);

export interface SessionOptions {
  readonly endpoint: Endpoint;
  readonly credentials: RegistryCredentials;
  readonly scopes: readonly string[];
  /** Sent to the registry with each request. */
  readonly metaHeaders?: Readonly<Record<string, string>>;
  readonly transport: Transport;
  readonly tokens: Tokens;
}

export interface SessionCall extends HttpCall {
  /** Scopes beside the session's own, e.g. of a repository to mount from. */
  readonly extraScopes?: readonly string[];
  /** Whether the request may be sent again when its fate is unknown; default: yes, unless its body is a stream. */
  readonly isRepeatable?: boolean;
}

/** Go's text when a registry wants Basic credentials and there are none. */
const NO_CREDENTIALS = 'no basic auth credentials';

export class Session {
  readonly #options: SessionOptions;
  #challenges: readonly Challenge[] = [];

  constructor(options: SessionOptions) {
    this.#options = options;
  }

  get endpoint(): Endpoint {
    return this.#options.endpoint;
  }

  /** A URL below the endpoint, `/v2/…`. */
  url(path: string): URL {
    const { url, namespace } = this.#options.endpoint;
    const made = new URL(url.pathname.replace(/\/$/, '') + path, url);
    if (namespace !== undefined) made.searchParams.append('ns', namespace);
    return made;
  }

  /** Asks `/v2/` for how to authenticate; throws when the endpoint does not answer. */
  async ping(signal: AbortSignal): Promise<HttpAnswer> {
    const { transport } = this.#options;
    const limit = AbortSignal.timeout(transport.timeouts.pingMs);
    const call: HttpCall = { method: 'GET', url: this.url('/v2/'), headers: {} };
    try {
      const answer = await transport.send(call, AbortSignal.any([signal, limit]));
      drop(answer.body);
      this.#learn(answer);
      return answer;
    } catch (error) {
      signal.throwIfAborted();
      if (!limit.aborted) throw error;
      const text = 'net/http: request canceled (Client.Timeout exceeded while awaiting headers)';
      throw withRequest('GET', call.url.href, new RemoteRegistryError('system', text, { failure: 'network' }));
    }
  }

  #learn(answer: HttpAnswer): void {
    if (answer.status !== 401) return;
    this.#challenges = parseChallenges(answer.header('www-authenticate'));
  }

  /** Sends a request; answers of any status are returned. */
  async send(call: SessionCall, signal: AbortSignal): Promise<HttpAnswer> {
    const isRepeatable = call.isRepeatable ?? (call.body === undefined || Buffer.isBuffer(call.body));
    for (let attempt = 1; ; attempt += 1) {
      let pauseMs = FIRST_PAUSE_MS * 2 ** (attempt - 1);
      try {
        const answer = await this.#authorised(call, signal);
        if (!isRepeatable || attempt >= ATTEMPTS_LIMIT || !RETRIED_STATUSES.has(answer.status)) return answer;
        const wanted = retryAfterMs(answer.header('retry-after'));
        // Compat: docker gives up at once on 429; a pause that the registry itself names is kept here.
        if ((answer.status === 429 && wanted === undefined) || (wanted ?? 0) > RETRY_AFTER_LIMIT_MS) return answer;
        pauseMs = Math.max(pauseMs, wanted ?? 0);
        drop(answer.body);
      } catch (error) {
        signal.throwIfAborted();
        if (!isRepeatable || attempt >= ATTEMPTS_LIMIT || !isBroken(error)) throw error;
      }
      await delay(pauseMs, undefined, { signal });
    }
  }

  /** Sends a request and throws for a status of 400 and more. */
  async expect(call: SessionCall, signal: AbortSignal): Promise<HttpAnswer> {
    const answer = await this.send(call, signal);
    if (answer.status >= 200 && answer.status < 400) return answer;
    throw await failed(answer);
  }

  async #authorised(call: SessionCall, signal: AbortSignal): Promise<HttpAnswer> {
    const first = await this.#withAuthorization(call, signal);
    if (first.status !== 401) return first;
    this.#learn(first);
    const request = this.#tokenRequest(call);
    // Basic credentials do not get better by repeating them, and a stream cannot be sent twice.
    if (request === undefined || this.#options.credentials.registryToken || isStream(call.body)) return first;
    drop(first.body);
    this.#options.tokens.forget(request);
    return this.#withAuthorization(call, signal);
  }

  async #withAuthorization(call: SessionCall, signal: AbortSignal): Promise<HttpAnswer> {
    let authorization: string | undefined;
    try {
      authorization = await this.#authorization(call, signal);
    } catch (error) {
      if (error instanceof RemoteRegistryError) throw withRequest(call.method, call.url.href, error);
      throw error;
    }
    const isRegistry = call.url.origin === this.#options.endpoint.url.origin;
    const originHeaders = isRegistry ? this.#options.metaHeaders : undefined;
    return this.#options.transport.send({ ...call, originHeaders, authorization }, signal);
  }

  #tokenRequest(call: SessionCall): TokenRequest | undefined {
    const challenge = this.#challenges.find(({ scheme }) => scheme === 'bearer');
    if (challenge === undefined) return undefined;
    const { scopes, credentials, endpoint } = this.#options;
    return {
      realm: challenge.parameters['realm'] ?? '',
      service: challenge.parameters['service'] ?? '',
      scopes: [...scopes, ...(call.extraScopes ?? [])],
      credentials,
      isSecure: endpoint.url.protocol === 'https:',
    };
  }

  async #authorization(call: SessionCall, signal: AbortSignal): Promise<string | undefined> {
    // An upload may be continued at another host; what is meant for the registry stays with it.
    if (call.url.origin !== this.#options.endpoint.url.origin) return undefined;
    const { credentials, tokens, transport } = this.#options;
    if (credentials.registryToken) return `Bearer ${credentials.registryToken}`;
    const request = this.#tokenRequest(call);
    if (request !== undefined) return `Bearer ${await tokens.get(transport, request, signal)}`;
    if (!this.#challenges.some(({ scheme }) => scheme === 'basic')) return undefined;
    const { username = '', password = '' } = credentials;
    if (username === '' || password === '') {
      // Compat: no 401 for docker's clients, who would take it as the daemon's own.
      throw new RemoteRegistryError('system', NO_CREDENTIALS, {
        failure: 'unexpected',
        code: 'NO_CREDENTIALS',
        status: 401,
      });
    }
    return basicAuthorization(username, password);
  }

  /** Fetches a token anew for a login; undefined when the registry does not use tokens. */
  async loginToken(call: SessionCall, signal: AbortSignal): Promise<string | undefined> {
    const request = this.#tokenRequest(call);
    if (request === undefined) return undefined;
    try {
      return (await this.#options.tokens.fetch(this.#options.transport, request, signal)).identityToken;
    } catch (error) {
      if (error instanceof RemoteRegistryError) throw withRequest(call.method, call.url.href, error);
      throw error;
    }
  }
}

function isStream(body: HttpCall['body']): boolean {
  return body !== undefined && typeof body !== 'string' && !Buffer.isBuffer(body);
}

const REFUSED = /connect: connection refused|no such host|x509|HTTP response to HTTPS|no route to host/;

/** A connection that broke, which another attempt may mend; one that was never made is left to the next endpoint. */
export function isBroken(error: unknown): boolean {
  return error instanceof RemoteRegistryError && error.failure === 'network' && !REFUSED.test(error.message);
}

/** `Retry-After` (RFC 9110 §10.2.3): seconds or a date. */
export function retryAfterMs(header: string): number | undefined {
  if (/^\d{1,9}$/.test(header)) return Number(header) * 1000;
  const date = Date.parse(header);
  return Number.isNaN(date) ? undefined : Math.max(0, date - Date.now());
}
