import assert from 'node:assert/strict';
import { readdirSync, readFileSync } from 'node:fs';
import { connect, type Socket } from 'node:net';
import { join } from 'node:path';
import { after, before, describe, test } from 'node:test';
import { eventually } from '../harness/processes.ts';
import { OCI_INDEX, OCI_MANIFEST, sha256, startRegistry, type TestRegistry } from '../harness/registry-server.ts';

const MEBIBYTE = 1024 * 1024;
const MAX_RESIDENT_BYTES = 200 * MEBIBYTE;

function residentBytesOf(pid: number): number {
  return Number(/VmRSS:\s+(\d+) kB/.exec(readFileSync(`/proc/${pid}/status`, 'utf8'))?.[1]) * 1024;
}

describe('the registry stands hostile clients', () => {
  let registry: TestRegistry;
  before(async () => {
    registry = await startRegistry();
  });
  after(() => registry?.[Symbol.asyncDispose]());

  /** Sends raw bytes; what came back until the other side closed. */
  const raw = async (text: string): Promise<string> => {
    const socket: Socket = connect(registry.port, '127.0.0.1');
    let answer = '';
    socket.on('data', (chunk) => {
      answer += String(chunk);
    });
    const { promise, resolve } = Promise.withResolvers<void>();
    socket.on('error', () => undefined);
    socket.on('close', () => resolve());
    socket.write(text);
    await promise;
    return answer;
  };

  for (const path of [
    '/v2/../../etc/passwd/manifests/x',
    '/v2/%2e%2e/%2e%2e/manifests/x',
    '/v2/a/..%2f..%2fb/manifests/x',
    '/v2/a//b/manifests/x',
    '/v2/a%00b/manifests/x',
    '/v2/a\\b/manifests/x',
    `/v2/${'a/'.repeat(200)}b/manifests/x`,
    '/v2/-a/manifests/x',
    '/v2/a/blobs/uploads/..%2f..%2fregistry.db',
    '/v2/a/blobs/uploads/%2e%2e',
    '/v2/a/blobs/sha256:..%2f..%2fregistry.db',
    '/v2/a/manifests/..%2fregistry.db',
    '/v2/%ff/manifests/x',
    '/ui/r/../../registry.db',
    '/ui/r/%3Cscript%3E',
  ]) {
    test(`a path that leads out: ${path.slice(0, 50)}`, async () => {
      for (const method of ['GET', 'PUT', 'PATCH', 'DELETE']) {
        const answer = await registry.ask(method, path, { body: method === 'GET' ? undefined : 'x' } as object);
        assert.ok(answer.status >= 400 && answer.status < 500, `${method}: ${answer.status}`);
      }
    });
  }

  test('headers too large, heads that are none, and smuggled lengths are refused', async () => {
    // The connection may be reset before its answer is read.
    assert.match(
      await raw(`GET /v2/ HTTP/1.1\r\nHost: x\r\nX: ${'a'.repeat(64 * 1024)}\r\n\r\n`),
      /^(HTTP\/1\.1 431 |$)/,
    );
    assert.match(await raw('nonsense\r\n\r\n'), /^HTTP\/1\.1 400 /);
    assert.match(
      await raw('POST /v2/ HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n'),
      /^HTTP\/1\.1 400 /,
    );
    assert.match(
      await raw('POST /v2/a/blobs/uploads/ HTTP/1.1\r\nHost: x\r\nContent-Length: -1\r\n\r\n'),
      /^HTTP\/1\.1 400 /,
    );
    assert.equal((await registry.ask('GET', '/v2/')).status, 200);
  });

  test('a Host that is none does not get into answers', async () => {
    const answer = await raw('GET / HTTP/1.1\r\nHost: evil"onload=x\r\nConnection: close\r\n\r\n');
    assert.doesNotMatch(answer, /evil/);
    const page = await raw('GET /ui/ HTTP/1.1\r\nHost: evil<script>\r\nConnection: close\r\n\r\n');
    assert.doesNotMatch(page, /evil/);
  });

  test('a body shorter than it said leaves an upload to go on with, and no blob', async () => {
    const location = (await registry.ask('POST', '/v2/liar/app/blobs/uploads/', { body: '' })).headers.location ?? '';
    const socket = connect(registry.port, '127.0.0.1');
    socket.on('error', () => undefined);
    socket.write(`PUT ${location}?digest=${sha256('short')} HTTP/1.1\r\nHost: x\r\nContent-Length: 1000\r\n\r\nshort`);
    await eventually(async () => (await registry.ask('GET', location)).headers['range'] === '0-4', {
      what: 'the part to arrive',
    });
    const parallel = await registry.ask('PATCH', location, { body: 'x' });
    assert.deepEqual([parallel.status, parallel.code], [400, 'BLOB_UPLOAD_INVALID']);
    socket.destroy();
    await eventually(async () => (await registry.ask('PATCH', location, { body: '!' })).status === 202, {
      what: 'the upload to be free',
    });
    assert.equal((await registry.ask('HEAD', `/v2/liar/app/blobs/${sha256('short')}`)).status, 404);
    assert.equal((await registry.ask('PUT', `${location}?digest=${sha256('short!')}`, { body: '' })).status, 201);
  });

  test('uploads beyond a number are refused, and each leaves room when cancelled', async () => {
    const locations: string[] = [];
    let refused = 0;
    for (let count = 0; count < 210; count++) {
      const answer = await registry.ask('POST', '/v2/flood/app/blobs/uploads/', { body: '' });
      if (answer.status === 202) locations.push(answer.headers.location ?? '');
      else if (answer.status === 429 && answer.code === 'TOOMANYREQUESTS') refused += 1;
    }
    assert.ok(refused >= 10, `${refused} refused`);
    for (const location of locations) assert.equal((await registry.ask('DELETE', location)).status, 204);
    assert.deepEqual(readdirSync(join(registry.root, 'uploads')), []);
  });

  test('manifests too large, too wide and too deep are refused in bounded memory', async () => {
    const put = (body: string, type = OCI_MANIFEST): ReturnType<TestRegistry['ask']> =>
      registry.ask('PUT', '/v2/huge/app/manifests/x', { body, headers: { 'content-type': type } });
    const descriptor = `{"mediaType":"x","digest":"${sha256('x')}","size":1}`;
    const wide = `{"schemaVersion":2,"config":${descriptor},"layers":[${Array(30_000).fill(descriptor).join(',')}]}`;
    assert.match((await put(wide)).text, /layers has more than 4096 entries/);
    assert.match(
      (await put(`{"schemaVersion":2,"manifests":[${Array(30_000).fill(descriptor).join(',')}]}`, OCI_INDEX)).text,
      /manifests has more than 4096 entries/,
    );
    const beyond = `{"schemaVersion":2,"config":${descriptor},"layers":[${Array(100_000).fill(descriptor).join(',')}]}`;
    assert.match((await put(beyond)).text, /it is larger than 4194304 bytes/);
    for (const deep of [
      `${'['.repeat(MEBIBYTE)}${']'.repeat(MEBIBYTE)}`,
      `${'{"a":'.repeat(400_000)}1${'}'.repeat(400_000)}`,
    ]) {
      const answer = await put(deep);
      assert.deepEqual([answer.status, answer.code], [400, 'MANIFEST_INVALID']);
    }
    const petabytes = `{"schemaVersion":2,"config":{"mediaType":"x","digest":"${sha256('x')}","size":9007199254740993},"layers":[]}`;
    assert.equal((await put(petabytes)).code, 'MANIFEST_INVALID');
    const prototype = `{"schemaVersion":2,"__proto__":{"x":1},"config":${descriptor},"layers":[]}`;
    assert.equal((await put(prototype)).code, 'MANIFEST_BLOB_UNKNOWN');
  });

  test('a large blob comes in and goes out in bounded memory', async () => {
    await using registry = await startRegistry();
    const residentBytes = (): number => residentBytesOf(registry.pid);
    const size = 256 * MEBIBYTE;
    const chunk = Buffer.alloc(MEBIBYTE, 'x');
    const location = (await registry.ask('POST', '/v2/large/app/blobs/uploads/', { body: '' })).headers.location ?? '';
    for (let sent = 0; sent < size; sent += 32 * MEBIBYTE) {
      const body = Buffer.concat(Array(32).fill(chunk));
      assert.equal(
        (
          await registry.ask('PATCH', location, {
            body,
            headers: { 'content-range': `${sent}-${sent + body.length - 1}` },
          })
        ).status,
        202,
      );
      assert.ok(residentBytes() < MAX_RESIDENT_BYTES, `${residentBytes()} bytes resident`);
    }
    const digest = sha256(Buffer.alloc(size, 'x'));
    assert.equal((await registry.ask('PUT', `${location}?digest=${digest}`, { body: '' })).status, 201);
    // A reader that never reads holds no more than its buffers.
    const idle = connect(registry.port, '127.0.0.1');
    idle.on('error', () => undefined);
    idle.pause();
    idle.write(`GET /v2/large/app/blobs/${digest} HTTP/1.1\r\nHost: x\r\n\r\n`);
    const pulled = await registry.ask('GET', `/v2/large/app/blobs/${digest}`);
    assert.equal(pulled.body.length, size);
    assert.ok(residentBytes() < MAX_RESIDENT_BYTES, `${residentBytes()} bytes resident`);
    idle.destroy();
  });

  test('a body nobody wants is answered, and its connection cut', async () => {
    const socket = connect(registry.port, '127.0.0.1');
    socket.on('error', () => undefined);
    socket.write(`PUT /v2/BAD/manifests/x HTTP/1.1\r\nHost: x\r\nContent-Length: ${10 ** 12}\r\n\r\n`);
    let answer = '';
    socket.on('data', (chunk) => {
      answer += String(chunk);
    });
    const { promise, resolve } = Promise.withResolvers<void>();
    socket.on('close', () => resolve());
    const writer = setInterval(() => socket.write('x'.repeat(1000)), 50);
    await promise;
    clearInterval(writer);
    assert.match(answer, /^HTTP\/1\.1 400 [\s\S]*NAME_INVALID/);
  });
});
