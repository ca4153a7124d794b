import assert from 'node:assert/strict';
import { createHash } from 'node:crypto';
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { test } from 'node:test';
import fc from 'fast-check';
import { Database } from '#system/database/database.ts';
import { type Digest, digestOf } from '#types/digest.ts';
import { BlobFiles } from './blob-files.ts';
import { checkRegistry } from './check.ts';
import { collectRegistry } from './collector.ts';
import type { RepositoryName } from './contract.ts';
import { OCI_MANIFEST, parseManifest } from './manifest.ts';
import { Quotas } from './quotas.ts';
import { RegistryStore } from './store.ts';
import { Uploads } from './uploads.ts';

const GRACE_MS = 1000;

class Bench implements Disposable {
  readonly directory = mkdtempSync(join(tmpdir(), 'gantry-store-'));
  nowMs = 1_000_000;
  readonly database = new Database(join(this.directory, 'registry.db'));
  readonly files = new BlobFiles(this.directory);
  readonly store = new RegistryStore(this.database, this.files, { graceMs: GRACE_MS, now: () => this.nowMs });
  readonly uploads = new Uploads(this.store, { maxBlobBytes: 1e6, maxIdleMs: 1e6 }, () => this.nowMs);

  async push(repository: string, text: string): Promise<Digest> {
    const upload = await this.uploads.start(repository as RepositoryName, 'user');
    const beyondLimit = new Error('beyond') as never;
    await this.uploads.append(upload, pieces(text), { limitBytes: 1e6, beyondLimit });
    return (await this.uploads.finish(upload, digestOf(text))).digest;
  }

  put(repository: string, tag: string, layers: readonly string[]): Digest {
    const descriptor = (text: string): object => ({
      mediaType: 'x',
      digest: digestOf(text),
      size: Buffer.byteLength(text),
    });
    const bytes = Buffer.from(
      JSON.stringify({
        schemaVersion: 2,
        mediaType: OCI_MANIFEST,
        annotations: { tag },
        config: descriptor('{}'),
        layers: layers.map(descriptor),
      }),
    );
    const digest = digestOf(bytes);
    this.store.putManifest(repository as RepositoryName, {
      digest,
      bytes,
      parsed: parseManifest(bytes, OCI_MANIFEST),
      tag,
    });
    return digest;
  }

  async collect(untaggedAfterMs?: number): Promise<void> {
    await collectRegistry(this.store, { graceMs: GRACE_MS, now: () => this.nowMs, untaggedAfterMs });
  }

  async findings(): Promise<string[]> {
    const found: string[] = [];
    for await (const { kind, object } of checkRegistry(this.store, { isDeep: true })) found.push(`${kind} ${object}`);
    return found;
  }

  [Symbol.dispose](): void {
    this.database[Symbol.dispose]();
    rmSync(this.directory, { recursive: true, force: true });
  }
}

async function* pieces(text: string): AsyncGenerator<Uint8Array> {
  for (let at = 0; at < text.length; at += 3) yield Buffer.from(text.slice(at, at + 3));
}

const REPOSITORIES = ['a', 'b'] as const;
const TEXTS = ['one', 'two', 'three', 'four'] as const;

const step = fc.oneof(
  fc.record({
    kind: fc.constant('push' as const),
    repository: fc.constantFrom(...REPOSITORIES),
    text: fc.constantFrom(...TEXTS),
  }),
  fc.record({
    kind: fc.constant('mount' as const),
    repository: fc.constantFrom(...REPOSITORIES),
    text: fc.constantFrom(...TEXTS),
  }),
  fc.record({
    kind: fc.constant('ask' as const),
    repository: fc.constantFrom(...REPOSITORIES),
    text: fc.constantFrom(...TEXTS),
  }),
  fc.record({
    kind: fc.constant('tag' as const),
    repository: fc.constantFrom(...REPOSITORIES),
    tag: fc.constantFrom('x', 'y'),
    texts: fc.subarray([...TEXTS]),
  }),
  fc.record({
    kind: fc.constant('untag' as const),
    repository: fc.constantFrom(...REPOSITORIES),
    tag: fc.constantFrom('x', 'y'),
  }),
  fc.record({ kind: fc.constant('wait' as const), milliseconds: fc.integer({ min: 1, max: 900 }) }),
  fc.record({ kind: fc.constant('collect' as const), isDeep: fc.boolean() }),
);

/** What a client may rely on: told "it is here" at this time, or named by a manifest. */
class Promises {
  readonly told = new Map<string, number>();
  readonly named = new Map<string, readonly string[]>();
}

test('whatever the order, what is named or was promised a moment ago is there, and the sums are right', async () => {
  await fc.assert(
    fc.asyncProperty(fc.array(step, { minLength: 5, maxLength: 40 }), async (steps) => {
      using bench = new Bench();
      const known = new Promises();
      for (const action of steps) {
        switch (action.kind) {
          case 'push':
            await bench.push(action.repository, action.text);
            known.told.set(`${action.repository} ${action.text}`, bench.nowMs);
            break;
          case 'mount': {
            const from = action.repository === 'a' ? 'b' : 'a';
            const size = bench.store.mountBlob(
              action.repository as RepositoryName,
              from as RepositoryName,
              digestOf(action.text),
            );
            if (size !== undefined) known.told.set(`${action.repository} ${action.text}`, bench.nowMs);
            break;
          }
          case 'ask':
            if (bench.store.blobSize(action.repository as RepositoryName, digestOf(action.text)) !== undefined) {
              // A touch may be as old as a quarter of the grace time.
              known.told.set(`${action.repository} ${action.text}`, bench.nowMs - GRACE_MS / 4);
            }
            break;
          case 'tag': {
            await bench.push(action.repository, '{}');
            const isWhole = action.texts.every(
              (text) => bench.files.size(digestOf(text)) !== undefined && isLinked(bench, action.repository, text),
            );
            try {
              bench.put(action.repository, action.tag, action.texts);
              assert.ok(isWhole, 'an incomplete manifest was taken');
              known.named.set(`${action.repository} ${action.tag}`, action.texts);
            } catch (error) {
              assert.ok(!isWhole, String(error));
            }
            break;
          }
          case 'untag':
            bench.store.deleteTag(action.repository as RepositoryName, action.tag);
            known.named.delete(`${action.repository} ${action.tag}`);
            break;
          case 'wait':
            bench.nowMs += action.milliseconds;
            break;
          case 'collect':
            await bench.collect(action.isDeep ? 1 : undefined);
            break;
        }
        requirePromises(bench, known);
      }
      bench.nowMs += 10 * GRACE_MS;
      await bench.collect(1);
      await bench.collect(1);
      requirePromises(bench, known);
      assert.deepEqual(await bench.findings(), []);
      requireNoMore(bench, known);
    }),
    { numRuns: 40 },
  );
});

function isLinked(bench: Bench, repository: string, text: string): boolean {
  const sql = 'SELECT 1 FROM links l JOIN repositories r ON r.id = l.repository WHERE r.name = ? AND l.digest = ?';
  return bench.database.get(sql, repository, digestOf(text)) !== undefined;
}

function requirePromises(bench: Bench, known: Promises): void {
  for (const [key, at] of known.told) {
    if (at <= bench.nowMs - GRACE_MS) continue;
    const [repository = '', text = ''] = key.split(' ');
    assert.ok(isLinked(bench, repository, text), `${key} was promised and is gone`);
    assert.equal(bench.files.size(digestOf(text)), text.length);
  }
  for (const [key, texts] of known.named) {
    const [repository = '', tag = ''] = key.split(' ');
    assert.ok(bench.store.manifest(repository as RepositoryName, { kind: 'tag', tag }));
    for (const text of texts) assert.equal(bench.files.size(digestOf(text)), text.length, `${text} is named by ${key}`);
  }
}

/** After everything has had its time, only what is named is left, and the counters say so. */
function requireNoMore(bench: Bench, known: Promises): void {
  const needed = new Set([...known.named.values()].flatMap((texts) => ['{}', ...texts]).map((text) => digestOf(text)));
  assert.deepEqual([...bench.files.blobs()].map(({ digest }) => digest).toSorted(), [...needed].toSorted());
  const sum = [...bench.files.blobs()].reduce((total, { sizeBytes }) => total + sizeBytes, 0);
  assert.deepEqual([bench.store.totals().blobBytes, bench.store.totals().blobCount], [sum, needed.size]);
  const sql = `SELECT r.size_bytes AS said, (SELECT coalesce(sum(b.size_bytes), 0) FROM links l JOIN blobs b ON b.digest = l.digest WHERE l.repository = r.id)
    + (SELECT coalesce(sum(size_bytes), 0) FROM manifests WHERE repository = r.id) AS real FROM repositories r`;
  for (const row of bench.database.all(sql)) assert.equal(row['said'], row['real']);
}

test('blobs wait for their manifest while an upload into their repository goes on', async () => {
  using bench = new Bench();
  bench.nowMs = Date.now();
  await bench.push('a', 'first');
  const upload = await bench.uploads.start('a' as RepositoryName, 'user');
  bench.nowMs += 2 * GRACE_MS;
  // The upload's file was written to now, as the collector sees it.
  const beyondLimit = new Error('beyond') as never;
  await new Promise((resolve) => setTimeout(resolve, 5));
  await bench.uploads.append(upload, pieces('more'), { limitBytes: 100, beyondLimit });
  await collectRegistry(bench.store, { graceMs: GRACE_MS, now: () => bench.nowMs - GRACE_MS - 500 });
  assert.ok(isLinked(bench, 'a', 'first'));
  bench.uploads.cancel(upload);
  await bench.collect();
  assert.ok(!isLinked(bench, 'a', 'first'));
});

test('a blob whose removal was not committed gets its place back', async () => {
  using bench = new Bench();
  const digest = await bench.push('a', 'kept');
  bench.files.discard(digest);
  assert.deepEqual(await bench.findings(), [`missing blob ${digest}`]);
  await bench.collect();
  assert.deepEqual(await bench.findings(), []);
});

test('an upload taken up after a restart is hashed from its file', async () => {
  using bench = new Bench();
  const upload = await bench.uploads.start('a' as RepositoryName, 'user');
  const beyondLimit = new Error('beyond') as never;
  await bench.uploads.append(upload, pieces('half '), { limitBytes: 100, beyondLimit });
  const later = new Uploads(bench.store, { maxBlobBytes: 1e6, maxIdleMs: 1e6 }, () => bench.nowMs);
  const found = later.find('a' as RepositoryName, upload.id);
  assert.equal(found.offset, 5);
  await later.append(found, pieces('whole'), { limitBytes: 100, beyondLimit });
  const digest = `sha512:${createHash('sha512').update('half whole').digest('hex')}` as Digest;
  assert.equal((await later.finish(found, digest)).sizeBytes, 10);
});

test('a quota counts what is stored, what is coming in, and names itself', async () => {
  using bench = new Bench();
  const rules = [{ repositories: 'a', limitBytes: 10, scope: 'each' as const }];
  const quotas = new Quotas(bench.store, bench.uploads, { totalBytes: 12, rules });
  await bench.push('a', '1234');
  assert.equal(quotas.remaining('a' as RepositoryName).bytes, 6);
  assert.equal(quotas.remaining('b' as RepositoryName).bytes, 8);
  const upload = await bench.uploads.start('a' as RepositoryName, 'user');
  const beyondLimit = new Error('beyond') as never;
  await bench.uploads.append(upload, pieces('12345'), { limitBytes: 100, beyondLimit });
  assert.equal(quotas.remaining('a' as RepositoryName).bytes, 1);
  assert.throws(() => quotas.require('a' as RepositoryName, 2), /quota exceeded: repository a is limited to 10 bytes/);
});
