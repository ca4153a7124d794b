/** Daemon, shims, containers and runtimes that die or fail, each alone and all at once. */
import assert from 'node:assert/strict';
import { chmodSync, globSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { test } from 'node:test';
import { setTimeout as delay } from 'node:timers/promises';
import { startDaemon, TestDaemon } from '../harness/daemon.ts';
import { orphans } from '../harness/orphans.ts';
import { eventually, run } from '../harness/processes.ts';

const foreign = process.env['GANTRY_TEST_HOST'] !== undefined;
const options = foreign ? { skip: 'needs a daemon process of our own; GANTRY_TEST_HOST names another engine' } : {};

const WARM_SHIM_MS = 700;
const CLEANUP_MS = 700;

async function nothingOrphaned(daemon: TestDaemon): Promise<void> {
  let left: string[] = [];
  await eventually(
    async () => {
      left = await orphans(daemon);
      return left.length === 0;
    },
    { what: () => `nothing orphaned:\n${left.join('\n')}\n${daemon.log.slice(-4_000)}` },
  );
}

/** The parent of a container's first process: its shim. */
function shimOf(pid: string): number {
  const status = readFileSync(`/proc/${pid}/status`, 'utf8');
  return Number(/^PPid:\s+(\d+)/m.exec(status)?.[1]);
}

function isAlive(pid: string): boolean {
  try {
    // A zombie has ended; whoever adopted it has only not looked yet.
    return !/^State:\s+Z/m.test(readFileSync(`/proc/${pid}/status`, 'utf8'));
  } catch {
    return false;
  }
}

test('a container whose shim is killed is ended, reported and leaves nothing', options, async () => {
  await using daemon = await startDaemon();
  await daemon.ok('run', '-d', '--name', 'victim', '-p', '127.0.0.1::80', 'busybox', 'sleep', '10000');
  await daemon.ok('run', '-d', '--name', 'returns', '--restart', 'always', 'busybox', 'sleep', '10000');
  const pid = await daemon.inspect('victim', '{{.State.Pid}}');
  const waiting = daemon.docker(['wait', 'victim']);
  process.kill(shimOf(pid), 'SIGKILL');
  process.kill(shimOf(await daemon.inspect('returns', '{{.State.Pid}}')), 'SIGKILL');
  const waited = await waiting;
  assert.match(waited.stdout, /^(137|255)\n$/);
  await eventually(() => !isAlive(pid), { what: 'the process without a shim to be ended' });
  await eventually(async () => (await daemon.inspect('returns', '{{.RestartCount}} {{.State.Running}}')) === '1 true');
  await nothingOrphaned(daemon);
  await daemon.ok('start', 'victim');
  assert.equal(await daemon.ok('exec', 'victim', 'echo', 'again'), 'again');
});

test('shims killed while the daemon is down are noticed at its start', options, async () => {
  await using daemon = await startDaemon();
  await daemon.ok('run', '-d', '--name', 'victim', 'busybox', 'sleep', '10000');
  const pid = await daemon.inspect('victim', '{{.State.Pid}}');
  await daemon.kill();
  process.kill(shimOf(pid), 'SIGKILL');
  await daemon.start();
  assert.match(await daemon.inspect('victim', '{{.State.Status}} {{.State.ExitCode}}'), /^exited (137|255)$/);
  assert.equal(isAlive(pid), false);
  await nothingOrphaned(daemon);
});

test('after a crash of the host the database opens, containers have exited and nothing is left', options, async () => {
  await using daemon = await startDaemon();
  await daemon.ok('run', '-d', '--name', 'plain', '-p', '127.0.0.1::80', 'busybox', 'sleep', '10000');
  await daemon.ok('run', '-d', '--rm', '--name', 'removed', 'busybox', 'sleep', '10000');
  await daemon.ok('run', '-d', '--restart', 'always', '--name', 'returns', 'busybox', 'sleep', '10000');
  await daemon.ok('exec', 'plain', 'sh', '-c', 'echo kept > /kept');
  const pids = (await daemon.inspect('plain', '{{.State.Pid}}')).split('\n');
  for (const name of ['removed', 'returns']) pids.push(await daemon.inspect(name, '{{.State.Pid}}'));
  await daemon.kill();
  for (const shim of pids.map(shimOf)) process.kill(shim, 'SIGKILL');
  for (const pid of pids) process.kill(Number(pid), 'SIGKILL');
  // A reboot takes the mounts and everything under /run away.
  const mounts = readFileSync('/proc/self/mountinfo', 'utf8')
    .split('\n')
    .map((line) => line.split(' ')[4] ?? '')
    .filter((target) => target.startsWith(daemon.directory));
  for (const target of mounts.toReversed()) await run('umount', ['-l', target]);
  const warm = globSync('/proc/[0-9]*/cwd').filter((link) => {
    try {
      return readFileSync(link.replace('/cwd', '/cmdline'), 'utf8').includes(daemon.execRoot);
    } catch {
      return false;
    }
  });
  for (const link of warm) process.kill(Number(link.split('/')[2]), 'SIGKILL');
  rmSync(daemon.execRoot, { recursive: true });
  await daemon.start();
  assert.equal(await daemon.inspect('plain', '{{.State.Status}} {{.State.ExitCode}}'), 'exited 255');
  await daemon.becomes('returns', '{{.State.Status}}', 'running');
  assert.equal((await daemon.docker(['inspect', 'removed'])).code, 1);
  await daemon.ok('start', 'plain');
  assert.equal(await daemon.ok('exec', 'plain', 'cat', '/kept'), 'kept');
  await nothingOrphaned(daemon);
});

for (const step of ['create', 'start', 'delete']) {
  test(`a runtime that fails at ${step} leaves nothing behind and the daemon well`, options, async () => {
    const runtime = join(tmpdir(), `gantry-broken-${process.pid}-${step}`);
    await using daemon = new TestDaemon({ flags: ['--add-runtime', `broken=${runtime}`] });
    // runc takes global options first, so the step is looked for among all words.
    writeFileSync(
      runtime,
      `#!/bin/sh\nfor word; do [ "$word" = ${step} ] && [ ! -e ${runtime}.off ] && { echo "broken on purpose" >&2; exit 1; }; done\nexec runc "$@"\n`,
    );
    chmodSync(runtime, 0o755);
    try {
      await daemon.start();
      await daemon.loadBusybox();
      // The shim that was started ahead is taken: its directory is not the container's.
      await delay(WARM_SHIM_MS);
      const result = await daemon.docker([
        'run',
        '--name',
        'broken',
        '--runtime',
        'broken',
        '-p',
        '127.0.0.1::80',
        'busybox',
        'true',
      ]);
      if (step === 'delete') await daemon.becomes('broken', '{{.State.Status}}', 'exited');
      else {
        // Compat: the shim's complaint about a missing log of the runtime reads like a missing program.
        assert.ok(result.code === 125 || result.code === 127, result.stderr);
        assert.match(result.stderr, /failed to (create|start) task for container/);
        assert.equal(await daemon.inspect('broken', '{{.State.Status}}'), 'created');
      }
      // Every try to clean up meets the broken runtime.
      await delay(CLEANUP_MS);
      writeFileSync(`${runtime}.off`, '');
      await nothingOrphaned(daemon);
      await daemon.ok('rm', '-f', 'broken');
      assert.equal(await daemon.ok('run', '--rm', 'busybox', 'echo', 'well'), 'well');
    } finally {
      rmSync(runtime, { force: true });
      rmSync(`${runtime}.off`, { force: true });
    }
  });
}

test('a runtime that is not there is named', options, async () => {
  await using daemon = await startDaemon({ bridge: false, flags: ['--add-runtime', 'absent=/nonexistent/runtime'] });
  const result = await daemon.docker(['run', '--rm', '--net', 'none', '--runtime', 'absent', 'busybox', 'true']);
  assert.ok(result.code === 125 || result.code === 127, `${result.code}`);
  assert.match(result.stderr, /\/nonexistent\/runtime/);
  await nothingOrphaned(daemon);
});

test('a second daemon on the same roots is refused and the first goes on', options, async () => {
  await using daemon = await startDaemon({ bridge: false });
  const other = join(daemon.directory, 'other');
  const gantryd = join(import.meta.dirname, '../../bin/gantryd');
  const common = ['-b', 'none', '-p', join(other, 'pid'), '-H', `unix://${daemon.directory}/other.sock`];
  const data = await run(gantryd, ['--data-root', daemon.dataRoot, '--exec-root', other, ...common]);
  assert.equal(data.code, 1);
  assert.match(data.stderr, new RegExp(`another daemon is using ${daemon.dataRoot}`));
  const exec = await run(gantryd, ['--data-root', other, '--exec-root', daemon.execRoot, ...common]);
  assert.equal(exec.code, 1);
  assert.match(exec.stderr, /another daemon is using .*--exec-root/);
  assert.equal(await daemon.ok('run', '--rm', '--net', 'none', 'busybox', 'echo', 'well'), 'well');
});
