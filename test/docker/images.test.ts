/** Images without a registry: import, load, save, tag, list, remove, history. */
import assert from 'node:assert/strict';
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { createServer } from 'node:http';
import type { AddressInfo } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, before, describe, test } from 'node:test';
import { startDaemon, type TestDaemon } from '../harness/daemon.ts';
import { run } from '../harness/processes.ts';

describe('images', () => {
  let daemon: TestDaemon;
  before(async () => {
    daemon = await startDaemon();
  });
  after(() => daemon?.[Symbol.asyncDispose]());

  /** Starts a container in the background; returns its name. */
  const start = async (purpose: string, flags: string[], ...command: string[]): Promise<string> => {
    const name = daemon.name(purpose);
    await daemon.ok('run', '-d', '--name', name, ...flags, 'busybox', ...command);
    return name;
  };

  const scratch = mkdtempSync(join(tmpdir(), 'gantry-images-'));
  after(() => rmSync(scratch, { recursive: true, force: true }));

  test('images lists what was imported', async () => {
    assert.match(
      await daemon.ok('images', 'busybox'),
      /^REPOSITORY +TAG +IMAGE ID +CREATED +SIZE\nbusybox +latest +[0-9a-f]{12} /,
    );
    assert.match(await daemon.ok('images', '-q', '--no-trunc', 'busybox'), /^sha256:[0-9a-f]{64}$/);
    assert.equal(await daemon.ok('images', '-q', '--filter', 'reference=nothing*'), '');
  });

  test('tag and rmi: the last tag takes the image with it', async () => {
    const image = daemon.name('img');
    const source = join(scratch, 'tiny');
    writeFileSync(source, image);
    await run('tar', ['-C', scratch, '-cf', join(scratch, 'tiny.tar'), 'tiny']);
    await daemon.ok('import', '-m', 'tiny one', join(scratch, 'tiny.tar'), `${image}:a`);
    await daemon.ok('tag', `${image}:a`, `${image}:b`);
    assert.equal(await daemon.ok('rmi', `${image}:a`), `Untagged: ${image}:a`);
    const lines = (await daemon.ok('rmi', `${image}:b`)).split('\n');
    assert.equal(lines[0], `Untagged: ${image}:b`);
    assert.match(lines[1] ?? '', /^Deleted: sha256:[0-9a-f]{64}$/);
    assert.match((await daemon.docker(['rmi', `${image}:b`])).stderr, new RegExp(`No such image: ${image}:b`));
  });

  test('an image used by a container is kept', async () => {
    const image = `${daemon.name('used')}:v`;
    const name = await start('user', ['--net', 'none'], 'true');
    await daemon.ok('wait', name);
    await daemon.ok('commit', name, image);
    const other = daemon.name('other');
    await daemon.ok('create', '--name', other, image);
    const result = await daemon.docker(['rmi', image]);
    assert.equal(result.code, 1);
    assert.match(
      result.stderr,
      /conflict: unable to remove repository reference ".*" \(must force\) - container [0-9a-f]{12} is using its referenced image [0-9a-f]{12}/,
    );
    await daemon.ok('rm', other);
    await daemon.ok('rmi', image);
  });

  for (const [kind, pack] of [
    ['plain', undefined],
    ['gzip', ['gzip', '-1']],
    ['xz', ['xz', '-0']],
    ['bzip2', ['bzip2', '-1']],
  ] as const) {
    test(`save and load carry an image over, ${kind}`, async () => {
      const image = `${daemon.name(kind)}:v`;
      const name = await start(`save-${kind}`, ['--net', 'none'], 'sh', '-c', `echo ${kind} >/f`);
      await daemon.ok('wait', name);
      await daemon.ok('commit', '-c', 'CMD ["cat", "/f"]', name, image);
      const id = await daemon.ok('image', 'inspect', '-f', '{{.Id}}', image);
      const file = join(scratch, `${kind}.tar`);
      await daemon.ok('save', '-o', file, image);
      await daemon.ok('rmi', image);
      if (pack !== undefined) {
        const packed = await run(pack[0], [...pack.slice(1), '-c', file]);
        writeFileSync(file, packed.stdoutBytes);
      }
      assert.equal(await daemon.ok('load', '-i', file), `Loaded image: ${image}`);
      assert.equal(await daemon.ok('image', 'inspect', '-f', '{{.Id}}', image), id);
      assert.equal(await daemon.ok('run', '--rm', '--net', 'none', image), kind);
      await daemon.ok('rm', name);
      await daemon.ok('rmi', image);
    });
  }

  test('an import by URL that fails tells why, and only Linux is imported', async () => {
    const server = createServer((_request, response) => {
      response.statusCode = 404;
      response.end(' gone \n');
    });
    await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
    const { port } = server.address() as AddressInfo;
    const url = `http://127.0.0.1:${port}/x`;
    const refused = await daemon.api('POST', `/images/create?fromSrc=${url}`);
    await new Promise((resolve) => server.close(resolve));
    assert.equal(refused.status, 404);
    assert.equal(refused.json()['message'], `failed to GET ${url} with status 404 Not Found: gone`);
    const unreachable = await daemon.api('POST', `/images/create?fromSrc=${url}`);
    assert.equal(unreachable.status, 500);
    const text = `Get "${url}": dial tcp 127.0.0.1:${port}: connect: connection refused`;
    assert.equal(unreachable.json()['message'], text);
    const windows = await daemon.api('POST', '/images/create?fromSrc=-&platform=windows', '');
    assert.deepEqual([windows.status, windows.json()['message']], [400, 'operating system is not supported']);
  });

  test('a broken archive is refused', async () => {
    writeFileSync(join(scratch, 'broken.tar'), Buffer.alloc(10_000, 65));
    assert.notEqual((await daemon.docker(['load', '-i', join(scratch, 'broken.tar')])).code, 0);
    // The answer is 200 whatever comes, and ends with the error.
    const answer = await daemon.api('POST', '/images/load', Buffer.alloc(10_000, 65));
    assert.equal(answer.status, 200);
    const told = answer.json<{ error: string; errorDetail: { message: string } }>();
    assert.notEqual(told.error, '');
    assert.equal(told.errorDetail.message, told.error);
    const empty = await daemon.docker(['import', join(scratch, 'broken.tar')]);
    assert.notEqual(empty.code, 0);
  });

  test('history shows the import and what was committed on it', async () => {
    const image = `${daemon.name('history')}:v`;
    const name = await start('history', ['--net', 'none'], 'touch', '/h');
    await daemon.ok('wait', name);
    await daemon.ok('commit', '-m', 'on top', name, image);
    const rows = (await daemon.ok('history', '--no-trunc', '--format', '{{.CreatedBy}}|{{.Comment}}', image)).split(
      '\n',
    );
    assert.equal(rows[0], 'touch /h|on top');
    assert.match(rows[1] ?? '', /\|Imported from -$/);
    await daemon.ok('rmi', image);
  });

  test('image inspect shows configuration, layers and platform', async () => {
    const [about] = JSON.parse(await daemon.ok('image', 'inspect', 'busybox'));
    assert.ok(about.RepoTags.includes('busybox:latest'));
    assert.deepEqual(about.Config.Cmd, ['sh']);
    assert.equal(about.RootFS.Type, 'layers');
    assert.equal(about.RootFS.Layers.length, 1);
    assert.equal(about.Os, 'linux');
    assert.ok(about.Size > 500_000);
  });

  test('bad references are refused', async () => {
    assert.match((await daemon.docker(['tag', 'busybox', 'some/UPPER'])).stderr, /repository name .*must be lowercase/);
    assert.match((await daemon.docker(['tag', 'no-such-image', 'x'])).stderr, /No such image: no-such-image:latest/);
  });
});
