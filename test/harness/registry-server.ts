/** Our registry for tests: a process of its own on a free port, with a root of its own that survives restarts. */
import { type ChildProcess, spawn } from 'node:child_process';
import { createHash } from 'node:crypto';
import { once } from 'node:events';
import { closeSync, existsSync, mkdtempSync, openSync, readFileSync, rmSync } from 'node:fs';
import { type IncomingHttpHeaders, request as plainRequest } from 'node:http';
import { request as tlsRequest } from 'node:https';
import { tmpdir } from 'node:os';
import { join, resolve } from 'node:path';
import { eventually, type Result, run } from './processes.ts';

const PROGRAM: string = resolve(import.meta.dirname, '../../bin/gantry');
const START_TIMEOUT_MS = 30_000;

/** What a request got. */
export interface Answer {
  readonly status: number;
  readonly headers: IncomingHttpHeaders;
  readonly body: Buffer;
  readonly text: string;
  /** The first error code, if it is an error body. */
  readonly code: string | undefined;
}

export interface Ask {
  readonly headers?: Readonly<Record<string, string>>;
  readonly body?: Buffer | string;
}

/** The sha256 digest of bytes. */
export function sha256(bytes: Buffer | string): string {
  return `sha256:${createHash('sha256').update(bytes).digest('hex')}`;
}

/** One registry. */
export class TestRegistry implements AsyncDisposable {
  readonly directory: string = mkdtempSync(join(tmpdir(), 'gantry-registry-'));
  readonly #flags: readonly string[];
  #child: ChildProcess | undefined;
  #isTls = false;
  port = 0;

  constructor(flags: readonly string[]) {
    this.#flags = flags;
  }

  get root(): string {
    return join(this.directory, 'root');
  }

  /** `127.0.0.1:<port>`. */
  get host(): string {
    return `127.0.0.1:${this.port}`;
  }

  get pid(): number {
    return this.#child?.pid ?? 0;
  }

  get log(): string {
    const file = join(this.directory, 'log');
    return existsSync(file) ? readFileSync(file, 'utf8') : '';
  }

  /** Starts the process and waits until it listens. */
  async start(): Promise<void> {
    const known = this.log.length;
    const log = openSync(join(this.directory, 'log'), 'a');
    const child = spawn(
      PROGRAM,
      ['registry', 'serve', '--root', this.root, '--listen', `127.0.0.1:${this.port}`, ...this.#flags],
      {
        stdio: ['ignore', log, log],
        cwd: this.directory,
      },
    );
    closeSync(log);
    this.#child = child;
    await eventually(
      () => {
        if (child.exitCode !== null) throw new Error(`the registry ended at start:\n${this.log}`);
        const match = /Registry listens" address=127\.0\.0\.1:(\d+) tls=(\w+)/.exec(this.log.slice(known));
        if (match === null) return false;
        this.port = Number(match[1]);
        this.#isTls = match[2] === 'true';
        return true;
      },
      { timeoutMs: START_TIMEOUT_MS, what: () => `the registry to listen; its log:\n${this.log}` },
    );
  }

  async end(signal: NodeJS.Signals): Promise<void> {
    const child = this.#child;
    if (child === undefined || child.exitCode !== null || child.signalCode !== null) return;
    const exited = once(child, 'exit');
    child.kill(signal);
    await exited;
  }

  signal(signal: NodeJS.Signals): void {
    this.#child?.kill(signal);
  }

  /** One request; never follows redirects. */
  ask(method: string, path: string, options: Ask = {}): Promise<Answer> {
    const { promise, resolve: done, reject } = Promise.withResolvers<Answer>();
    const { body, headers = {} } = options;
    const length =
      body === undefined || 'transfer-encoding' in headers ? {} : { 'content-length': String(Buffer.byteLength(body)) };
    const make = this.#isTls ? tlsRequest : plainRequest;
    const request = make(
      {
        host: '127.0.0.1',
        port: this.port,
        method,
        path,
        headers: { ...length, ...headers },
        agent: false,
        rejectUnauthorized: false,
      },
      (response) => {
        const chunks: Buffer[] = [];
        response.on('data', (chunk: Buffer) => chunks.push(chunk));
        response.on('error', reject);
        response.on('end', () => {
          const bytes = Buffer.concat(chunks);
          const text = bytes.toString();
          done({ status: response.statusCode ?? 0, headers: response.headers, body: bytes, text, code: codeOf(text) });
        });
      },
    );
    request.on('error', reject);
    request.end(body);
    return promise;
  }

  /** Pushes a blob in one request; its digest. */
  async pushBlob(
    repository: string,
    bytes: Buffer | string,
    headers: Readonly<Record<string, string>> = {},
  ): Promise<string> {
    const digest = sha256(bytes);
    const answer = await this.ask('POST', `/v2/${repository}/blobs/uploads/?digest=${digest}`, {
      body: bytes,
      headers,
    });
    if (answer.status !== 201) throw new Error(`pushing a blob: ${answer.status} ${answer.text}`);
    return digest;
  }

  /** Pushes a small image (configuration and layers) under a tag; its manifest's bytes and digest. */
  async pushImage(
    repository: string,
    tag: string,
    layers: readonly (Buffer | string)[],
    extra: object = {},
  ): Promise<{ bytes: string; digest: string }> {
    const config = JSON.stringify({ architecture: 'amd64', os: 'linux', tag });
    await this.pushBlob(repository, config);
    for (const layer of layers) await this.pushBlob(repository, layer);
    const bytes = JSON.stringify({ ...imageManifest(config, layers), ...extra });
    const answer = await this.ask('PUT', `/v2/${repository}/manifests/${tag}`, {
      body: bytes,
      headers: { 'content-type': OCI_MANIFEST },
    });
    if (answer.status !== 201) throw new Error(`pushing a manifest: ${answer.status} ${answer.text}`);
    return { bytes, digest: sha256(bytes) };
  }

  /** `gantry registry <words> --root …`. */
  command(...words: string[]): Promise<Result> {
    return run(PROGRAM, ['registry', ...words, '--root', this.root]);
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.end('SIGTERM');
    rmSync(this.directory, { recursive: true, force: true });
  }
}

export const OCI_MANIFEST = 'application/vnd.oci.image.manifest.v1+json';
export const OCI_INDEX = 'application/vnd.oci.image.index.v1+json';

/** A manifest of an image with this configuration and these layers. */
export function imageManifest(config: string, layers: readonly (Buffer | string)[]): Readonly<Record<string, unknown>> {
  const descriptor = (mediaType: string, bytes: Buffer | string): object => ({
    mediaType,
    digest: sha256(bytes),
    size: Buffer.byteLength(bytes),
  });
  return {
    schemaVersion: 2,
    mediaType: OCI_MANIFEST,
    config: descriptor('application/vnd.oci.image.config.v1+json', config),
    layers: layers.map((layer) => descriptor('application/vnd.oci.image.layer.v1.tar', layer)),
  };
}

function codeOf(text: string): string | undefined {
  try {
    const { errors } = JSON.parse(text) as { errors?: { code: string }[] };
    return errors?.[0]?.code;
  } catch {
    return undefined;
  }
}

/** Starts a registry with these flags. */
export async function startRegistry(...flags: string[]): Promise<TestRegistry> {
  const registry = new TestRegistry(flags);
  try {
    await registry.start();
    return registry;
  } catch (error) {
    await registry[Symbol.asyncDispose]();
    throw error;
  }
}
