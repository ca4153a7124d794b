/**
 * Taking layers in, on real snapshot drivers: several at once, resumed, shared, cancelled, wrong ones; and archives
 * made to break out, to lie, or to eat the machine.
 */
import assert from 'node:assert/strict';
import * as fs from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { test } from 'node:test';
import { gzipSync, zstdCompressSync } from 'node:zlib';
import { type LayerSource, type LayerStep, takeInLayers } from '#engine/images/intake.ts';
import { applyBlob } from '#engine/images/layer.ts';
import { loadImages } from '#engine/images/load.ts';
import { saveImages } from '#engine/images/save.ts';
import { squashImage } from '#engine/images/squash.ts';
import { Content } from '#services/content/content.ts';
import { RegistryRecords } from '#services/images/registry-records.ts';
import { ImageStore } from '#services/images/store.ts';
import { tarCodec, writeArchive } from '#services/images/tar-codec.ts';
import type { LayeredOptions, LayeredSnapshotter } from '#services/snapshots/layered.ts';
import { createOverlaySnapshotter } from '#services/snapshots/overlay.ts';
import { createVfsSnapshotter } from '#services/snapshots/vfs.ts';
import { Database } from '#system/database/database.ts';
import type { TarEntry } from '#system/tar/contract.ts';
import { makeEntry } from '#system/tar/entry.ts';
import { TAR_END, tarBlocks } from '#system/tar/writer.ts';
import { chainIds, type Digest, digestOf } from '#types/digest.ts';
import { GantryError } from '#types/errors.ts';
import { eventually, run } from '../harness/processes.ts';

type Piece = Partial<TarEntry> & { path: string; text?: string };

async function layerTar(pieces: readonly Piece[]): Promise<Buffer> {
  const parts: Buffer[] = [];
  for (const { text = '', path, type = 'file', ...fields } of pieces) {
    const entry = makeEntry(path, type, { sizeBytes: Buffer.byteLength(text), ...fields });
    for await (const block of tarBlocks(entry, [Buffer.from(text)])) parts.push(block);
  }
  return Buffer.concat([...parts, TAR_END]);
}

async function* once(bytes: Buffer): AsyncGenerator<Buffer> {
  yield bytes;
}

interface Served {
  readonly source: LayerSource;
  /** Offsets asked for so far. */
  readonly offsets: number[];
}

/** A layer whose server sends `blob` in pieces; `spoil` may throw before a piece. */
function serve(tar: Buffer, blob: Buffer, spoil?: (offset: number, attempt: number) => Promise<void> | void): Served {
  const offsets: number[] = [];
  const source: LayerSource = {
    digest: digestOf(blob),
    sizeBytes: blob.length,
    diffId: digestOf(tar),
    open: async (offset) => {
      offsets.push(offset);
      const attempt = offsets.length;
      return (async function* () {
        for (let at = offset; at < blob.length; at += 1000) {
          await spoil?.(at, attempt);
          yield blob.subarray(at, at + 1000);
        }
      })();
    },
  };
  return { source, offsets };
}

interface Place {
  readonly records: RegistryRecords;
  readonly images: ImageStore;
  readonly snapshots: LayeredSnapshotter;
  readonly content: Content;
  readonly directory: string;
  take(layers: readonly LayerSource[], signal?: AbortSignal): Promise<string[]>;
  /** Files of the top layer, as a container sees them. */
  look<T>(chainId: Digest, read: (root: string) => T): Promise<T>;
  /** Nothing is left of what failed. */
  assertClean(layers?: number): Promise<void>;
}

const drivers: readonly [string, (options: LayeredOptions) => LayeredSnapshotter][] = [
  ['overlay2', createOverlaySnapshotter],
  ['vfs', createVfsSnapshotter],
];

async function place(
  create: (options: LayeredOptions) => LayeredSnapshotter,
  context: { after(work: () => Promise<void>): void },
  prepare?: (layers: string) => Promise<void>,
): Promise<Place> {
  const directory = fs.mkdtempSync(join(tmpdir(), 'gantry-intake-'));
  await prepare?.(join(directory, 'layers'));
  const database = new Database(join(directory, 'db'));
  const content = await Content.open(directory);
  const snapshots = create({ root: join(directory, 'layers'), database, durable: false });
  const images = new ImageStore(database, content, snapshots);
  // Stands for the images that would be made: what was taken in stays.
  const kept = images.hold();
  context.after(async () => {
    kept[Symbol.dispose]();
    await snapshots.settled();
    database[Symbol.dispose]();
    fs.rmSync(directory, { recursive: true, force: true });
  });
  return {
    images,
    records: new RegistryRecords(database),
    snapshots,
    content,
    directory,
    take: async (layers, signal = new AbortController().signal) => {
      const steps: string[] = [];
      using hold = images.hold();
      const observe = (layer: LayerSource, step: LayerStep): void => {
        const name = `${layers.indexOf(layer)} ${step.step}`;
        if (steps.at(-1) !== name) steps.push(name);
      };
      await takeInLayers(layers, { images, tar: tarCodec, hold, observe, secondMs: 1 }, signal);
      for (const chainId of hold.layers) kept.layers.add(chainId);
      return steps;
    },
    look: async (chainId, read) => {
      const target = join(directory, 'look');
      await snapshots.prepare('look', chainId);
      await snapshots.mount('look', target);
      try {
        return read(target);
      } finally {
        await snapshots.unmount('look', target);
        await snapshots.remove('look');
      }
    },
    assertClean: async (layers = 0) => {
      await snapshots.settled();
      assert.equal(snapshots.layers().length, layers);
      assert.deepEqual(fs.readdirSync(join(directory, 'layers/tmp')), []);
      assert.deepEqual(fs.readdirSync(join(directory, 'layers/trash')), []);
    },
  };
}

const noise = (seed: number, sizeBytes: number): string => {
  let state = seed;
  return Array.from({ length: sizeBytes }, () => {
    state = (state * 1_103_515_245 + 12_345) & 0x7fffffff;
    return String.fromCharCode(33 + ((state >> 16) % 90));
  }).join('');
};

for (const [driver, create] of drivers) {
  test(`${driver}: layers of any compression are taken in together and lie in order`, async (context) => {
    const here = await place(create, context);
    const tars = await Promise.all(
      [1, 2, 3, 4, 5].map((index) =>
        layerTar([
          { path: 'same', text: `from ${index}` },
          { path: `own/${index}`, text: noise(index, 20_000) },
          ...(index === 4 ? [{ path: 'own/.wh.2' }] : []),
        ]),
      ),
    );
    const pack = [(tar: Buffer) => tar, gzipSync, zstdCompressSync];
    const layers = tars.map((tar, index) => serve(tar, (pack[index % 3] as (tar: Buffer) => Buffer)(tar)).source);
    const steps = await here.take(layers);
    assert.deepEqual(
      steps.filter((step) => step.endsWith('complete')),
      layers.map((_, index) => `${index} complete`),
    );
    const top = chainIds(layers.map(({ diffId }) => diffId)).at(-1) as Digest;
    const names = await here.look(top, (root) => [
      fs.readFileSync(join(root, 'same'), 'utf8'),
      ...fs.readdirSync(join(root, 'own')),
    ]);
    assert.deepEqual(names, ['from 5', '1', '3', '4', '5']);
    for (const { diffId, digest } of layers) assert.equal(here.images.layerBlob(diffId)?.digest, digest);
    assert.deepEqual(
      await here.take(layers),
      layers.map((_, index) => `${index} exists`),
    );
  });

  test(`${driver}: a transfer that breaks off goes on where it was, and one given up is continued later`, async (context) => {
    const here = await place(create, context);
    const tar = await layerTar([{ path: 'file', text: noise(7, 50_000) }]);
    const broken = serve(tar, tar, (offset, attempt) => {
      if (attempt < 3 && offset >= attempt * 20_000) throw new Error('connection reset');
    });
    const steps = await here.take([broken.source]);
    assert.deepEqual(broken.offsets, [0, 20_000, 40_000]);
    assert.ok(steps.includes('0 retrying'), steps.join());

    const other = await layerTar([{ path: 'file', text: noise(8, 50_000) }]);
    const leave = new AbortController();
    const cancelled = serve(other, other, (offset) => {
      if (offset >= 30_000) leave.abort(new Error('client gone'));
    });
    await assert.rejects(here.take([cancelled.source], leave.signal), /client gone/);
    const [partial] = fs.readdirSync(join(here.directory, 'ingest'));
    assert.match(partial ?? '', /^partial-[0-9a-f]{64}$/);
    // What a crash leaves is found by the next process too.
    const reopened = await Content.open(here.directory);
    assert.equal(reopened.has(cancelled.source.digest), false);
    const again = serve(other, other);
    await here.take([again.source]);
    assert.ok((again.offsets[0] ?? 0) >= 30_000, String(again.offsets));
    assert.deepEqual(fs.readdirSync(join(here.directory, 'ingest')), []);
    await here.assertClean(2);
  });

  test(`${driver}: a server that keeps failing, says no, or lies is an error that leaves nothing`, async (context) => {
    const here = await place(create, context);
    const tar = await layerTar([{ path: 'file', text: noise(9, 5_000) }]);
    const failing = serve(tar, tar, () => {
      throw new Error('connection reset');
    });
    await assert.rejects(here.take([failing.source]), /connection reset/);
    assert.equal(failing.offsets.length, 5);
    const denied = serve(tar, tar, () => {
      throw new GantryError('forbidden', 'denied');
    });
    await assert.rejects(here.take([denied.source]), /denied/);
    assert.equal(denied.offsets.length, 1);
    const honest = serve(tar, tar).source;
    const wrong = { ...serve(tar, Buffer.from(tar).fill(7, 600, 700)).source, digest: honest.digest };
    await assert.rejects(here.take([wrong]), /filesystem layer verification failed for digest/);
    const long = { ...honest, sizeBytes: honest.sizeBytes - 512 };
    await assert.rejects(here.take([long]), /larger than/);
    const otherDiff = { ...honest, diffId: digestOf('something else') };
    await assert.rejects(here.take([otherDiff]), /layers from manifest don't match image configuration/);
    await here.images.collection.collect();
    assert.deepEqual(fs.readdirSync(join(here.directory, 'blobs/sha256')), []);
    assert.deepEqual(fs.readdirSync(join(here.directory, 'ingest')), []);
    await here.assertClean();
  });

  test(`${driver}: a layer that two want at the same time comes once, and stays when one of them leaves`, async (context) => {
    const here = await place(create, context);
    const tar = await layerTar([{ path: 'file', text: noise(3, 30_000) }]);
    const { promise: opened, resolve: open } = Promise.withResolvers<void>();
    const shared = serve(tar, tar, () => opened);
    const leave = new AbortController();
    const first = here.take([shared.source], leave.signal);
    const second = here.take([{ ...shared.source }]);
    await eventually(() => shared.offsets.length > 0, { what: () => 'the download to begin' });
    leave.abort(new Error('client gone'));
    await assert.rejects(first, /client gone/);
    open();
    assert.ok((await second).includes('0 complete'));
    assert.deepEqual(shared.offsets, [0]);
    // The same files over another parent come from the blob that is here.
    const below = await layerTar([{ path: 'below', text: 'x' }]);
    await here.take([serve(below, below).source, shared.source, shared.source]);
    assert.deepEqual(shared.offsets, [0]);
    await here.assertClean(4);
  });
}

/** A header whose size field says `size` in GNU's binary form; nothing of it follows. */
async function lyingSize(size: bigint): Promise<Buffer> {
  const tar = await layerTar([{ path: 'huge', text: 'x' }]);
  tar.fill(0, 124, 136);
  tar.writeBigUInt64BE(size, 128);
  tar[124] = 0x80;
  tar.fill(0x20, 148, 156);
  let sum = 0;
  for (let at = 0; at < 512; at += 1) sum += tar[at] as number;
  tar.write(`${sum.toString(8).padStart(6, '0')}\0 `, 148, 'latin1');
  return tar;
}

function paxLie(records: string): Promise<Buffer> {
  return layerTar([{ path: 'lie', text: records }]).then((tar) => {
    tar.write('x', 156, 'latin1');
    tar.fill(0x20, 148, 156);
    let sum = 0;
    for (let at = 0; at < 512; at += 1) sum += tar[at] as number;
    tar.write(`${sum.toString(8).padStart(6, '0')}\0 `, 148, 'latin1');
    return tar;
  });
}

/** What is refused, with the text that says why. */
const REFUSED: readonly [string, () => Promise<Buffer>, RegExp][] = [
  ['a path above the root', () => layerTar([{ path: '../../escape', text: 'x' }]), /outside of/],
  [
    'a hard link above the root',
    () => layerTar([{ path: 'h', type: 'link', linkPath: '../../../outside/secret' }]),
    /outside of|no such file/,
  ],
  [
    'a hard link through a link',
    () =>
      layerTar([
        { path: 'l', type: 'symlink', linkPath: '/outside' },
        { path: 'h', type: 'link', linkPath: 'l/secret' },
      ]),
    /no such file/,
  ],
  [
    'a file through a link to nowhere',
    () =>
      layerTar([
        { path: 'away', type: 'symlink', linkPath: '/outside' },
        { path: 'away/written', text: 'x' },
      ]),
    /file exists/,
  ],
  ['a whiteout of the parent', () => layerTar([{ path: 'dir/.wh...' }]), /invalid whiteout/],
  ['a whiteout of nothing', () => layerTar([{ path: 'dir/.wh.' }]), /invalid whiteout/],
  ['petabytes in a header', () => lyingSize(1n << 50n), /unexpected EOF/],
  ['more than a number in a header', () => lyingSize(1n << 62n), /invalid tar header/],
  ['petabytes in a PAX record', () => paxLie('28 size=1125899906842624000\n'), /invalid tar header|unexpected EOF/],
  ['a PAX record longer than its block', () => paxLie('999999 path=x\n'), /invalid tar header/],
  ['a PAX size below zero', () => paxLie('12 size=-100\n'), /invalid tar header|unexpected EOF/],
  [
    'a sparse map that lies',
    () =>
      paxLie(
        '25 GNU.sparse.major=0\n25 GNU.sparse.minor=1\n32 GNU.sparse.map=0,10,5,1000000\n25 GNU.sparse.size=100\n',
      ),
    /invalid tar header|unexpected EOF/,
  ],
  ['names of 5 KB', () => layerTar([{ path: 'n'.repeat(5_000), text: 'x' }]), /name too long/],
  [
    '100,000 directories deep',
    () => layerTar([{ path: 'd/'.repeat(100_000), type: 'directory' }]),
    /name too long|too many levels/,
  ],
  [
    'a truncated archive',
    async () => (await layerTar([{ path: 'f', text: noise(1, 5_000) }])).subarray(0, 3_000),
    /unexpected EOF/,
  ],
];

for (const [driver, create] of drivers) {
  test(`${driver}: archives made to break out or to lie are refused and leave nothing`, async (context) => {
    const here = await place(create, context);
    const outside = join(here.directory, 'outside');
    fs.mkdirSync(outside);
    fs.writeFileSync(join(outside, 'secret'), 'secret');
    const before = process.memoryUsage.rss();
    for (const [what, make, error] of REFUSED) {
      const tar = await make();
      for (const blob of [tar, gzipSync(tar)]) {
        using hold = here.images.hold();
        const stored = await here.content.write(once(blob), { lease: hold.lease });
        const options = { images: here.images, tar: tarCodec, hold, parent: undefined };
        await assert.rejects(applyBlob(stored, options), error, what);
      }
      assert.deepEqual(fs.readdirSync(outside), ['secret'], what);
      await here.assertClean();
    }
    assert.ok(process.memoryUsage.rss() - before < 200 * 1024 * 1024, 'memory stays bounded');
    await here.images.collection.collect();
    assert.deepEqual(fs.readdirSync(join(here.directory, 'blobs/sha256')), []);
  });

  test(`${driver}: links, devices and doubled entries stay inside the root`, async (context) => {
    const here = await place(create, context);
    const tar = await layerTar([
      { path: 'inside', type: 'directory' },
      { path: 'away', type: 'symlink', linkPath: '/../../inside' },
      { path: 'away/written', text: 'through an absolute link' },
      { path: '/absolute', text: 'x' },
      { path: 'twice', text: 'first' },
      { path: 'twice', type: 'symlink', linkPath: '/etc/passwd' },
      { path: 'twice', text: 'last' },
      { path: 'pipe', type: 'fifo' },
      { path: 'disk', type: 'block', deviceMajor: 8, deviceMinor: 0 },
      { path: 'deep/'.repeat(400), type: 'directory' },
      { path: 'deep-end', text: 'after the long one' },
    ]);
    const layer = serve(tar, gzipSync(tar)).source;
    await here.take([layer]);
    const seen = await here.look(layer.diffId, (root) => [
      fs.readFileSync(join(root, 'twice'), 'utf8'),
      fs.readFileSync(join(root, 'absolute'), 'utf8'),
      fs.lstatSync(join(root, 'pipe')).isFIFO(),
      fs.lstatSync(join(root, 'disk')).isBlockDevice(),
      fs.existsSync(join(root, 'deep/'.repeat(400))),
      fs.readFileSync(join(root, 'inside/written'), 'utf8'),
    ]);
    assert.deepEqual(seen, ['last', 'x', true, true, true, 'through an absolute link']);
  });
}

test('an extraction of a gzip bomb stops when its client leaves', async (context) => {
  const here = await place(createOverlaySnapshotter, context);
  // 4 GiB of zeros in 4 MiB: far more than is extracted before the client has gone.
  const header = makeEntry('bomb', 'file', { sizeBytes: 4 * 1024 ** 3 });
  const zeros = gzipSync(Buffer.alloc(64 * 1024 * 1024), { level: 1 });
  const blob = Buffer.concat([gzipSync(tarCodec.header(header)), ...Array.from({ length: 64 }, () => zeros)]);
  using hold = here.images.hold();
  const stored = await here.content.write(once(blob), { lease: hold.lease });
  const leave = new AbortController();
  const options = { images: here.images, tar: tarCodec, hold, parent: undefined };
  const applying = applyBlob(stored, options, leave.signal);
  const tmp = join(here.directory, 'layers/tmp');
  await eventually(() => fs.readdirSync(tmp).length > 0, { what: () => 'the extraction to begin' });
  leave.abort(new Error('client gone'));
  await assert.rejects(applying, /client gone/);
  await here.assertClean();
});

test('layers that a power loss may have damaged are extracted again from their archives', async (context) => {
  const directory = fs.mkdtempSync(join(tmpdir(), 'gantry-intake-'));
  const database = new Database(join(directory, 'db'));
  context.after(() => {
    database[Symbol.dispose]();
    fs.rmSync(directory, { recursive: true, force: true });
  });
  const root = join(directory, 'layers');
  const content = await Content.open(directory);
  const one = createOverlaySnapshotter({ root, database, boot: 'one' });
  const images = new ImageStore(database, content, one);
  const tars = [await layerTar([{ path: 'low', text: 'low' }]), await layerTar([{ path: 'high', text: 'high' }])];
  using hold = images.hold();
  const layers = tars.map((tar) => serve(tar, gzipSync(tar)).source);
  await takeInLayers(layers, { images, tar: tarCodec, hold, observe: () => {} }, new AbortController().signal);
  const marks = (): number => Number(database.get('SELECT count(*) AS n FROM snapshot_unsynced')?.['n']);
  assert.equal(marks(), 2, 'not surely on the disk yet');
  await one.settled();
  assert.equal(marks(), 0, 'on the disk');
  // The power goes before the disk had it: the marks are there, the files damaged or gone.
  const directories = database.all('SELECT chain_id, directory FROM snapshot_layers');
  for (const row of directories)
    database.run("INSERT INTO snapshot_unsynced VALUES ('overlay2', ?, 'one')", row['chain_id'] as string);
  fs.writeFileSync(join(root, String(directories[0]?.['directory']), 'diff/low'), '');
  fs.rmSync(join(root, String(directories[1]?.['directory'])), { recursive: true });
  const two = createOverlaySnapshotter({ root, database, boot: 'two' });
  await two.recover(new Set());
  const after = new ImageStore(database, content, two);
  assert.deepEqual(await two.repair((diffId) => after.openLayer(diffId)), []);
  const top = chainIds(layers.map(({ diffId }) => diffId)).at(-1) as Digest;
  await two.prepare('look', top);
  await two.mount('look', join(directory, 'look'));
  assert.equal(fs.readFileSync(join(directory, 'look/low'), 'utf8'), 'low');
  assert.equal(fs.readFileSync(join(directory, 'look/high'), 'utf8'), 'high');
  await two.unmount('look', join(directory, 'look'));
  await two.remove('look');
  await two.settled();
  assert.equal(marks(), 0);
});

async function collect(source: AsyncIterable<Buffer>): Promise<Buffer> {
  const chunks: Buffer[] = [];
  for await (const chunk of source) chunks.push(chunk);
  return Buffer.concat(chunks);
}

test('an OCI layout of compressed layers is loaded and saved with the same manifest, and loads again', async (context) => {
  const here = await place(createOverlaySnapshotter, context);
  const tars = [
    await layerTar([{ path: 'one', text: noise(1, 400_000) }]),
    await layerTar([{ path: 'two', text: noise(2, 400_000) }]),
  ];
  const packed = [gzipSync(tars[0] as Buffer), zstdCompressSync(tars[1] as Buffer)];
  const config = Buffer.from(
    JSON.stringify({
      architecture: process.arch === 'arm64' ? 'arm64' : 'amd64',
      os: 'linux',
      rootfs: { type: 'layers', diff_ids: tars.map((tar) => digestOf(tar)) },
    }),
  );
  const describe = (mediaType: string, bytes: Buffer): object => ({
    mediaType,
    digest: digestOf(bytes),
    size: bytes.length,
  });
  const layerType = 'application/vnd.oci.image.layer.v1.tar';
  const manifest = Buffer.from(
    JSON.stringify({
      schemaVersion: 2,
      mediaType: 'application/vnd.oci.image.manifest.v1+json',
      config: describe('application/vnd.oci.image.config.v1+json', config),
      layers: packed.map((blob, at) => describe(`${layerType}+${at === 0 ? 'gzip' : 'zstd'}`, blob)),
      annotations: { made: 'by hand' },
    }),
  );
  const index = {
    schemaVersion: 2,
    manifests: [
      {
        ...describe('application/vnd.oci.image.manifest.v1+json', manifest),
        annotations: { 'org.opencontainers.image.ref.name': 'example.com/kept:1' },
      },
    ],
  };
  const blobs = [...packed, config, manifest].map((bytes) => ({
    path: `blobs/sha256/${digestOf(bytes).slice(7)}`,
    bytes,
  }));
  const files = [
    ...blobs,
    { path: 'index.json', bytes: Buffer.from(JSON.stringify(index)) },
    { path: 'oci-layout', bytes: Buffer.from('{"imageLayoutVersion":"1.0.0"}') },
  ];
  const archive = writeArchive(
    tarCodec,
    files.map(({ path, bytes }) => ({
      entry: makeEntry(path, 'file', { sizeBytes: bytes.length }),
      content: async function* () {
        yield bytes;
      },
    })),
  );
  const load = async (at: Place, source: AsyncIterable<Buffer>): Promise<void> =>
    loadImages({ images: at.images, records: at.records, tar: tarCodec, emit: () => {} }, source, {
      quiet: true,
      write: () => {},
    });
  await load(here, archive);
  const save = (at: Place): Promise<Buffer> =>
    collect(
      saveImages({ images: at.images, records: at.records, tar: tarCodec, emit: () => {} }, ['example.com/kept:1']),
    );
  const saved = await save(here);
  const names: string[] = [];
  let listed = '';
  for await (const { entry, content } of tarCodec.read(once(saved))) {
    names.push(entry.path);
    if (entry.path === 'index.json') listed = (await collect(content)).toString();
  }
  for (const { path } of blobs) assert.ok(names.includes(path), `${path} is saved as it came`);
  assert.equal(JSON.parse(listed).manifests[0].digest, digestOf(manifest));
  const other = await place(createOverlaySnapshotter, context);
  await load(other, once(saved));
  assert.deepEqual(await save(other), saved);
});

for (const [driver, create] of drivers) {
  test(`${driver}: squashing makes one layer of those above a base, with the same files`, async (context) => {
    const here = await place(create, context);
    const tars = [
      await layerTar([
        { path: 'kept', text: 'kept' },
        { path: 'gone', text: 'gone' },
        { path: 'dir', type: 'directory' },
        { path: 'dir/old', text: 'old' },
      ]),
      await layerTar([{ path: 'passing', text: noise(1, 9_000) }, { path: '.wh.gone' }]),
      await layerTar([
        { path: '.wh.passing' },
        { path: 'dir', type: 'directory' },
        { path: 'dir/.wh..wh..opq' },
        { path: 'dir/new', text: 'new', mode: 0o4755 },
        { path: 'dir/hard', type: 'link', linkPath: 'dir/new' },
      ]),
    ];
    const layers = tars.map((tar) => serve(tar, gzipSync(tar)).source);
    await here.take(layers);
    const diffIds = layers.map(({ diffId }) => diffId);
    const make = (count: number): ReturnType<ImageStore['create']> => {
      const history = diffIds.slice(0, count).map((_, at) => ({ created_by: `step ${at}` }));
      const rootfs = { type: 'layers', diff_ids: diffIds.slice(0, count) };
      return here.images.create(Buffer.from(JSON.stringify({ architecture: 'amd64', os: 'linux', rootfs, history })));
    };
    const [base, image] = [await make(1), await make(3)];
    for (const under of [base, undefined]) {
      const squashed = await squashImage({ images: here.images, tar: tarCodec }, { image, base: under });
      const { rootfs, history = [] } = squashed.config;
      assert.equal(rootfs.diff_ids.length, under === undefined ? 1 : 2);
      assert.deepEqual(
        history.map(({ empty_layer }) => empty_layer === true),
        under === undefined ? [true, true, true, false] : [false, true, true, false],
      );
      const seen = await here.look(squashed.topLayer as Digest, (root) => [
        fs.readFileSync(join(root, 'kept'), 'utf8'),
        fs.existsSync(join(root, 'gone')) || fs.existsSync(join(root, 'passing')),
        fs.readdirSync(join(root, 'dir')).join(),
        fs.statSync(join(root, 'dir/new')).mode & 0o7777,
        fs.statSync(join(root, 'dir/hard')).ino === fs.statSync(join(root, 'dir/new')).ino,
      ]);
      assert.deepEqual(seen, ['kept', false, 'hard,new', 0o4755, true]);
      const own = here.images.layerBlob(rootfs.diff_ids.at(-1) as Digest);
      assert.ok((own?.tarSizeBytes ?? 0) < 9_000, 'what came and went is in no layer');
    }
    assert.ok(here.images.get(image.id) !== undefined);
  });
}

/** A small disk for the layers, and what a bomb becomes. */
const DISK_BYTES = 96 * 1024 * 1024;
const BOMB_BYTES = 256 * 1024 * 1024;

for (const [driver, create] of drivers) {
  test(`${driver}: a bomb is stopped before the disk is full, and leaves nothing`, async (context) => {
    let layers = '';
    const here = await place(create, context, async (path) => {
      layers = path;
      fs.mkdirSync(layers);
      const mounted = await run('mount', ['-t', 'tmpfs', '-o', `size=${DISK_BYTES}`, 'tmpfs', layers]);
      assert.equal(mounted.code, 0, mounted.stderr);
      context.after(async () => void (await run('umount', ['-l', layers])));
    });
    const free = (): number => {
      const { bavail, bsize } = fs.statfsSync(layers);
      return bavail * bsize;
    };
    const before = free();
    // Not zeros: those may become holes.
    const part = gzipSync(Buffer.alloc(BOMB_BYTES / 8, 1), { level: 1 });
    const header = gzipSync(tarCodec.header(makeEntry('large', 'file', { sizeBytes: BOMB_BYTES })));
    const blob = Buffer.concat([header, ...Array.from({ length: 8 }, () => part)]);
    assert.ok(blob.length < BOMB_BYTES / 100);
    await assert.rejects(
      here.take([serve(TAR_END, blob).source]),
      /no space left on device: unpacking stopped with \d+ bytes free/,
    );
    await eventually(() => free() > before - 1024 * 1024, { what: () => 'its files to be gone' });
    assert.equal(here.snapshots.layers().length, 0);
  });

  test(`${driver}: times of a layer are set to the nanosecond, and its bytes are given back`, async (context) => {
    const here = await place(create, context);
    const modifiedNs = 1_600_000_000_123_456_789n;
    const tar = await layerTar([
      { path: 'directory', type: 'directory', modifiedNs },
      { path: 'directory/file', text: 'x', modifiedNs: modifiedNs + 1n },
      { path: 'link', type: 'symlink', linkPath: 'directory', modifiedNs: modifiedNs + 2n },
    ]);
    const { source } = serve(tar, gzipSync(tar));
    await here.take([source]);
    const times = await here.look(source.diffId, (root) =>
      ['directory', 'directory/file', 'link'].map((path) => fs.lstatSync(join(root, path), { bigint: true }).mtimeNs),
    );
    assert.deepEqual(times, [modifiedNs, modifiedNs + 1n, modifiedNs + 2n]);
    assert.equal(here.images.layerBlob(source.diffId)?.digest, source.digest, 'what save and push give');
    assert.ok((await collect(here.images.openLayer(source.diffId))).equals(tar));
  });
}
