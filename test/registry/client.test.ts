/** The registry client against Debian's docker-registry: blobs, manifests, tags, mounts, login, TLS. */
import assert from 'node:assert/strict';
import { randomBytes } from 'node:crypto';
import { mkdtempSync, rmSync } from 'node:fs';
import { createServer as createHttpServer, request as httpRequest } from 'node:http';
import { type AddressInfo, connect, createServer, type Socket } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, before, describe, test } from 'node:test';
import { HttpRegistryClient } from '#system/registry-http/client.ts';
import type { RegistryCredentials, RemoteRepository } from '#system/registry-http/contract.ts';
import type { RegistryOptions } from '#system/registry-http/endpoints.ts';
import type { Timeouts } from '#system/registry-http/transport.ts';
import { type Digest, digestOf } from '#types/digest.ts';
import { type FaultyRegistry, refuse, startFaultyRegistry } from '../harness/faulty-registry.ts';
import { startRegistry, type TestRegistry } from '../harness/registry.ts';
import { startRegistry as startOurRegistry } from '../harness/registry-server.ts';

const signal = new AbortController().signal;
const MANIFEST = 'application/vnd.docker.distribution.manifest.v2+json';

function clientWith(options: Partial<RegistryOptions> = {}, timeouts?: Timeouts): HttpRegistryClient {
  const all: RegistryOptions = {
    mirrors: [],
    insecure: [],
    hosts: {},
    certificatesDirectory: '/nonexistent',
    proxies: { http: '', https: '', no: '' },
    ...options,
  };
  return new HttpRegistryClient({
    options: () => all,
    userAgent: 'gantry-test',
    ...(timeouts === undefined ? {} : { timeouts }),
  });
}

async function* pieces(bytes: Buffer): AsyncGenerator<Buffer> {
  for (let at = 0; at < bytes.length; at += 65_536) yield bytes.subarray(at, at + 65_536);
}

const upload = (bytes: Buffer, known = true): Parameters<RemoteRepository['uploadBlob']>[0] => ({
  open: () => pieces(bytes),
  ...(known ? { digest: digestOf(bytes), sizeBytes: bytes.length } : {}),
});

async function readAll(source: AsyncIterable<Buffer>): Promise<Buffer> {
  const chunks: Buffer[] = [];
  for await (const chunk of source) chunks.push(chunk);
  return Buffer.concat(chunks);
}

/** An image of one layer; gives its manifest's bytes. */
async function putImage(repository: RemoteRepository, tag: string, layer: Buffer): Promise<Buffer> {
  const config = Buffer.from(
    JSON.stringify({ architecture: 'amd64', os: 'linux', rootfs: { type: 'layers', diff_ids: [digestOf(layer)] } }),
  );
  await repository.uploadBlob(upload(config), signal);
  await repository.uploadBlob(upload(layer), signal);
  const manifest = Buffer.from(
    JSON.stringify({
      schemaVersion: 2,
      mediaType: MANIFEST,
      config: {
        mediaType: 'application/vnd.docker.container.image.v1+json',
        digest: digestOf(config),
        size: config.length,
      },
      layers: [
        { mediaType: 'application/vnd.docker.image.rootfs.diff.tar', digest: digestOf(layer), size: layer.length },
      ],
    }),
  );
  await repository.putManifest(tag, { mediaType: MANIFEST, bytes: manifest }, signal);
  return manifest;
}

describe('registry client', () => {
  let registry: TestRegistry;
  const client = clientWith();
  before(async () => {
    registry = await startRegistry();
  });
  after(() => registry?.[Symbol.asyncDispose]());

  const push = <T>(path: string, work: (repository: RemoteRepository) => Promise<T>): Promise<T> =>
    client.push({ domain: registry.host, path, credentials: {} }, work, signal);
  const pull = <T>(path: string, work: (repository: RemoteRepository) => Promise<T>): Promise<T> =>
    client.pull({ domain: registry.host, path, credentials: {} }, work, signal);

  test('an image comes back as it was sent, by tag and by digest', async () => {
    const layer = randomBytes(3 * 1024 * 1024);
    const manifest = await push('a/image', (repository) => putImage(repository, 'one', layer));
    await pull('a/image', async (repository) => {
      const head = await repository.resolveTag('one', signal);
      assert.deepEqual(head, { mediaType: MANIFEST, digest: digestOf(manifest), sizeBytes: manifest.length });
      assert.deepEqual((await repository.manifest('one', signal)).bytes, manifest);
      assert.deepEqual((await repository.manifest(head.digest, signal)).bytes, manifest);
      assert.deepEqual(await repository.tags(signal), ['one']);
      const blob = { digest: digestOf(layer), sizeBytes: layer.length };
      assert.ok((await readAll(await repository.openBlob(blob, { offset: 0 }, signal))).equals(layer));
      const rest = await readAll(await repository.openBlob(blob, { offset: 1_000_001 }, signal));
      assert.ok(rest.equals(layer.subarray(1_000_001)));
    });
  });

  test('a blob of unknown digest is uploaded as a stream and named by its bytes', async () => {
    const bytes = randomBytes(2 * 1024 * 1024 + 17);
    const stored = await push('a/stream', (repository) => repository.uploadBlob(upload(bytes, false), signal));
    assert.deepEqual(stored, { digest: digestOf(bytes), sizeBytes: bytes.length });
    assert.equal(await pull('a/stream', (repository) => repository.blobSize(stored.digest, signal)), bytes.length);
  });

  test('a blob is mounted from another repository, and only if it is there', async () => {
    const bytes = randomBytes(1000);
    await push('b/from', (repository) => repository.uploadBlob(upload(bytes), signal));
    await push('b/to', async (repository) => {
      assert.equal(await repository.blobSize(digestOf(bytes), signal), undefined);
      assert.equal(await repository.mountBlob(digestOf(bytes), 'b/from', signal), true);
      assert.equal(await repository.blobSize(digestOf(bytes), signal), bytes.length);
      assert.equal(await repository.mountBlob(digestOf('other') as Digest, 'b/from', signal), false);
    });
  });

  test('an unknown manifest is told in the registry’s words', async () => {
    await assert.rejects(
      pull('no/such', (repository) => repository.resolveTag('latest', signal)),
      (error: Error & { code?: string; kind?: string }) => {
        assert.equal(error.message, 'manifest unknown: manifest unknown');
        assert.deepEqual([error.code, error.kind], ['MANIFEST_UNKNOWN', 'notFound']);
        return true;
      },
    );
  });

  test('nobody listening is told as Go tells it', async () => {
    const gone = await startRegistry();
    const { host } = gone;
    await gone[Symbol.asyncDispose]();
    await assert.rejects(
      client.pull({ domain: host, path: 'x', credentials: {} }, async () => {}, signal),
      { message: `Get "http://${host}/v2/": dial tcp ${host}: connect: connection refused` },
    );
  });

  test('a private registry is searched by its catalogue', async () => {
    await push('find/needle', (repository) => putImage(repository, 'v', randomBytes(10)));
    const found = await client.search(`${registry.host}/needle`, { limit: 5, credentials: {} }, signal);
    assert.deepEqual(
      found.map(({ name }) => name),
      [`${registry.host}/find/needle`],
    );
  });
});

test('Basic credentials are asked for, checked and used', async () => {
  const user = { username: 'alice', password: 'se:cret' };
  await using registry = await startRegistry({ htpasswd: user });
  const client = clientWith();
  const push = (credentials: RegistryCredentials): Promise<Buffer> =>
    client.push(
      { domain: registry.host, path: 'private', credentials },
      (repository) => putImage(repository, 'v1', randomBytes(100)),
      signal,
    );
  await assert.rejects(push({}), /Post "http:\/\/.*\/v2\/private\/blobs\/uploads\/": no basic auth credentials$/);
  await assert.rejects(push({ ...user, password: 'wrong' }), /unauthorized: authentication required/);
  await push(user);
  const login = (credentials: RegistryCredentials): Promise<{ status: string }> =>
    client.login({ ...credentials, serverAddress: registry.host }, signal);
  assert.deepEqual(await login(user), { status: 'Login Succeeded', identityToken: '' });
  await assert.rejects(login({ ...user, password: 'wrong' }), {
    message: `login attempt to http://${registry.host}/v2/ failed with status: 401 Unauthorized`,
  });
});

test('TLS is verified with the CA and client certificate of certs.d', async () => {
  await using registry = await startRegistry({ clientCertificates: true });
  const certificates = mkdtempSync(join(tmpdir(), 'gantry-certs-'));
  try {
    const domain = registry.host;
    registry.trustBelow(certificates);
    const hosts = { [domain]: { mirrors: [], verify: true } };
    const ping = (options: Partial<RegistryOptions>): Promise<string> =>
      clientWith(options).pull({ domain, path: 'x', credentials: {} }, async ({ endpoint }) => endpoint, signal);
    assert.equal(await ping({ hosts, certificatesDirectory: certificates }), registry.url);
    await assert.rejects(ping({ hosts }), {
      message: `Get "${registry.url}/v2/": tls: failed to verify certificate: x509: certificate signed by unknown authority`,
    });
    rmSync(join(certificates, domain, 'client.key'));
    await assert.rejects(
      ping({ hosts, certificatesDirectory: certificates }),
      /missing key client.key for client certificate client.cert/,
    );
  } finally {
    rmSync(certificates, { recursive: true, force: true });
  }
});

/** A relay to `target` that resets connections once they have carried a number of bytes, a number of times. */
async function startCuttingRelay(
  target: string,
  cuts: { afterBytes: number; times: number },
): Promise<{ host: string; cut: () => number; carried: () => number } & AsyncDisposable> {
  let left = cuts.times;
  let total = 0;
  const [host = '', port = ''] = target.split(':');
  const sockets = new Set<Socket>();
  const server = createServer((client) => {
    const upstream = connect(Number(port), host);
    for (const socket of [client, upstream]) {
      sockets.add(socket);
      socket.on('error', () => undefined);
    }
    let carried = 0;
    client.on('data', (chunk) => {
      carried += chunk.length;
      total += chunk.length;
      if (carried < cuts.afterBytes || left === 0) return;
      left -= 1;
      client.resetAndDestroy();
      upstream.end();
    });
    client.pipe(upstream);
    upstream.pipe(client);
  });
  const { promise, resolve } = Promise.withResolvers<void>();
  server.listen(0, '127.0.0.1', resolve);
  await promise;
  return {
    host: `127.0.0.1:${(server.address() as AddressInfo).port}`,
    cut: () => cuts.times - left,
    carried: () => total,
    [Symbol.asyncDispose]: async () => {
      for (const socket of sockets) socket.destroy();
      server.close();
    },
  };
}

test('an upload that breaks off is continued where the registry can, else begun again', async () => {
  // Debian's registry refuses to go on with an upload whose connection broke.
  await using debian = await startRegistry();
  await using ours = await startOurRegistry();
  const client = clientWith();
  const uploads = [
    { host: debian.host, known: true, resumes: false },
    { host: debian.host, known: false, resumes: false },
    { host: `127.0.0.1:${ours.port}`, known: true, resumes: true },
    { host: `127.0.0.1:${ours.port}`, known: false, resumes: false },
  ];
  for (const { host, known, resumes } of uploads) {
    await using relay = await startCuttingRelay(host, { afterBytes: 3_000_000, times: 2 });
    const bytes = randomBytes(8_000_000);
    const access = { domain: relay.host, path: `cut/${known}`, credentials: {} };
    const stored = await client.push(
      access,
      (repository) => repository.uploadBlob(upload(bytes, known), signal),
      signal,
    );
    assert.equal(relay.cut(), 2);
    assert.equal(relay.carried() < 11_000_000, resumes, `${host} ${known}: ${relay.carried()} bytes sent`);
    assert.deepEqual(stored, { digest: digestOf(bytes), sizeBytes: bytes.length });
    const read = await client.pull(
      { domain: host, path: `cut/${known}`, credentials: {} },
      async (repository) =>
        readAll(await repository.openBlob({ digest: stored.digest, sizeBytes: bytes.length }, { offset: 0 }, signal)),
      signal,
    );
    assert.ok(read.equals(bytes));
  }
});

/** Makes a registry want bearer tokens of its own; `revoke` ends those given out. */
function wantTokens(registry: FaultyRegistry): { revoke(): void; given: () => number } {
  let current = 0;
  let given = 0;
  registry.on(/^GET \/token/, (_request, response) => {
    given += 1;
    response.end(JSON.stringify({ token: `token-${current}`, expires_in: 3600 }));
    return true;
  });
  registry.on(/./, (request, response) => {
    if (request.headers.authorization === `Bearer token-${current}`) return false;
    response.setHeader('www-authenticate', `Bearer realm="http://${registry.host}/token",service="x"`);
    refuse(response, 401, 'UNAUTHORIZED', 'authentication required');
    return true;
  });
  return {
    revoke: () => {
      current += 1;
    },
    given: () => given,
  };
}

test('a token that ends in mid-pull is fetched anew, and otherwise used again', async () => {
  await using registry = await startFaultyRegistry();
  const blob = randomBytes(1_000_000);
  const digest = registry.addBlob(blob);
  const tokens = wantTokens(registry);
  registry.on(/blobs/, (_request, response, seen) => {
    if (seen > 1) return false;
    tokens.revoke();
    response.setHeader('content-length', blob.length);
    response.write(blob.subarray(0, 400_000), () => setImmediate(() => response.socket?.resetAndDestroy()));
    return true;
  });
  const client = clientWith();
  const access = { domain: registry.host, path: 'x', credentials: {} };
  const read = (): Promise<Buffer> =>
    client.pull(
      access,
      async (repository) =>
        readAll(await repository.openBlob({ digest, sizeBytes: blob.length }, { offset: 0 }, signal)),
      signal,
    );
  assert.ok((await read()).equals(blob));
  assert.equal(tokens.given(), 2);
  assert.ok((await read()).equals(blob));
  assert.equal(tokens.given(), 2);
  // A registry that refuses every token is not asked for ever.
  registry.on(/manifests/, (_request, response) => {
    refuse(response, 401, 'UNAUTHORIZED', 'authentication required');
    return true;
  });
  tokens.revoke();
  await assert.rejects(
    client.pull(access, (repository) => repository.manifest('v', signal), signal),
    /authentication required/,
  );
});

test('a registry that says nothing is given up in time', async () => {
  await using registry = await startFaultyRegistry();
  registry.on(/^GET \/v2\/$/, () => true);
  const timeouts = { connectMs: 2000, answerMs: 2000, bodyMs: 2000, pingMs: 300 };
  const client = clientWith({}, timeouts);
  await assert.rejects(
    client.pull({ domain: registry.host, path: 'x', credentials: {} }, async () => {}, signal),
    /^GantryError: Get "http:\/\/.*\/v2\/": net\/http: request canceled \(Client\.Timeout exceeded while awaiting headers\)$/,
  );
  const leaving = new AbortController();
  const pulling = clientWith().pull(
    { domain: registry.host, path: 'x', credentials: {} },
    async () => {},
    leaving.signal,
  );
  leaving.abort(new Error('gone'));
  await assert.rejects(pulling, /gone/);
});

test('plain HTTP and TLS go through the proxies that are set', async () => {
  await using registry = await startFaultyRegistry();
  registry.addManifest('v', { schemaVersion: 2 });
  const [host = '', port = ''] = registry.host.split(':');
  const asked: string[] = [];
  const proxy = createHttpServer((request, response) => {
    asked.push(request.url ?? '');
    const { pathname, search } = new URL(request.url ?? '', 'http://x');
    request.pipe(
      httpRequest(
        { host, port, method: request.method, path: pathname + search, headers: request.headers },
        (answer) => {
          response.writeHead(answer.statusCode ?? 500, answer.headers);
          answer.pipe(response);
        },
      ),
    );
  });
  proxy.on('connect', (request, socket: Socket) => {
    asked.push(request.url ?? '');
    if (request.url?.endsWith(':443')) return void socket.end('HTTP/1.1 502 Bad Gateway\r\n\r\n');
    const upstream = connect(Number(port), host, () => {
      socket.write('HTTP/1.1 200 OK\r\n\r\n');
      upstream.pipe(socket).pipe(upstream);
    });
  });
  const { promise, resolve } = Promise.withResolvers<void>();
  proxy.listen(0, '127.0.0.1', resolve);
  await promise;
  const url = `http://127.0.0.1:${(proxy.address() as AddressInfo).port}`;
  try {
    const client = clientWith({
      insecure: ['registry.invalid'],
      proxies: { http: url, https: url, no: 'other.invalid' },
    });
    const pull = (domain: string): Promise<unknown> =>
      client.pull({ domain, path: 'x', credentials: {} }, (repository) => repository.manifest('v', signal), signal);
    await pull('registry.invalid');
    assert.ok(
      asked.some((line) => line.includes('registry.invalid:443')),
      `${asked}`,
    );
    assert.ok(
      asked.some((line) => /registry\.invalid(:80)?(\/|$)/.test(line)),
      `${asked}`,
    );
    const before = asked.length;
    await assert.rejects(pull('other.invalid'), /no such host|name resolution/);
    assert.equal(asked.length, before);
  } finally {
    proxy.close();
    proxy.closeAllConnections();
  }
});
