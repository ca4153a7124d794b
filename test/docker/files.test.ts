/** Files in and out of containers: cp, export, commit, diff. */
import assert from 'node:assert/strict';
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, before, describe, test } from 'node:test';
import { startDaemon, type TestDaemon } from '../harness/daemon.ts';
import { run } from '../harness/processes.ts';

describe('cp, export, commit, diff', () => {
  let daemon: TestDaemon;
  before(async () => {
    daemon = await startDaemon();
  });
  after(() => daemon?.[Symbol.asyncDispose]());

  /** Starts a container without a network in the background; returns its name. */
  const start = async (purpose: string, flags: string[], ...command: string[]): Promise<string> => {
    const name = daemon.name(purpose);
    await daemon.ok('run', '-d', '--net', 'none', '--name', name, ...flags, 'busybox', ...command);
    return name;
  };

  test('diff shows additions, changes and deletions', async () => {
    const name = await start(
      'diff',
      [],
      'sh',
      '-c',
      'echo x >/new; echo x >>/etc/passwd; rm /etc/group; mkdir /tmp/d; touch /tmp/d/f',
    );
    await daemon.ok('wait', name);
    assert.deepEqual((await daemon.ok('diff', name)).split('\n').toSorted(), [
      'A /new',
      'A /tmp/d',
      'A /tmp/d/f',
      'C /etc',
      'C /etc/passwd',
      'C /tmp',
      'D /etc/group',
    ]);
  });

  test('cp copies a file in and out with its mode and bytes', async () => {
    const name = await start('cp', [], 'sleep', '1000');
    const work = mkdtempSync(join(tmpdir(), 'gantry-cp-'));
    try {
      const source = join(work, 'in.bin');
      writeFileSync(source, Buffer.alloc(100_000, 7), { mode: 0o640 });
      await daemon.ok('cp', source, `${name}:/tmp/f`);
      assert.equal(await daemon.ok('exec', name, 'stat', '-c', '%a %s', '/tmp/f'), '640 100000');
      await daemon.ok('cp', `${name}:/tmp/f`, join(work, 'out.bin'));
      assert.ok(readFileSync(join(work, 'out.bin')).equals(readFileSync(source)));
      await daemon.ok('cp', `${name}:/etc/.`, join(work, 'etc'));
      assert.match(readFileSync(join(work, 'etc/passwd'), 'utf8'), /^root:/);
    } finally {
      rmSync(work, { recursive: true, force: true });
    }
  });

  test('cp works on a container that is not running', async () => {
    const name = daemon.name('cold');
    await daemon.ok('create', '--name', name, 'busybox', 'cat', '/tmp/given');
    const tar = await run('tar', ['-C', '/etc', '-cf', '-', 'hostname']);
    assert.equal((await daemon.docker(['cp', '-', `${name}:/tmp`], { input: tar.stdoutBytes })).code, 0);
    const back = await daemon.docker(['cp', `${name}:/tmp/hostname`, '-']);
    const list = await run('tar', ['-tf', '-'], { input: back.stdoutBytes });
    assert.equal(list.stdout, 'hostname\n');
  });

  test('cp names what is missing', async () => {
    const name = await start('cp-missing', [], 'sleep', '1000');
    assert.match(
      (await daemon.docker(['cp', `${name}:/no/file`, '-'])).stderr,
      /Could not find the file \/no\/file in container/,
    );
    assert.match(
      (await daemon.docker(['cp', '/etc/hostname', `${name}:/no/dir/`])).stderr,
      /Could not find the file \/no\/dir\/? in container|no such directory/,
    );
  });

  test('a link in the container cannot lead cp outside', async () => {
    const name = await start(
      'link',
      [],
      'sh',
      '-c',
      'ln -s /../../../../../../etc/hostname /escape; ln -s / /root/up; sleep 1000',
    );
    await daemon.ok('exec', name, 'sh', '-c', 'until [ -L /root/up ]; do sleep 0.05; done');
    await daemon.ok('exec', name, 'sh', '-c', 'echo inner-secret >/etc/inner');
    const back = await daemon.docker(['cp', '-L', `${name}:/root/up/etc/inner`, '-']);
    assert.match(back.stdout, /inner-secret/);
  });

  test('export gives the whole file system as a tar', async () => {
    const name = await start('export', [], 'sh', '-c', 'echo data >/exported');
    await daemon.ok('wait', name);
    const tar = await daemon.docker(['export', name]);
    const list = (await run('tar', ['-tf', '-'], { input: tar.stdoutBytes })).stdout.split('\n');
    for (const path of ['exported', 'etc/passwd', 'bin/busybox']) assert.ok(list.includes(path), path);
    assert.equal((await run('tar', ['-xOf', '-', 'exported'], { input: tar.stdoutBytes })).stdout, 'data\n');
  });

  test('commit makes an image with the changes and the configuration asked for', async () => {
    const name = await start('commit', ['-e', 'KEPT=1'], 'sh', '-c', 'echo committed >/made');
    await daemon.ok('wait', name);
    const image = `${daemon.name('image')}:v1`;
    assert.match(
      await daemon.ok(
        'commit',
        '-m',
        'a message',
        '-a',
        'an author',
        '-c',
        'CMD ["cat", "/made"]',
        '-c',
        'LABEL x=y',
        name,
        image,
      ),
      /^sha256:[0-9a-f]{64}$/,
    );
    assert.equal(await daemon.ok('run', '--rm', '--net', 'none', image), 'committed');
    assert.equal(
      await daemon.ok('image', 'inspect', '-f', '{{.Comment}} {{.Author}} {{json .Config.Labels}}', image),
      'a message an author {"x":"y"}',
    );
    // Changes apply to the container's configuration: what was there keeps its place.
    const later = await daemon.ok('commit', '-c', 'ENV LATER=1', name);
    assert.match(await daemon.ok('image', 'inspect', '-f', '{{.Config.Env}}', later), /KEPT=1.*LATER=1/);
    await daemon.ok('rmi', later);
    assert.match(await daemon.ok('image', 'inspect', '-f', '{{.Config.Env}}', image), /KEPT=1/);
    assert.equal((await daemon.ok('history', '-q', image)).split('\n').length, 2);
    await daemon.ok('rmi', image);
  });

  test('a commit pauses a running container unless told not to, and is told with its name', async () => {
    const name = await start('running', ['--label', 'l=1'], 'sleep', '1000');
    const image = `${daemon.name('running')}:v1`;
    const since = String((await daemon.inspect(name, '{{.State.StartedAt}}')) ?? '');
    const id = await daemon.ok('commit', '-m', 'why', name, image);
    const silent = await daemon.ok('commit', '--pause=false', name);
    await daemon.ok('rmi', image, silent);
    const filters = [
      '--filter',
      `container=${name}`,
      '--filter',
      'event=commit',
      '--filter',
      'event=pause',
      '--filter',
      'event=unpause',
    ];
    const format =
      '{{.Action}} {{index .Actor.Attributes "comment"}} {{index .Actor.Attributes "imageID"}} {{index .Actor.Attributes "imageRef"}}';
    const until = String(Math.ceil(Date.now() / 1000) + 1);
    const told = await daemon.ok('events', '--since', since, '--until', until, ...filters, '--format', format);
    const none = '<no value>';
    assert.deepEqual(
      told.split('\n').map((line) => line.trim().replaceAll(none, '').trim()),
      ['pause', `commit why ${id} ${image}`, 'unpause', `commit  ${silent}`],
    );
    const deleted = await daemon.ok(
      'events',
      '--since',
      since,
      '--until',
      until,
      '--filter',
      'event=delete',
      '--filter',
      `image=${id}`,
      '--format',
      '{{json .Actor.Attributes}}',
    );
    assert.equal(deleted, JSON.stringify({ name: id }));
  });
});
