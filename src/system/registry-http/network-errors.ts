/** Failures of sockets, TLS and time, worded as Go's net/http words them, because users and scripts match those texts. */
import { getServers } from 'node:dns';
import { isIPv6 } from 'node:net';
import { errorMessage } from '#types/errors.ts';
import { RemoteRegistryError } from './errors.ts';

interface SystemError extends Error {
  readonly code?: string;
  readonly syscall?: string;
  readonly address?: string;
  readonly port?: number;
  readonly host?: string;
  readonly errors?: readonly Error[];
  readonly cert?: { readonly valid_to?: string; readonly subjectaltname?: string };
}

const UNKNOWN_AUTHORITY: ReadonlySet<string> = new Set([
  'DEPTH_ZERO_SELF_SIGNED_CERT',
  'SELF_SIGNED_CERT_IN_CHAIN',
  'UNABLE_TO_VERIFY_LEAF_SIGNATURE',
  'UNABLE_TO_GET_ISSUER_CERT',
  'UNABLE_TO_GET_ISSUER_CERT_LOCALLY',
]);

const VERIFY = 'tls: failed to verify certificate: x509: ';

/** Go's names of common errno values. */
const ERRNO: Readonly<Record<string, string>> = {
  ECONNREFUSED: 'connection refused',
  ECONNRESET: 'connection reset by peer',
  EHOSTUNREACH: 'no route to host',
  ENETUNREACH: 'network is unreachable',
  ETIMEDOUT: 'connection timed out',
  EPIPE: 'broken pipe',
  EACCES: 'permission denied',
  EPERM: 'operation not permitted',
};

function address(error: SystemError, url: URL): string {
  const host = error.address ?? url.hostname.replace(/^\[|\]$/g, '');
  const port = error.port ?? (url.port === '' ? (url.protocol === 'https:' ? 443 : 80) : Number(url.port));
  return isIPv6(host) ? `[${host}]:${port}` : `${host}:${port}`;
}

function lookup(error: SystemError, url: URL): string {
  const server = getServers()[0];
  const on = server === undefined ? '' : ` on ${/:\d+$/.test(server) && !isIPv6(server) ? server : `${server}:53`}`;
  const why = error.code === 'EAI_AGAIN' ? 'Temporary failure in name resolution' : 'no such host';
  return `dial tcp: lookup ${url.hostname}${on}: ${why}`;
}

/** The text of one failure. */
export function networkText(error: unknown, url: URL): string {
  const given = error as SystemError;
  const failure = (given.errors?.[0] ?? given) as SystemError;
  const code = failure.code ?? '';
  if (code === 'ENOTFOUND' || code === 'EAI_AGAIN') return lookup(failure, url);
  if (UNKNOWN_AUTHORITY.has(code)) return `${VERIFY}certificate signed by unknown authority`;
  if (code === 'CERT_HAS_EXPIRED' || code === 'CERT_NOT_YET_VALID') {
    return `${VERIFY}certificate has expired or is not yet valid`;
  }
  if (code === 'ERR_TLS_CERT_ALTNAME_INVALID') return altName(failure, url);
  if (code === 'ERR_SSL_WRONG_VERSION_NUMBER' || /wrong version number|packet length too long/i.test(failure.message)) {
    return 'http: server gave HTTP response to HTTPS client';
  }
  if (/alert bad certificate|alert certificate required/i.test(failure.message))
    return 'remote error: tls: certificate required';
  if (code === 'UND_ERR_CONNECT_TIMEOUT') return `dial tcp ${address(failure, url)}: i/o timeout`;
  if (code === 'UND_ERR_HEADERS_TIMEOUT') return 'net/http: timeout awaiting response headers';
  if (code === 'UND_ERR_BODY_TIMEOUT') return 'net/http: timeout awaiting response body';
  if (code === 'UND_ERR_SOCKET') return 'EOF';
  if (code === 'UND_ERR_RES_CONTENT_LENGTH_MISMATCH') return 'unexpected EOF';
  const known = ERRNO[code];
  if (known === undefined) return errorMessage(failure);
  return failure.syscall === 'connect'
    ? `dial tcp ${address(failure, url)}: connect: ${known}`
    : `${failure.syscall ?? 'read'} tcp ${address(failure, url)}: ${failure.syscall ?? 'read'}: ${known}`;
}

function altName(failure: SystemError, url: URL): string {
  const names = (failure.cert?.subjectaltname ?? '')
    .split(', ')
    .filter((name) => name !== '')
    .map((name) => name.replace(/^[^:]*:/, ''));
  const host = url.hostname.replace(/^\[|\]$/g, '');
  if (names.length === 0) return `${VERIFY}certificate is not valid for any names, but wanted to match ${host}`;
  return `${VERIFY}certificate is valid for ${names.join(', ')}, not ${host}`;
}

/** A failure as an error of this client. An abort stays what it is. */
export function networkError(error: unknown, url: URL): RemoteRegistryError {
  if (error instanceof RemoteRegistryError) return error;
  return new RemoteRegistryError('system', networkText(error, url), { failure: 'network', cause: error });
}
