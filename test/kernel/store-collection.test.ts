/**
 * The image store under random interleavings: lanes load, take in, commit, tag, remove and prune images that share
 * layers, all at once on the real store. What a lane was told is there stays whole until that lane removes it, and
 * in the end nothing is missing and nothing is left.
 */
import assert from 'node:assert/strict';
import { mkdirSync, mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { test } from 'node:test';
import { setImmediate } from 'node:timers/promises';
import { gzipSync } from 'node:zlib';
import fc from 'fast-check';
import { commitContainer } from '#engine/images/commit.ts';
import { takeInLayers } from '#engine/images/intake.ts';
import { loadImages } from '#engine/images/load.ts';
import { pruneImages, removeImage } from '#engine/images/remove.ts';
import { saveImages } from '#engine/images/save.ts';
import type { Finding } from '#engine/system/fsck/finding.ts';
import { checkStore } from '#engine/system/fsck.ts';
import { Content } from '#services/content/content.ts';
import { encodeImageConfig } from '#services/images/config.ts';
import { RegistryRecords } from '#services/images/registry-records.ts';
import { ImageStore } from '#services/images/store.ts';
import { type TarPiece, tarCodec, writeArchive } from '#services/images/tar-codec.ts';
import { createOverlaySnapshotter } from '#services/snapshots/overlay.ts';
import { Database } from '#system/database/database.ts';
import { makeEntry } from '#system/tar/entry.ts';
import { type Digest, digestOf } from '#types/digest.ts';
import { GantryError } from '#types/errors.ts';
import { parseReference, withDefaultTag } from '#types/reference.ts';

const RUNS = Number(process.env['GANTRY_TEST_RUNS'] ?? 12);

async function gather(source: AsyncIterable<Buffer>): Promise<Buffer> {
  const chunks: Buffer[] = [];
  for await (const chunk of source) chunks.push(chunk);
  return Buffer.concat(chunks);
}

const file = (path: string, content: Buffer): TarPiece => ({
  entry: makeEntry(path, 'file', { sizeBytes: content.length }),
  content: async function* () {
    yield content;
  },
});

/** Four layers, and images that stack them in different ways. */
const LAYERS: readonly Buffer[] = await Promise.all(
  [0, 1, 2, 3].map((index) => gather(writeArchive(tarCodec, [file(`f${index}`, Buffer.alloc(3000, `${index}`))]))),
);
const STACKS: readonly (readonly number[])[] = [[0], [0, 1], [0, 1, 2], [0, 2], [1, 0], [3, 0, 1]];

interface ImageParts {
  readonly config: Buffer;
  readonly id: Digest;
  readonly archive: Buffer;
  readonly layers: readonly Buffer[];
}

async function makeImage(stack: readonly number[]): Promise<ImageParts> {
  const layers = stack.map((index) => LAYERS[index] as Buffer);
  const config = encodeImageConfig({
    architecture: 'amd64',
    os: 'linux',
    created: '2024-01-01T00:00:00Z',
    config: {},
    diffIds: layers.map((layer) => digestOf(layer)),
    history: [],
  });
  const manifest = [{ Config: 'c.json', RepoTags: null, Layers: stack.map((index) => `l${index}`) }];
  const archive = await gather(
    writeArchive(tarCodec, [
      ...stack.map((index) => file(`l${index}`, LAYERS[index] as Buffer)),
      file('c.json', config),
      file('manifest.json', Buffer.from(JSON.stringify(manifest))),
    ]),
  );
  return { config, id: digestOf(config), archive, layers };
}

const IMAGES: readonly ImageParts[] = await Promise.all(STACKS.map(makeImage));

type Action = 'load' | 'save' | 'take in' | 'cancel' | 'break' | 'commit' | 'remove' | 'prune' | 'collect';

interface Step {
  readonly action: Action;
  readonly image: number;
  /** Turns of the event loop before each piece of input. */
  readonly pace: number;
}

interface Place extends AsyncDisposable {
  readonly records: RegistryRecords;
  readonly images: ImageStore;
  readonly directory: string;
}

async function openPlace(): Promise<Place> {
  const directory = mkdtempSync(join(tmpdir(), 'gantry-collection-'));
  mkdirSync(join(directory, 'containers'));
  const database = new Database(':memory:');
  const snapshots = createOverlaySnapshotter({ root: join(directory, 'overlay2'), database, durable: false });
  const images = new ImageStore(database, await Content.open(directory), snapshots);
  return {
    images,
    records: new RegistryRecords(database),
    directory,
    [Symbol.asyncDispose]: async () => {
      await snapshots.settled();
      rmSync(directory, { recursive: true, force: true });
    },
  };
}

async function* paced(bytes: Buffer, pace: number, end = bytes.length): AsyncGenerator<Buffer> {
  for (let offset = 0; offset < end; offset += 1024) {
    for (let turn = 0; turn < pace; turn += 1) await setImmediate();
    yield bytes.subarray(offset, Math.min(end, offset + 1024));
  }
}

/** Every layer is there, extracted and as bytes. */
async function assertWhole(images: ImageStore, id: Digest, why: string): Promise<void> {
  const image = images.get(id);
  assert.ok(image !== undefined, `${why}: image ${id} is gone`);
  using hold = images.hold();
  for (const chainId of images.chain(id)) {
    hold.layers.add(chainId);
    assert.ok(images.snapshots.layer(chainId) !== undefined, `${why}: layer ${chainId} is gone`);
  }
  for (const diffId of image.config.rootfs.diff_ids) {
    assert.equal(digestOf(await gather(images.openLayer(diffId))), diffId, `${why}: layer ${diffId}`);
  }
}

class Lane {
  readonly #place: Place;
  readonly #number: number;
  readonly #owned = new Map<string, Digest>();

  constructor(place: Place, number: number) {
    this.#place = place;
    this.#number = number;
  }

  async run(steps: readonly Step[]): Promise<void> {
    for (const step of steps) {
      await this.#act(step).catch((error: unknown) => {
        // A name or a base that someone else removed first; what brings an image itself holds all it needs.
        const isRace = error instanceof GantryError && ['conflict', 'notFound'].includes(error.kind);
        if (!isRace || !['remove', 'commit', 'cancel'].includes(step.action)) throw error;
      });
      for (const [name, id] of this.#owned) await assertWhole(this.#place.images, id, `lane ${this.#number}: ${name}`);
    }
  }

  #own(index: number, id: Digest): void {
    const name = `lane${this.#number}:${index}`;
    this.#place.images.addReference(withDefaultTag(parseReference(name)), id);
    this.#owned.set(name, id);
  }

  async #act({ action, image: index, pace }: Step): Promise<void> {
    const { images, records } = this.#place;
    const parts = IMAGES[index] as ImageParts;
    const context = { images, records, tar: tarCodec, emit: () => undefined, uses: () => [] };
    const quiet = { quiet: true, write: () => undefined };
    switch (action) {
      case 'load': {
        // Loading gives no name; until it has one, a prune may take it: a hold stands for the client's next request.
        using hold = images.hold();
        for (const chainId of chainOf(parts)) hold.layers.add(chainId);
        await loadImages(context, paced(parts.archive, pace), quiet);
        if (images.get(parts.id) !== undefined) this.#own(index, parts.id);
        return;
      }
      case 'break': {
        const cut = paced(parts.archive, pace, parts.archive.length - 2048);
        await assert.rejects(loadImages(context, cut, quiet));
        return;
      }
      case 'take in':
        return this.#takeIn(index, { pace, compress: pace % 2 === 0 }, new AbortController().signal);
      case 'cancel': {
        const controller = new AbortController();
        const done = this.#takeIn(index, { pace, compress: false }, controller.signal);
        for (let turn = 0; turn < 5 * pace; turn += 1) await setImmediate();
        controller.abort(new GantryError('conflict', 'cancelled'));
        return done;
      }
      case 'commit':
        return this.#commit(index);
      case 'remove': {
        const name = `lane${this.#number}:${index}`;
        this.#owned.delete(name);
        await removeImage(context, name, { force: false, prune: true });
        return;
      }
      case 'save': {
        // Whoever removes the image meanwhile, the archive comes to its end.
        if (images.get(parts.id) === undefined) return;
        const saved = saveImages(context, [parts.id]);
        for await (const _ of saved) for (let turn = 0; turn < pace; turn += 1) await setImmediate();
        return;
      }
      case 'prune':
        await pruneImages(context, new Map());
        return;
      case 'collect':
        await images.collection.collect();
        return;
      default:
        return action satisfies never;
    }
  }

  async #takeIn(index: number, how: { pace: number; compress: boolean }, signal: AbortSignal): Promise<void> {
    const { images } = this.#place;
    const parts = IMAGES[index] as ImageParts;
    using hold = images.hold();
    const layers = parts.layers.map((layer) => {
      const bytes = how.compress ? gzipSync(layer) : layer;
      return {
        digest: digestOf(bytes),
        sizeBytes: bytes.length,
        diffId: digestOf(layer),
        open: async (offset: number) => paced(bytes.subarray(offset), how.pace),
      };
    });
    await takeInLayers(layers, { images, tar: tarCodec, hold, observe: () => undefined }, signal);
    const made = await images.create(parts.config);
    this.#own(index, made.id);
  }

  async #commit(index: number): Promise<void> {
    const { images } = this.#place;
    const base = images.get((IMAGES[index] as ImageParts).id);
    if (base === undefined) return;
    const key = digestOf(`lane ${this.#number}`).slice(7);
    await images.snapshots.prepare(key, base.topLayer);
    try {
      const made = await commitContainer(
        { images, emit: () => undefined },
        { id: key, imageId: base.id, snapshotKey: key, config: {}, command: ['x'] },
        { changes: [], author: '', comment: `${this.#number}`, reference: parseReference(`lane${this.#number}:made`) },
      );
      this.#owned.set(`lane${this.#number}:made`, made.id);
    } finally {
      await images.snapshots.remove(key);
      if (base.topLayer !== undefined) await images.collection.releaseLayer(base.topLayer);
    }
  }
}

function chainOf(parts: ImageParts): Digest[] {
  const chain: Digest[] = [];
  for (const layer of parts.layers) {
    const below = chain.at(-1);
    chain.push(below === undefined ? digestOf(layer) : digestOf(`${below} ${digestOf(layer)}`));
  }
  return chain;
}

async function findings(place: Place): Promise<Finding[]> {
  const found: Finding[] = [];
  const containers = { all: () => [], get: () => undefined, isReserved: () => true };
  const registries = { pull: () => Promise.reject(new Error('no registry here')) };
  const records = { places: () => [] };
  const paths = { dataRoot: place.directory, container: (id: string) => join(place.directory, 'containers', id) };
  await checkStore(
    { images: place.images, containers, paths, emit: () => undefined, registries, records, credentials: () => ({}) },
    { deep: true, repair: false, drop: false },
    (finding) => void found.push(finding),
    new AbortController().signal,
  );
  return found;
}

test('collection never takes what is in use or in flight, and leaves nothing that is not', {
  timeout: 300_000,
}, async () => {
  const step: fc.Arbitrary<Step> = fc.record({
    action: fc.constantFrom<Action>(
      'load',
      'save',
      'take in',
      'cancel',
      'break',
      'commit',
      'remove',
      'remove',
      'prune',
      'collect',
    ),
    image: fc.nat({ max: IMAGES.length - 1 }),
    pace: fc.nat({ max: 4 }),
  });
  const lanes = fc.array(fc.array(step, { minLength: 2, maxLength: 8 }), { minLength: 2, maxLength: 5 });
  await fc.assert(
    fc.asyncProperty(lanes, async (scripts) => {
      await using place = await openPlace();
      await Promise.all(scripts.map((steps, number) => new Lane(place, number).run(steps)));
      for (const image of place.images.list()) await assertWhole(place.images, image.id, 'in the end');
      assert.deepEqual(place.images.collection.unneededLayers(), []);
      await place.images.collection.collect();
      assert.deepEqual(await findings(place), []);
      for (const image of place.images.list()) await place.images.remove(image.id);
      await place.images.collection.collect();
      assert.deepEqual(place.images.snapshots.layers(), []);
      assert.deepEqual(await place.images.content.list(), { blobs: [], strangers: [], leftovers: [] });
    }),
    { numRuns: RUNS, endOnFailure: true },
  );
});
