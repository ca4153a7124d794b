/** Mounts of parts of volumes (`volume-subpath`) and of images (`type=image`). */
import assert from 'node:assert/strict';
import { readFileSync } from 'node:fs';
import { after, before, describe, test } from 'node:test';
import { startDaemon, type TestDaemon } from '../harness/daemon.ts';

const foreign = process.env['GANTRY_TEST_HOST'] !== undefined;
const own = foreign ? { skip: 'needs a daemon process of our own; GANTRY_TEST_HOST names another engine' } : {};

describe('parts of volumes and images', () => {
  let daemon: TestDaemon;
  before(async () => {
    daemon = await startDaemon();
    const fill =
      'mkdir -p /v/d/e; echo file >/v/f; echo x >/v/d/e/x; ln -s d /v/inside; ln -s /etc/passwd /v/outside; ln -s ../../.. /v/up';
    await daemon.ok('run', '--rm', '--net', 'none', '-v', 'parts:/v', 'busybox', 'sh', '-c', fill);
  });
  after(() => daemon?.[Symbol.asyncDispose]());

  const run = (mount: string, script: string): ReturnType<TestDaemon['docker']> =>
    daemon.docker(['run', '--rm', '--net', 'none', '--mount', mount, 'busybox', 'sh', '-c', script]);
  const part = (path: string): string => `type=volume,src=parts,dst=/m,volume-subpath=${path}`;
  /** Mounts of the host below the daemon's exec root that belong to parts and images. */
  const leftovers = (): string[] =>
    readFileSync('/proc/self/mountinfo', 'utf8')
      .split('\n')
      .filter((line) => line.includes(daemon.directory) && line.includes('/mounts/'));

  test('directories, files and links that stay inside', async () => {
    assert.equal((await run(part('d'), 'ls /m; echo y >/m/e/y')).stdout, 'e\n');
    assert.equal((await run(part('inside/e'), 'ls /m')).stdout, 'x\ny\n');
    assert.equal((await run(part('inside'), 'ls /m')).stdout, 'e\n');
    assert.equal((await run(part('f'), 'cat /m')).stdout, 'file\n');
    assert.match((await run(`${part('f')},readonly`, 'echo >/m')).stderr, /Read-only file system/);
    assert.deepEqual(leftovers(), []);
  });

  test('nothing outside the volume can be reached, and what is missing is not made', async () => {
    for (const path of ['outside', 'up', 'up/etc']) {
      const { code, stderr } = await run(part(path), 'ls /m');
      assert.equal(code, 125);
      assert.match(
        stderr,
        new RegExp(`path concatenation escapes the base directory, base: .*/parts/_data, subpath: ${path}`),
      );
    }
    assert.match(
      (await run(part('none'), 'true')).stderr,
      /cannot access path .*\/none: lstat .*: no such file or directory/,
    );
    assert.deepEqual(leftovers(), []);
  });

  test('an image is mounted read-only, whole or in part', async () => {
    const image = 'type=image,src=busybox,dst=/m';
    const { stdout, stderr } = await run(image, 'ls -d /m/bin; touch /m/x');
    assert.equal(stdout, '/m/bin\n');
    assert.match(stderr, /Read-only file system/);
    assert.equal((await run(`${image},image-subpath=bin/busybox`, 'test -f /m && echo file')).stdout, 'file\n');
    assert.match((await run(`${image},image-subpath=none`, 'true')).stderr, /cannot access path/);
    assert.deepEqual(leftovers(), []);
  });

  test('a mounted image stays for its container, over restarts of both and the removal of its name', own, async () => {
    const name = daemon.name('image');
    await daemon.ok('tag', 'busybox', 'mounted');
    await daemon.ok(
      'run',
      '-d',
      '--net',
      'none',
      '--name',
      name,
      '--mount',
      'type=image,src=mounted,dst=/m',
      'busybox',
      'sleep',
      '1000',
    );
    await daemon.ok('rmi', 'mounted');
    await daemon.kill();
    await daemon.start();
    assert.equal(await daemon.ok('exec', name, 'ls', '-d', '/m/bin'), '/m/bin');
    await daemon.ok('restart', '-t', '0', name);
    assert.equal(await daemon.ok('exec', name, 'ls', '-d', '/m/bin'), '/m/bin');
    assert.equal(
      await daemon.inspect(name, '{{range .Mounts}}{{.Type}} {{.Name}} {{.RW}}{{end}}'),
      'image mounted false',
    );
    await daemon.ok('rm', '-f', name);
    assert.deepEqual(leftovers(), []);
  });

  test('a relative volume of a container is taken from its root', async () => {
    assert.equal(
      await daemon.ok('run', '--rm', '--net', 'none', '-v', 'relative', 'busybox', 'ls', '-d', '/relative'),
      '/relative',
    );
  });

  test('the working directory is there before the first start', async () => {
    const name = daemon.name('workdir');
    await daemon.ok('create', '--name', name, '-w', '/made/here', 'busybox');
    assert.equal(await daemon.ok('diff', name), 'A /made\nA /made/here');
    await daemon.ok('rm', name);
  });
});
