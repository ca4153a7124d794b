/**
 * A registry that misbehaves on demand: content is put in by tests, and each request may be answered by a script
 * instead. It counts what it was asked, so that tests see what was really sent.
 */
import { randomBytes } from 'node:crypto';
import { createServer, type IncomingMessage, type ServerResponse } from 'node:http';
import type { AddressInfo } from 'node:net';
import { gzipSync } from 'node:zlib';
import { type Digest, digestOf } from '#types/digest.ts';

const MANIFEST = 'application/vnd.oci.image.manifest.v1+json';
const INDEX = 'application/vnd.oci.image.index.v1+json';
const CONFIG = 'application/vnd.oci.image.config.v1+json';
const LAYER = 'application/vnd.oci.image.layer.v1.tar+gzip';

/** Answers a request instead of the registry; false leaves it to the registry. */
export type Fault = (request: IncomingMessage, response: ServerResponse, seen: number) => boolean;

export interface FakeLayer {
  readonly tar: Buffer;
  readonly blob: Buffer;
}

export interface Descriptor {
  readonly mediaType: string;
  readonly digest: Digest;
  readonly size: number;
}

/** A tar of one file; incompressible, so that the blob is about as large. */
export function fakeLayer(name: string, sizeBytes: number): FakeLayer {
  const header = Buffer.alloc(512);
  header.write(name, 0);
  header.write('0000644\0', 100);
  header.write('0000000\0', 108);
  header.write('0000000\0', 116);
  header.write(`${sizeBytes.toString(8).padStart(11, '0')}\0`, 124);
  header.write('00000000000\0', 136);
  header.write('        ', 148);
  header.write('0', 156);
  header.write('ustar\0', 257);
  header.write('00', 263);
  const sum = header.reduce((total, byte) => total + byte, 0);
  header.write(`${sum.toString(8).padStart(6, '0')}\0 `, 148);
  const padding = Buffer.alloc((512 - (sizeBytes % 512)) % 512);
  const tar = Buffer.concat([header, randomBytes(sizeBytes), padding, Buffer.alloc(1024)]);
  return { tar, blob: gzipSync(tar, { level: 1 }) };
}

export class FaultyRegistry implements AsyncDisposable {
  readonly #server = createServer((request, response) => this.#answer(request, response));
  readonly #faults: { pattern: RegExp; fault: Fault; seen: number }[] = [];
  readonly manifests: Map<string, { mediaType: string; bytes: Buffer }> = new Map();
  readonly blobs: Map<Digest, Buffer> = new Map();
  /** `METHOD path` of every request so far. */
  readonly requests: string[] = [];
  /** Headers beside. */
  readonly headers: IncomingMessage['headers'][] = [];

  get host(): string {
    return `127.0.0.1:${(this.#server.address() as AddressInfo).port}`;
  }

  async start(): Promise<void> {
    const { promise, resolve } = Promise.withResolvers<void>();
    this.#server.listen(0, '127.0.0.1', resolve);
    await promise;
  }

  /** Lets `fault` answer requests that match `pattern`, e.g. /^GET .*blobs/. */
  on(pattern: RegExp, fault: Fault): void {
    this.#faults.push({ pattern, fault, seen: 0 });
  }

  count(pattern: RegExp): number {
    return this.requests.filter((line) => pattern.test(line)).length;
  }

  addBlob(bytes: Buffer): Digest {
    const digest = digestOf(bytes);
    this.blobs.set(digest, bytes);
    return digest;
  }

  addManifest(tag: string, value: unknown, mediaType: string = MANIFEST): Descriptor {
    const bytes = Buffer.isBuffer(value) ? value : Buffer.from(JSON.stringify(value));
    const digest = digestOf(bytes);
    this.manifests.set(tag, { mediaType, bytes });
    this.manifests.set(digest, { mediaType, bytes });
    return { mediaType, digest, size: bytes.length };
  }

  /** The parts of an image's manifest; tests bend them before they put it in. */
  imageParts(
    layers: readonly FakeLayer[],
    config: object = {},
  ): { schemaVersion: 2; mediaType: string; config: Descriptor; layers: Descriptor[] } {
    const bytes = Buffer.from(
      JSON.stringify({
        architecture: 'amd64',
        os: 'linux',
        config: {},
        rootfs: { type: 'layers', diff_ids: layers.map(({ tar }) => digestOf(tar)) },
        ...config,
      }),
    );
    return {
      schemaVersion: 2,
      mediaType: MANIFEST,
      config: { mediaType: CONFIG, digest: this.addBlob(bytes), size: bytes.length },
      layers: layers.map(({ blob }) => ({ mediaType: LAYER, digest: this.addBlob(blob), size: blob.length })),
    };
  }

  addImage(tag: string, layers: readonly FakeLayer[], config: object = {}): Descriptor {
    return this.addManifest(tag, this.imageParts(layers, config));
  }

  addIndex(tag: string, manifests: readonly object[]): Descriptor {
    return this.addManifest(tag, { schemaVersion: 2, mediaType: INDEX, manifests }, INDEX);
  }

  #answer(request: IncomingMessage, response: ServerResponse): void {
    const line = `${request.method} ${request.url}`;
    this.requests.push(line);
    this.headers.push(request.headers);
    response.on('error', () => undefined);
    for (const entry of this.#faults) {
      if (!entry.pattern.test(line)) continue;
      entry.seen += 1;
      if (entry.fault(request, response, entry.seen)) return;
    }
    this.serve(request, response);
  }

  /** The honest answer. */
  serve(request: IncomingMessage, response: ServerResponse): void {
    const path = (request.url ?? '').split('?')[0] ?? '';
    const manifest = /\/manifests\/([^/]+)$/.exec(path)?.[1];
    const blob = /\/blobs\/([^/]+)$/.exec(path)?.[1];
    if (path === '/v2/') response.end('{}');
    else if (manifest !== undefined) this.#manifest(manifest, response);
    else if (blob !== undefined) this.#blob(blob as Digest, request, response);
    else if (path.endsWith('/tags/list')) {
      const tags = [...this.manifests.keys()].filter((name) => !name.startsWith('sha256:'));
      response.setHeader('content-type', 'application/json').end(JSON.stringify({ name: 'x', tags }));
    } else refuse(response, 404, 'UNSUPPORTED', 'no such thing');
  }

  #manifest(name: string, response: ServerResponse): void {
    const found = this.manifests.get(name);
    if (found === undefined) {
      refuse(response, 404, 'MANIFEST_UNKNOWN', 'manifest unknown');
      return;
    }
    response.setHeader('content-type', found.mediaType);
    response.setHeader('content-length', found.bytes.length);
    response.setHeader('docker-content-digest', digestOf(found.bytes));
    response.end(found.bytes);
  }

  #blob(digest: Digest, request: IncomingMessage, response: ServerResponse): void {
    const bytes = this.blobs.get(digest);
    if (bytes === undefined) {
      refuse(response, 404, 'BLOB_UNKNOWN', 'blob unknown to registry');
      return;
    }
    const start = Number(/^bytes=(\d+)-/.exec(request.headers.range ?? '')?.[1] ?? 0);
    if (start > 0) {
      response.statusCode = 206;
      response.setHeader('content-range', `bytes ${start}-${bytes.length - 1}/${bytes.length}`);
    }
    response.setHeader('content-length', bytes.length - start);
    response.end(bytes.subarray(start));
  }

  async [Symbol.asyncDispose](): Promise<void> {
    const { promise, resolve } = Promise.withResolvers<void>();
    this.#server.close(() => resolve());
    this.#server.closeAllConnections();
    await promise;
  }
}

/** A registry's refusal. */
export function refuse(response: ServerResponse, status: number, code: string, message: string): void {
  response.statusCode = status;
  response.setHeader('content-type', 'application/json');
  response.end(JSON.stringify({ errors: [{ code, message, detail: {} }] }));
}

/** Starts one. */
export async function startFaultyRegistry(): Promise<FaultyRegistry> {
  const registry = new FaultyRegistry();
  await registry.start();
  return registry;
}
