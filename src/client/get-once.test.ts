import assert from 'node:assert/strict';
import { once } from 'node:events';
import { mkdtempSync, rmSync } from 'node:fs';
import { createServer } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { test } from 'node:test';
import { bodyOf, getOnce } from './get-once.ts';

const answer = (text: string): string | undefined => bodyOf(Buffer.from(text));

test('a whole answer gives its body', () => {
  assert.equal(answer('HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}'), '{}');
  assert.equal(answer('HTTP/1.0 200 OK\r\n\r\n{"a":1}'), '{"a":1}');
});

test('errors, cut and chunked answers are left to the full client', () => {
  assert.equal(answer('HTTP/1.1 404 Not Found\r\nContent-Length: 2\r\n\r\n{}'), undefined);
  assert.equal(answer('HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\n{}'), undefined);
  assert.equal(answer('HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\n{}\r\n0\r\n\r\n'), undefined);
  assert.equal(answer('HTTP/1.1 200 OK\r\n'), undefined);
  assert.equal(answer(''), undefined);
});

test('asks over a unix socket with the headers given', async () => {
  const directory = mkdtempSync(join(tmpdir(), 'gantry-get-'));
  let asked = '';
  const server = createServer((socket) => {
    socket.once('data', (chunk) => {
      asked = String(chunk);
      socket.end('HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\ntrue');
    });
  }).listen(join(directory, 'socket'));
  try {
    await once(server, 'listening');
    assert.equal(await getOnce(join(directory, 'socket'), '/version', { Host: 'docker' }), 'true');
    assert.equal(asked, 'GET /version HTTP/1.0\r\nHost: docker\r\n\r\n');
    await assert.rejects(getOnce(join(directory, 'nobody'), '/version', {}), { code: 'ENOENT' });
  } finally {
    server.close();
    rmSync(directory, { recursive: true });
  }
});
