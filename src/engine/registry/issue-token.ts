/**
 * The token endpoint's story (Docker Registry v2 token and OAuth 2 authentication): who asks, with a password, a refresh
 * token or nothing, gets an access token with as much as the rights allow.
 */
import type { Credentials } from '#services/registry/access/access.ts';
import type { Scope } from '#services/registry/access/scopes.ts';
import { DistributionError } from '#types/distribution-error.ts';
import type { RegistryServices } from './services.ts';

export interface TokenRequest {
  /** Empty: ours. */
  readonly service: string;
  readonly scopes: readonly Scope[];
  readonly grant: Credentials | { readonly kind: 'refresh'; readonly token: string };
  /** Asks for a refresh token too. */
  readonly isOffline: boolean;
}

export interface IssuedToken {
  readonly token: string;
  readonly expiresInSeconds: number;
  readonly issuedAtMs: number;
  readonly scopes: readonly Scope[];
  readonly refreshToken: string | undefined;
}

/** Issues a token. Throws UNAUTHORIZED for wrong credentials, UNSUPPORTED where this registry issues none. */
export async function issueToken(services: RegistryServices, request: TokenRequest): Promise<IssuedToken> {
  const { access } = services;
  const { mode } = access;
  if (mode.kind !== 'token') throw new DistributionError('UNSUPPORTED', { message: 'this registry issues no tokens' });
  if (request.service !== '' && request.service !== mode.service) {
    throw new DistributionError('DENIED', {
      message: `requested access to the resource is denied: this is not service ${JSON.stringify(request.service.slice(0, 100))}`,
    });
  }
  const { grant } = request;
  let user: string | undefined;
  let refreshToken: string | undefined;
  if (grant.kind === 'refresh') {
    const found = mode.refresh.find(grant.token, mode.service);
    if (found === undefined || found.credential !== mode.users.credentialMark(found.user)) {
      throw new DistributionError('UNAUTHORIZED', { message: 'invalid refresh token' });
    }
    user = found.user;
    refreshToken = grant.token;
  } else {
    user = (await access.login(grant)).user;
    const mark = user === undefined ? undefined : mode.users.credentialMark(user);
    if (request.isOffline && user !== undefined && mark !== undefined)
      refreshToken = mode.refresh.issue(user, mode.service, mark);
  }
  return { ...access.issueToken(user, request.scopes), scopes: request.scopes, refreshToken };
}
