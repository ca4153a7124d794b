/** `gantry system fsck`: every kind of damage is named exactly, what can be repaired is, and work beside it is no damage. */
import assert from 'node:assert/strict';
import { execFileSync } from 'node:child_process';
import {
  existsSync,
  globSync,
  mkdirSync,
  readFileSync,
  rmSync,
  statSync,
  truncateSync,
  utimesSync,
  writeFileSync,
} from 'node:fs';
import { join } from 'node:path';
import { after, before, describe, test } from 'node:test';
import { Database } from '#system/database/database.ts';
import { digestOf } from '#types/digest.ts';
import { startDaemon, type TestDaemon } from '../harness/daemon.ts';
import { run } from '../harness/processes.ts';

const foreign = process.env['GANTRY_TEST_HOST'] !== undefined;
const options = foreign ? { skip: 'looks into the data root; GANTRY_TEST_HOST names another engine' } : {};

interface Line {
  readonly object: string;
  readonly id: string;
  readonly kind: string;
  readonly detail: string;
  readonly images?: readonly string[];
  readonly outcome?: string;
  readonly result?: string;
}

interface Report {
  readonly code: number;
  readonly findings: readonly Line[];
  readonly summary: Record<string, number>;
}

async function fsck(daemon: TestDaemon, ...flags: string[]): Promise<Report> {
  const result = await daemon.gantry(['system', 'fsck', '--format', 'json', ...flags]);
  assert.equal(result.stderr, '');
  const lines = result.stdout
    .trim()
    .split('\n')
    .map((line) => JSON.parse(line));
  const { summary } = lines.pop();
  return { code: result.code, findings: lines.map((line) => line.finding), summary };
}

const told = (report: Report): string[] => report.findings.map(({ kind, object, id }) => `${kind} ${object} ${id}`);

describe('system fsck', options, () => {
  let daemon: TestDaemon;
  before(async () => {
    daemon = await startDaemon({ bridge: false });
  });
  after(() => daemon?.[Symbol.asyncDispose]());

  const database = (): Database & Disposable => new Database(join(daemon.dataRoot, 'gantry.db'));
  /** Changes rows while no daemon runs. */
  const withStoppedDaemon = async (change: (rows: Database) => void): Promise<void> => {
    await daemon.stop();
    {
      using rows = database();
      rows.run('PRAGMA foreign_keys = OFF');
      change(rows);
    }
    await daemon.start();
  };
  const blobPath = (digest: string): string => join(daemon.dataRoot, 'blobs/sha256', digest.slice(7));
  const row = (table: string, where: string): Record<string, unknown> => {
    using rows = database();
    return rows.get(`SELECT * FROM ${table} WHERE ${where}`) ?? {};
  };
  const topOf = async (image: string): Promise<{ id: string; diffId: string; chainId: string; directory: string }> => {
    const [id = '', diffId = '', upper = ''] = (
      await daemon.ok(
        'image',
        'inspect',
        '-f',
        '{{.Id}} {{index .RootFS.Layers 0}} {{.GraphDriver.Data.UpperDir}}',
        image,
      )
    ).split(' ');
    return { id, diffId, chainId: diffId, directory: join(upper, '..') };
  };
  /** A second image of one small layer, made as archives of others are: not reproducible by our own tar writer. */
  const importSmall = async (name: string): Promise<Awaited<ReturnType<typeof topOf>>> => {
    const source = join(daemon.directory, name);
    mkdirSync(join(source, 'd'), { recursive: true });
    writeFileSync(join(source, 'd', 'one'), `one of ${name}`);
    writeFileSync(join(source, 'two'), `two of ${name}`);
    await run('tar', ['-C', source, '--format=gnu', '-cf', `${source}.tar`, '.']);
    await daemon.ok('import', `${source}.tar`, name);
    return topOf(name);
  };

  test('a whole store has no findings', async () => {
    const report = await fsck(daemon, '--deep');
    assert.deepEqual([report.code, report.findings], [0, []]);
    assert.equal(report.summary['images'], 1);
    assert.ok(Number(report.summary['bytes']) > 500_000);
    assert.match(
      (await daemon.gantry(['system', 'fsck'])).stdout,
      /^Checked 1 image, 1 layer, 1 blob \(.*B\), .*: the store is whole\n$/,
    );
  });

  test('wrong flags and a daemon that is not there are errors of their own', async () => {
    for (const flags of [['--drop'], ['--format', 'table'], ['-H', 'unix:///nonexistent/socket']]) {
      const words = flags[0] === '-H' ? [...flags, 'system', 'fsck'] : ['system', 'fsck', ...flags];
      const result = await daemon.gantry(words);
      assert.equal(result.code, 2, result.stderr);
      assert.notEqual(result.stderr, '');
    }
  });

  test('a flipped byte in a blob is found, and the blob is made again from the layer it came as', async () => {
    const name = daemon.name('flip');
    await daemon.ok('run', '--name', name, '--net', 'none', 'busybox', 'touch', '/new');
    await daemon.ok('commit', name, name);
    const digest = String(row('image_layer_blobs', `diff_id = '${(await topOf('busybox')).diffId}'`)['digest']);
    const committed = await daemon.ok('image', 'inspect', '-f', '{{index .RootFS.Layers 1}}', name);
    const bytes = readFileSync(blobPath(committed));
    bytes.writeUInt8((bytes[100] ?? 0) ^ 1, 100);
    writeFileSync(blobPath(committed), bytes);
    const report = await fsck(daemon);
    assert.deepEqual(told(report), [`corrupt blob ${committed}`]);
    assert.match(report.findings[0]?.detail ?? '', /^its bytes have digest sha256:[0-9a-f]{64}$/);
    assert.deepEqual(report.findings[0]?.images, [`${name}:latest`]);
    assert.equal(report.code, 1);
    const repaired = await fsck(daemon, '--repair');
    assert.deepEqual(
      [repaired.code, repaired.findings[0]?.outcome, repaired.findings[0]?.result],
      [0, 'repaired', 'made again from the extracted layer'],
    );
    assert.equal((await fsck(daemon, '--deep')).code, 0);
    assert.notEqual(digest, committed);
    await daemon.ok('rm', name);
    await daemon.ok('rmi', name);
  });

  test('a blob that is gone and cannot be had again is told; only consent drops its image', async () => {
    const name = daemon.name('gone');
    const small = await importSmall(name);
    rmSync(blobPath(small.diffId));
    const found = await fsck(daemon);
    assert.deepEqual(told(found), [`missing blob ${small.diffId}`]);
    const kept = await fsck(daemon, '--repair');
    assert.equal(kept.code, 1);
    assert.equal(kept.findings[0]?.outcome, 'failed');
    assert.match(kept.findings[0]?.result ?? '', /its tree does not make the same archive again; no registry is known/);
    await daemon.ok('create', '--name', name, name, 'x');
    const used = await fsck(daemon, '--repair', '--drop');
    assert.match(used.findings[1]?.result ?? '', /^container [0-9a-f]{12} uses it$/);
    await daemon.ok('rm', name);
    const dropped = await fsck(daemon, '--repair', '--drop');
    assert.deepEqual(told(dropped), [`missing blob ${small.diffId}`, `corrupt image ${small.id}`]);
    assert.equal(dropped.findings[1]?.result, 'the image was removed');
    assert.match((await daemon.docker(['image', 'inspect', name])).stderr, /No such image/);
    assert.deepEqual((await fsck(daemon, '--deep')).findings, []);
  });

  test('a truncated blob is told by its size', async () => {
    const name = daemon.name('short');
    const small = await importSmall(name);
    truncateSync(blobPath(small.diffId), 512);
    const report = await fsck(daemon);
    assert.match(report.findings[0]?.detail ?? '', /^it has 512 bytes instead of \d+$/);
    await daemon.ok('rmi', name);
    assert.deepEqual((await fsck(daemon)).findings, []);
  });

  test('changed layer trees are found, the hidden changes by a deep check, and extracted again', async () => {
    const name = daemon.name('tree');
    const { chainId, directory } = await importSmall(name);
    const changes: [string, RegExp, string[], () => void][] = [
      ['a file is cut', /\/two has 1 bytes instead of \d+$/, [], () => truncateSync(join(directory, 'diff/two'), 1)],
      ['a file is gone', /^\/d\/one is missing$/, [], () => rmSync(join(directory, 'diff/d/one'))],
      ['the tree is gone', /its directory .* is not there$/, [], () => rmSync(directory, { recursive: true })],
      [
        'a byte is other',
        /^\/two has (other content|another time)$/,
        ['--deep'],
        () => {
          const file = join(directory, 'diff/two');
          const { atime, mtime } = statSync(file);
          writeFileSync(file, readFileSync(file, 'utf8').replace('t', 'T'));
          utimesSync(file, atime, mtime);
        },
      ],
      [
        'a mode is other',
        /^\/d\/one has mode 4777 instead of 644$/,
        ['--deep'],
        () => execFileSync('chmod', ['4777', join(directory, 'diff/d/one')]),
      ],
      [
        'a file is new',
        /^\/new should not be there$/,
        ['--deep'],
        () => writeFileSync(join(directory, 'diff/new'), ''),
      ],
    ];
    for (const [what, detail, flags, change] of changes) {
      change();
      if (flags.length > 0) assert.deepEqual((await fsck(daemon)).findings, [], what);
      const found = await fsck(daemon, ...flags);
      assert.deepEqual(
        told(found),
        [`corrupt layer ${chainId}`].map((text) =>
          what === 'the tree is gone' ? text.replace('corrupt', 'missing') : text,
        ),
        what,
      );
      assert.match(found.findings[0]?.detail ?? '', detail, what);
      const repaired = await fsck(daemon, '--repair', ...flags);
      assert.deepEqual([repaired.code, repaired.findings[0]?.result], [0, 'it was extracted again'], what);
      assert.equal(readFileSync(join(directory, 'diff/two'), 'utf8'), `two of ${name}`, what);
    }
    assert.equal((await fsck(daemon, '--deep')).code, 0);
    await daemon.ok('rmi', name);
  });

  test('a layer in use by a running container is not exchanged', async () => {
    const name = daemon.name('busy');
    const { directory } = await topOf('busybox');
    const file = join(directory, 'diff/etc/passwd');
    const content = readFileSync(file);
    await daemon.ok('run', '-d', '--name', name, '--net', 'none', 'busybox', 'sleep', '1000');
    truncateSync(file, 3);
    const refused = await fsck(daemon, '--repair');
    assert.match(refused.findings[0]?.result ?? '', /is in use by a running container$/);
    await daemon.ok('rm', '-f', name);
    assert.equal((await fsck(daemon, '--repair')).code, 0);
    assert.deepEqual(readFileSync(file), content);
    assert.equal(await daemon.ok('run', '--rm', '--net', 'none', 'busybox', 'echo', 'whole'), 'whole');
  });

  test('lost and altered rows are named, and written again from what is left', async () => {
    const name = daemon.name('rows');
    const small = await importSmall(name);
    await withStoppedDaemon((rows) => {
      rows.run('DELETE FROM snapshot_layers WHERE chain_id = ?', small.chainId);
      rows.run('DELETE FROM image_layer_blobs WHERE diff_id = ?', small.diffId);
      rows.run("INSERT INTO image_references VALUES ('docker.io/library/ghost:latest', 'sha256:no')");
      rows.run(
        "INSERT INTO image_manifests VALUES (?, 'application/vnd.oci.image.manifest.v1+json', ?, ?)",
        `sha256:${'a'.repeat(64)}`,
        Buffer.from('{}'),
        small.id,
      );
      rows.run('UPDATE images SET parent = ? WHERE id = ?', `sha256:${'b'.repeat(64)}`, small.id);
    });
    const found = await fsck(daemon);
    assert.deepEqual(told(found), [
      `missing image ${small.id}`,
      'orphaned reference docker.io/library/ghost:latest',
      `corrupt manifest sha256:${'a'.repeat(64)}`,
      `missing layer ${small.chainId}`,
    ]);
    assert.equal(found.findings[0]?.detail, `its parent sha256:${'b'.repeat(64)} is not there`);
    // The bytes are still there; nothing of this may be collected as long as the image wants it.
    const repaired = await fsck(daemon, '--repair');
    assert.deepEqual(
      [repaired.code, repaired.findings.map(({ result }) => result)],
      [
        0,
        [
          'it has no parent any more',
          'the name was removed',
          'it was removed: no registry is known to have it',
          'it was extracted again',
        ],
      ],
    );
    assert.equal((await fsck(daemon, '--deep')).code, 0);
    await daemon.ok('rmi', name);
  });

  test('a lost layer row is made again from the blob', async () => {
    const name = daemon.name('row');
    const small = await importSmall(name);
    await withStoppedDaemon((rows) => rows.run('DELETE FROM snapshot_layers WHERE chain_id = ?', small.chainId));
    assert.deepEqual(told(await fsck(daemon)), [`missing layer ${small.chainId}`]);
    const repaired = await fsck(daemon, '--repair');
    assert.deepEqual([repaired.code, repaired.findings[0]?.result], [0, 'it was extracted again']);
    assert.equal((await fsck(daemon, '--deep')).code, 0);
    await daemon.ok('rmi', name);
  });

  test('a damaged image config does not keep the daemon from starting', async () => {
    const name = daemon.name('config');
    const small = await importSmall(name);
    await withStoppedDaemon((rows) =>
      rows.run('UPDATE images SET config = ? WHERE id = ?', Buffer.from('{'), small.id),
    );
    const found = await fsck(daemon);
    assert.deepEqual(told(found)[0], `corrupt image ${small.id}`);
    assert.deepEqual(found.findings[0]?.images, [`docker.io/library/${name}:latest`]);
    const dropped = await fsck(daemon, '--repair', '--drop');
    assert.equal(dropped.findings.at(-1)?.result, 'the image was removed');
    assert.deepEqual((await fsck(daemon)).findings, []);
    assert.equal((await daemon.docker(['image', 'inspect', name])).code, 1);
  });

  test('orphans of every kind are named and removed', async () => {
    const blob = Buffer.from('nobody');
    const digest = digestOf(blob);
    writeFileSync(blobPath(digest), blob);
    const paths = [
      join(daemon.dataRoot, 'overlay2', 'f'.repeat(64)),
      join(daemon.dataRoot, 'overlay2/tmp/half'),
      join(daemon.dataRoot, 'overlay2/trash/left'),
      join(daemon.dataRoot, 'containers', 'e'.repeat(64)),
      join(daemon.dataRoot, 'blobs/sha256/README'),
      join(daemon.dataRoot, 'ingest/part'),
    ];
    for (const path of paths) mkdirSync(path);
    execFileSync('ln', ['-s', `../${'d'.repeat(64)}/diff`, join(daemon.dataRoot, 'overlay2/l/LOST')]);
    const found = await fsck(daemon);
    assert.deepEqual(
      told(found).toSorted(),
      [
        `orphaned blob ${digest}`,
        ...paths.slice(0, 4).map((path) => `orphaned directory ${path}`),
        ...paths.slice(4).map((path) => `orphaned file ${path}`),
        `orphaned file ${join(daemon.dataRoot, 'overlay2/l/LOST')}`,
      ].toSorted(),
    );
    assert.equal((await fsck(daemon, '--repair')).code, 0);
    for (const path of [...paths, blobPath(digest)]) assert.equal(existsSync(path), false, path);
    assert.deepEqual((await fsck(daemon)).findings, []);
  });

  test('lost short links and init layers are made again; a lost writable tree is told', async () => {
    const name = daemon.name('parts');
    await daemon.ok('create', '--name', name, '--net', 'none', 'busybox', 'echo', 'runs');
    const { directory } = await topOf('busybox');
    rmSync(join(directory, 'link'));
    const [init = ''] = globSync(join(daemon.dataRoot, 'overlay2/*-init'));
    rmSync(init, { recursive: true });
    const repaired = await fsck(daemon, '--repair');
    assert.deepEqual(repaired.findings.map(({ object, kind, outcome }) => `${kind} ${object} ${outcome}`).slice(0, 2), [
      'missing layer repaired',
      'missing layer repaired',
    ]);
    assert.deepEqual((await fsck(daemon, '--repair')).code, 0);
    assert.equal(await daemon.ok('start', '-a', name), 'runs');
    const upper = await daemon.inspect(name, '{{.GraphDriver.Data.UpperDir}}');
    rmSync(join(upper, '..'), { recursive: true });
    const lost = await fsck(daemon, '--repair');
    assert.deepEqual(
      lost.findings.map(({ kind, object, outcome }) => `${kind} ${object} ${outcome}`),
      ['missing snapshot failed'],
    );
    await daemon.ok('rm', name);
    assert.deepEqual((await fsck(daemon)).findings, []);
  });

  test('nothing in flight counts as damage', async () => {
    const archive = join(daemon.directory, 'busy.tar');
    await daemon.ok('save', '-o', archive, 'busybox');
    let working = true;
    const work = async (lane: number): Promise<void> => {
      for (let step = 0; working; step += 1) {
        const name = `lane${lane}-${step}`;
        await daemon.ok('load', '-q', '-i', archive);
        await daemon.ok('run', '--name', name, '--net', 'none', 'busybox', 'touch', `/${name}`);
        await daemon.ok('commit', '-p=false', name, name);
        await daemon.ok('rm', name);
        await daemon.ok('rmi', name);
      }
    };
    const lanes = [work(1), work(2)];
    const reports: Report[] = [];
    for (let round = 0; round < 4; round += 1) reports.push(await fsck(daemon, ...(round % 2 === 0 ? ['--deep'] : [])));
    working = false;
    await Promise.all(lanes);
    assert.deepEqual(
      reports.flatMap(({ findings }) => findings),
      [],
    );
    assert.deepEqual((await fsck(daemon, '--deep')).findings, []);
  });
});

test(
  'on vfs a damaged layer is found, repaired under its children, and a second check waits its turn',
  options,
  async () => {
    await using daemon = await startDaemon({ bridge: false, flags: ['--storage-driver', 'vfs'] });
    await daemon.ok('create', '--name', 'child', 'busybox', 'cat', '/new');
    const file = join(daemon.directory, 'new');
    writeFileSync(file, 'new in the child');
    await daemon.ok('cp', file, 'child:/new');
    await daemon.ok('commit', 'child', 'child');
    await daemon.ok('rm', 'child');
    const trees = globSync('vfs/*/diff/etc/passwd', { cwd: daemon.dataRoot }).map((path) =>
      join(daemon.dataRoot, path),
    );
    assert.ok(trees.length >= 2, 'the base and the child have whole trees');
    const content = readFileSync(trees[0] as string);
    for (const tree of trees.filter((path) => !path.includes('-init/'))) truncateSync(tree, 3);
    const both = await Promise.all([1, 2].map(() => daemon.gantry(['system', 'fsck', '--deep'])));
    for (const { code, stderr } of both)
      assert.ok(code === 1 || (code === 2 && /a check of the store is already running/.test(stderr)), stderr);
    assert.ok(both.some(({ code }) => code === 1));
    const repaired = await fsck(daemon, '--deep', '--repair');
    assert.equal(repaired.code, 0, JSON.stringify(repaired.findings));
    assert.deepEqual((await fsck(daemon, '--deep')).findings, []);
    for (const tree of trees) assert.deepEqual(readFileSync(tree), content, tree);
    assert.equal(await daemon.ok('run', '--rm', '--net', 'none', 'child', 'cat', '/new'), 'new in the child');
  },
);
