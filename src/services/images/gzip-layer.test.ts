import assert from 'node:assert/strict';
import { execFileSync } from 'node:child_process';
import { randomBytes } from 'node:crypto';
import { test } from 'node:test';
import { gunzipSync } from 'node:zlib';
import { gzipLayer } from './gzip-layer.ts';

async function gzip(bytes: Buffer, pieceBytes: number): Promise<Buffer> {
  async function* pieces(): AsyncGenerator<Buffer> {
    for (let at = 0; at < bytes.length; at += pieceBytes) yield bytes.subarray(at, at + pieceBytes);
  }
  const chunks: Buffer[] = [];
  for await (const chunk of gzipLayer(pieces())) chunks.push(chunk);
  return Buffer.concat(chunks);
}

test('what is compressed in blocks is one gzip stream that others read', async () => {
  const text = Buffer.concat([Buffer.alloc(1_300_000, 'all work and no play '), randomBytes(700_001)]);
  const packed = await gzip(text, 65_536);
  assert.ok(gunzipSync(packed).equals(text));
  assert.ok(execFileSync('gzip', ['-dc'], { input: packed, maxBuffer: 16_777_216 }).equals(text));
  assert.ok(packed.length < 750_000);
});

test('the same bytes give the same stream, however they arrive', async () => {
  const bytes = Buffer.alloc(2_000_000, 'abcdefghij');
  assert.ok((await gzip(bytes, 1000)).equals(await gzip(bytes, 1_000_000)));
  assert.ok(gunzipSync(await gzip(Buffer.alloc(0), 1)).length === 0);
});

test('a source that fails fails the stream', async () => {
  async function* broken(): AsyncGenerator<Buffer> {
    yield Buffer.alloc(600_000);
    throw new Error('lost');
  }
  await assert.rejects(async () => {
    for await (const _chunk of gzipLayer(broken()));
  }, /lost/);
});
