/** A stand-in for a daemon that records every request and answers from a list, to see what clients send. */
import { once } from 'node:events';
import { createServer, type IncomingMessage, type Server } from 'node:http';

/** A recorded request, decoded. Empty values are dropped, because clients differ in which of them they write. */
export interface Recorded {
  readonly method: string;
  readonly path: string;
  readonly query: Readonly<Record<string, readonly string[]>>;
  readonly body: unknown;
  readonly registryAuth: unknown;
  readonly registryConfig: unknown;
}

/** What is answered to `METHOD /path` (without the version); the text is sent as it is. */
export type Answers = Readonly<Record<string, { readonly status?: number; readonly text: string }>>;

/** Drops null, empty texts, zeros, false, empty lists and objects, at any depth. */
export function meaningful(value: unknown): unknown {
  if (Array.isArray(value)) {
    const items = value.map(meaningful);
    return items.length === 0 ? undefined : items.map((item) => item ?? null);
  }
  if (typeof value === 'object' && value !== null) {
    const entries = Object.entries(value)
      .map(([key, item]) => [key, meaningful(item)] as const)
      .filter(([, item]) => item !== undefined)
      .sort(([a], [b]) => (a < b ? -1 : 1));
    return entries.length === 0 ? undefined : Object.fromEntries(entries);
  }
  return value === null || value === '' || value === 0 || value === false ? undefined : value;
}

function decoded(header: string | string[] | undefined): unknown {
  if (typeof header !== 'string') return undefined;
  return meaningful(JSON.parse(Buffer.from(header, 'base64url').toString()));
}

async function bodyOf(request: IncomingMessage): Promise<unknown> {
  const chunks: Buffer[] = [];
  for await (const chunk of request) chunks.push(chunk as Buffer);
  const text = Buffer.concat(chunks).toString();
  if (!String(request.headers['content-type']).startsWith('application/json'))
    return text.length > 0 ? 'bytes' : undefined;
  return text === '' ? undefined : meaningful(JSON.parse(text));
}

/** JSON in a query is compared by meaning. */
function queryOf(url: URL): Record<string, string[]> {
  const found: Record<string, string[]> = {};
  for (const key of [...new Set(url.searchParams.keys())].sort()) {
    const values = url.searchParams.getAll(key).map((value) => {
      if (!/^[{[]/.test(value)) return value;
      return JSON.stringify(meaningful(JSON.parse(value))) ?? '';
    });
    const kept = values.filter((value) => value !== '' && value !== '0' && value !== 'false');
    if (kept.length > 0) found[key] = kept;
  }
  return found;
}

export class Recorder implements AsyncDisposable {
  readonly #server: Server;
  #requests: Recorded[] = [];

  private constructor(server: Server) {
    this.#server = server;
  }

  /** Listens on a unix socket and claims to speak `version`. */
  static async listen(socketPath: string, version: string, answers: Answers): Promise<Recorder> {
    const server = createServer();
    const recorder = new Recorder(server);
    server.on('request', (request, response) => {
      const url = new URL(request.url ?? '/', 'http://daemon');
      const path = url.pathname.replace(/^\/v\d+\.\d+/, '');
      response
        .setHeader('Api-Version', version)
        .setHeader('Ostype', 'linux')
        .setHeader('Content-Type', 'application/json');
      void (async () => {
        const body = await bodyOf(request);
        if (path === '/_ping') return response.end('OK');
        recorder.#requests.push({
          method: request.method ?? '',
          path,
          query: queryOf(url),
          body,
          registryAuth: decoded(request.headers['x-registry-auth']),
          registryConfig: decoded(request.headers['x-registry-config']),
        });
        const answer = answers[`${request.method} ${path}`] ?? { text: '{}' };
        response.statusCode = answer.status ?? 200;
        return response.end(answer.text);
      })();
    });
    server.listen(socketPath);
    await once(server, 'listening');
    return recorder;
  }

  /** What came since the last call. */
  take(): Recorded[] {
    const taken = this.#requests;
    this.#requests = [];
    return taken;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.#server.closeAllConnections();
    this.#server.close();
    await once(this.#server, 'close').catch(() => undefined);
  }
}
