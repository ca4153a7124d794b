import assert from 'node:assert/strict';
import { execFileSync } from 'node:child_process';
import { createHash } from 'node:crypto';
import { mkdir, mkdtemp, readdir, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { Readable } from 'node:stream';
import { test } from 'node:test';
import { gzipSync } from 'node:zlib';
import { buildImage } from '#engine/build/build.ts';
import type { BuildContainer } from '#engine/build/build-container.ts';
import { readContext } from '#engine/build/context.ts';
import { Content } from '#services/content/content.ts';
import { parseImageConfig } from '#services/images/config.ts';
import { RegistryRecords } from '#services/images/registry-records.ts';
import { ImageStore } from '#services/images/store.ts';
import { type TarPiece, tarCodec, writeArchive } from '#services/images/tar-codec.ts';
import type { Layer, Snapshotter } from '#services/snapshots/contract.ts';
import { Database } from '#system/database/database.ts';
import { makeEntry } from '#system/tar/entry.ts';
import { chainIds, type Digest } from '#types/digest.ts';
import { GantryError } from '#types/errors.ts';
import { parseReference, withDefaultTag } from '#types/reference.ts';
import { importImage } from './import.ts';
import { inspectImage } from './inspect.ts';
import { listImages } from './list.ts';
import { loadImages } from './load.ts';
import { removeImage } from './remove.ts';
import { saveImages } from './save.ts';
import { tagImage } from './tag.ts';

/** Layers in memory; a mount is an unpacked copy. */
class FakeSnapshots {
  readonly driver = 'fake';
  readonly stored = new Map<Digest, Layer & { tar: Buffer }>();
  readonly prepared = new Map<string, Digest | undefined>();

  async applyLayer(
    parent: Digest | undefined,
    tar: AsyncIterable<Buffer>,
    options: { expected?: Digest },
  ): Promise<Layer> {
    const chunks: Buffer[] = [];
    for await (const chunk of tar) chunks.push(chunk);
    const bytes = Buffer.concat(chunks);
    const diffId = `sha256:${createHash('sha256').update(bytes).digest('hex')}` as Digest;
    if (options.expected !== undefined && options.expected !== diffId)
      throw new GantryError('invalid', 'layer does not match its diffID');
    const chainId = parent === undefined ? diffId : (chainIds([parent, diffId])[1] as Digest);
    const layer = { chainId, diffId, parent, sizeBytes: bytes.length, tar: bytes };
    this.stored.set(chainId, layer);
    return layer;
  }
  layer(chainId: Digest): Layer | undefined {
    return this.stored.get(chainId);
  }
  layers(): Layer[] {
    return [...this.stored.values()];
  }
  async removeLayer(chainId: Digest): Promise<void> {
    if ([...this.stored.values()].some((layer) => layer.parent === chainId))
      throw new GantryError('conflict', 'in use');
    this.stored.delete(chainId);
  }
  async prepare(key: string, parent: Digest | undefined): Promise<void> {
    this.prepared.set(key, parent);
  }
  async mount(key: string, target: string): Promise<void> {
    await mkdir(target, { recursive: true });
    const stack: Buffer[] = [];
    for (let at = this.prepared.get(key); at !== undefined; at = this.stored.get(at)?.parent)
      stack.unshift(this.stored.get(at)?.tar as Buffer);
    for (const tar of stack) execFileSync('tar', ['-x', '-C', target], { input: tar });
  }
  async unmount(_key: string, target: string): Promise<void> {
    for (const name of await readdir(target)) await rm(join(target, name), { recursive: true });
  }
  async remove(key: string): Promise<void> {
    this.prepared.delete(key);
  }
  layerDriverData(): Record<string, string> {
    return {};
  }
}

async function setUp(): Promise<
  {
    images: ImageStore;
    content: Content;
    events: string[];
    emit: (type: string, action: string) => void;
    snapshots: FakeSnapshots;
    database: Database;
    records: RegistryRecords;
  } & AsyncDisposable
> {
  const directory = await mkdtemp(join(tmpdir(), 'images-'));
  const content = await Content.open(directory);
  const snapshots = new FakeSnapshots();
  const database = new Database(':memory:');
  const images = new ImageStore(database, content, snapshots as unknown as Snapshotter);
  const events: string[] = [];
  const emit = (_type: string, action: string): void => void events.push(action);
  return {
    images,
    content,
    events,
    emit,
    snapshots,
    database,
    records: new RegistryRecords(database),
    [Symbol.asyncDispose]: () => rm(directory, { recursive: true }),
  };
}

const text = (path: string, content: string): TarPiece => ({
  entry: makeEntry(path, 'file', { sizeBytes: Buffer.byteLength(content) }),
  content: async function* () {
    yield Buffer.from(content);
  },
});

async function collect(source: AsyncIterable<Buffer>): Promise<Buffer> {
  const chunks: Buffer[] = [];
  for await (const chunk of source) chunks.push(chunk);
  return Buffer.concat(chunks);
}

const archive = (...pieces: TarPiece[]): AsyncIterable<Buffer> => writeArchive(tarCodec, pieces);

async function importBase(here: Awaited<ReturnType<typeof setUp>>, name = 'base'): Promise<Digest> {
  const body = archive(
    { entry: makeEntry('etc', 'directory') },
    text('etc/passwd', 'root:x:0:0\nme:x:7:8\n'),
    text('etc/group', 'me:x:8:\n'),
  );
  const reference = withDefaultTag(parseReference(name));
  const options = {
    source: '-',
    body,
    message: 'made',
    changes: ['CMD ["sh"]', 'ENV a=b'],
    reference,
    write: () => {},
  };
  return (await importImage({ images: here.images, tar: tarCodec, emit: here.emit }, options)).id;
}

test('an imported image lists, inspects, and resolves by name, ID and prefix', async () => {
  await using here = await setUp();
  const id = await importBase(here);
  for (const name of ['base', 'base:latest', id, id.slice(7), id.slice(7, 15)])
    assert.equal(here.images.resolve(name).id, id, name);
  assert.throws(() => here.images.resolve('other'), { message: 'No such image: other:latest', kind: 'notFound' });
  const inspect = inspectImage(here.images, 'base', { atLeast: () => true });
  assert.deepEqual((inspect['Config'] as { Env: string[] }).Env, ['a=b']);
  assert.deepEqual(
    listImages(here.images, { all: false, sharedSize: false, filters: new Map() }).map((image) => image.RepoTags),
    [['base:latest']],
  );
});

test('what is saved loads elsewhere to the same ID, compressed or not', async () => {
  await using here = await setUp();
  const id = await importBase(here);
  const saved = await collect(
    saveImages({ images: here.images, records: here.records, tar: tarCodec, emit: here.emit }, ['base']),
  );
  for (const bytes of [saved, gzipSync(saved)]) {
    await using there = await setUp();
    const messages: unknown[] = [];
    const options = { quiet: true, write: (message: unknown) => void messages.push(message) };
    await loadImages(
      { images: there.images, records: there.records, tar: tarCodec, emit: there.emit },
      Readable.from([bytes]),
      options,
    );
    assert.deepEqual(messages, [{ stream: 'Loaded image: base:latest\n' }]);
    assert.equal(there.images.resolve('base').id, id);
    const again = await collect(
      saveImages({ images: there.images, records: there.records, tar: tarCodec, emit: there.emit }, ['base']),
    );
    assert.ok(again.equals(saved));
    assert.equal(
      (await there.content.gc(new Set(there.snapshots.layers().map((layer) => layer.diffId)))).deleted.length,
      0,
    );
  }
});

test('hostile archives are refused and leave no blob', async () => {
  await using here = await setUp();
  const load = (source: AsyncIterable<Buffer>): Promise<void> =>
    loadImages({ images: here.images, records: here.records, tar: tarCodec, emit: here.emit }, source, {
      quiet: true,
      write: () => {},
    });
  await assert.rejects(load(archive(text('x', 'y'))), { message: 'invalid archive: does not contain a manifest.json' });
  await assert.rejects(load(archive(text('manifest.json', 'null'))), /manifest cannot be null/);
  await assert.rejects(
    load(archive(text('manifest.json', '[{"Config":"../../../etc/passwd","Layers":[]}]'))),
    /no such file or directory/,
  );
  const config = JSON.stringify({
    os: 'linux',
    architecture: 'amd64',
    rootfs: { type: 'layers', diff_ids: [`sha256:${'0'.repeat(64)}`] },
  });
  await assert.rejects(
    load(archive(text('c', config), text('l', 'bad'), text('manifest.json', '[{"Config":"c","Layers":["l"]}]'))),
    /does not match/,
  );
  assert.equal(here.images.list().length, 0);
  assert.equal((await here.content.gc(new Set())).deleted.length, 0);
});

test('removal untags, then deletes, and refuses what is in use', async () => {
  await using here = await setUp();
  const id = await importBase(here);
  tagImage(here.images, 'base', { repository: 'second', tag: '1', emit: here.emit });
  const context = {
    images: here.images,
    uses: () => [{ containerId: 'c'.repeat(64), imageId: id, running: false }],
    emit: here.emit,
  };
  await assert.rejects(removeImage(context, id.slice(7, 19), { force: false, prune: true }), {
    message: `conflict: unable to delete ${id.slice(7, 19)} (must be forced) - image is referenced in multiple repositories`,
  });
  assert.deepEqual(await removeImage(context, 'second:1', { force: false, prune: true }), [{ Untagged: 'second:1' }]);
  await assert.rejects(removeImage(context, 'base', { force: false, prune: true }), {
    message: `conflict: unable to remove repository reference "base" (must force) - container cccccccccccc is using its referenced image ${id.slice(7, 19)}`,
  });
  const free = { ...context, uses: () => [] };
  const records = await removeImage(free, 'base', { force: false, prune: true });
  assert.deepEqual(
    records.map((record) => Object.keys(record)[0]),
    ['Untagged', 'Deleted', 'Deleted'],
  );
  assert.equal(here.snapshots.layers().length, 0);
  assert.equal(here.database.all('SELECT * FROM image_layer_blobs').length, 0);
});

test('a build copies, sets the config, and uses its cache until a file changes', async () => {
  await using here = await setUp();
  await importBase(here);
  const build = async (content: string): Promise<{ id: Digest; output: string }> => {
    using lease = here.content.lease();
    const files = await readContext(archive(text('d/f', content), text('g', 'G')), {
      content: here.content,
      tar: tarCodec,
      lease,
    });
    let output = '';
    const write = (message: Readonly<Record<string, unknown>>): void => {
      output += String(message['stream'] ?? '');
    };
    const context = {
      images: here.images,
      tar: tarCodec,
      emit: here.emit,
      write,
      pull: () => Promise.reject(new Error('nothing is to be pulled')),
      createContainer: () => Promise.reject(new Error('no RUN here')),
    };
    const dockerfile =
      'ARG B=base\nFROM $B AS one\nWORKDIR /w/x\nCOPY --chown=me . sub/\nFROM scratch\nCOPY --from=one /w /w\nENV k="v w"\nEXPOSE 80\n';
    const image = await buildImage(context, {
      dockerfile,
      dockerfileName: 'Dockerfile',
      files,
      tags: [withDefaultTag(parseReference('out'))],
      arguments: {},
      labels: {},
      target: '',
      noCache: false,
      pull: false,
      remove: true,
      forceRemove: false,
      quiet: false,
      squash: false,
      resources: {},
    });
    return { id: image.id, output };
  };
  const first = await build('1');
  assert.match(first.output, /Step 1\/8 : ARG B=base\nStep 2\/8 : FROM \$B AS one\n ---> [0-9a-f]{12}\n/);
  assert.match(first.output, /Successfully built [0-9a-f]{12}\nSuccessfully tagged out:latest\n$/);
  const listing = execFileSync('tar', ['-tv', '--numeric-owner'], {
    input: here.snapshots.stored.get(here.images.resolve('out').topLayer as Digest)?.tar as Buffer,
  }).toString();
  assert.match(listing, /7\/8 .* w\/x\/sub\/d\/f\n/);
  const second = await build('1');
  assert.equal(second.id, first.id);
  assert.equal(second.output.match(/Using cache/g)?.length, 5);
  const third = await build('2');
  assert.notEqual(third.id, first.id);
  assert.deepEqual([...here.snapshots.prepared], []);
});

test('steps tell of their containers, stderr is red, and a quiet build that fails tells its steps', async () => {
  await using here = await setUp();
  await importBase(here);
  const build = async (dockerfile: string, given: { quiet?: boolean; target?: string } = {}): Promise<string> => {
    using lease = here.content.lease();
    const files = await readContext(archive(text('g', 'G')), { content: here.content, tar: tarCodec, lease });
    let output = '';
    const write = (message: Readonly<Record<string, unknown>>): void => {
      output += String(message['stream'] ?? '');
    };
    const container: BuildContainer = {
      id: 'c'.repeat(64),
      snapshotKey: '',
      run: async (told) => {
        await told(Buffer.from('out\n'), 'stdout');
        await told(Buffer.from('err\n'), 'stderr');
        return 3;
      },
      remove: async () => undefined,
    };
    const { images, emit } = here;
    try {
      await buildImage(
        {
          images,
          tar: tarCodec,
          emit,
          write,
          pull: async () => assert.fail('nothing is to be pulled'),
          createContainer: async () => container,
        },
        {
          dockerfile,
          dockerfileName: 'D',
          files,
          tags: [],
          arguments: {},
          labels: {},
          target: given.target ?? '',
          noCache: false,
          pull: false,
          remove: true,
          forceRemove: false,
          quiet: given.quiet ?? false,
          squash: false,
          resources: {},
        },
      );
    } catch (error) {
      output += `! ${(error as Error).message}`;
    }
    return output.replaceAll(/\b(?:sha256:)?[0-9a-f]{12,64}\b/g, 'ID');
  };
  const failed = [
    'Step 1/2 : from base\n ---> ID\nStep 2/2 : run x\n ---> Running in ID\nout\n\x1b[91merr\n\x1b[0m',
    "! The command '/bin/sh -c x' returned a non-zero code: 3",
  ].join('');
  assert.equal(await build('from base\nrun x\n'), failed);
  assert.equal(await build('from base\nrun x\n', { quiet: true }), failed);
  assert.equal(
    await build('FROM base\nLABEL a=b\n'),
    [
      'Step 1/2 : FROM base\n ---> ID\nStep 2/2 : LABEL a=b\n ---> Running in ID\n',
      ' ---> Removed intermediate container ID\n ---> ID\nSuccessfully built ID\n',
    ].join(''),
  );
  assert.equal(
    await build('FROM base\nCOPY ../x /\n'),
    'Step 1/2 : FROM base\n ---> ID\nStep 2/2 : COPY ../x /\n! COPY failed: forbidden path outside the build context: ../x ()',
  );
  assert.equal(
    await build('FROM --platform=a/b/c/d base\n'),
    'Step 1/1 : FROM --platform=a/b/c/d base\n! failed to parse platform a/b/c/d: "a/b/c/d": cannot parse platform specifier: invalid argument',
  );
  assert.match(await build('FROM base\nSTOPSIGNAL foo\n'), /STOPSIGNAL foo\n! invalid signal: foo$/);
  assert.match(await build('FROM base\nRUN\n'), /! The command '\/bin\/sh -c' returned a non-zero code: 3$/);
  assert.equal(await build('FROM base AS one\n', { target: '0' }), '! target stage "0" could not be found');
  assert.equal(await build('FROM base\nCOPY g\n').then((told) => told.startsWith('! dockerfile parse error')), true);
});

test('a slow body of an import outlives the limit for the start of the answer', { timeout: 20_000 }, async () => {
  await using here = await setUp();
  const { createServer } = await import('node:http');
  const server = createServer((request, response) => {
    if (request.url === '/never') return;
    void (async () => {
      response.writeHead(200).flushHeaders();
      for await (const chunk of archive(text('slow', 'x'))) {
        await new Promise((resolve) => setTimeout(resolve, 700));
        response.write(chunk);
      }
      response.end();
    })();
  });
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
  try {
    const from = `http://127.0.0.1:${(server.address() as { port: number }).port}`;
    const load = (path: string): Promise<unknown> =>
      importImage(
        { images: here.images, tar: tarCodec, emit: here.emit },
        { source: from + path, body: archive(), message: '', changes: [], write: () => {}, startTimeoutMs: 400 },
      );
    await load('/slow');
    await assert.rejects(load('/never'), /timeout awaiting response headers/);
  } finally {
    server.closeAllConnections();
    server.close();
  }
});

test('an image has at most 125 layers', () => {
  const config = (count: number): Buffer =>
    Buffer.from(
      JSON.stringify({ rootfs: { type: 'layers', diff_ids: Array(count).fill(`sha256:${'a'.repeat(64)}`) } }),
    );
  assert.equal(parseImageConfig(config(125)).rootfs.diff_ids.length, 125);
  assert.throws(() => parseImageConfig(config(126)), { message: 'max depth exceeded' });
});
