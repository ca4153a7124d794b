/**
 * The registry client over HTTP: endpoints in order, one session each. Which failure lets the next endpoint have a try
 * is docker's rule: anything but a registry's own refusal, and from a mirror that too.
 */

import { readHostCertificates } from './certificates.ts';
import type {
  RegistryClient,
  RegistryCredentials,
  RemoteRepository,
  RepositoryAccess,
  SearchResult,
} from './contract.ts';
import { type Endpoint, type RegistryOptions, resolveEndpoints } from './endpoints.ts';
import { RemoteRegistryError, statusText } from './errors.ts';
import { HttpRepository } from './repository.ts';
import { searchIndex, splitSearchTerm } from './search.ts';
import { Session } from './session.ts';
import { Tokens } from './tokens.ts';
import { drop, TIMEOUTS, type Timeouts, Transport } from './transport.ts';

export interface HttpRegistryClientOptions {
  /** Read at each use, so that a reload takes effect. */
  readonly options: () => RegistryOptions;
  readonly userAgent: string;
  readonly timeouts?: Timeouts;
}

const HUB_HOST = 'index.docker.io';

export class HttpRegistryClient implements RegistryClient {
  readonly #options: HttpRegistryClientOptions;
  readonly #tokens = new Tokens();

  constructor(options: HttpRegistryClientOptions) {
    this.#options = options;
  }

  pull<T>(
    access: RepositoryAccess,
    work: (repository: RemoteRepository) => Promise<T>,
    signal: AbortSignal,
  ): Promise<T> {
    return this.#withRepository(access, 'pull', work, signal);
  }

  push<T>(
    access: RepositoryAccess,
    work: (repository: RemoteRepository) => Promise<T>,
    signal: AbortSignal,
  ): Promise<T> {
    return this.#withRepository(access, 'push,pull', work, signal);
  }

  async #withRepository<T>(
    access: RepositoryAccess,
    actions: 'pull' | 'push,pull',
    work: (repository: RemoteRepository) => Promise<T>,
    signal: AbortSignal,
  ): Promise<T> {
    const endpoints = await resolveEndpoints(access.domain, this.#options.options(), actions === 'pull');
    return this.#each(endpoints, signal, async (endpoint) => {
      const path = endpoint.prefix === '' ? access.path : `${endpoint.prefix}/${access.path}`;
      const transport = await this.#transport(endpoint);
      const session = new Session({
        endpoint,
        transport,
        tokens: this.#tokens,
        credentials: endpoint.credentials ?? access.credentials,
        scopes: [`repository:${path}:${actions}`],
        ...(access.metaHeaders === undefined ? {} : { metaHeaders: access.metaHeaders }),
      });
      await session.ping(signal);
      return await work(new HttpRepository(session, path));
    });
  }

  async #transport(endpoint: Endpoint): Promise<Transport> {
    const { options, userAgent, timeouts } = this.#options;
    const { certificatesDirectory, proxies } = options();
    const isTls = endpoint.verifyTls && endpoint.url.protocol === 'https:';
    return new Transport({
      certificates: isTls
        ? await readHostCertificates(certificatesDirectory, endpoint.host)
        : { ca: undefined, certificates: [] },
      verifyTls: endpoint.verifyTls,
      proxies,
      userAgent,
      timeouts: timeouts ?? TIMEOUTS,
    });
  }

  async #each<T>(
    endpoints: readonly Endpoint[],
    signal: AbortSignal,
    work: (endpoint: Endpoint) => Promise<T>,
  ): Promise<T> {
    let last: unknown;
    const speaksTls = new Set<string>();
    for (const endpoint of endpoints) {
      // What answers over TLS is never asked in clear text.
      if (endpoint.url.protocol === 'http:' && speaksTls.has(endpoint.url.host)) continue;
      try {
        return await work(endpoint);
      } catch (error) {
        signal.throwIfAborted();
        if (!mayTryNext(error, endpoint)) throw error;
        if (endpoint.url.protocol === 'https:' && !isUnreachable(error)) speaksTls.add(endpoint.url.host);
        last = error;
      }
    }
    throw last;
  }

  async login(
    credentials: RegistryCredentials,
    signal: AbortSignal,
  ): Promise<{ readonly status: string; readonly identityToken: string }> {
    const endpoints = await resolveEndpoints(loginHost(credentials), this.#options.options(), false);
    const identityToken = await this.#each(endpoints, signal, async (endpoint) => {
      const transport = await this.#transport(endpoint);
      const session = new Session({ endpoint, transport, tokens: this.#tokens, credentials, scopes: [] });
      await session.ping(signal);
      const call = { method: 'GET', url: session.url('/v2/'), headers: {} } as const;
      const token = await session.loginToken(call, signal);
      const answer = await session.send(call, signal);
      drop(answer.body);
      if (answer.status === 200) return token ?? '';
      const text = `login attempt to ${call.url.href} failed with status: ${statusText(answer.status)}`;
      throw new RemoteRegistryError('system', text, { failure: 'unexpected', status: answer.status });
    });
    return { status: 'Login Succeeded', identityToken: identityToken || (credentials.identityToken ?? '') };
  }

  async search(
    term: string,
    options: { readonly limit: number; readonly credentials: RegistryCredentials },
    signal: AbortSignal,
  ): Promise<SearchResult[]> {
    const { index, name } = splitSearchTerm(term);
    const isHub = index === 'docker.io' || index === HUB_HOST;
    const endpoints: Endpoint[] = isHub
      ? [
          {
            url: new URL(`https://${HUB_HOST}`),
            host: HUB_HOST,
            isMirror: false,
            verifyTls: true,
            credentials: undefined,
            prefix: '',
            namespace: undefined,
          },
        ]
      : await resolveEndpoints(index, this.#options.options(), false);
    return this.#each(endpoints, signal, async (endpoint) => {
      const transport = await this.#transport(endpoint);
      const session = new Session({
        endpoint,
        transport,
        tokens: this.#tokens,
        credentials: options.credentials,
        scopes: ['registry:catalog:*'],
      });
      const query = { name: isHub ? name.replace(/^library\//, '') : name, limit: options.limit };
      return await searchIndex(session, { ...query, index, isHub }, signal);
    });
  }
}

/** The registry a login is for. */
function loginHost(credentials: RegistryCredentials): string {
  const address = credentials.serverAddress ?? '';
  if (address === '') return HUB_HOST;
  const url = /^https?:\/\//.test(address) ? address : `https://${address}`;
  if (!URL.canParse(url)) {
    throw new RemoteRegistryError('invalid', `unable to parse server address: parse "${url}": invalid URL`, {
      failure: 'content',
    });
  }
  return new URL(url).host;
}

function isUnreachable(error: unknown): boolean {
  return error instanceof RemoteRegistryError && error.failure === 'network';
}

/** Refusals count, except a mirror's; a login refused by a token server, and what our own side threw, end it at once. */
function mayTryNext(error: unknown, endpoint: Endpoint): boolean {
  // A mirror may be wrong in any way without spoiling the pull.
  if (endpoint.isMirror) return true;
  if (!(error instanceof RemoteRegistryError)) return false;
  if (error.failure === 'answer' || error.failure === 'content') return false;
  return error.kind !== 'unauthorized';
}
