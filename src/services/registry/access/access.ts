/**
 * Who is asking, and what may they do: credentials of a request become an Actor. Four ways: open (no users), Basic
 * against the users file, Bearer with tokens of our own token endpoint, Bearer with tokens of a foreign issuer.
 */
import { randomUUID } from 'node:crypto';
import { DistributionError } from '#types/distribution-error.ts';
import type { Action } from '../contract.ts';
import type { RefreshTokens } from './refresh-tokens.ts';
import type { Rights } from './rights.ts';
import { grants, type Scope } from './scopes.ts';
import type { Users } from './users.ts';
import type { Claims, TokenSigner, TokenVerifier } from './web-tokens.ts';

/** How long an access token is good for. */
const TOKEN_LIFE_SECONDS = 300;

/** How credentials are taken. */
export type AccessMode =
  | { readonly kind: 'open' }
  | { readonly kind: 'basic'; readonly users: Users; readonly realm: string }
  | {
      readonly kind: 'token';
      readonly users: Users;
      readonly realm: string;
      readonly service: string;
      readonly signer: TokenSigner;
      readonly verifier: TokenVerifier;
      readonly refresh: RefreshTokens;
    }
  | {
      readonly kind: 'foreign';
      readonly realm: string;
      readonly issuer: string;
      readonly service: string;
      readonly verifier: TokenVerifier;
    };

/** Who a request is from. */
export interface Actor {
  /** Undefined: anonymous. */
  readonly user: string | undefined;
  /** May see everything of the registry. */
  readonly isAdministrator: boolean;
  /** May ask for the catalogue; it shows what he may pull. */
  readonly mayList: boolean;
  may(action: Action, repository: string): boolean;
}

/** What a request brings. */
export type Credentials =
  | { readonly kind: 'none' }
  | { readonly kind: 'basic'; readonly user: string; readonly password: string }
  | { readonly kind: 'bearer'; readonly token: string };

/** Reads an Authorization header. Throws UNAUTHORIZED for anything that is neither Basic nor Bearer. */
export function parseAuthorization(header: string | undefined): Credentials {
  if (header === undefined || header === '') return { kind: 'none' };
  const [, scheme = '', value = ''] = /^([A-Za-z]+) +(\S+)$/.exec(header) ?? [];
  if (scheme.toLowerCase() === 'bearer') return { kind: 'bearer', token: value };
  const text = scheme.toLowerCase() === 'basic' ? Buffer.from(value, 'base64').toString() : '';
  const colon = text.indexOf(':');
  if (colon < 1) throw new DistributionError('UNAUTHORIZED', { message: 'invalid authorization credential' });
  return { kind: 'basic', user: text.slice(0, colon), password: text.slice(colon + 1) };
}

/** The access rules of one registry. */
export class Access {
  readonly mode: AccessMode;
  rights: Rights;
  readonly #now: () => number;

  constructor(mode: AccessMode, rights: Rights, now: () => number) {
    this.mode = mode;
    this.rights = rights;
    this.#now = now;
  }

  /** Who may do what by the rights alone. */
  actorOf(user: string | undefined): Actor {
    const { rights } = this;
    return {
      user,
      isAdministrator: rights.isAdministrator(user),
      mayList: true,
      may: (action, repository) => rights.allows(user, repository, action),
    };
  }

  /** The actor of an API request. Throws UNAUTHORIZED for wrong credentials. */
  async identify(credentials: Credentials): Promise<Actor> {
    const { mode } = this;
    switch (mode.kind) {
      case 'open':
        return this.actorOf(undefined);
      case 'basic':
        return await this.login(credentials);
      case 'token':
      case 'foreign':
        if (credentials.kind === 'none') return NOBODY;
        if (credentials.kind === 'basic') throw new DistributionError('UNAUTHORIZED');
        return this.#actorOfToken(mode, credentials.token);
      default:
        return mode satisfies never;
    }
  }

  #actorOfToken(mode: Extract<AccessMode, { kind: 'token' | 'foreign' }>, token: string): Actor {
    const issuer = mode.kind === 'token' ? mode.service : mode.issuer;
    const claims = mode.verifier.verify(token, { issuer, service: mode.service, nowMs: this.#now() });
    if (claims === undefined) throw new DistributionError('UNAUTHORIZED', { message: 'invalid token' });
    const user = claims.sub === '' || claims.sub === undefined ? undefined : claims.sub;
    const isCatalogGranted = grants(claims.access ?? [], 'registry', 'catalog', '*');
    return {
      user,
      isAdministrator:
        mode.kind === 'foreign' ? isCatalogGranted : this.rights.isAdministrator(user) && isCatalogGranted,
      mayList: isCatalogGranted,
      may: (action, repository) => {
        if (grants(claims.access ?? [], 'repository', repository, action)) return true;
        // The catalogue of our own users shows what they may pull.
        return (
          mode.kind === 'token' && isCatalogGranted && action === 'pull' && this.rights.allows(user, repository, 'pull')
        );
      },
    };
  }

  /** The actor of Basic credentials, where there are users; anonymous without any. */
  async login(credentials: Credentials): Promise<Actor> {
    const { mode } = this;
    if (mode.kind === 'open' || credentials.kind === 'none') return this.actorOf(undefined);
    if (credentials.kind === 'bearer' || mode.kind === 'foreign') throw new DistributionError('UNAUTHORIZED');
    if (!(await mode.users.verify(credentials.user, credentials.password))) {
      throw new DistributionError('UNAUTHORIZED', { message: 'incorrect username or password' });
    }
    return this.actorOf(credentials.user);
  }

  /** An access token with as much of the scopes as the rights allow. */
  issueToken(
    user: string | undefined,
    scopes: readonly Scope[],
  ): { token: string; expiresInSeconds: number; issuedAtMs: number } {
    const { mode } = this;
    if (mode.kind !== 'token') throw new DistributionError('UNSUPPORTED');
    const issuedAtMs = this.#now();
    const seconds = Math.floor(issuedAtMs / 1000);
    const claims: Claims = {
      iss: mode.service,
      sub: user ?? '',
      aud: mode.service,
      exp: seconds + TOKEN_LIFE_SECONDS,
      nbf: seconds - 10,
      iat: seconds,
      jti: randomUUID(),
      access: scopes.flatMap((scope) => this.#granted(user, scope)),
    };
    return { token: mode.signer.sign(claims), expiresInSeconds: TOKEN_LIFE_SECONDS, issuedAtMs };
  }

  #granted(user: string | undefined, scope: Scope): Scope[] {
    if (scope.type === 'registry' && scope.name === 'catalog') return [{ ...scope, actions: ['*'] }];
    if (scope.type !== 'repository') return [];
    const asked: readonly string[] = scope.actions.includes('*') ? ['pull', 'push', 'delete'] : scope.actions;
    const actions = asked.filter(
      (action) => ['pull', 'push', 'delete'].includes(action) && this.rights.allows(user, scope.name, action as Action),
    );
    return actions.length === 0 ? [] : [{ ...scope, actions }];
  }
}

const NOBODY: Actor = { user: undefined, isAdministrator: false, mayList: false, may: () => false };
