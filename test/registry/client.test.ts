/** The registry client against Debian's docker-registry: blobs, manifests, tags, mounts, login, TLS. */
import assert from 'node:assert/strict';
import { randomBytes } from 'node:crypto';
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, before, describe, test } from 'node:test';
import { HttpRegistryClient } from '#system/registry-http/client.ts';
import type { RegistryCredentials, RemoteRepository } from '#system/registry-http/contract.ts';
import type { RegistryOptions } from '#system/registry-http/endpoints.ts';
import { type Digest, digestOf } from '#types/digest.ts';
import { startRegistry, type TestRegistry } from '../harness/registry.ts';

const signal = new AbortController().signal;
const MANIFEST = 'application/vnd.docker.distribution.manifest.v2+json';

function clientWith(options: Partial<RegistryOptions> = {}): HttpRegistryClient {
  const all: RegistryOptions = {
    mirrors: [],
    insecure: [],
    hosts: {},
    certificatesDirectory: '/nonexistent',
    proxies: { http: '', https: '', no: '' },
    ...options,
  };
  return new HttpRegistryClient({ options: () => all, userAgent: 'gantry-test' });
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
