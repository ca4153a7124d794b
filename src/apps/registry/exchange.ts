/** One request and its answer: decoding on first use, bounded reading, and the ways to answer. */
import { randomUUID } from 'node:crypto';
import type { IncomingMessage, ServerResponse } from 'node:http';
import { Readable } from 'node:stream';
import { pipeline } from 'node:stream/promises';
import type { Caller } from '#engine/registry/services.ts';
import type { Actor } from '#services/registry/access/access.ts';
import { DistributionError } from '#types/distribution-error.ts';

/** After this long a body must have come in at MIN_BODY_RATE on average. */
const BODY_GRACE_MS = 30_000;
/** Below this a client holds a place instead of sending: bytes a second. */
const MIN_BODY_RATE = 1024;
const HOST = /^[A-Za-z0-9._-]+(?::\d{1,5})?$|^\[[0-9A-Fa-f:.]+\](?::\d{1,5})?$/;

export interface ExchangeOptions {
  readonly request: IncomingMessage;
  readonly response: ServerResponse;
  /** Configured address; empty: by the request's Host. */
  readonly externalUrl: string;
  readonly signal: AbortSignal;
}

/** One request. */
export class Exchange {
  readonly request: IncomingMessage;
  readonly response: ServerResponse;
  readonly signal: AbortSignal;
  readonly method: string;
  /** Decoded once; empty when it cannot be. */
  readonly path: string;
  readonly query: URLSearchParams;
  readonly id: string = randomUUID();
  readonly #externalUrl: string;
  /** Set once the credentials were checked. */
  actor: Actor | undefined;
  bytesIn = 0;
  bytesOut = 0;

  constructor(options: ExchangeOptions) {
    this.request = options.request;
    this.response = options.response;
    this.signal = options.signal;
    this.#externalUrl = options.externalUrl;
    this.method = options.request.method ?? 'GET';
    const url = options.request.url ?? '/';
    const at = url.indexOf('?');
    this.path = decodePath(at < 0 ? url : url.slice(0, at));
    this.query = new URLSearchParams(at < 0 ? '' : url.slice(at + 1));
  }

  get remote(): string {
    const { remoteAddress = '', remotePort = 0 } = this.request.socket;
    return `${remoteAddress}:${remotePort}`;
  }

  header(name: string): string {
    const value = this.request.headers[name];
    return typeof value === 'string' ? value : (value?.[0] ?? '');
  }

  /** Scheme, host and port under which the client sees this registry. */
  get baseUrl(): string {
    if (this.#externalUrl !== '') return this.#externalUrl.replace(/\/+$/, '');
    const { socket } = this.request;
    const scheme = 'encrypted' in socket && socket.encrypted === true ? 'https' : 'http';
    const host = this.header('host');
    return `${scheme}://${HOST.test(host) ? host : `localhost:${socket.localPort}`}`;
  }

  /** What use-cases are told. */
  caller(actor: Actor): Caller {
    return {
      actor,
      request: {
        id: this.id,
        addr: this.remote,
        host: this.header('host'),
        method: this.method,
        useragent: this.header('user-agent'),
      },
      url: (path) => `${this.baseUrl}${path}`,
    };
  }

  /** Bytes the client says it sends; undefined when it does not say. Throws SIZE_INVALID for nonsense. */
  get contentLength(): number | undefined {
    const text = this.header('content-length');
    if (text === '') return undefined;
    const length = Number(text);
    if (!/^\d+$/.test(text) || !Number.isSafeInteger(length)) throw new DistributionError('SIZE_INVALID');
    return length;
  }

  /** The body as it comes. A client that dribbles is cut off; its socket still carries the answer. */
  async *body(): AsyncGenerator<Buffer> {
    const begun = performance.now();
    for await (const chunk of this.request.iterator({ destroyOnReturn: false }) as AsyncIterable<Buffer>) {
      this.bytesIn += chunk.length;
      const elapsed = performance.now() - begun;
      if (elapsed > BODY_GRACE_MS && this.bytesIn < (elapsed / 1000) * MIN_BODY_RATE) {
        throw new DistributionError('BLOB_UPLOAD_INVALID', { message: 'the body comes too slowly' });
      }
      yield chunk;
    }
    if (!this.request.complete) throw new DistributionError('SIZE_INVALID', { message: 'the body ended early' });
  }

  /** The whole body, bounded; throws `tooLarge`. */
  async wholeBody(limitBytes: number, tooLarge: DistributionError): Promise<Buffer> {
    if ((this.contentLength ?? 0) > limitBytes) throw tooLarge;
    const chunks: Buffer[] = [];
    for await (const chunk of this.body()) {
      chunks.push(chunk);
      if (this.bytesIn > limitBytes) throw tooLarge;
    }
    return Buffer.concat(chunks);
  }

  /** Lifts the limit on silence until the answer is sent: what is left is our own work, which may take long. */
  workQuietly(): void {
    const { socket } = this.request;
    const { timeout = 0 } = socket;
    socket.setTimeout(0);
    this.response.once('close', () => socket.setTimeout(timeout));
  }

  /** An answer without a body. */
  empty(status: number, headers: Readonly<Record<string, string>> = {}): void {
    const length = status === 204 || status === 304 ? {} : { 'Content-Length': '0' };
    this.response.writeHead(status, { ...length, ...headers }).end();
  }

  /** An answer in memory; HEAD gets its head alone. */
  bytes(status: number, body: Buffer | string, headers: Readonly<Record<string, string>>): void {
    this.response.writeHead(status, { 'Content-Length': String(Buffer.byteLength(body)), ...headers });
    if (this.method === 'HEAD') this.response.end();
    else {
      this.bytesOut += Buffer.byteLength(body);
      this.response.end(body);
    }
  }

  json(status: number, value: unknown, headers: Readonly<Record<string, string>> = {}): void {
    this.bytes(status, `${JSON.stringify(value)}\n`, { 'Content-Type': 'application/json', ...headers });
  }

  /** Streams a body whose length the head has told. A failure cuts the connection, so that it cannot pass for the whole. */
  async stream(source: AsyncIterable<Uint8Array>): Promise<void> {
    const counted = this.#counted(source);
    await pipeline(Readable.from(counted, { objectMode: true, highWaterMark: 1 }), this.response, {
      signal: this.signal,
    });
  }

  async *#counted(source: AsyncIterable<Uint8Array>): AsyncGenerator<Uint8Array> {
    for await (const chunk of source) {
      this.bytesOut += chunk.length;
      yield chunk;
    }
  }
}

function decodePath(raw: string): string {
  try {
    return decodeURIComponent(raw);
  } catch {
    return '';
  }
}
