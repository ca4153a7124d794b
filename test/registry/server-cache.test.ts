import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { createServer, request, type Server } from 'node:http';
import type { AddressInfo } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, before, describe, test } from 'node:test';
import { freePort } from '../harness/free-port.ts';
import { eventually, run } from '../harness/processes.ts';
import { OCI_MANIFEST, sha256, startRegistry, type TestRegistry } from '../harness/registry-server.ts';

/** Debian's docker-registry in a directory of its own, with a user. */
class UpstreamRegistry implements AsyncDisposable {
  readonly directory: string = mkdtempSync(join(tmpdir(), 'gantry-upstream-'));
  port = 0;
  #child: ReturnType<typeof spawn> | undefined;

  async start(): Promise<void> {
    this.port ||= await freePort();
    const made = await run('htpasswd', ['-cbB', join(this.directory, 'users'), 'mirror', 'upstream secret']);
    assert.equal(made.code, 0, made.stderr);
    writeFileSync(
      join(this.directory, 'config.yml'),
      JSON.stringify({
        version: '0.1',
        log: { level: 'error', accesslog: { disabled: true } },
        storage: { filesystem: { rootdirectory: join(this.directory, 'data') } },
        auth: { htpasswd: { realm: 'upstream', path: join(this.directory, 'users') } },
        http: { addr: `127.0.0.1:${this.port}` },
      }),
    );
    this.#child = spawn('docker-registry', ['serve', join(this.directory, 'config.yml')], { stdio: 'ignore' });
    await eventually(() => answers(this.port), { timeoutMs: 30_000, what: 'the upstream registry' });
  }

  async stop(): Promise<void> {
    const child = this.#child;
    if (child === undefined || child.exitCode !== null || child.signalCode !== null) return;
    const exited = once(child, 'exit');
    child.kill('SIGTERM');
    await exited;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.stop();
    rmSync(this.directory, { recursive: true, force: true });
  }
}

function answers(port: number): Promise<boolean> {
  const { promise, resolve } = Promise.withResolvers<boolean>();
  const probe = request({ host: '127.0.0.1', port, path: '/v2/' }, (response) => {
    response.resume();
    resolve(true);
  });
  probe.on('error', () => resolve(false));
  probe.end();
  return promise;
}

describe('a pull-through cache', () => {
  const directory = mkdtempSync(join(tmpdir(), 'gantry-cache-'));
  const upstream = new UpstreamRegistry();
  const password = join(directory, 'password');
  const layout = join(directory, 'layout');
  before(async () => {
    await upstream.start();
    writeFileSync(password, 'upstream secret\n');
    writeFileSync(join(directory, 'file'), Buffer.alloc(3_000_000, 'x'));
    for (const args of [
      ['init', '--layout', layout],
      ['new', '--image', `${layout}:v1`],
      ['insert', '--image', `${layout}:v1`, join(directory, 'file'), '/file'],
    ]) {
      const made = await run('umoci', args);
      assert.equal(made.code, 0, made.stderr);
    }
    await push('v1');
  });
  after(async () => {
    await upstream[Symbol.asyncDispose]();
    rmSync(directory, { recursive: true, force: true });
  });

  const push = async (tag: string): Promise<void> => {
    const target = `docker://127.0.0.1:${upstream.port}/up/app:${tag}`;
    const pushed = await run('skopeo', [
      'copy',
      '--dest-tls-verify=false',
      '--dest-creds',
      'mirror:upstream secret',
      `oci:${layout}:v1`,
      target,
    ]);
    assert.equal(pushed.code, 0, pushed.stderr);
  };

  const startCache = (...flags: string[]): Promise<TestRegistry> =>
    startRegistry(
      '--proxy-remote-url',
      `http://127.0.0.1:${upstream.port}`,
      '--proxy-username',
      'mirror',
      '--proxy-password-file',
      password,
      ...flags,
    );

  test("gives the upstream's images with their digests, keeps them, and gives them when the upstream is gone", async () => {
    await using cache = await startCache();
    const pull = (to: string): ReturnType<typeof run> =>
      run('skopeo', [
        'copy',
        '--src-tls-verify=false',
        `docker://${cache.host}/up/app:v1`,
        `oci:${join(directory, to)}:v1`,
      ]);
    const first = await pull('first');
    assert.equal(first.code, 0, first.stderr);
    const manifest = await cache.ask('GET', '/v2/up/app/manifests/v1');
    assert.equal(manifest.headers['docker-content-digest'], sha256(manifest.body));
    assert.deepEqual(JSON.parse((await cache.ask('GET', '/v2/up/app/tags/list')).text).tags, ['v1']);
    assert.equal((await cache.ask('GET', '/v2/up/app/manifests/none')).code, 'MANIFEST_UNKNOWN');
    assert.equal((await cache.ask('GET', '/v2/up/none/manifests/v1')).code, 'MANIFEST_UNKNOWN');
    assert.equal((await cache.ask('GET', `/v2/up/app/blobs/${sha256('none')}`)).code, 'BLOB_UNKNOWN');
    const written = await cache.ask('POST', '/v2/up/app/blobs/uploads/', { body: '' });
    assert.deepEqual([written.status, written.code], [405, 'UNSUPPORTED']);
    await upstream.stop();
    try {
      const offline = await pull('offline');
      assert.equal(offline.code, 0, offline.stderr);
      await cache.end('SIGKILL');
      await cache.start();
      assert.equal((await pull('restarted')).code, 0);
      assert.equal((await cache.ask('GET', '/v2/up/app/manifests/other')).code, 'UNAVAILABLE');
      assert.match((await cache.command('fsck', '--deep')).stdout, /: clean\n$/);
    } finally {
      await upstream.start();
    }
    assert.doesNotMatch(cache.log, /upstream secret/);
  });

  test('one fetch for all who ask at once', async () => {
    await using cache = await startCache();
    const { text } = await cache.ask('GET', '/v2/up/app/manifests/v1');
    const { digest, size } = JSON.parse(text).layers[0];
    const answers = await Promise.all(Array.from({ length: 8 }, () => cache.ask('GET', `/v2/up/app/blobs/${digest}`)));
    for (const answer of answers)
      assert.deepEqual([answer.status, answer.body.length, sha256(answer.body)], [200, size, digest]);
    const range = await cache.ask('GET', `/v2/up/app/blobs/${digest}`, { headers: { range: 'bytes=5-9' } });
    assert.equal(range.status, 206);
    // The manifest and the blob.
    assert.match((await cache.ask('GET', '/metrics')).text, /^gantry_registry_cache_misses 2$/m);
  });

  test('what nobody asks for leaves the cache after its time', async () => {
    await using cache = await startCache('--proxy-ttl', '1s', '--gc-interval', '100ms', '--gc-grace', '100ms');
    const manifest = await cache.ask('GET', '/v2/up/app/manifests/v1');
    const { digest } = JSON.parse(manifest.text).layers[0];
    assert.equal((await cache.ask('GET', `/v2/up/app/blobs/${digest}`)).status, 200);
    const blobs = async (): Promise<string | undefined> =>
      /^gantry_registry_blobs (\d+)$/m.exec((await cache.ask('GET', '/metrics')).text)?.[1];
    await eventually(async () => (await blobs()) === '0', { timeoutMs: 30_000, what: 'an empty cache' });
    assert.equal((await cache.ask('GET', `/v2/up/app/blobs/${digest}`)).status, 200);
  });

  describe('before an upstream that lies', () => {
    let server: Server;
    const blob = Buffer.alloc(200_000, 'right');
    const config = '{}';
    const manifest = JSON.stringify({
      schemaVersion: 2,
      mediaType: OCI_MANIFEST,
      config: { mediaType: 'application/x', digest: sha256(config), size: 2 },
      layers: [{ mediaType: 'application/x', digest: sha256(blob), size: blob.length }],
    });
    let mode: 'wrong' | 'short' | 'reset' | 'right' = 'wrong';
    before(async () => {
      server = createServer((asked, response) => {
        const type = { 'Content-Type': OCI_MANIFEST };
        if (asked.url?.endsWith('/manifests/v1') === true)
          return void response.writeHead(200, type).end(asked.method === 'HEAD' ? '' : manifest);
        if (asked.url?.includes('/manifests/') === true)
          return void response.writeHead(200, type).end('{"schemaVersion":2}');
        response.writeHead(200, { 'Content-Length': String(blob.length) });
        if (mode === 'right') response.end(blob);
        else if (mode === 'wrong') response.end(Buffer.alloc(blob.length, 'wrong'));
        else {
          response.write(blob.subarray(0, 1000));
          if (mode === 'reset') response.socket?.resetAndDestroy();
          else response.socket?.end();
        }
      });
      server.listen(0, '127.0.0.1');
      await once(server, 'listening');
    });
    after(() => {
      server.closeAllConnections();
      server.close();
    });

    test('nobody gets a whole blob of another digest, and nothing of it is kept', async () => {
      await using cache = await startRegistry(
        '--proxy-remote-url',
        `http://127.0.0.1:${(server.address() as AddressInfo).port}`,
      );
      assert.equal((await cache.ask('GET', '/v2/up/app/manifests/v1')).text, manifest);
      assert.equal((await cache.ask('GET', `/v2/up/app/manifests/${sha256('other')}`)).code, 'UNAVAILABLE');
      for (mode of ['wrong', 'short', 'reset'] as const) {
        // Cut off in its midst, or refused when the failure came first.
        const answer = await cache.ask('GET', `/v2/up/app/blobs/${sha256(blob)}`).catch(() => undefined);
        assert.ok(answer === undefined || answer.code === 'UNAVAILABLE', `${mode}: ${answer?.status}`);
      }
      mode = 'right';
      let last = '';
      // Who asks while the last bad fetch has not given up shares its end.
      await eventually(
        async () => {
          const answer = await cache.ask('GET', `/v2/up/app/blobs/${sha256(blob)}`).catch(() => undefined);
          last = `${answer?.status} ${answer?.code}`;
          return answer?.status === 200 && sha256(answer.body) === sha256(blob);
        },
        { timeoutMs: 30_000, what: () => `the blob from an upstream that is right again; last: ${last}` },
      );
    });
  });
});
