/**
 * kill -9 while an image is loaded, pulled or removed, at random moments: what was acknowledged is there and whole,
 * what was not leaves nothing, and a pull that was cut off goes on from the bytes it had.
 */
import assert from 'node:assert/strict';
import { createHash } from 'node:crypto';
import { createReadStream, readdirSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { test } from 'node:test';
import { setTimeout as delay } from 'node:timers/promises';
import { type TarPiece, tarCodec, writeArchive } from '#services/images/tar-codec.ts';
import { makeEntry } from '#system/tar/entry.ts';
import { startDaemon, type TestDaemon } from '../harness/daemon.ts';
import { eventually, run } from '../harness/processes.ts';
import { randomNumbers } from '../harness/random.ts';
import { startRegistry } from '../harness/registry.ts';

const options = {
  skip: process.env['GANTRY_TEST_HOST'] === undefined ? false : 'kills a daemon of its own',
  timeout: 300_000,
};
const ROUNDS = 6;
const LAYERS = 4;
const FILES = 300;
/** Longest wait before the kill: about what an uninterrupted load takes. */
const MAX_KILL_DELAY_MS = 500;

async function bytesOf(source: AsyncIterable<Buffer>): Promise<Buffer> {
  const chunks: Buffer[] = [];
  for await (const chunk of source) chunks.push(chunk);
  return Buffer.concat(chunks);
}

const piece = (path: string, bytes: Buffer): TarPiece => ({
  entry: makeEntry(path, 'file', { sizeBytes: bytes.length }),
  content: async function* () {
    yield bytes;
  },
});

/** A docker-archive of several layers named `kill:1`. */
async function makeImage(): Promise<Buffer> {
  const layers: Buffer[] = [];
  for (let layer = 0; layer < LAYERS; layer += 1) {
    const files = Array.from({ length: FILES }, (_, index) =>
      piece(`layer${layer}/file${index}`, Buffer.alloc(3_000, `${layer} ${index} `)),
    );
    layers.push(await bytesOf(writeArchive(tarCodec, files)));
  }
  const diffIds = layers.map((bytes) => `sha256:${createHash('sha256').update(bytes).digest('hex')}`);
  const architecture = process.arch === 'arm64' ? 'arm64' : 'amd64';
  const config = { architecture, os: 'linux', rootfs: { type: 'layers', diff_ids: diffIds } };
  const manifest = [
    { Config: 'config.json', RepoTags: ['kill:1'], Layers: layers.map((_, index) => `layer${index}.tar`) },
  ];
  return bytesOf(
    writeArchive(tarCodec, [
      ...layers.map((bytes, index) => piece(`layer${index}.tar`, bytes)),
      piece('config.json', Buffer.from(JSON.stringify(config))),
      piece('manifest.json', Buffer.from(JSON.stringify(manifest))),
    ]),
  );
}

/** The image is whole: every file is there with its bytes. */
async function assertWhole(daemon: TestDaemon, context: string): Promise<void> {
  const id = await daemon.ok('create', 'kill:1', 'none');
  try {
    const exported = join(daemon.directory, 'exported.tar');
    await daemon.ok('export', '-o', exported, id);
    let files = 0;
    for await (const { entry, content } of tarCodec.read(createReadStream(exported) as AsyncIterable<Buffer>)) {
      const match = /^layer(\d+)\/file(\d+)$/.exec(entry.path);
      if (match === null) continue;
      files += 1;
      const wanted = Buffer.alloc(3_000, `${match[1]} ${match[2]} `);
      assert.ok(wanted.equals(await bytesOf(content)), `${entry.path} is damaged; ${context}`);
    }
    assert.equal(files, LAYERS * FILES, context);
  } finally {
    await daemon.ok('rm', id);
  }
}

/** Nothing half-made is left; bytes of a cut-off pull may be. */
async function assertNoLeftovers(daemon: TestDaemon, context: string): Promise<void> {
  let left: string[] = [];
  await eventually(
    () => {
      left = ['overlay2/tmp', 'overlay2/trash', 'ingest'].flatMap((area) =>
        readdirSync(join(daemon.dataRoot, area)).filter((name) => !name.startsWith('partial-')),
      );
      return left.length === 0;
    },
    { what: () => `nothing half-made (${context}): ${left.join(' ')}` },
  );
}

test('a daemon killed while it loads, pulls or removes an image has it whole or not at all', options, async (t) => {
  const seed = Number(process.env['GANTRY_TEST_SEED'] ?? Date.now() % 1_000_000);
  t.diagnostic(`GANTRY_TEST_SEED=${seed}`);
  const random = randomNumbers(seed);
  await using registry = await startRegistry();
  await using daemon = await startDaemon({ bridge: false, busybox: false });
  const archive = join(daemon.directory, 'image.tar');
  writeFileSync(archive, await makeImage());
  const remote = `${registry.host}/kill:1`;
  const copied = await run('skopeo', [
    'copy',
    '--dest-tls-verify=false',
    `docker-archive:${archive}`,
    `docker://${remote}`,
  ]);
  assert.equal(copied.code, 0, copied.stderr);
  let present: boolean = false;
  for (let round = 0; round < ROUNDS; round += 1) {
    const what: 'rmi' | 'load' | 'pull' = present ? 'rmi' : round % 2 === 0 ? 'load' : 'pull';
    const context: string = `seed ${seed}, round ${round}: ${what}`;
    const args = { rmi: ['rmi', '-f', 'kill:1'], load: ['load', '-i', archive], pull: ['pull', remote] }[what];
    const working = daemon.docker(args);
    await delay(random() * (present ? 100 : MAX_KILL_DELAY_MS));
    await daemon.kill();
    const acknowledged = (await working).code === 0;
    await daemon.start();
    const named: string = what === 'pull' ? remote : 'kill:1';
    present = (await daemon.docker(['image', 'inspect', named])).code === 0;
    if (what === 'rmi') assert.ok(!(acknowledged && present), `a removed image is back; ${context}`);
    else assert.ok(present || !acknowledged, `an acknowledged image is gone; ${context}`);
    if (present && what === 'pull') {
      await daemon.ok('tag', remote, 'kill:1');
      await daemon.ok('rmi', remote);
    }
    if (present) await assertWhole(daemon, context);
    else {
      // Compat: an image is there before its name is; one cut off in between is whole and dangling.
      await daemon.ok('image', 'prune', '-f');
      assert.equal(await daemon.ok('images', '-aq'), '', context);
    }
    await assertNoLeftovers(daemon, context);
    const checked = await daemon.gantry(['system', 'fsck']);
    assert.equal(checked.code, 0, `${context}: ${checked.stdout}${checked.stderr}`);
  }
});
