import assert from 'node:assert/strict';
import { mkdtemp, readdir, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { test } from 'node:test';
import { type Digest, digestOf } from '#types/digest.ts';
import { Content } from './content.ts';

async function* bytes(...parts: string[]): AsyncGenerator<Buffer> {
  for (const part of parts) yield Buffer.from(part);
}

async function store(): Promise<{ content: Content; directory: string } & AsyncDisposable> {
  const directory = await mkdtemp(join(tmpdir(), 'content-'));
  const content = await Content.open(directory);
  return { content, directory, [Symbol.asyncDispose]: () => rm(directory, { recursive: true }) };
}

test('a blob is found under the digest of its bytes and reads back', async () => {
  await using here = await store();
  const blob = await here.content.write(bytes('hello ', 'world'));
  assert.equal(blob.digest, digestOf('hello world'));
  assert.equal(here.content.size(blob.digest), 11);
  const parts: Buffer[] = [];
  for await (const chunk of here.content.read(blob.digest)) parts.push(chunk);
  assert.equal(Buffer.concat(parts).toString(), 'hello world');
});

test('a wrong digest, too many bytes or a failing source leave nothing behind', async () => {
  await using here = await store();
  await assert.rejects(here.content.write(bytes('x'), { expected: digestOf('y') }), /unexpected commit digest/);
  await assert.rejects(here.content.write(bytes('xyz'), { limitBytes: 2 }), /larger than 2 bytes/);
  async function* broken(): AsyncGenerator<Buffer> {
    yield Buffer.from('a');
    throw new Error('lost');
  }
  await assert.rejects(here.content.write(broken()), /lost/);
  assert.deepEqual(await readdir(join(here.directory, 'ingest')), []);
  assert.deepEqual(await readdir(join(here.directory, 'blobs/sha256')), []);
});

test('collection spares what is referenced or leased', async () => {
  await using here = await store();
  const kept = await here.content.write(bytes('kept'));
  const lost = await here.content.write(bytes('lost'));
  {
    using lease = here.content.lease();
    const leased = await here.content.write(bytes('leased'), { lease });
    const result = await here.content.gc(new Set([kept.digest]));
    assert.deepEqual(result, { deleted: [lost.digest], sizeBytes: 4 });
    assert.ok(here.content.has(leased.digest));
  }
  assert.equal((await here.content.gc(new Set<Digest>())).deleted.length, 2);
});
