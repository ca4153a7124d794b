/** Where a daemon is: `unix://`, `tcp://`, `http://` and `https://` addresses as DOCKER_HOST has them. */
import { GantryError } from '#types/errors.ts';

/** PEM texts or file contents for a TLS connection. */
export interface TlsSettings {
  readonly ca?: string | Buffer | undefined;
  readonly cert?: string | Buffer | undefined;
  readonly key?: string | Buffer | undefined;
  /** Whether the server's certificate must be valid (default true). */
  readonly verify?: boolean | undefined;
}

export type Endpoint =
  | { readonly kind: 'unix'; readonly host: string; readonly socketPath: string }
  | {
      readonly kind: 'tcp';
      readonly host: string;
      readonly hostname: string;
      readonly port: number;
      readonly tls: TlsSettings | undefined;
    };

const PORT = 2375;
const TLS_PORT = 2376;

/** Parses a daemon address; throws `invalid` with docker's text. */
export function parseEndpoint(host: string, tls: TlsSettings | undefined): Endpoint {
  const match = /^(unix|tcp|http|https):\/\/(.+)$/s.exec(host);
  if (match === null) throw new GantryError('invalid', `unable to parse docker host \`${host}\``);
  const [, protocol = '', rest = ''] = match;
  if (protocol === 'unix') return { kind: 'unix', host, socketPath: rest };
  const url = `http://${rest}`;
  if (!URL.canParse(url)) throw new GantryError('invalid', `unable to parse docker host \`${host}\``);
  const { hostname, port } = new URL(url);
  const settings = tls ?? (protocol === 'https' ? {} : undefined);
  const fallback = settings === undefined ? PORT : TLS_PORT;
  // URL drops port 80, the default of its own scheme.
  const isPort80 = /:80(\/|$)/.test(rest);
  return {
    kind: 'tcp',
    host,
    hostname: hostname.replace(/^\[|\]$/g, ''),
    port: port === '' ? (isPort80 ? 80 : fallback) : Number(port),
    tls: settings,
  };
}

/** What a failed connection attempt is told to the user as. */
export function connectionError(endpoint: Endpoint, error: Error): GantryError {
  const { code } = error as NodeJS.ErrnoException;
  if (code === 'EACCES') {
    const text = `permission denied while trying to connect to the Docker daemon socket at ${endpoint.host}: ${error.message}`;
    return new GantryError('forbidden', text, { cause: error });
  }
  const isAbsent =
    code === 'ENOENT' ||
    code === 'ENOTSOCK' ||
    code === 'ECONNREFUSED' ||
    code === 'EHOSTUNREACH' ||
    code === 'ETIMEDOUT';
  if (isAbsent) {
    const text = `Cannot connect to the Docker daemon at ${endpoint.host}. Is the docker daemon running?`;
    return new GantryError('unavailable', text, { cause: error });
  }
  if (error.name === 'AbortError') return new GantryError('cancelled', 'context canceled', { cause: error });
  return new GantryError('unavailable', `error during connect: ${error.message}`, { cause: error });
}
