/**
 * Raw Engine API requests over a unix socket, without any client of ours in between:
 * tests of statuses, headers and bodies must see what is really sent.
 */
import { request as httpRequest, type IncomingHttpHeaders } from 'node:http';

const REQUEST_TIMEOUT_MS = 30_000;

export interface ApiRequest {
  readonly method: string;
  readonly path: string;
  /** A string or buffer is sent as it is, anything else as JSON. */
  readonly body?: unknown;
  readonly headers?: Readonly<Record<string, string>>;
}

export interface ApiAnswer {
  readonly status: number;
  readonly headers: IncomingHttpHeaders;
  readonly text: string;
  /** The body as JSON; throws when it is none. */
  json<T = Record<string, unknown>>(): T;
}

/** Sends one request and reads the whole answer. */
export function request(socketPath: string, options: ApiRequest): Promise<ApiAnswer> {
  const raw = typeof options.body === 'string' || Buffer.isBuffer(options.body);
  const payload =
    options.body === undefined ? undefined : raw ? (options.body as string) : JSON.stringify(options.body);
  const headers: Record<string, string> = { ...options.headers };
  if (payload !== undefined) headers['Content-Type'] ??= 'application/json';
  return new Promise((resolve, reject) => {
    const outgoing = httpRequest(
      { socketPath, method: options.method, path: options.path, headers, agent: false, timeout: REQUEST_TIMEOUT_MS },
      (response) => {
        const chunks: Buffer[] = [];
        response.on('data', (chunk: Buffer) => chunks.push(chunk));
        response.on('error', reject);
        response.on('end', () => {
          const text = Buffer.concat(chunks).toString();
          resolve({
            status: response.statusCode ?? 0,
            headers: response.headers,
            text,
            json: <T>() => JSON.parse(text) as T,
          });
        });
      },
    );
    outgoing.on('timeout', () => outgoing.destroy(new Error(`no answer in ${REQUEST_TIMEOUT_MS} ms: ${options.path}`)));
    outgoing.on('error', reject);
    outgoing.end(payload);
  });
}
