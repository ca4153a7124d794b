/** What survives the daemon's death, and that nothing survives the containers. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { setTimeout as sleep } from 'node:timers/promises';
import { startDaemon } from '../harness/daemon.ts';
import { type HostState, leftovers, readHostState } from '../harness/leaks.ts';
import { eventually } from '../harness/processes.ts';

const foreign = process.env['GANTRY_TEST_HOST'] !== undefined;
const options = foreign ? { skip: 'needs a daemon process of our own; GANTRY_TEST_HOST names another engine' } : {};

test('a killed daemon leaves containers running and finds them again', options, async () => {
  await using daemon = await startDaemon();
  const script = 'i=0; while :; do i=$((i+1)); echo $i; sleep 0.1; done';
  await daemon.ok('run', '-d', '--name', 'runner', '-p', '127.0.0.1::8080', 'busybox', 'sh', '-c', script);
  await daemon.ok('run', '-d', '--name', 'ends', '--net', 'none', 'busybox', 'sh', '-c', 'sleep 1; exit 9');
  await daemon.ok(
    'run',
    '-d',
    '--name',
    'again',
    '--net',
    'none',
    '--restart',
    'always',
    'busybox',
    'sh',
    '-c',
    'sleep 1',
  );
  const pid = await daemon.inspect('runner', '{{.State.Pid}}');
  await daemon.kill();
  process.kill(Number(pid), 0);
  await new Promise((resolve) => setTimeout(resolve, 1_500));
  await daemon.start();
  assert.equal(await daemon.inspect('runner', '{{.State.Status}} {{.State.Pid}}'), `running ${pid}`);
  await daemon.becomes('ends', '{{.State.Status}} {{.State.ExitCode}}', 'exited 9');
  await eventually(async () => Number(await daemon.inspect('again', '{{.RestartCount}}')) >= 1);
  const lines = (await daemon.ok('logs', 'runner')).split('\n').map(Number);
  // What the daemon had read and not yet written when it was killed is lost, as with dockerd: one write at most.
  const lost = (lines.at(-1) ?? 0) - lines.length;
  assert.ok(lost === 0 || lost === 1, `${lost} lines are missing`);
  assert.ok(
    lines.every((line, index) => index === 0 || line > (lines[index - 1] as number)),
    'the log has every line once and in order',
  );
  assert.equal(await daemon.ok('exec', 'runner', 'echo', 'alive'), 'alive');
  await daemon.ok('rm', '-f', 'runner', 'ends', 'again');
});

test('a stopped daemon stops its containers unless live-restore is on', options, async () => {
  await using daemon = await startDaemon({ bridge: false });
  await daemon.ok('run', '-d', '--name', 'sleeper', '--net', 'none', 'busybox', 'sleep', '1000');
  await daemon.ok('run', '-d', '--name', 'returns', '--restart', 'always', '--net', 'none', 'busybox', 'sleep', '1000');
  assert.equal(await daemon.stop(), 0);
  await daemon.start();
  assert.equal(await daemon.inspect('sleeper', '{{.State.Status}}'), 'exited');
  await daemon.becomes('returns', '{{.State.Status}}', 'running');
});

test('with --live-restore containers outlive an orderly stop', options, async () => {
  await using daemon = await startDaemon({ bridge: false, flags: ['--live-restore'] });
  await daemon.ok('run', '-d', '--name', 'sleeper', '--net', 'none', 'busybox', 'sleep', '1000');
  const pid = await daemon.inspect('sleeper', '{{.State.Pid}}');
  await daemon.stop();
  process.kill(Number(pid), 0);
  await daemon.start();
  assert.equal(await daemon.inspect('sleeper', '{{.State.Pid}}'), pid);
});

test('containers leave nothing behind on the host', options, async () => {
  await using daemon = await startDaemon();
  const round = async (): Promise<void> => {
    await daemon.ok('run', '--rm', '-v', '/v', '--tmpfs', '/t', '-p', '127.0.0.1::80', 'busybox', 'true');
    await daemon.ok('run', '-d', '--name', 'kept', '-p', '127.0.0.1::80/udp', 'busybox', 'sleep', '1000');
    await daemon.ok('exec', 'kept', 'true');
    await daemon.docker(['run', '--rm', 'busybox', 'no-such-command']);
    await daemon.ok('rm', '-fv', 'kept');
  };
  await round();
  // The spare shim is replaced behind the answers: wait for it, so that it counts on both sides.
  await sleep(2_000);
  const before: HostState = await readHostState(daemon);
  for (let index = 0; index < 3; index += 1) await round();
  let left: string[] = [];
  await eventually(
    async () => {
      left = leftovers(before, await readHostState(daemon));
      return left.length === 0;
    },
    { what: () => `leftovers to go:\n${left.join('\n')}` },
  );
});

test('daemons stand side by side without seeing each other', options, async () => {
  await using one = await startDaemon();
  await using two = await startDaemon();
  for (const daemon of [one, two]) await daemon.ok('run', '-d', '--name', 'same-name', 'busybox', 'sleep', '1000');
  const id = await one.inspect('same-name', '{{.Id}}');
  assert.notEqual(id, await two.inspect('same-name', '{{.Id}}'));
  assert.equal((await two.docker(['inspect', id])).code, 1);
  await one.stop();
  assert.equal(await two.ok('exec', 'same-name', 'echo', 'still here'), 'still here');
});
