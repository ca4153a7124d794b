/** The token endpoint: GET with Basic, and POST as an OAuth 2 grant. */
import { issueToken, type TokenRequest } from '#engine/registry/issue-token.ts';
import type { RegistryServices } from '#engine/registry/services.ts';
import { parseAuthorization } from '#services/registry/access/access.ts';
import { parseScopes } from '#services/registry/access/scopes.ts';
import { DistributionError } from '#types/distribution-error.ts';
import type { Exchange } from '../exchange.ts';

const MAX_FORM_BYTES = 64 * 1024;

/** Answers GET and POST /token. */
export async function serveToken(exchange: Exchange, services: RegistryServices): Promise<void> {
  if (exchange.method !== 'GET' && exchange.method !== 'POST') throw new DistributionError('UNSUPPORTED');
  const isPost = exchange.method === 'POST';
  const request = isPost ? await postedRequest(exchange) : queriedRequest(exchange);
  const issued = await issueToken(services, request);
  exchange.json(
    200,
    {
      token: issued.token,
      access_token: issued.token,
      expires_in: issued.expiresInSeconds,
      issued_at: new Date(issued.issuedAtMs).toISOString(),
      ...(isPost
        ? { scope: issued.scopes.map(({ type, name, actions }) => `${type}:${name}:${actions.join(',')}`).join(' ') }
        : {}),
      ...(issued.refreshToken === undefined ? {} : { refresh_token: issued.refreshToken }),
    },
    { 'Cache-Control': 'no-store' },
  );
}

function queriedRequest({ query, request }: Exchange): TokenRequest {
  return {
    service: query.get('service') ?? '',
    scopes: parseScopes(query.getAll('scope')),
    grant: parseAuthorization(request.headers.authorization),
    isOffline: query.get('offline_token') === 'true',
  };
}

async function postedRequest(exchange: Exchange): Promise<TokenRequest> {
  const tooLarge = new DistributionError('SIZE_INVALID', {
    message: `the form is larger than ${MAX_FORM_BYTES} bytes`,
  });
  const form = new URLSearchParams((await exchange.wholeBody(MAX_FORM_BYTES, tooLarge)).toString());
  const base = {
    service: form.get('service') ?? '',
    scopes: parseScopes(form.getAll('scope')),
    isOffline: form.get('access_type') === 'offline',
  };
  switch (form.get('grant_type')) {
    case 'password': {
      const [user, password] = [form.get('username') ?? '', form.get('password') ?? ''];
      if (user === '') throw new DistributionError('UNAUTHORIZED');
      return { ...base, grant: { kind: 'basic', user, password } };
    }
    case 'refresh_token':
      return { ...base, grant: { kind: 'refresh', token: form.get('refresh_token') ?? '' } };
    default:
      throw new DistributionError('UNSUPPORTED', { message: 'the grant_type must be password or refresh_token' });
  }
}
