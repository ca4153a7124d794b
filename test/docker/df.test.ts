/** `docker system df` tells what du tells of the data root, and layers that images share are there once. */
import assert from 'node:assert/strict';
import { globSync, mkdirSync, statSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { after, before, describe, test } from 'node:test';
import { startDaemon, type TestDaemon } from '../harness/daemon.ts';
import { eventually, run } from '../harness/processes.ts';

const foreign = process.env['GANTRY_TEST_HOST'] !== undefined;
const options = foreign ? { skip: 'looks into the data root; GANTRY_TEST_HOST names another engine' } : {};
const AGREEMENT = 0.01;

interface Usage {
  readonly LayersSize: number;
  readonly Images:
    | readonly { Id: string; Size: number; SharedSize: number; Containers: number; VirtualSize?: number }[]
    | null;
  readonly Containers: readonly { Id: string; SizeRw?: number }[] | null;
  readonly Volumes: readonly { Name: string; UsageData: { Size: number; RefCount: number } }[] | null;
  readonly BuildCache: readonly { Size: number }[] | null;
}

describe('system df', options, () => {
  let daemon: TestDaemon;
  before(async () => {
    daemon = await startDaemon({ bridge: false });
    const root = join(daemon.directory, 'root');
    for (let directory = 0; directory < 40; directory += 1) {
      mkdirSync(join(root, `d${directory}`), { recursive: true });
      for (let file = 0; file < 40; file += 1)
        writeFileSync(join(root, `d${directory}`, `f${file}`), Buffer.alloc(file * 200, 'x'));
    }
    writeFileSync(join(root, 'big'), Buffer.alloc(6_000_000, 'y'));
    await run('tar', ['-C', root, '-cf', `${root}.tar`, '.']);
    await daemon.ok('import', `${root}.tar`, 'many');
  });
  after(() => daemon?.[Symbol.asyncDispose]());

  const usage = async (query = '', version = '1.51'): Promise<Usage> =>
    (await daemon.api('GET', `/v${version}/system/df${query}`)).json<Usage>();
  const du = async (...flags: string[]): Promise<number> =>
    Number((await run('du', ['-s', '--block-size=1', ...flags, daemon.dataRoot])).stdout.split('\t')[0]);
  const sumOf = (all: Usage): number =>
    all.LayersSize +
    (all.Containers ?? []).reduce((sum, { SizeRw = 0 }) => sum + SizeRw, 0) +
    (all.Volumes ?? []).reduce((sum, { UsageData }) => sum + UsageData.Size, 0) +
    (all.BuildCache ?? []).reduce((sum, { Size }) => sum + Size, 0);
  /** What was removed is freed behind the answer, and a disk allocates when it likes. */
  const agrees = async (what: string): Promise<void> => {
    let last = '';
    await eventually(
      async () => {
        const [told, found] = [sumOf(await usage()), await du()];
        last = `${what}: df tells ${told}, du ${found}`;
        return Math.abs(told - found) <= found * AGREEMENT;
      },
      { what: () => last },
    );
  };

  test('the sum agrees with du on the data root: images, written files, logs, volumes, and after removals', async () => {
    await agrees('images');
    await daemon.ok(
      'run',
      '--name',
      'writer',
      '-v',
      'kept:/v',
      '--net',
      'none',
      'busybox',
      'sh',
      '-c',
      'dd if=/dev/zero of=/out bs=1k count=5000 2>/dev/null; dd if=/dev/zero of=/v/out bs=1k count=3000 2>/dev/null; dd if=/dev/zero of=/hole bs=1 count=0 seek=100000000 2>/dev/null; seq 100000',
    );
    await agrees('a container that wrote 5 MB, a volume of 3 MB, a hole of 100 MB and a long log');
    await daemon.ok('commit', 'writer', 'committed');
    await agrees('a committed image');
    await daemon.ok('rm', '-v', 'writer');
    await daemon.ok('volume', 'rm', 'kept');
    await daemon.ok('rmi', 'committed');
    await agrees('removed again');
  });

  test('an image knows what it shares; images of the same layers take no more', async () => {
    await daemon.ok('create', '--name', 'child', 'many', 'x');
    await daemon.ok('cp', join(daemon.directory, 'docker-config'), 'child:/new');
    await daemon.ok('commit', 'child', 'child');
    const before = await du();
    const inodes = globSync('overlay2/*/diff/big', { cwd: daemon.dataRoot });
    assert.equal(inodes.length, 1, 'the file is there once');
    const blobs = globSync('blobs/sha256/*', { cwd: daemon.dataRoot }).filter(
      (name) => statSync(join(daemon.dataRoot, name)).size > 6_000_000,
    );
    assert.equal(blobs.length, 1, 'its archive is there once');
    const { Images } = await usage();
    const [many, child] = await Promise.all(
      ['many', 'child'].map(async (name) => {
        const id = await daemon.ok('image', 'inspect', '-f', '{{.Id}}', name);
        return Images?.find(({ Id }) => Id === id);
      }),
    );
    assert.ok(many !== undefined && child !== undefined);
    assert.equal(many.SharedSize, many.Size);
    assert.equal(child.SharedSize, many.Size);
    assert.ok(child.Size > many.Size && child.Size < many.Size + 100_000);
    assert.equal(many.Containers, 1);
    const archive = join(daemon.directory, 'both.tar');
    await daemon.ok('save', '-o', archive, 'many', 'child');
    await daemon.ok('load', '-i', archive);
    assert.ok((await du()) - before < 100_000, 'loading what is there takes nothing');
    await daemon.ok('rm', 'child');
    await daemon.ok('rmi', 'child');
  });

  test('an unwritten container counts nothing, as in docker', async () => {
    await daemon.ok('create', '--name', 'empty', 'busybox', 'x');
    const all = await usage();
    assert.equal(all.Containers?.length, 1);
    assert.equal(all.Containers?.[0]?.SizeRw, undefined);
    const rows = (await daemon.ok('system', 'df', '--format', '{{.Type}}|{{.TotalCount}}|{{.Active}}|{{.Size}}')).split(
      '\n',
    );
    assert.match(rows[0] ?? '', /^Images\|2\|1\|[\d.]+MB$/);
    assert.deepEqual(rows.slice(1), ['Containers|1|0|0B', 'Local Volumes|0|0|0B', 'Build Cache|0|0|0B']);
    const verbose = await daemon.ok('system', 'df', '-v');
    assert.match(verbose, /^REPOSITORY +TAG +IMAGE ID +CREATED +SIZE +SHARED SIZE +UNIQUE SIZE +CONTAINERS$/m);
    assert.match(verbose, /^many +latest +[0-9a-f]{12} +\S.* ago +[\d.]+MB +0B +[\d.]+MB +0$/m);
    await daemon.ok('rm', 'empty');
  });

  test('API versions: chosen types, the builder size before 1.42, the virtual size before 1.44', async () => {
    const some = await usage('?type=image&type=volume');
    assert.deepEqual([some.Containers, some.BuildCache], [null, null]);
    assert.equal(some.Images?.length, 2);
    assert.equal((await usage('?type=container')).LayersSize, 0);
    assert.match((await daemon.api('GET', '/v1.51/system/df?type=x')).text, /unknown object type: x/);
    const old = await usage('?type=container', '1.41');
    assert.equal('BuilderSize' in old, true);
    assert.equal(old.Images?.[0]?.VirtualSize, old.Images?.[0]?.Size);
    assert.equal((await usage('', '1.44')).Images?.[0]?.VirtualSize, undefined);
  });
});
