/** Volumes, bind mounts and tmpfs mounts. */
import assert from 'node:assert/strict';
import { mkdtempSync, readFileSync, rmSync, statSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, before, describe, test } from 'node:test';
import { startDaemon, type TestDaemon } from '../harness/daemon.ts';

describe('mounts', () => {
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

  const scratch = mkdtempSync(join(tmpdir(), 'gantry-mounts-'));
  after(() => rmSync(scratch, { recursive: true, force: true }));
  const inside = (flags: string[], script: string): Promise<string> =>
    daemon.ok('run', '--rm', '--net', 'none', ...flags, 'busybox', 'sh', '-c', script);

  test('a bind mount shows the directory of the host, both ways', async () => {
    writeFileSync(join(scratch, 'given'), 'from host\n');
    assert.equal(await inside(['-v', `${scratch}:/m`], 'cat /m/given; echo from container >/m/made'), 'from host');
    assert.equal(readFileSync(join(scratch, 'made'), 'utf8'), 'from container\n');
  });

  test('ro refuses writing', async () => {
    assert.match(await inside(['-v', `${scratch}:/m:ro`], 'touch /m/x 2>&1 || true'), /Read-only file system/);
    assert.match(
      await inside(['--mount', `type=bind,source=${scratch},target=/m,readonly`], 'touch /m/x 2>&1 || true'),
      /Read-only file system/,
    );
  });

  test('a single file can be mounted', async () => {
    writeFileSync(join(scratch, 'file'), 'single\n');
    assert.equal(await inside(['-v', `${scratch}/file:/etc/motd`], 'cat /etc/motd'), 'single');
  });

  test('-v makes a missing source, --mount refuses it', async () => {
    await inside(['-v', `${scratch}/made-by-v:/m`], 'true');
    assert.ok(statSync(join(scratch, 'made-by-v')).isDirectory());
    const result = await daemon.docker([
      'create',
      '--mount',
      `type=bind,source=${scratch}/absent,target=/m`,
      'busybox',
    ]);
    assert.equal(result.code, 1);
    assert.match(result.stderr, /invalid mount config for type "bind": bind source path does not exist: .*\/absent/);
  });

  test('a named volume keeps its content and takes the first content of the image', async () => {
    const volume = daemon.name('vol');
    assert.match(await inside(['-v', `${volume}:/etc`], 'echo kept >/etc/kept; cat /etc/passwd'), /root:/);
    assert.equal(await inside(['-v', `${volume}:/other`], 'cat /other/kept'), 'kept');
    assert.equal(await inside(['-v', `${volume}:/other:nocopy`], 'test -e /other/passwd && echo there'), 'there');
    assert.equal(await daemon.ok('volume', 'ls', '-q', '--filter', `name=${volume}`), volume);
    await daemon.ok('volume', 'rm', volume);
  });

  test('a volume in use cannot be removed', async () => {
    const volume = daemon.name('busy');
    const name = await start('user', ['-v', `${volume}:/v`], 'sleep', '1000');
    const result = await daemon.docker(['volume', 'rm', volume]);
    assert.equal(result.code, 1);
    assert.match(result.stderr, /remove .*: volume is in use - \[[0-9a-f]{64}\]/);
    await daemon.ok('rm', '-f', name);
    await daemon.ok('volume', 'rm', volume);
  });

  test('--volumes-from takes the mounts of another container', async () => {
    const name = await start('source', ['-v', '/shared'], 'sh', '-c', 'echo common >/shared/f; sleep 1000');
    await daemon.ok('exec', name, 'sh', '-c', 'until [ -s /shared/f ]; do sleep 0.05; done');
    assert.equal(await inside(['--volumes-from', name], 'cat /shared/f'), 'common');
    assert.match(
      await inside(['--volumes-from', `${name}:ro`], 'touch /shared/x 2>&1 || true'),
      /Read-only file system/,
    );
  });

  test('--mount type=tmpfs and type=volume work', async () => {
    assert.match(await inside(['--mount', 'type=tmpfs,target=/t,tmpfs-size=1m'], 'mount | grep " /t "'), /tmpfs/);
    assert.match(await inside(['--mount', 'type=volume,target=/t'], 'mount | grep " /t "'), / \/t /);
  });

  test('malformed mounts are refused', async () => {
    const refused = async (...flags: string[]): Promise<string> =>
      (await daemon.docker(['create', ...flags, 'busybox'])).stderr;
    assert.match(
      await refused('-v', 'name:relative'),
      /invalid volume specification: 'name:relative': invalid mount config for type "volume": invalid mount path: 'relative' mount path must be absolute/,
    );
    assert.match(await refused('-v', '/a:/b', '-v', '/c:/b'), /Duplicate mount point: \/b/);
    assert.match(await refused('-v', '/a:/b:shiny'), /invalid mode: shiny/);
    assert.match(await refused('-v', '/a:/'), /invalid specification: destination can't be '\/'/);
    assert.match(await refused('-v', 'x!:/b'), /"x!" includes invalid characters for a local volume name/);
  });
});
