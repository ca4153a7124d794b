/**
 * Bearer tokens (distribution "Token Authentication"): fetched with Basic credentials or a refresh token, kept until
 * they expire, forgotten when a registry refuses one. Tokens of different users never mix.
 */
import { createHash } from 'node:crypto';
import type { RegistryCredentials } from './contract.ts';
import { answerError, contentError, RemoteRegistryError } from './errors.ts';
import { drop, type HttpAnswer, readBody, type Transport } from './transport.ts';

/** Tokens kept at once. */
const CACHE_LIMIT = 256;
/** Bytes of a token server's answer. */
export const TOKEN_BODY_LIMIT_BYTES: number = 1024 * 1024;
/** Shortest life of a token, whatever its server says (docker's). */
const LIFETIME_MIN_SECONDS = 60;
const LIFETIME_MAX_SECONDS = 24 * 3600;
/** Fetched anew when it would end within this. */
const EARLY_MS = 5_000;
const TOKEN_TIMEOUT_MS = 15_000;
/** Compat: the name docker gives itself. */
const CLIENT_ID = 'docker';

export interface TokenRequest {
  readonly realm: string;
  readonly service: string;
  readonly scopes: readonly string[];
  readonly credentials: RegistryCredentials;
  /** Whether the registry itself is spoken to over HTTPS. */
  readonly isSecure: boolean;
}

interface Token {
  readonly text: string;
  readonly expiresMs: number;
}

export interface FetchedToken {
  readonly token: string;
  /** A refresh token the server offers instead of the password. */
  readonly identityToken: string;
}

/** Tokens of all registries. */
export class Tokens {
  readonly #known = new Map<string, Token>();

  /** A token for the request, from memory if possible. */
  async get(transport: Transport, request: TokenRequest, signal: AbortSignal): Promise<string> {
    const key = keyOf(request);
    const known = this.#known.get(key);
    if (known !== undefined && known.expiresMs > Date.now() + EARLY_MS) return known.text;
    this.#known.delete(key);
    return (await this.fetch(transport, request, signal)).token;
  }

  /** Drops a token that a registry refused. */
  forget(request: TokenRequest): void {
    this.#known.delete(keyOf(request));
  }

  async fetch(transport: Transport, request: TokenRequest, signal: AbortSignal): Promise<FetchedToken> {
    const url = realmUrl(request);
    const answer = await (request.credentials.identityToken
      ? postToken(transport, url, request, signal)
      : getToken(transport, url, request, signal));
    const fields = await tokenFields(answer);
    const text = textOf(fields['access_token']) || textOf(fields['token']);
    if (text === '') throw contentError('authorization server did not include a token in the response');
    if (!/^[\x21-\x7e]+$/.test(text)) throw contentError('authorization server sent a malformed token');
    const seconds = Math.min(LIFETIME_MAX_SECONDS, Math.max(LIFETIME_MIN_SECONDS, Number(fields['expires_in']) || 0));
    this.#known.set(keyOf(request), { text, expiresMs: Date.now() + seconds * 1000 });
    const oldest = this.#known.keys().next();
    if (this.#known.size > CACHE_LIMIT && oldest.done !== true) this.#known.delete(oldest.value);
    return { token: text, identityToken: textOf(fields['refresh_token']) };
  }
}

function textOf(value: unknown): string {
  return typeof value === 'string' ? value : '';
}

function keyOf(request: TokenRequest): string {
  const { username, password, identityToken } = request.credentials;
  // Only a hash of the secrets is kept as a key.
  return createHash('sha256')
    .update(JSON.stringify([request.realm, request.service, request.scopes, username, password, identityToken]))
    .digest('hex');
}

function realmUrl(request: TokenRequest): URL {
  if (request.realm === '') throw contentError('no realm specified for token auth challenge');
  if (!URL.canParse(request.realm)) throw contentError(`invalid token auth challenge realm: ${request.realm}`);
  const url = new URL(request.realm);
  if (url.protocol !== 'https:' && url.protocol !== 'http:') {
    throw contentError(`invalid token auth challenge realm: ${request.realm}`);
  }
  const { username, identityToken } = request.credentials;
  if (request.isSecure && url.protocol === 'http:' && (username || identityToken)) {
    throw contentError(`refusing to send credentials to ${url.origin} in clear text`);
  }
  return url;
}

function getToken(transport: Transport, realm: URL, request: TokenRequest, signal: AbortSignal): Promise<HttpAnswer> {
  const { username = '', password = '' } = request.credentials;
  const url = new URL(realm);
  const isUser = username !== '' && password !== '';
  if (isUser) url.searchParams.append('account', username);
  url.searchParams.append('client_id', CLIENT_ID);
  url.searchParams.append('offline_token', 'true');
  for (const scope of request.scopes) url.searchParams.append('scope', scope);
  if (request.service !== '') url.searchParams.append('service', request.service);
  return transport.send(
    {
      method: 'GET',
      url,
      headers: {},
      authorization: isUser ? basicAuthorization(username, password) : undefined,
      answerTimeoutMs: TOKEN_TIMEOUT_MS,
    },
    signal,
  );
}

function postToken(transport: Transport, url: URL, request: TokenRequest, signal: AbortSignal): Promise<HttpAnswer> {
  const form = new URLSearchParams({
    client_id: CLIENT_ID,
    grant_type: 'refresh_token',
    refresh_token: request.credentials.identityToken ?? '',
    scope: request.scopes.join(' '),
    service: request.service,
  });
  return transport.send(
    {
      method: 'POST',
      url,
      headers: { 'content-type': 'application/x-www-form-urlencoded' },
      body: form.toString(),
      answerTimeoutMs: TOKEN_TIMEOUT_MS,
    },
    signal,
  );
}

async function tokenFields(answer: HttpAnswer): Promise<Record<string, unknown>> {
  if (answer.status >= 400 || answer.status < 200) throw await failed(answer);
  const body = await readBody(answer, TOKEN_BODY_LIMIT_BYTES, 'token response');
  try {
    const value: unknown = JSON.parse(body.toString('utf8'));
    if (typeof value === 'object' && value !== null) return value as Record<string, unknown>;
  } catch {
    // Told below; the text itself might hold a token.
  }
  throw contentError('unable to decode token response: invalid JSON');
}

/** Bytes of an error answer that are read. */
const ERROR_BODY_LIMIT_BYTES = 64 * 1024;

/** The error of an unsuccessful answer, its body read. */
export async function failed(answer: HttpAnswer): Promise<RemoteRegistryError> {
  let body = '';
  try {
    body = (await readBody(answer, ERROR_BODY_LIMIT_BYTES, 'error response')).toString('utf8');
  } catch (error) {
    drop(answer.body);
    if (error instanceof RemoteRegistryError && error.failure === 'content') body = '';
  }
  return answerError({
    status: answer.status,
    contentType: answer.header('content-type'),
    challenge: answer.header('www-authenticate'),
    body,
  });
}

/** `Basic …`. */
export function basicAuthorization(username: string, password: string): string {
  return `Basic ${Buffer.from(`${username}:${password}`).toString('base64')}`;
}
