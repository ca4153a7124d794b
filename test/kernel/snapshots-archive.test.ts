/** docker cp and export on real trees: naming, links, stopped containers' volumes, hostile containers. */
import assert from 'node:assert/strict';
import * as fs from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { test } from 'node:test';
import { setTimeout } from 'node:timers/promises';
import { Worker } from 'node:worker_threads';
import { FilesystemArchives } from '#services/archive/archives.ts';
import type { ArchivePath } from '#services/archive/contract.ts';
import { goFileMode, goTime } from '#services/archive/path-stat.ts';
import { readMounts } from '#system/kernel/mount.ts';
import type { TarEntry } from '#system/tar/contract.ts';
import { readTar } from '#system/tar/reader.ts';
import { TAR_END, tarBlocks } from '#system/tar/writer.ts';

const archives = new FilesystemArchives();

interface Place {
  readonly directory: string;
  readonly root: string;
  at(path: string): ArchivePath;
}

async function place(context: { after(work: () => void): void }): Promise<Place> {
  const directory = fs.mkdtempSync(join(tmpdir(), 'gantry-archive-'));
  const root = join(directory, 'root');
  fs.mkdirSync(join(root, 'etc/sub'), { recursive: true });
  fs.writeFileSync(join(root, 'etc/passwd'), 'root');
  fs.writeFileSync(join(root, 'etc/sub/file'), 'inside');
  fs.symlinkSync('/etc/sub', join(root, 'link'));
  fs.symlinkSync('../missing', join(root, 'etc/dangling'));
  fs.mkdirSync(join(directory, 'outside'));
  fs.writeFileSync(join(directory, 'outside/secret'), 'secret');
  const view = await archives.openStopped(root, []);
  context.after(() => {
    view[Symbol.dispose]();
    fs.rmSync(directory, { recursive: true, force: true });
  });
  return { directory, root, at: (path) => ({ root: view, path, containerName: 'box' }) };
}

type Piece = Partial<TarEntry> & { path: string; text?: string };

async function* tarOf(...pieces: Piece[]): AsyncGenerator<Buffer> {
  for (const { text = '', ...fields } of pieces) {
    const entry: TarEntry = {
      type: 'file',
      linkPath: '',
      mode: 0o755,
      uid: 5,
      gid: 6,
      userName: '',
      groupName: '',
      sizeBytes: Buffer.byteLength(text),
      modifiedNs: 1_500_000_000_000_000_000n,
      deviceMajor: 0,
      deviceMinor: 0,
      xattrs: new Map(),
      ...fields,
    };
    yield* tarBlocks(entry, [Buffer.from(text)]);
  }
  yield TAR_END;
}

async function names(archive: AsyncIterable<Buffer>): Promise<string[]> {
  const found = [];
  for await (const { entry, content } of readTar(archive)) {
    let text = '';
    for await (const chunk of content) text += chunk.toString();
    found.push(
      `${entry.path}${entry.type === 'symlink' ? ` -> ${entry.linkPath}` : ''}${text === '' ? '' : ` ${text}`}`,
    );
  }
  return found;
}

const keep = { noOverwriteDirNonDir: true };

test('archives name their entries as docker does, whatever the end of the path', async (context) => {
  const { at } = await place(context);
  const list = (path: string): Promise<string[]> => names(archives.get(at(path)).archive);
  assert.deepEqual(await list('/etc/passwd'), ['passwd root']);
  assert.deepEqual(await list('etc'), [
    'etc',
    'etc/dangling -> ../missing',
    'etc/passwd root',
    'etc/sub',
    'etc/sub/file inside',
  ]);
  assert.deepEqual(await list('/etc/sub/'), ['sub', 'sub/file inside']);
  assert.deepEqual(await list('/etc/sub/.'), ['.', './file inside']);
  assert.deepEqual(await list('/link'), ['link -> /etc/sub']);
  assert.deepEqual(await list('/link/'), ['link', 'link/file inside']);
  assert.deepEqual(await list('/link/file'), ['file inside']);
  assert.deepEqual((await list('/')).slice(0, 2), ['/', '/etc']);
  assert.deepEqual(await list('/../../etc/sub/file'), ['file inside']);
  const exported = await names(archives.export(at('/').root));
  assert.deepEqual(exported, [
    'etc',
    'etc/dangling -> ../missing',
    'etc/passwd root',
    'etc/sub',
    'etc/sub/file inside',
    'link -> /etc/sub',
  ]);
});

test('stat tells Go modes, the link target inside the container, and missing files by name', async (context) => {
  const { at, root } = await place(context);
  fs.utimesSync(join(root, 'etc/passwd'), 1_500_000_000, 1_500_000_000.25);
  fs.chmodSync(join(root, 'etc/passwd'), 0o4640);
  assert.deepEqual(archives.stat(at('/etc/passwd')), {
    name: 'passwd',
    size: 4,
    mode: 2 ** 23 + 0o640,
    mtime: '2017-07-14T02:40:00.25Z',
    linkTarget: '',
  });
  const link = archives.stat(at('/link'));
  assert.deepEqual([link.linkTarget, link.mode, link.size], ['/etc/sub', 2 ** 27 + 0o777, 8]);
  assert.equal(archives.stat(at('/etc/dangling')).linkTarget, '/missing');
  assert.equal(archives.stat(at('/link/')).mode, 2 ** 31 + 0o755);
  assert.equal(archives.stat(at('/')).name, '/');
  assert.throws(() => archives.stat(at('/nowhere/x')), {
    kind: 'notFound',
    message: 'Could not find the file /nowhere/x in container box',
  });
  assert.throws(() => archives.stat(at('/etc/passwd/x')), { message: /not a directory/ });
  assert.equal(goFileMode(0o020666), 2 ** 26 + 2 ** 21 + 0o666);
  assert.equal(goTime(-1n), '1969-12-31T23:59:59.999999999Z');
});

test('put extracts through links of the container and refuses what docker refuses', async (context) => {
  const { at, root } = await place(context);
  await archives.put(at('/link'), tarOf({ path: 'new', text: 'new' }, { path: 'd', type: 'directory' }), keep);
  assert.equal(fs.readFileSync(join(root, 'etc/sub/new'), 'utf8'), 'new');
  assert.deepEqual([fs.statSync(join(root, 'etc/sub/new')).uid, fs.statSync(join(root, 'etc/sub/d')).gid], [5, 6]);
  // An absolute link below the destination still means the container's root.
  await archives.put(at('/'), tarOf({ path: 'link/through', text: 'x' }), keep);
  assert.equal(fs.existsSync(join(root, 'etc/sub/through')), true);
  await archives.put(at('/etc'), tarOf({ path: 'owned/file', text: 'x' }), { ...keep, owner: { uid: 9, gid: 8 } });
  assert.deepEqual([fs.statSync(join(root, 'etc/owned/file')).uid, fs.statSync(join(root, 'etc/owned')).gid], [9, 8]);
  await assert.rejects(archives.put(at('/etc/passwd'), tarOf(), keep), {
    kind: 'invalid',
    message: 'extraction point is not a directory',
  });
  await assert.rejects(archives.put(at('/nowhere'), tarOf(), keep), {
    kind: 'notFound',
    message: 'Could not find the file /nowhere in container box',
  });
  await assert.rejects(archives.put(at('/'), tarOf({ path: 'etc', text: 'x' }), keep), {
    message: 'cannot overwrite directory "/etc" with non-directory "/"',
  });
  await assert.rejects(archives.put(at('/etc'), tarOf({ path: 'passwd', type: 'directory' }), keep), {
    message: 'cannot overwrite non-directory "/etc/passwd" with directory "/etc"',
  });
  await archives.put(at('/etc'), tarOf({ path: 'sub', text: 'file now' }), { noOverwriteDirNonDir: false });
  assert.equal(fs.readFileSync(join(root, 'etc/sub'), 'utf8'), 'file now');
});

test('a stopped container is seen with its volumes, and the host does not see them', async (context) => {
  const { root, directory } = await place(context);
  const [volume, sealed] = [join(directory, 'volume'), join(directory, 'sealed')];
  fs.mkdirSync(volume);
  fs.mkdirSync(sealed);
  fs.writeFileSync(join(volume, 'data'), 'volume data');
  fs.writeFileSync(join(directory, 'hosts'), 'hosts');
  // Other tests mount beside this one: only what lies below its own directory counts.
  const ownMounts = (): number => readMounts().filter(({ mountPoint }) => mountPoint.startsWith(directory)).length;
  const before = ownMounts();
  const view = await archives.openStopped(root, [
    { source: volume, target: '/var/lib/data', readOnly: false },
    { source: sealed, target: '/sealed', readOnly: true },
    { source: join(directory, 'hosts'), target: '/etc/hosts', readOnly: false },
    { source: volume, target: '/link', readOnly: false },
  ]);
  const at = (path: string): ArchivePath => ({ root: view, path, containerName: 'box' });
  assert.equal(ownMounts(), before);
  assert.deepEqual(fs.readdirSync(join(root, 'var/lib/data')), []);
  assert.deepEqual(await names(archives.get(at('/var/lib')).archive), ['lib', 'lib/data', 'lib/data/data volume data']);
  assert.deepEqual(await names(archives.get(at('/etc/hosts')).archive), ['hosts hosts']);
  assert.deepEqual(await names(archives.get(at('/etc/sub/data')).archive), ['data volume data']);
  await archives.put(at('/var/lib/data'), tarOf({ path: 'new', text: 'x' }), keep);
  assert.equal(fs.existsSync(join(volume, 'new')), true);
  await assert.rejects(archives.put(at('/sealed'), tarOf({ path: 'new', text: 'x' }), keep), {
    kind: 'invalid',
    message: 'mounted volume is marked read-only',
  });
  assert.equal(archives.stat(at('/link')).linkTarget, '/etc/sub');
  view[Symbol.dispose]();
  await assert.rejects(
    archives.openStopped(root, [{ source: join(directory, 'absent'), target: '/x', readOnly: false }]),
    /ENOENT/,
  );
});

test('a running root never packs the kernel file systems below it', async () => {
  const view = archives.openRunning(process.pid);
  assert.equal(archives.stat({ root: view, path: '/proc', containerName: 'self' }).name, 'proc');
  view[Symbol.dispose]();
});

test('links of a hostile container lead nowhere', async (context) => {
  const { root, directory, at } = await place(context);
  const outside = join(directory, 'outside');
  fs.symlinkSync(outside, join(root, 'absolute'));
  fs.symlinkSync('../../../../../../../../..', join(root, 'up'));
  fs.symlinkSync(`/proc/self/root${outside}`, join(root, 'magic'));
  for (const path of [`/absolute/secret`, `/up${outside}/secret`, '/magic/secret', `/up/../..${outside}/secret`]) {
    assert.throws(() => archives.get(at(path)), { kind: 'notFound' }, path);
    await assert.rejects(
      archives.put(at(join(path, '..')), tarOf({ path: 'x', text: 'x' }), keep),
      { kind: 'notFound' },
      path,
    );
  }
  for (const pieces of [
    [{ path: 'absolute/escaped', text: 'x' }],
    [{ path: '../../outside/escaped', text: 'x' }],
    [
      { path: 'l', type: 'symlink', linkPath: outside },
      { path: 'l/escaped', text: 'x' },
    ],
    [
      { path: 'h', type: 'link', linkPath: join(outside, 'secret') },
      { path: 'h', text: 'overwritten' },
    ],
    [{ path: 'h', type: 'link', linkPath: '../outside/secret' }],
  ] as Piece[][]) {
    await archives.put(at('/'), tarOf(...pieces), { noOverwriteDirNonDir: false }).catch(() => {});
    assert.deepEqual(fs.readdirSync(outside), ['secret']);
    assert.equal(fs.readFileSync(join(outside, 'secret'), 'utf8'), 'secret');
  }
});

test('a container swapping a directory for a link all the time cannot make us read or write outside', async (context) => {
  const { root, directory, at } = await place(context);
  const outside = join(directory, 'outside');
  const swap = new SharedArrayBuffer(8);
  const counters = new Int32Array(swap);
  const worker = new Worker(
    `const fs = require('node:fs'); const { root, outside, swap } = require('node:worker_threads').workerData;
     const stop = new Int32Array(swap);
     fs.mkdirSync(root + '/swap', { recursive: true }); fs.writeFileSync(root + '/swap/secret', 'own');
     while (Atomics.load(stop, 0) === 0) {
       try { fs.renameSync(root + '/swap', root + '/away'); fs.symlinkSync(outside, root + '/swap'); } catch {}
       try { fs.unlinkSync(root + '/swap'); fs.renameSync(root + '/away', root + '/swap'); } catch {}
       try { if (!fs.lstatSync(root + '/swap').isDirectory()) fs.rmSync(root + '/swap', { recursive: true }); } catch {}
       try { fs.mkdirSync(root + '/swap'); fs.writeFileSync(root + '/swap/secret', 'own'); } catch {}
       try { fs.rmSync(root + '/away', { recursive: true }); } catch {}
       // Now and then it rests, for 3 to 2187 ms, so that some reads see one state from their start to their end.
       const round = Atomics.add(stop, 1, 1);
       if (round % 10 === 0) Atomics.wait(stop, 0, 0, 3 ** (1 + (round / 10) % 7));
     }`,
    { eval: true, workerData: { root, outside, swap } },
  );
  const ended = new Promise((resolve) => worker.once('exit', resolve));
  let succeeded = 0;
  const until = performance.now() + 1500;
  // A read only counts when no swap came in between: that can take a while.
  const limit = until + 20_000;
  while (performance.now() < until || (succeeded === 0 && performance.now() < limit)) {
    try {
      for (const name of await names(archives.get(at('/swap/secret')).archive)) assert.notEqual(name, 'secret secret');
      for (const name of await names(archives.get(at('/')).archive))
        assert.equal(name.endsWith(' secret'), false, name);
      succeeded += 1;
    } catch (error) {
      if (error instanceof assert.AssertionError) throw error;
    }
    await archives
      .put(
        at('/'),
        tarOf(
          { path: 'swap/escaped', text: 'x' },
          { path: 'swap/d/e', text: 'x' },
          { path: 'swap/h', type: 'link', linkPath: 'swap/secret' },
        ),
        { noOverwriteDirNonDir: false },
      )
      .catch(() => {});
    await setTimeout(0);
  }
  Atomics.store(counters, 0, 1);
  await ended;
  assert.ok(succeeded > 0 && (counters[1] ?? 0) > 20, `${succeeded} reads against ${counters[1]} swaps`);
  assert.deepEqual(fs.readdirSync(outside), ['secret']);
  assert.equal(fs.statSync(join(outside, 'secret')).nlink, 1);
});
