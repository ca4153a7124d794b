/** The conformance suite every snapshot driver passes, on real file systems. */
import assert from 'node:assert/strict';
import { execFileSync } from 'node:child_process';
import * as fs from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { test } from 'node:test';
import type { Snapshotter } from '#services/snapshots/contract.ts';
import type { LayeredOptions, LayeredSnapshotter } from '#services/snapshots/layered.ts';
import { createOverlaySnapshotter } from '#services/snapshots/overlay.ts';
import { createVfsSnapshotter } from '#services/snapshots/vfs.ts';
import { Database } from '#system/database/database.ts';
import { readMounts, tryUnmount } from '#system/kernel/mount.ts';
import { getXattr } from '#system/kernel/xattr.ts';
import type { TarEntry } from '#system/tar/contract.ts';
import { readTar } from '#system/tar/reader.ts';
import { TAR_END, tarBlocks } from '#system/tar/writer.ts';
import { type Digest, digestOf } from '#types/digest.ts';

type Piece = Partial<TarEntry> & { path: string; text?: string };

async function layerTar(pieces: readonly Piece[]): Promise<Buffer> {
  const parts: Buffer[] = [];
  for (const { text = '', ...fields } of pieces) {
    const type = fields.type ?? 'file';
    const entry: TarEntry = {
      type,
      linkPath: '',
      mode: type === 'directory' ? 0o755 : 0o644,
      uid: 0,
      gid: 0,
      userName: '',
      groupName: '',
      sizeBytes: Buffer.byteLength(text),
      modifiedNs: 1_500_000_000_000_000_000n,
      deviceMajor: 0,
      deviceMinor: 0,
      xattrs: new Map(),
      ...fields,
    };
    for await (const block of tarBlocks(entry, [Buffer.from(text)])) parts.push(block);
  }
  return Buffer.concat([...parts, TAR_END]);
}

async function* bytes(buffer: Buffer): AsyncGenerator<Buffer> {
  for (let at = 0; at < buffer.length; at += 10_000) yield buffer.subarray(at, at + 10_000);
}

interface Place {
  readonly root: string;
  readonly directory: string;
  open(): LayeredSnapshotter;
  readonly snapshots: LayeredSnapshotter;
}

const drivers: readonly [string, (options: LayeredOptions) => LayeredSnapshotter][] = [
  ['overlay2', createOverlaySnapshotter],
  ['vfs', createVfsSnapshotter],
];

for (const [driver, create] of drivers) {
  const place = (context: { after(work: () => Promise<void> | void): void }): Place => {
    const directory = fs.mkdtempSync(join(tmpdir(), 'gantry-snap-'));
    const root = join(directory, driver);
    const database = new Database(join(directory, 'db'));
    const opened: LayeredSnapshotter[] = [];
    const open = (): LayeredSnapshotter => {
      const made = create({ root, database, durable: false });
      opened.push(made);
      return made;
    };
    context.after(async () => {
      for (const each of opened) await each.settled();
      for (const entry of readMounts().reverse())
        if (entry.mountPoint.startsWith(`${directory}/`)) tryUnmount(entry.mountPoint, 2);
      database[Symbol.dispose]();
      fs.rmSync(directory, { recursive: true, force: true });
    });
    return { root, directory, open, snapshots: open() };
  };
  const apply = async (snapshots: Snapshotter, parent: Digest | undefined, pieces: readonly Piece[]): Promise<Digest> =>
    (await snapshots.applyLayer(parent, bytes(await layerTar(pieces)), {})).chainId;

  test(`${driver}: a layer has its digest, its size and exactly the files of its archive`, async (context) => {
    const { snapshots, directory } = place(context);
    const capability = Buffer.from('0100000200040000000000000000000000000000', 'hex');
    const tar = await layerTar([
      { path: 'bin', type: 'directory', mode: 0o1751, uid: 3, gid: 4, modifiedNs: 1_111_111_111_000_000_000n },
      { path: 'bin/ping', text: 'ping', mode: 0o4755, xattrs: new Map([['security.capability', capability]]) },
      { path: 'bin/hard', type: 'link', linkPath: 'bin/ping' },
      { path: 'bin/soft', type: 'symlink', linkPath: '/etc/../x', uid: 7, gid: 8 },
      { path: 'null', type: 'character', deviceMajor: 1, deviceMinor: 3, mode: 0o666 },
      { path: 'pipe', type: 'fifo', mode: 0o622 },
      { path: 'implied/deep/file', text: 'x', uid: 1000, gid: 1001, modifiedNs: 1_600_000_000_123_456_789n },
    ]);
    const layer = await snapshots.applyLayer(undefined, bytes(tar), { expected: digestOf(tar) });
    // Bytes of the file and, as docker counts them, of the links' targets.
    assert.deepEqual(layer, { chainId: digestOf(tar), diffId: digestOf(tar), parent: undefined, sizeBytes: 14 });
    await snapshots.prepare('one', layer.chainId);
    const target = join(directory, 'mnt');
    await snapshots.mount('one', target);
    const stat = (path: string): fs.BigIntStats => fs.lstatSync(join(target, path), { bigint: true });
    assert.equal(Number(stat('bin').mode) & 0o7777, 0o1751);
    assert.deepEqual([stat('bin').uid, stat('bin').gid, stat('bin').mtimeNs], [3n, 4n, 1_111_111_111_000_000_000n]);
    assert.equal(Number(stat('bin/ping').mode) & 0o7777, 0o4755);
    assert.deepEqual(getXattr(join(target, 'bin/ping'), 'security.capability'), capability);
    assert.equal(stat('bin/hard').ino, stat('bin/ping').ino);
    assert.equal(fs.readlinkSync(join(target, 'bin/soft')), '/etc/../x');
    assert.deepEqual([stat('bin/soft').uid, stat('bin/soft').gid], [7n, 8n]);
    assert.equal(stat('null').rdev, 259n);
    assert.equal(stat('pipe').isFIFO(), true);
    assert.equal(Number(stat('pipe').mode) & 0o777, 0o622);
    assert.deepEqual(
      [stat('implied/deep/file').uid, stat('implied/deep/file').mtimeNs],
      [1000n, 1_600_000_000_123_456_789n],
    );
    await snapshots.unmount('one', target);
  });

  test(`${driver}: whiteouts and opaque directories hide what is below and only that`, async (context) => {
    const { snapshots, directory } = place(context);
    const base = await apply(snapshots, undefined, [
      { path: 'keep', text: '1' },
      { path: 'gone', text: '1' },
      { path: 'dir', type: 'directory' },
      { path: 'dir/old', text: '1' },
      { path: 'tree/a/b', text: '1' },
      { path: 'again', type: 'directory' },
      { path: 'again/old', text: '1' },
      { path: 'becomes-file', type: 'directory' },
      { path: 'becomes-file/x', text: '1' },
      { path: 'becomes-dir', text: 'file' },
      { path: 'self', type: 'directory' },
      { path: 'self/old', text: '1' },
    ]);
    const top = await apply(snapshots, base, [
      { path: '.wh.gone' },
      { path: 'dir', type: 'directory' },
      { path: 'dir/new', text: '2' },
      { path: 'dir/.wh..wh..opq' },
      { path: '.wh.tree' },
      { path: '.wh.again' },
      { path: 'again', type: 'directory' },
      { path: 'again/new', text: '2' },
      { path: 'becomes-file', text: '2' },
      { path: 'becomes-dir', type: 'directory' },
      { path: 'becomes-dir/in', text: '2' },
      { path: '.wh..wh.plnk', text: 'ignored' },
      { path: '.wh.never-there' },
      { path: 'self', type: 'directory' },
      { path: 'self/new', text: '2' },
      { path: '.wh.self' },
    ]);
    await snapshots.prepare('one', top);
    const target = join(directory, 'mnt');
    await snapshots.mount('one', target);
    const found = execFileSync('find', ['.', '-mindepth', '1'], { cwd: target })
      .toString()
      .trim()
      .split('\n')
      .filter((path) => !/^\.\/(dev|proc|sys|etc|\.dockerenv)/.test(path))
      .sort();
    assert.deepEqual(found, [
      './again',
      './again/new',
      './becomes-dir',
      './becomes-dir/in',
      './becomes-file',
      './dir',
      './dir/new',
      './keep',
      './self',
      './self/new',
    ]);
    await snapshots.unmount('one', target);
  });

  test(`${driver}: changes are what docker diff shows, and a commit of them reproduces the tree`, async (context) => {
    const { snapshots, directory } = place(context);
    const base = await apply(snapshots, undefined, [
      { path: 'a', type: 'directory' },
      { path: 'a/edit', text: '1' },
      { path: 'a/drop', text: '1' },
      { path: 'a/b', type: 'directory' },
      { path: 'a/b/same', text: '1' },
      { path: 'replaced', type: 'directory' },
      { path: 'replaced/old', text: '1' },
      { path: 'untouched', type: 'directory' },
      { path: 'mode', text: '1' },
    ]);
    await snapshots.prepare('one', base);
    const target = join(directory, 'mnt');
    await snapshots.mount('one', target);
    assert.deepEqual(await snapshots.changes('one'), [], 'the init layer does not show');
    assert.equal(fs.existsSync(join(target, 'etc/resolv.conf')), true);
    assert.equal(fs.readlinkSync(join(target, 'etc/mtab')), '/proc/mounts');
    fs.writeFileSync(join(target, 'a/edit'), 'edited');
    fs.rmSync(join(target, 'a/drop'));
    fs.mkdirSync(join(target, 'a/b/new'));
    fs.writeFileSync(join(target, 'a/b/new/file'), 'new');
    fs.linkSync(join(target, 'a/b/new/file'), join(target, 'a/b/new/twin'));
    fs.rmSync(join(target, 'replaced'), { recursive: true });
    fs.mkdirSync(join(target, 'replaced'));
    fs.writeFileSync(join(target, 'replaced/new'), 'new');
    fs.chmodSync(join(target, 'mode'), 0o600);
    const changes = (await snapshots.changes('one')).map(({ path, kind }) => `${'CAD'[kind]} ${path}`);
    const expected = [
      'C /a',
      'C /a/b',
      'A /a/b/new',
      'A /a/b/new/file',
      'A /a/b/new/twin',
      'D /a/drop',
      'C /a/edit',
      'C /mode',
      'C /replaced',
      'A /replaced/new',
    ];
    // An opaque directory lists what it hides nowhere; a comparison of trees does.
    if (driver === 'vfs') expected.push('D /replaced/old');
    assert.deepEqual(changes, expected);
    assert.deepEqual((await snapshots.usage('one')).sizeBytes, 6 + 3 + 3 + 1);
    const before = execFileSync('find', ['.', '-printf', '%p %y %m %s %l\\n'], { cwd: target })
      .toString()
      .split('\n')
      .filter((line) => !line.startsWith('. '))
      .map((line) => line.replace(/ d (\d+) \d+ $/, ' d $1'))
      .sort();
    const layer = await snapshots.commit('one');
    assert.equal(layer.parent, base);
    const paths = [];
    for await (const { entry } of readTar(snapshots.diff('one'))) paths.push(entry.path);
    assert.equal(
      paths.some((path) => path.startsWith('etc')),
      false,
    );
    assert.ok(paths.includes('a/.wh.drop'));
    await snapshots.prepare('two', layer.chainId);
    const second = join(directory, 'second');
    await snapshots.mount('two', second);
    const after = execFileSync('find', ['.', '-printf', '%p %y %m %s %l\\n'], { cwd: second })
      .toString()
      .split('\n')
      .filter((line) => !line.startsWith('. '))
      .map((line) => line.replace(/ d (\d+) \d+ $/, ' d $1'))
      .sort();
    assert.deepEqual(after, before);
    const stat = fs.statSync(join(second, 'a/b/new/file'));
    assert.equal(stat.nlink, 2);
    await snapshots.unmount('two', second);
    await snapshots.unmount('one', target);
  });

  test(`${driver}: a lying or broken archive leaves nothing behind`, async (context) => {
    const { snapshots, root } = place(context);
    const tar = await layerTar([{ path: 'file', text: 'x'.repeat(5000) }]);
    await assert.rejects(snapshots.applyLayer(undefined, bytes(tar), { expected: digestOf('other') }));
    await assert.rejects(snapshots.applyLayer(undefined, bytes(tar.subarray(0, 2000)), {}), /unexpected EOF/);
    const aborted = AbortSignal.abort(new Error('stop'));
    await assert.rejects(snapshots.applyLayer(undefined, bytes(tar), {}, aborted), /stop/);
    await assert.rejects(snapshots.applyLayer(digestOf('no parent'), bytes(tar), {}), { kind: 'notFound' });
    await snapshots.settled();
    assert.deepEqual(snapshots.layers(), []);
    assert.deepEqual(fs.readdirSync(root).sort(), ['l', 'tmp', 'trash']);
    for (const area of ['l', 'tmp', 'trash']) assert.deepEqual(fs.readdirSync(join(root, area)), []);
  });

  test(`${driver}: hostile archives cannot write outside`, async (context) => {
    const { snapshots, directory } = place(context);
    const outside = join(directory, 'outside');
    fs.mkdirSync(outside);
    fs.writeFileSync(join(outside, 'victim'), 'safe');
    const up = '../'.repeat(20);
    const archives: Piece[][] = [
      [{ path: `${up}${outside.slice(1)}/escaped`, text: 'x' }],
      [
        { path: 'link', type: 'symlink', linkPath: outside },
        { path: 'link/escaped', text: 'x' },
      ],
      [
        { path: 'link', type: 'symlink', linkPath: `${up}${outside.slice(1)}` },
        { path: 'link/escaped', text: 'x' },
      ],
      [
        { path: 'victim', type: 'symlink', linkPath: join(outside, 'victim') },
        { path: 'victim', text: 'overwritten' },
      ],
      [
        { path: 'hard', type: 'link', linkPath: join(outside, 'victim') },
        { path: 'hard', text: 'overwritten' },
      ],
      [{ path: 'link', type: 'symlink', linkPath: outside }, { path: 'link/.wh.victim' }],
      [{ path: 'link', type: 'symlink', linkPath: outside }, { path: 'link/.wh..wh..opq' }],
      [
        { path: 'd', type: 'symlink', linkPath: outside },
        { path: 'd', type: 'directory', mode: 0o777 },
      ],
      [{ path: '.wh...', text: '' }],
      [
        { path: 'self', type: 'symlink', linkPath: '/proc/self/root' },
        { path: `self${outside}/escaped`, text: 'x' },
      ],
    ];
    for (const pieces of archives) {
      await snapshots.applyLayer(undefined, bytes(await layerTar(pieces)), {}).catch(() => {});
      assert.deepEqual(fs.readdirSync(outside), ['victim'], JSON.stringify(pieces));
      assert.equal(fs.readFileSync(join(outside, 'victim'), 'utf8'), 'safe');
      assert.equal(fs.statSync(outside).mode & 0o777, 0o755);
    }
  });

  test(`${driver}: applying a known layer verifies it, and the same layer applied twice at once is one`, async (context) => {
    const { snapshots } = place(context);
    const tar = await layerTar([{ path: 'file', text: 'x' }]);
    const [one, two] = await Promise.all([
      snapshots.applyLayer(undefined, bytes(tar), {}),
      snapshots.applyLayer(undefined, bytes(tar), {}),
    ]);
    assert.deepEqual(one, two);
    assert.equal(snapshots.layers().length, 1);
    assert.deepEqual(await snapshots.applyLayer(undefined, bytes(tar), { expected: digestOf(tar) }), one);
    await assert.rejects(snapshots.applyLayer(undefined, bytes(tar.subarray(0, 600)), { expected: digestOf(tar) }));
  });

  test(`${driver}: what is in use stays, mounts are counted`, async (context) => {
    const { snapshots, directory } = place(context);
    const base = await apply(snapshots, undefined, [{ path: 'file', text: 'x' }]);
    const top = await apply(snapshots, base, [{ path: 'more', text: 'x' }]);
    await snapshots.prepare('one', top);
    await assert.rejects(snapshots.prepare('one', top), { kind: 'conflict' });
    await assert.rejects(snapshots.removeLayer(base), { kind: 'conflict' });
    await assert.rejects(snapshots.removeLayer(top), { kind: 'conflict' });
    const target = join(directory, 'mnt');
    await snapshots.mount('one', target);
    await snapshots.mount('one', target);
    await snapshots.unmount('one', target);
    assert.equal(fs.existsSync(join(target, 'file')), true);
    await snapshots.unmount('one', target);
    assert.equal(fs.existsSync(join(target, 'file')), false);
    await snapshots.unmount('one', target);
    await snapshots.mount('one', target);
    fs.writeFileSync(join(target, 'kept'), 'x');
    await snapshots.unmount('one', target);
    await snapshots.mount('one', target);
    assert.equal(fs.existsSync(join(target, 'kept')), true);
    await snapshots.remove('one');
    assert.equal(fs.existsSync(join(target, 'file')), false, 'removal unmounts');
    assert.equal(snapshots.exists('one'), false);
    await snapshots.remove('one');
    await snapshots.removeLayer(top);
    await snapshots.removeLayer(base);
    assert.deepEqual(snapshots.layers(), []);
    await snapshots.prepare('empty', undefined);
    await snapshots.mount('empty', target);
    assert.equal(fs.existsSync(join(target, 'etc/hosts')), true);
    assert.deepEqual(await snapshots.changes('empty'), []);
    await snapshots.unmount('empty', target);
  });

  test(`${driver}: a restart keeps layers and mounted snapshots and collects the rest`, async (context) => {
    const { snapshots, directory, root, open } = place(context);
    const base = await apply(snapshots, undefined, [{ path: 'file', text: 'x' }]);
    const [kept, dropped] = [join(directory, 'kept'), join(directory, 'dropped')];
    for (const [key, target] of [
      ['kept', kept],
      ['dropped', dropped],
    ] as const) {
      await snapshots.prepare(key, base);
      await snapshots.mount(key, target);
      fs.writeFileSync(join(target, 'written'), key);
    }
    fs.mkdirSync(join(root, 'tmp', 'half-made'));
    fs.mkdirSync(join(root, 'f'.repeat(64)));
    const again = open();
    await again.recover(new Set(['kept']));
    await again.settled();
    assert.deepEqual(again.keys(), ['kept']);
    assert.equal(fs.readFileSync(join(kept, 'written'), 'utf8'), 'kept');
    assert.deepEqual(fs.readdirSync(dropped), []);
    assert.deepEqual(fs.readdirSync(join(root, 'tmp')), []);
    assert.equal(fs.existsSync(join(root, 'f'.repeat(64))), false);
    await again.mount('kept', kept);
    assert.equal(readMounts().filter(({ mountPoint }) => mountPoint === kept).length, 1, 'adopted, not stacked');
    await again.unmount('kept', kept);
    assert.deepEqual(fs.readdirSync(kept), []);
    assert.deepEqual(
      again.layers().map(({ chainId }) => chainId),
      [base],
    );
  });

  test(`${driver}: storage options it cannot keep are refused`, async (context) => {
    const { snapshots } = place(context);
    await assert.rejects(snapshots.prepare('one', undefined, { size: '10G' }));
    assert.deepEqual(snapshots.keys(), []);
  });
}

test('overlay2: a stack of 120 layers mounts, and graph driver data lists it', async (context) => {
  const directory = fs.mkdtempSync(join(tmpdir(), 'gantry-snap-'));
  const database = new Database(':memory:');
  const snapshots = createOverlaySnapshotter({ root: join(directory, 'overlay2'), database, durable: false });
  const target = join(directory, 'mnt');
  context.after(async () => {
    await snapshots.remove('one');
    await snapshots.settled();
    fs.rmSync(directory, { recursive: true, force: true });
  });
  let parent: Digest | undefined;
  for (let index = 0; index < 120; index += 1) {
    parent = (
      await snapshots.applyLayer(
        parent,
        bytes(
          await layerTar([
            { path: `f${index}`, text: 'x' },
            { path: 'same', text: `${index}` },
          ]),
        ),
        {},
      )
    ).chainId;
  }
  await snapshots.prepare('one', parent);
  await snapshots.mount('one', target);
  assert.equal(fs.readFileSync(join(target, 'same'), 'utf8'), '119');
  assert.equal(fs.readdirSync(target).filter((name) => /^f\d+$/.test(name)).length, 120);
  const data = snapshots.graphDriverData('one');
  assert.match(data['LowerDir'] ?? '', /^[^:]+-init\/diff:/);
  assert.equal(data['LowerDir']?.split(':').length, 121);
  assert.deepEqual(Object.keys(data).sort(), ['ID', 'LowerDir', 'MergedDir', 'UpperDir', 'WorkDir']);
  assert.deepEqual(Object.keys(snapshots.layerDriverData(parent as Digest)).sort(), [
    'LowerDir',
    'MergedDir',
    'UpperDir',
    'WorkDir',
  ]);
  await assert.rejects(snapshots.prepare('two', parent, { size: '1G' }), {
    message: `--storage-opt is supported only for overlay over xfs with 'pquota' mount option`,
  });
});
