/** A full disk under load, commit, tag and removal: a clear error, nothing lost, nothing left, and room is made by removing. */
import assert from 'node:assert/strict';
import { mkdirSync, rmSync, statfsSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { test } from 'node:test';
import { TestDaemon } from '../harness/daemon.ts';
import { eventually, run } from '../harness/processes.ts';

const foreign = process.env['GANTRY_TEST_HOST'] !== undefined;
const options = foreign ? { skip: 'needs a data root of our own; GANTRY_TEST_HOST names another engine' } : {};
const DISK_BYTES = 32 * 1024 * 1024;
const FULL = /no space left on device|database or disk is full/;

/** A daemon whose data root is a small file system of its own. */
async function onSmallDisk(work: (daemon: TestDaemon) => Promise<void>): Promise<void> {
  const daemon = new TestDaemon({ bridge: false });
  mkdirSync(daemon.dataRoot);
  const mounted = await run('mount', ['-t', 'tmpfs', '-o', `size=${DISK_BYTES}`, 'tmpfs', daemon.dataRoot]);
  assert.equal(mounted.code, 0, mounted.stderr);
  try {
    await daemon.start();
    await daemon.loadBusybox();
    await work(daemon);
  } finally {
    await daemon.stop();
    await run('umount', ['-l', daemon.dataRoot]);
    await daemon[Symbol.asyncDispose]();
  }
}

const freeBytes = (daemon: TestDaemon): number => {
  const about = statfsSync(daemon.dataRoot);
  return about.bavail * about.bsize;
};

async function assertWhole(daemon: TestDaemon, why: string): Promise<void> {
  const result = await daemon.gantry(['system', 'fsck', '--deep']);
  assert.equal(result.code, 0, `${why}: ${result.stdout}${result.stderr}`);
}

async function tarOf(daemon: TestDaemon, name: string, sizeBytes: number): Promise<string> {
  const directory = join(daemon.directory, name);
  mkdirSync(directory);
  writeFileSync(join(directory, 'file'), Buffer.alloc(sizeBytes, name));
  await run('tar', ['-C', directory, '-cf', `${directory}.tar`, 'file']);
  return `${directory}.tar`;
}

test('a full disk', options, async () => {
  await onSmallDisk(async (daemon) => {
    const images = async (): Promise<string> =>
      daemon.ok('images', '-a', '--no-trunc', '--format', '{{.Repository}} {{.ID}}');
    await daemon.ok('import', await tarOf(daemon, 'small', 100_000), 'small');
    await assertWhole(daemon, 'at the beginning');
    const before = await images();
    const free = freeBytes(daemon);

    // Room for the archive, not for the archive and its tree.
    const large = await daemon.docker(['import', await tarOf(daemon, 'large', 18_000_000), 'large']);
    assert.notEqual(large.code, 0);
    assert.match(large.stderr, FULL);
    const larger = await daemon.docker(['import', await tarOf(daemon, 'larger', 40_000_000), 'larger']);
    // The client may still be sending when the answer comes, and lose it.
    assert.notEqual(larger.code, 0);
    assert.equal(await images(), before, 'no image came of it');
    await daemon.ok('image', 'prune', '-f');
    await eventually(() => freeBytes(daemon) > free - 1_000_000, {
      what: () => `the room to come back: ${freeBytes(daemon)} of ${free} bytes`,
    });
    await assertWhole(daemon, 'after imports that failed');

    await daemon.ok('create', '--name', 'writer', 'busybox', 'true');
    await daemon.ok('cp', join(daemon.directory, 'large'), 'writer:/large');
    const commit = await daemon.docker(['commit', 'writer', 'large']);
    assert.notEqual(commit.code, 0);
    assert.match(commit.stderr, FULL);
    assert.equal(await images(), before);
    await daemon.ok('rm', 'writer');
    await daemon.ok('image', 'prune', '-f');
    await assertWhole(daemon, 'after a commit that failed');

    // Not a byte is left: what needs one fails, and removing works and makes room.
    const filling = join(daemon.dataRoot, 'filling');
    await run('dd', ['if=/dev/zero', `of=${filling}`, 'bs=4k']);
    let tagged = 0;
    let failure = '';
    for (; tagged < 3000 && failure === ''; tagged += 1) {
      const answer = await daemon.api('POST', `/v1.51/images/small/tag?repo=many&tag=t${tagged}`);
      if (answer.status !== 201) failure = answer.text;
    }
    assert.match(failure, FULL, 'tags are refused in the end');
    const told = await images();
    await daemon.ok('rmi', '-f', 'small');
    const names = (await images()).split('\n').filter((line) => line.startsWith('many')).length;
    assert.equal(names, told.split('\n').filter((line) => line.startsWith('many')).length);
    rmSync(filling);
    await assertWhole(daemon, 'after the disk was full');
    const held = await images();
    await daemon.kill();
    await daemon.start();
    assert.equal(await images(), held, 'what was acknowledged is what is there after a crash');
    await daemon.ok('tag', 'busybox', 'again');
    await assertWhole(daemon, 'in the end');
  });
});
