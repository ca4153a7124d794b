import assert from 'node:assert/strict';
import { createHmac, randomBytes } from 'node:crypto';
import { once } from 'node:events';
import { mkdirSync, mkdtempSync, readdirSync, rmSync, truncateSync, unlinkSync, writeFileSync } from 'node:fs';
import { createServer } from 'node:http';
import type { AddressInfo } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, describe, test } from 'node:test';
import { setTimeout as delay } from 'node:timers/promises';
import { eventually, run } from '../harness/processes.ts';
import { OCI_MANIFEST, sha256, startRegistry, TestRegistry } from '../harness/registry-server.ts';

const KILLS = 3;

describe('the storage of the registry', () => {
  const directory = mkdtempSync(join(tmpdir(), 'gantry-storage-'));
  after(() => rmSync(directory, { recursive: true, force: true }));

  const config = (name: string, value: unknown): string => {
    const file = join(directory, `${name}.json`);
    writeFileSync(file, JSON.stringify(value));
    return file;
  };

  test('what was acknowledged is there after kill -9 among pushes, deletes and collections', async () => {
    await using registry = new TestRegistry(['--gc-interval', '20ms', '--gc-grace', '300ms']);
    const tags = new Map<string, { digest: string; layer: Buffer }>();
    for (let round = 0; round < KILLS; round++) {
      await registry.start();
      let isKilled = false;
      const pushOne = async (tag: string, isKept: boolean): Promise<void> => {
        const layer = randomBytes(20_000);
        const { digest } = await registry.pushImage('kill/app', tag, [layer]);
        if (isKept) tags.set(tag, { digest, layer });
        else await registry.ask('DELETE', `/v2/kill/app/manifests/${digest}`);
      };
      const push = async (worker: number): Promise<void> => {
        // Pushes fail when the process is killed, and when the grace time passed between two requests.
        for (let count = 0; !isKilled; count++) {
          await pushOne(`r${round}-${worker}-${count}`, count % 3 === 0).catch(() => delay(5));
        }
      };
      const pushing = [0, 1, 2].map(push);
      const known = tags.size;
      await eventually(() => tags.size > known + 5, { timeoutMs: 60_000, what: 'some pushes' });
      await delay(Math.random() * 100);
      await registry.end('SIGKILL');
      isKilled = true;
      await Promise.all(pushing);
      const checked = await registry.command('fsck', '--deep');
      assert.doesNotMatch(checked.stdout, /^(missing|corrupt)/m);
    }
    await registry.start();
    for (const [tag, { digest, layer }] of tags) {
      const answer = await registry.ask('HEAD', `/v2/kill/app/manifests/${tag}`);
      assert.equal(answer.headers['docker-content-digest'], digest);
      assert.equal((await registry.ask('HEAD', `/v2/kill/app/blobs/${sha256(layer)}`)).status, 200);
    }
  });

  test('a full disk is said, and what was there stays', async () => {
    await using registry = new TestRegistry([]);
    mkdirSync(registry.root);
    assert.equal((await run('mount', ['-t', 'tmpfs', '-o', 'size=8m', 'tmpfs', registry.root])).code, 0);
    try {
      await registry.start();
      const { bytes } = await registry.pushImage('full/app', 'v1', ['layer']);
      const big = randomBytes(10 * 1024 * 1024);
      const full = await registry.ask('POST', `/v2/full/app/blobs/uploads/?digest=${sha256(big)}`, { body: big });
      assert.deepEqual([full.status, full.code], [503, 'UNAVAILABLE']);
      assert.match(full.text, /there is no space left on the registry's disk/);
      assert.deepEqual(readdirSync(join(registry.root, 'uploads')), []);
      assert.equal((await registry.ask('GET', '/v2/full/app/manifests/v1')).text, bytes);
      await registry.pushBlob('full/app', randomBytes(1000));
      assert.equal((await registry.command('fsck', '--deep')).code, 0);
    } finally {
      await registry.end('SIGKILL');
      await run('umount', [registry.root]);
    }
  });

  test('an upload goes on after a restart', async () => {
    await using registry = await startRegistry();
    const begun = await registry.ask('POST', '/v2/resume/app/blobs/uploads/', { body: '' });
    const location = begun.headers.location ?? '';
    await registry.ask('PATCH', location, { body: 'first half ' });
    await registry.end('SIGKILL');
    await registry.start();
    assert.equal((await registry.ask('GET', location)).headers['range'], '0-10');
    const digest = sha256('first half second half');
    assert.equal((await registry.ask('PUT', `${location}?digest=${digest}`, { body: 'second half' })).status, 201);
    assert.equal((await registry.ask('GET', `/v2/resume/app/blobs/${digest}`)).text, 'first half second half');
  });

  test('fsck names what is missing or corrupt, and a push makes it whole', async () => {
    await using registry = await startRegistry();
    const layers = ['one', 'two', 'three'].map((text) => text.repeat(100));
    await registry.pushImage('check/app', 'v1', layers);
    const clean = await registry.command('fsck', '--deep');
    assert.deepEqual([clean.code, clean.stdout.endsWith('clean\n')], [0, true]);
    const file = (text: string): string => join(registry.root, 'blobs/sha256', sha256(text).slice(7));
    const [one = '', two = '', three = ''] = layers;
    unlinkSync(file(one));
    truncateSync(file(two), 10);
    writeFileSync(file(three), 'x'.repeat(three.length));
    const found = await registry.command('fsck', '--deep');
    assert.equal(found.code, 1);
    assert.match(found.stdout, new RegExp(`^missing: blob ${sha256(one)}`, 'm'));
    assert.match(found.stdout, new RegExp(`^corrupt: blob ${sha256(two)}: its file has 10 bytes`, 'm'));
    assert.match(found.stdout, new RegExp(`^corrupt: blob ${sha256(three)}: its bytes have another digest`, 'm'));
    assert.equal((await registry.ask('GET', `/v2/check/app/blobs/${sha256(one)}`)).code, 'BLOB_UNKNOWN');
    unlinkSync(file(three));
    for (const layer of layers) await registry.pushBlob('check/app', layer);
    assert.equal((await registry.command('fsck', '--deep')).code, 0);
  });

  test('collection goes on beside pushes: what is named stays, what is not goes after its time', async () => {
    await using registry = await startRegistry('--gc-interval', '50ms', '--gc-grace', '3s');
    const shared = randomBytes(1000);
    const live = new Map<string, Buffer>();
    const dead: string[] = [];
    const push = async (worker: number): Promise<void> => {
      for (let count = 0; count < 10; count++) {
        const layer = randomBytes(1000);
        const tag = `t${worker}-${count}`;
        // On a slow machine the grace time may pass between two requests; a client then pushes again.
        const attempt = (): ReturnType<TestRegistry['pushImage']> =>
          registry.pushImage('busy/app', tag, [shared, layer]);
        const { digest } = await attempt().catch((error: Error) => {
          if (!error.message.includes('MANIFEST_BLOB_UNKNOWN')) throw error;
          return attempt();
        });
        if (count % 2 === 0) live.set(tag, layer);
        else {
          assert.equal((await registry.ask('DELETE', `/v2/busy/app/manifests/${digest}`)).status, 202);
          dead.push(sha256(layer));
        }
      }
    };
    await Promise.all([push(0), push(1), push(2)]);
    // Both processes may collect; the later one is told to wait.
    const beside = await registry.command('gc', '--gc-grace', '1h');
    assert.match(beside.stdout + beside.stderr, /^(Deleted manifests: 0|another collection is going on)/);
    await eventually(
      () => dead.every((digest) => !readdirSync(join(registry.root, 'blobs/sha256')).includes(digest.slice(7))),
      {
        timeoutMs: 60_000,
        what: 'the collection of what nothing names',
      },
    );
    for (const [tag, layer] of live) {
      assert.equal((await registry.ask('GET', `/v2/busy/app/manifests/${tag}`)).status, 200);
      assert.ok((await registry.ask('GET', `/v2/busy/app/blobs/${sha256(layer)}`)).body.equals(layer));
    }
    assert.ok((await registry.ask('GET', `/v2/busy/app/blobs/${sha256(shared)}`)).body.equals(shared));
    assert.match((await registry.command('fsck', '--deep')).stdout, /: clean\n$/);
    assert.match(
      (await registry.ask('GET', '/metrics')).text,
      /^gantry_registry_collected_total\{kind="blobs"\} [1-9]/m,
    );
  });

  test('manifests without a tag go when asked for', async () => {
    await using registry = await startRegistry('--gc-interval', '0s');
    const { digest } = await registry.pushImage('untagged/app', 'v1', ['old']);
    await registry.pushImage('untagged/app', 'v1', ['new']);
    const kept = await registry.command('gc', '--gc-grace', '0s');
    assert.match(kept.stdout, /^Deleted manifests: 0$/m);
    const gone = await registry.command('gc', '--gc-grace', '1ms', '--delete-untagged-after', '1ms');
    assert.match(
      gone.stdout,
      /^Deleted manifests: 1\nDeleted links: 1\nDeleted blobs: 1\n\nTotal reclaimed space: 3B$/m,
    );
    assert.equal((await registry.ask('GET', `/v2/untagged/app/manifests/${digest}`)).status, 404);
    assert.equal((await registry.ask('GET', '/v2/untagged/app/manifests/v1')).status, 200);
  });

  test('a quota is kept, at the start of an upload, in its midst, by mounts and by manifests', async () => {
    const quotas = [
      { repositories: 'small/*', limit: '2kb', scope: 'each' },
      { repositories: 'team/**', limit: '3kb', scope: 'together' },
    ];
    await using registry = await startRegistry('--config', config('quotas', { quotas, quota: '20kb' }));
    const big = randomBytes(3000);
    const post = (repository: string, body: Buffer, headers = {}): ReturnType<TestRegistry['ask']> =>
      registry.ask('POST', `/v2/${repository}/blobs/uploads/?digest=${sha256(body)}`, { body, headers });
    const announced = await post('small/app', big);
    assert.deepEqual([announced.status, announced.code], [403, 'DENIED']);
    assert.match(announced.text, /quota exceeded: repository small\/app is limited to 2048 bytes/);
    const streamed = await post('small/app', big, { 'transfer-encoding': 'chunked' });
    assert.equal(streamed.code, 'DENIED');
    assert.equal((await post('free/app', big)).status, 201);
    const mounted = await registry.ask('POST', `/v2/small/app/blobs/uploads/?mount=${sha256(big)}&from=free/app`, {
      body: '',
    });
    assert.equal(mounted.code, 'DENIED');
    assert.equal((await post('team/a', randomBytes(2000))).status, 201);
    const together = await post('team/b', randomBytes(2000));
    assert.match(together.text, /team\/\*\* is limited to 3072 bytes/);
    assert.equal((await post('free/app', randomBytes(14_000))).status, 201);
    assert.match((await post('free/app', randomBytes(3000))).text, /the registry is limited to 20480 bytes/);
    // What was refused holds nothing.
    assert.deepEqual(readdirSync(join(registry.root, 'uploads')), []);
  });

  test('read-only: everything can be read, nothing written', async () => {
    await using registry = new TestRegistry([]);
    await registry.start();
    const { digest } = await registry.pushImage('fixed/app', 'v1', ['layer']);
    await registry.end('SIGTERM');
    await using fixed = new TestRegistry(['--read-only', '--root', registry.root]);
    await fixed.start();
    assert.equal((await fixed.ask('GET', '/v2/fixed/app/manifests/v1')).status, 200);
    for (const [method, path] of [
      ['POST', 'blobs/uploads/'],
      ['PUT', 'manifests/v2'],
      ['DELETE', `manifests/${digest}`],
      ['DELETE', `blobs/${sha256('layer')}`],
    ] as const) {
      const answer = await fixed.ask(method, `/v2/fixed/app/${path}`, { body: '{}' });
      assert.deepEqual([answer.status, answer.code], [405, 'UNSUPPORTED']);
    }
  });

  test('a root is served by one process', async () => {
    await using registry = await startRegistry();
    const second = await registry.command('serve', '--listen', '127.0.0.1:0');
    assert.equal(second.code, 1);
    assert.match(second.stderr, /another process serves .*: stop it, or give this one a --root of its own/);
  });

  test('idle uploads expire', async () => {
    await using registry = await startRegistry('--upload-expiry', '200ms', '--gc-interval', '100ms');
    const location = (await registry.ask('POST', '/v2/idle/app/blobs/uploads/', { body: '' })).headers.location ?? '';
    await eventually(async () => (await registry.ask('GET', location)).code === 'BLOB_UPLOAD_UNKNOWN', {
      what: 'the upload to expire',
    });
    assert.deepEqual(readdirSync(join(registry.root, 'uploads')), []);
  });

  test("webhooks: pushes, pulls, mounts and deletes in Docker's format, signed, tried again after a failure", async () => {
    const received: { body: string; signature: unknown; type: unknown; extra: unknown }[] = [];
    let failures = 2;
    const hook = createServer(async (request, response) => {
      const chunks: Buffer[] = [];
      for await (const chunk of request) chunks.push(chunk as Buffer);
      const { headers } = request;
      if (failures-- > 0) response.writeHead(503).end();
      else {
        received.push({
          body: Buffer.concat(chunks).toString(),
          signature: headers['x-gantry-signature-256'],
          type: headers['content-type'],
          extra: headers['x-extra'],
        });
        response.end();
      }
    });
    hook.listen(0, '127.0.0.1');
    await once(hook, 'listening');
    const secretFile = join(directory, 'secret');
    writeFileSync(secretFile, 'shared secret\n');
    const url = `http://127.0.0.1:${(hook.address() as AddressInfo).port}/hook`;
    const webhooks = [
      {
        name: 'builds',
        url,
        secretFile,
        headers: { 'X-Extra': 'yes' },
        ignoreMediaTypes: ['application/vnd.oci.image.config.v1+json'],
      },
    ];
    try {
      await using registry = await startRegistry('--config', config('webhooks', { webhooks }));
      const { digest, bytes } = await registry.pushImage('hook/app', 'v1', ['layer']);
      await registry.ask('GET', '/v2/hook/app/manifests/v1', { headers: { 'user-agent': 'test/1' } });
      await registry.ask('POST', `/v2/hook/other/blobs/uploads/?mount=${sha256('layer')}&from=hook/app`, { body: '' });
      await registry.ask('DELETE', `/v2/hook/app/manifests/${digest}`);
      interface Event {
        action: string;
        target: Record<string, unknown>;
        request: Record<string, unknown>;
      }
      const events = (): Event[] => received.flatMap(({ body }) => JSON.parse(body).events);
      await eventually(() => events().some(({ action }) => action === 'delete'), {
        what: () => JSON.stringify(received),
      });
      assert.deepEqual(
        events().map(({ action }) => action),
        ['push', 'push', 'push', 'pull', 'mount', 'delete'],
      );
      const [, , push, pull, mount] = events();
      assert.deepEqual(
        { ...push?.target },
        {
          mediaType: OCI_MANIFEST,
          size: bytes.length,
          length: bytes.length,
          digest,
          repository: 'hook/app',
          url: `http://${registry.host}/v2/hook/app/manifests/${digest}`,
          tag: 'v1',
        },
      );
      assert.equal(pull?.request['useragent'], 'test/1');
      assert.equal(mount?.target['fromRepository'], 'hook/app');
      for (const { body, signature, type, extra } of received) {
        assert.equal(signature, `sha256=${createHmac('sha256', 'shared secret').update(body).digest('hex')}`);
        assert.equal(type, 'application/vnd.docker.distribution.events.v1+json');
        assert.equal(extra, 'yes');
      }
      await registry.pushBlob('hook/app', 'last');
      await registry.end('SIGTERM');
      assert.equal(events().at(-1)?.target['digest'], sha256('last'), 'an end in order sends what is left');
      assert.match(registry.log, /webhook builds: it answered 503/);
      assert.doesNotMatch(registry.log, /shared secret/);
    } finally {
      hook.closeAllConnections();
      hook.close();
    }
  });
});
