/**
 * Debian's docker-registry for tests: own directory, a port the kernel chose, optionally TLS, htpasswd or a token
 * server. Certificates are made with openssl, once a registry.
 */
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { closeSync, mkdirSync, mkdtempSync, openSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { eventually, run } from './processes.ts';

const START_TIMEOUT_MS = 20_000;

export interface TestRegistryOptions {
  readonly tls?: boolean;
  /** Client certificates are asked for; implies TLS. */
  readonly clientCertificates?: boolean;
  readonly htpasswd?: { readonly username: string; readonly password: string };
  readonly token?: {
    readonly realm: string;
    readonly service: string;
    readonly issuer: string;
    readonly bundle: string;
  };
  /** A pull-through cache of this registry. */
  readonly upstream?: string;
}

/** A running docker-registry. */
export class TestRegistry implements AsyncDisposable {
  readonly directory: string = mkdtempSync(join(tmpdir(), 'gantry-registry-'));
  readonly #options: TestRegistryOptions;
  #child: ReturnType<typeof spawn> | undefined;
  #port = 0;

  constructor(options: TestRegistryOptions) {
    this.#options = options;
  }

  /** `127.0.0.1:port`. */
  get host(): string {
    return `127.0.0.1:${this.#port}`;
  }

  get isTls(): boolean {
    return this.#options.tls === true || this.#options.clientCertificates === true;
  }

  get url(): string {
    return `${this.isTls ? 'https' : 'http'}://${this.host}`;
  }

  /** The CA's certificate file, with TLS. */
  get caFile(): string {
    return join(this.directory, 'ca.crt');
  }

  get log(): string {
    return readFileSync(join(this.directory, 'log'), 'utf8');
  }

  async start(): Promise<void> {
    mkdirSync(join(this.directory, 'store'));
    if (this.isTls) await this.#makeCertificates();
    if (this.#options.htpasswd !== undefined) await this.#makePasswords(this.#options.htpasswd);
    writeFileSync(join(this.directory, 'config.json'), JSON.stringify(this.#configuration()));
    const log = openSync(join(this.directory, 'log'), 'a');
    const child = spawn('docker-registry', ['serve', join(this.directory, 'config.json')], {
      stdio: ['ignore', log, log],
    });
    closeSync(log);
    this.#child = child;
    let ended = false;
    child.once('exit', () => {
      ended = true;
    });
    child.once('error', () => {
      ended = true;
    });
    await eventually(
      () => {
        if (ended) throw new Error(`docker-registry ended at start:\n${this.log}`);
        this.#port = Number(/listening on [^ ]*?127\.0\.0\.1:(\d+)/.exec(this.log)?.[1] ?? 0);
        return this.#port !== 0;
      },
      { timeoutMs: START_TIMEOUT_MS, what: () => `docker-registry to listen; its log:\n${this.log}` },
    );
  }

  #configuration(): object {
    const { htpasswd, token, upstream, clientCertificates } = this.#options;
    const file = (name: string): string => join(this.directory, name);
    return {
      version: 0.1,
      log: { level: 'info' },
      storage: { filesystem: { rootdirectory: file('store') }, delete: { enabled: true } },
      http: {
        addr: '127.0.0.1:0',
        secret: 'test',
        ...(this.isTls
          ? {
              tls: {
                certificate: file('server.crt'),
                key: file('server.key'),
                ...(clientCertificates === true ? { clientcas: [file('ca.crt')] } : {}),
              },
            }
          : {}),
      },
      ...(upstream === undefined ? {} : { proxy: { remoteurl: upstream } }),
      ...(htpasswd === undefined ? {} : { auth: { htpasswd: { realm: 'test', path: file('htpasswd') } } }),
      ...(token === undefined
        ? {}
        : {
            auth: {
              token: { realm: token.realm, service: token.service, issuer: token.issuer, rootcertbundle: token.bundle },
            },
          }),
    };
  }

  async #makePasswords(user: { username: string; password: string }): Promise<void> {
    const made = await run('htpasswd', ['-Bbn', user.username, user.password]);
    if (made.code !== 0) throw new Error(`htpasswd: ${made.stderr}`);
    writeFileSync(join(this.directory, 'htpasswd'), made.stdout);
  }

  async #makeCertificates(): Promise<void> {
    await makeAuthority(this.directory);
    await makeCertificate(this.directory, 'server', 'subjectAltName=IP:127.0.0.1,DNS:localhost');
    await makeCertificate(this.directory, 'client', 'extendedKeyUsage=clientAuth');
  }

  /** Puts this registry's CA (and client certificate) below a `certs.d` directory. */
  trustBelow(certificates: string): void {
    const directory = join(certificates, this.host);
    mkdirSync(directory, { recursive: true });
    writeFileSync(join(directory, 'ca.crt'), readFileSync(this.caFile));
    if (this.#options.clientCertificates === true) {
      writeFileSync(join(directory, 'client.cert'), readFileSync(join(this.directory, 'client.crt')));
      writeFileSync(join(directory, 'client.key'), readFileSync(join(this.directory, 'client.key')));
    }
  }

  async [Symbol.asyncDispose](): Promise<void> {
    const child = this.#child;
    if (child !== undefined && child.exitCode === null && child.signalCode === null) {
      const exited = once(child, 'exit');
      child.kill('SIGKILL');
      await exited;
    }
    rmSync(this.directory, { recursive: true, force: true });
  }
}

async function openssl(...args: string[]): Promise<void> {
  const made = await run('openssl', args);
  if (made.code !== 0) throw new Error(`openssl ${args.join(' ')}: ${made.stderr}`);
}

/** A certificate authority, `ca.crt` and `ca.key`. */
export async function makeAuthority(directory: string): Promise<void> {
  const file = (name: string): string => join(directory, name);
  const key = ['-newkey', 'ec', '-pkeyopt', 'ec_paramgen_curve:P-256', '-nodes'];
  await openssl(
    'req',
    '-x509',
    ...key,
    '-days',
    '2',
    '-subj',
    '/CN=test ca',
    '-keyout',
    file('ca.key'),
    '-out',
    file('ca.crt'),
  );
}

/** A certificate by that authority, `<name>.crt` and `<name>.key`. */
async function makeCertificate(directory: string, name: string, extension: string): Promise<void> {
  const file = (suffix: string): string => join(directory, `${name}.${suffix}`);
  const key = ['-newkey', 'ec', '-pkeyopt', 'ec_paramgen_curve:P-256', '-nodes'];
  writeFileSync(file('ext'), extension);
  await openssl('req', '-new', ...key, '-subj', `/CN=${name}`, '-keyout', file('key'), '-out', file('csr'));
  const authority = ['-CA', join(directory, 'ca.crt'), '-CAkey', join(directory, 'ca.key'), '-CAcreateserial'];
  await openssl(
    'x509',
    '-req',
    '-in',
    file('csr'),
    ...authority,
    '-days',
    '2',
    '-extfile',
    file('ext'),
    '-out',
    file('crt'),
  );
}

/** Starts a registry. */
export async function startRegistry(options: TestRegistryOptions = {}): Promise<TestRegistry> {
  const registry = new TestRegistry(options);
  try {
    await registry.start();
    return registry;
  } catch (error) {
    await registry[Symbol.asyncDispose]();
    throw error;
  }
}
