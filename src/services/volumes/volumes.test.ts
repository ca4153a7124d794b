import assert from 'node:assert/strict';
import {
  chmodSync,
  existsSync,
  lstatSync,
  mkdirSync,
  mkdtempSync,
  readlinkSync,
  rmSync,
  symlinkSync,
  writeFileSync,
} from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { test } from 'node:test';
import { Database } from '#system/database/database.ts';
import { copyUp } from './copy-up.ts';
import { StoredVolumes } from './volumes.ts';

function scratch(): { readonly path: string } & Disposable {
  const path = mkdtempSync(join(tmpdir(), 'volumes-'));
  return { path, [Symbol.dispose]: () => rmSync(path, { recursive: true, force: true }) };
}

test('a volume is created once, referenced, and removed only when free', async () => {
  using directory = scratch();
  using database = new Database(':memory:');
  const volumes = new StoredVolumes(database, directory.path);
  const first = await volumes.create('data', { reference: 'c1', labels: { a: 'b' } });
  assert.equal(first.created, true);
  assert.equal(first.volume.Mountpoint, join(directory.path, 'data', '_data'));
  assert.deepEqual(first.volume.Labels, { a: 'b' });
  assert.equal((await volumes.create('data', { reference: 'c2' })).created, false);
  await assert.rejects(volumes.remove('data'), {
    message: 'remove data: volume is in use - [c1, c2]',
    kind: 'conflict',
  });
  volumes.release('c1');
  volumes.release('c2', 'data');
  await volumes.remove('data');
  assert.ok(!existsSync(join(directory.path, 'data')));
  assert.throws(() => volumes.get('data'), { message: 'get data: no such volume', kind: 'notFound' });
  await assert.rejects(volumes.remove('data'), { kind: 'notFound' });
  await volumes.remove('data', true);
});

test('an empty name makes an anonymous volume', async () => {
  using directory = scratch();
  using database = new Database(':memory:');
  const volumes = new StoredVolumes(database, directory.path);
  const { volume } = await volumes.create('');
  assert.match(volume.Name ?? '', /^[0-9a-f]{64}$/);
  assert.equal(volumes.isAnonymous(volume.Name ?? ''), true);
  assert.equal(await volumes.isEmpty(volume.Name ?? ''), true);
});

test('bad names, drivers and options get docker’s texts', async () => {
  using directory = scratch();
  using database = new Database(':memory:');
  const volumes = new StoredVolumes(database, directory.path);
  const bad = (name: string, message: RegExp | string, options = {}): Promise<void> =>
    assert.rejects(volumes.create(name, options), { message });
  await bad('a', 'create a: volume name is too short, names should be at least two alphanumeric characters');
  await bad('../x', /^create \.\.\/x: "\.\.\/x" includes invalid characters for a local volume name/);
  await bad('ok', 'create ok: error looking up volume plugin nfs: plugin "nfs" not found', { driver: 'nfs' });
  await bad('ok', 'create ok: invalid option: "x"', { options: { x: '1' } });
  await bad('ok', 'create ok: missing required option: "device"', { options: { type: 'tmpfs' } });
  assert.deepEqual(volumes.list(), []);
});

test('a volume with options is mounted for its first holder and unmounted after its last', async () => {
  using directory = scratch();
  using database = new Database(':memory:');
  const calls: string[] = [];
  let isMounted = false;
  const mounter = {
    mount: (source: string, target: string, type: string, options: string) => {
      isMounted = true;
      calls.push(`mount ${source} ${target} ${type} ${options}`);
    },
    unmount: (target: string) => {
      isMounted = false;
      calls.push(`unmount ${target}`);
    },
    isMounted: () => isMounted,
  };
  const volumes = new StoredVolumes(database, directory.path, mounter);
  await volumes.create('ram', { options: { type: 'tmpfs', device: 'tmpfs', o: 'size=1m' } });
  const path = await volumes.mount('ram', 'c1');
  await volumes.mount('ram', 'c2');
  await volumes.unmount('ram', 'c1');
  await volumes.unmount('ram', 'c2');
  assert.deepEqual(calls, [`mount tmpfs ${path} tmpfs size=1m`, `unmount ${path}`]);

  await volumes.mount('ram', 'c3');
  calls.length = 0;
  const next = new StoredVolumes(database, directory.path, mounter);
  await next.mount('ram', 'c3');
  assert.deepEqual(calls, [], 'what an earlier daemon mounted for a container that still runs is not mounted twice');
  await next.unmount('ram', 'c3');
  assert.deepEqual(calls, [`unmount ${path}`]);
});

test('image content is copied into an empty volume once, links staying links', async () => {
  using directory = scratch();
  const rootfs = join(directory.path, 'root');
  const volume = join(directory.path, 'volume');
  mkdirSync(join(rootfs, 'real'), { recursive: true });
  mkdirSync(volume);
  writeFileSync(join(rootfs, 'real', 'file'), 'text');
  chmodSync(join(rootfs, 'real'), 0o1777);
  symlinkSync('/etc/passwd', join(rootfs, 'real', 'link'));
  // An absolute link resolves inside the root, not on the host.
  symlinkSync('/real', join(rootfs, 'data'));
  assert.equal(await copyUp(rootfs, '/data', volume), true);
  assert.equal(lstatSync(volume).mode & 0o7777, 0o1777);
  assert.equal(readlinkSync(join(volume, 'link')), '/etc/passwd');
  assert.equal(await copyUp(rootfs, '/data', volume), false);
  rmSync(join(volume, 'file'));
  rmSync(join(volume, 'link'));
  assert.equal(await copyUp(rootfs, '/absent', volume), false);
});
