/**
 * A token server for registries under test (distribution "Token Authentication"): anyone may pull, its one user may
 * push too; a user gets a refresh token that stands for the password afterwards.
 */
import { randomUUID, sign } from 'node:crypto';
import { mkdtempSync, readFileSync, rmSync } from 'node:fs';
import { createServer, type IncomingMessage, type ServerResponse } from 'node:http';
import type { AddressInfo } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { makeAuthority } from './registry.ts';

export const TOKEN_USER = { username: 'alice', password: 'wonder:land' } as const;
const SERVICE = 'test-registry';
const ISSUER = 'test-issuer';

interface Grant {
  readonly type: string;
  readonly name: string;
  readonly actions: string[];
}

export class TokenServer implements AsyncDisposable {
  readonly #directory = mkdtempSync(join(tmpdir(), 'gantry-tokens-'));
  readonly #server = createServer((request, response) => void this.#answer(request, response));
  readonly refreshToken: string = randomUUID();
  /** `METHOD` and scopes of each request. */
  readonly requests: { method: string; scopes: string[]; user: string }[] = [];

  /** What a docker-registry is configured with. */
  get settings(): { realm: string; service: string; issuer: string; bundle: string } {
    const { port } = this.#server.address() as AddressInfo;
    return {
      realm: `http://127.0.0.1:${port}/token`,
      service: SERVICE,
      issuer: ISSUER,
      bundle: join(this.#directory, 'ca.crt'),
    };
  }

  async start(): Promise<void> {
    await makeAuthority(this.#directory);
    const { promise, resolve } = Promise.withResolvers<void>();
    this.#server.listen(0, '127.0.0.1', resolve);
    await promise;
  }

  async #answer(request: IncomingMessage, response: ServerResponse): Promise<void> {
    const url = new URL(request.url ?? '/', 'http://x');
    const form = request.method === 'POST' ? new URLSearchParams(await bodyOf(request)) : undefined;
    const scopes = form === undefined ? url.searchParams.getAll('scope') : (form.get('scope') ?? '').split(' ');
    const user = form === undefined ? basicUser(request) : this.#refreshUser(form);
    this.requests.push({ method: request.method ?? '', scopes, user: user ?? '' });
    response.setHeader('content-type', 'application/json');
    if (user === undefined) {
      response.statusCode = 401;
      response.end(
        JSON.stringify({ errors: [{ code: 'UNAUTHORIZED', message: 'incorrect username or password', detail: {} }] }),
      );
      return;
    }
    const token = this.#token(user, scopes);
    const refresh = user !== '' && url.searchParams.get('offline_token') === 'true';
    const fields = form === undefined ? { token } : { access_token: token };
    response.end(
      JSON.stringify({ ...fields, expires_in: 60, ...(refresh ? { refresh_token: this.refreshToken } : {}) }),
    );
  }

  #refreshUser(form: URLSearchParams): string | undefined {
    const isRight = form.get('grant_type') === 'refresh_token' && form.get('refresh_token') === this.refreshToken;
    return isRight ? TOKEN_USER.username : undefined;
  }

  #token(user: string, scopes: readonly string[]): string {
    const access: Grant[] = [];
    for (const scope of scopes) {
      const match = /^([^:]+):(.+):([^:]*)$/.exec(scope);
      if (match === null) continue;
      const actions = (match[3] ?? '').split(',').filter((action) => user !== '' || action === 'pull');
      access.push({ type: match[1] ?? '', name: match[2] ?? '', actions });
    }
    const now = Math.floor(Date.now() / 1000);
    const certificate = readFileSync(join(this.#directory, 'ca.crt'), 'utf8').replace(/-----[^-]+-----|\s/g, '');
    const head = { typ: 'JWT', alg: 'ES256', x5c: [certificate] };
    const claims = {
      iss: ISSUER,
      sub: user,
      aud: SERVICE,
      exp: now + 60,
      nbf: now - 60,
      iat: now,
      jti: randomUUID(),
      access,
    };
    const text = [head, claims].map((part) => Buffer.from(JSON.stringify(part)).toString('base64url')).join('.');
    const key = { key: readFileSync(join(this.#directory, 'ca.key'), 'utf8'), dsaEncoding: 'ieee-p1363' } as const;
    return `${text}.${sign('sha256', Buffer.from(text), key).toString('base64url')}`;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    const { promise, resolve } = Promise.withResolvers<void>();
    this.#server.close(() => resolve());
    this.#server.closeAllConnections();
    await promise;
    rmSync(this.#directory, { recursive: true, force: true });
  }
}

/** Empty for nobody, undefined for wrong credentials. */
function basicUser(request: IncomingMessage): string | undefined {
  const header = request.headers.authorization;
  if (header === undefined) return '';
  const expected = `${TOKEN_USER.username}:${TOKEN_USER.password}`;
  return Buffer.from(header.replace(/^Basic /, ''), 'base64').toString() === expected ? TOKEN_USER.username : undefined;
}

async function bodyOf(request: IncomingMessage): Promise<string> {
  const chunks: Buffer[] = [];
  for await (const chunk of request) chunks.push(chunk as Buffer);
  return Buffer.concat(chunks).toString();
}

/** Starts one. */
export async function startTokenServer(): Promise<TokenServer> {
  const server = new TokenServer();
  await server.start();
  return server;
}
