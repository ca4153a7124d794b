/**
 * Reads from another registry for a cache: manifests, blobs and tags, with Basic or Bearer authentication (one set of
 * credentials, for that registry's host and its token endpoint only).
 */
import { createHash } from 'node:crypto';
import type { IncomingMessage } from 'node:http';
import { readLimited, send } from '#system/http/request.ts';
import { type Digest, digestHex, digestOf, isDigest } from '#types/digest.ts';
import { GantryError } from '#types/errors.ts';

const SILENCE_MS = 30_000;
const MAX_REDIRECTS = 5;
const MAX_TOKEN_BYTES = 128 * 1024;
const MAX_MANIFEST_BYTES = 4 * 1024 * 1024;
const MAX_LIST_BYTES = 4 * 1024 * 1024;
/** Repositories whose token is kept. */
const MAX_TOKENS = 1000;
const MANIFEST_TYPES = [
  'application/vnd.oci.image.index.v1+json',
  'application/vnd.oci.image.manifest.v1+json',
  'application/vnd.docker.distribution.manifest.list.v2+json',
  'application/vnd.docker.distribution.manifest.v2+json',
].join(', ');

export interface UpstreamOptions {
  readonly url: string;
  readonly credentials: { readonly user: string; readonly password: string } | undefined;
}

/** A manifest of the upstream. */
export interface UpstreamManifest {
  readonly digest: Digest;
  readonly mediaType: string;
  readonly bytes: Buffer;
}

interface Token {
  readonly header: string;
}

/** One upstream registry. Absent things are undefined; everything else that fails throws `unavailable`. */
export class Upstream {
  readonly #base: URL;
  readonly #credentials: UpstreamOptions['credentials'];
  readonly #tokens = new Map<string, Token>();

  constructor(options: UpstreamOptions) {
    this.#base = new URL(options.url);
    this.#credentials = options.credentials;
  }

  /** The digest a manifest has now; undefined when it is not there. */
  async manifestDigest(repository: string, reference: string, signal?: AbortSignal): Promise<Digest | undefined> {
    const response = await this.#get('HEAD', repository, `manifests/${reference}`, signal);
    response?.destroy();
    const digest = String(response?.headers['docker-content-digest'] ?? '');
    if (response !== undefined && !isDigest(digest))
      return (await this.manifest(repository, reference, signal))?.digest;
    return isDigest(digest) ? digest : undefined;
  }

  /** A manifest whose bytes have the digest it says, and the one asked for. */
  async manifest(repository: string, reference: string, signal?: AbortSignal): Promise<UpstreamManifest | undefined> {
    const response = await this.#get('GET', repository, `manifests/${reference}`, signal);
    if (response === undefined) return undefined;
    const bytes = await readLimited(response, MAX_MANIFEST_BYTES);
    const digest = isDigest(reference) ? reference : digestOf(bytes);
    const actual = createHash(digest.slice(0, digest.indexOf(':')))
      .update(bytes)
      .digest('hex');
    if (actual !== digestHex(digest))
      throw new GantryError('unavailable', `the upstream's manifest ${reference} has another digest`);
    return { digest, mediaType: String(response.headers['content-type'] ?? ''), bytes };
  }

  /** Bytes of a blob; undefined when it is not there. */
  async blobSize(repository: string, digest: Digest, signal?: AbortSignal): Promise<number | undefined> {
    const response = await this.#get('HEAD', repository, `blobs/${digest}`, signal);
    response?.destroy();
    return response && lengthOf(response);
  }

  /** A blob's bytes, not verified. */
  async blob(
    repository: string,
    digest: Digest,
    signal?: AbortSignal,
  ): Promise<{ sizeBytes: number; body: IncomingMessage } | undefined> {
    const body = await this.#get('GET', repository, `blobs/${digest}`, signal);
    return body && { sizeBytes: lengthOf(body), body };
  }

  /** A page of tags. */
  async tags(
    repository: string,
    page: { last: string; limit: number },
    signal?: AbortSignal,
  ): Promise<{ names: string[]; hasMore: boolean } | undefined> {
    const last = page.last === '' ? '' : `&last=${encodeURIComponent(page.last)}`;
    const response = await this.#get('GET', repository, `tags/list?n=${page.limit}${last}`, signal);
    if (response === undefined) return undefined;
    const { tags } = JSON.parse((await readLimited(response, MAX_LIST_BYTES)).toString()) as { tags?: unknown };
    const all = Array.isArray(tags) ? tags.filter((tag) => typeof tag === 'string' && tag > page.last).toSorted() : [];
    return {
      names: all.slice(0, page.limit),
      hasMore: all.length > page.limit || response.headers['link'] !== undefined,
    };
  }

  async #get(
    method: 'GET' | 'HEAD',
    repository: string,
    path: string,
    signal: AbortSignal | undefined,
  ): Promise<IncomingMessage | undefined> {
    const url = new URL(`/v2/${repository}/${path}`, this.#base);
    let response = await this.#follow(method, url, this.#tokens.get(repository), signal);
    if (response.statusCode === 401) {
      response.destroy();
      const token = await this.#authenticate(repository, String(response.headers['www-authenticate'] ?? ''), signal);
      response = await this.#follow(method, url, token, signal);
    }
    const status = response.statusCode ?? 0;
    if (status === 200) return response;
    response.on('error', () => undefined);
    response.destroy();
    // A registry may hide what is not there behind a refusal.
    if (status === 404 || status === 401 || status === 403) return undefined;
    throw new GantryError('unavailable', `the upstream answered ${status}`);
  }

  async #follow(
    method: 'GET' | 'HEAD',
    from: URL,
    token: Token | undefined,
    signal: AbortSignal | undefined,
  ): Promise<IncomingMessage> {
    let url = from;
    for (let count = 0; count <= MAX_REDIRECTS; count++) {
      // Credentials are for the registry's own origin.
      const isOwn = url.origin === this.#base.origin;
      const authorization = isOwn && token !== undefined ? { Authorization: token.header } : {};
      const response = await send(
        { method, url, headers: { Accept: MANIFEST_TYPES, ...authorization }, timeoutMs: SILENCE_MS },
        signal,
      );
      const { location } = response.headers;
      if (![301, 302, 303, 307, 308].includes(response.statusCode ?? 0) || location === undefined) return response;
      response.destroy();
      url = new URL(location, url);
      if (url.protocol !== 'http:' && url.protocol !== 'https:') break;
    }
    throw new GantryError('unavailable', 'the upstream redirects too often');
  }

  async #authenticate(repository: string, challenge: string, signal: AbortSignal | undefined): Promise<Token> {
    const basic =
      this.#credentials &&
      `Basic ${Buffer.from(`${this.#credentials.user}:${this.#credentials.password}`).toString('base64')}`;
    if (/^basic /i.test(challenge) && basic !== undefined) return this.#keep(repository, { header: basic });
    const realm = /\brealm="([^"]+)"/.exec(challenge)?.[1];
    if (!/^bearer /i.test(challenge) || realm === undefined)
      throw new GantryError('unavailable', 'the upstream wants credentials');
    const url = new URL(realm);
    // Neither the password nor a token may go over a weaker connection than the registry's.
    if (this.#base.protocol === 'https:' && url.protocol !== 'https:')
      throw new GantryError('unavailable', "the upstream's token endpoint is not https");
    const service = /\bservice="([^"]*)"/.exec(challenge)?.[1];
    if (service !== undefined) url.searchParams.set('service', service);
    url.searchParams.set('scope', `repository:${repository}:pull`);
    const headers = basic === undefined ? {} : { Authorization: basic };
    const response = await send({ method: 'GET', url, headers, timeoutMs: SILENCE_MS }, signal);
    const text = await readLimited(response, MAX_TOKEN_BYTES);
    if (response.statusCode !== 200)
      throw new GantryError('unavailable', `the upstream's token endpoint answered ${response.statusCode}`);
    const answer = JSON.parse(text.toString()) as { token?: string; access_token?: string };
    return this.#keep(repository, { header: `Bearer ${answer.token ?? answer.access_token ?? ''}` });
  }

  #keep(repository: string, token: Token): Token {
    const [oldest] = this.#tokens.keys();
    if (this.#tokens.size >= MAX_TOKENS && oldest !== undefined) this.#tokens.delete(oldest);
    this.#tokens.set(repository, token);
    return token;
  }
}

function lengthOf(response: IncomingMessage): number {
  const length = Number(response.headers['content-length'] ?? 'none');
  if (!Number.isSafeInteger(length))
    throw new GantryError('unavailable', 'the upstream does not tell the size of the blob');
  return length;
}
