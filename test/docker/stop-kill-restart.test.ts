/** Ending and restarting containers: signals, timeouts, pause, rename, remove. */
import assert from 'node:assert/strict';
import { after, before, describe, test } from 'node:test';
import { startDaemon, type TestDaemon } from '../harness/daemon.ts';
import { eventually } from '../harness/processes.ts';

describe('stop, kill, restart, pause, rename, rm', () => {
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

  const trap =
    'trap "echo got TERM; exit 3" TERM; trap "echo got HUP" HUP; trap "echo got USR1; exit 4" USR1; echo ready; while :; do sleep 0.05; done';
  const ready = async (name: string): Promise<void> =>
    eventually(async () => (await daemon.ok('logs', name)).includes('ready'), { what: 'the container to be ready' });

  test('stop sends SIGTERM and keeps the exit code', async () => {
    const name = await start('term', [], 'sh', '-c', trap);
    await ready(name);
    assert.equal(await daemon.ok('stop', name), name);
    assert.equal(await daemon.inspect(name, '{{.State.Status}} {{.State.ExitCode}}'), 'exited 3');
    assert.match(await daemon.ok('logs', name), /got TERM/);
  });

  test('stop -t kills what does not end', async () => {
    const name = await start('stubborn', [], 'sh', '-c', 'trap "" TERM; echo ready; while :; do sleep 0.05; done');
    await ready(name);
    const begun = performance.now();
    await daemon.ok('stop', '-t', '1', name);
    assert.ok(performance.now() - begun < 8_000);
    assert.equal(await daemon.inspect(name, '{{.State.ExitCode}}'), '137');
  });

  test('--stop-signal and --stop-timeout of the container are used', async () => {
    const name = await start('signal', ['--stop-signal', 'USR1', '--stop-timeout', '5'], 'sh', '-c', trap);
    await ready(name);
    await daemon.ok('stop', name);
    assert.equal(await daemon.inspect(name, '{{.State.ExitCode}}'), '4');
  });

  test('stopping a stopped container succeeds', async () => {
    const name = await start('stopped', [], 'true');
    await daemon.ok('wait', name);
    assert.equal(await daemon.ok('stop', name), name);
  });

  test('kill sends the signal asked for, by name or number', async () => {
    const name = await start('kill', [], 'sh', '-c', trap);
    await ready(name);
    await daemon.ok('kill', '-s', 'HUP', name);
    await eventually(async () => (await daemon.ok('logs', name)).includes('got HUP'));
    assert.equal(await daemon.inspect(name, '{{.State.Running}}'), 'true');
    await daemon.ok('kill', '-s', '9', name);
    await daemon.becomes(name, '{{.State.Status}} {{.State.ExitCode}}', 'exited 137');
  });

  test('kill refuses stopped containers and unknown signals', async () => {
    const name = await start('dead', [], 'true');
    await daemon.ok('wait', name);
    const result = await daemon.docker(['kill', name]);
    assert.equal(result.code, 1);
    assert.match(result.stderr, /container [0-9a-f]{64} is not running|cannot kill container: .* is not running/);
    const alive = await start('alive', [], 'sleep', '1000');
    const bad = await daemon.docker(['kill', '-s', 'NOPE', alive]);
    assert.match(bad.stderr, /invalid signal: NOPE/i);
  });

  test('restart gives a new process and a later start', async () => {
    const name = await start('restart', [], 'sh', '-c', trap);
    await ready(name);
    const before = await daemon.inspect(name, '{{.State.StartedAt}} {{.State.Pid}}');
    await daemon.ok('restart', '-t', '2', name);
    const now = await daemon.inspect(name, '{{.State.StartedAt}} {{.State.Pid}}');
    assert.notEqual(before, now);
    assert.equal(await daemon.inspect(name, '{{.State.Running}} {{.RestartCount}}'), 'true 0');
  });

  test('the file system stays as it was across a restart', async () => {
    const name = await start('keep', [], 'sh', '-c', 'echo run >>/count; sleep 1000');
    await eventually(async () => (await daemon.docker(['exec', name, 'cat', '/count'])).stdout === 'run\n');
    await daemon.ok('restart', '-t', '0', name);
    await eventually(async () => (await daemon.docker(['exec', name, 'cat', '/count'])).stdout === 'run\nrun\n');
  });

  test('pause freezes and unpause goes on', async () => {
    const name = await start('pause', [], 'sh', '-c', 'i=0; while :; do i=$((i+1)); echo $i; sleep 0.05; done');
    await daemon.ok('pause', name);
    assert.equal(
      await daemon.inspect(name, '{{.State.Status}} {{.State.Paused}} {{.State.Running}}'),
      'paused true true',
    );
    const frozen = await daemon.ok('logs', name);
    await new Promise((resolve) => setTimeout(resolve, 300));
    assert.equal(await daemon.ok('logs', name), frozen);
    assert.match((await daemon.docker(['pause', name])).stderr, /is already paused/);
    await daemon.ok('unpause', name);
    await eventually(async () => (await daemon.ok('logs', name)).length > frozen.length);
    assert.match((await daemon.docker(['unpause', name])).stderr, /is not paused/);
  });

  test('a paused container can be stopped', async () => {
    const name = await start('paused-stop', [], 'sleep', '1000');
    await daemon.ok('pause', name);
    await daemon.ok('stop', '-t', '1', name);
    assert.equal(await daemon.inspect(name, '{{.State.Status}}'), 'exited');
  });

  test('rename changes the name and refuses taken and malformed ones', async () => {
    const name = await start('old', [], 'sleep', '1000');
    const other = await start('other', [], 'sleep', '1000');
    const renamed = daemon.name('new');
    await daemon.ok('rename', name, renamed);
    assert.equal(await daemon.inspect(renamed, '{{.Name}}'), `/${renamed}`);
    assert.equal((await daemon.docker(['inspect', name])).code, 1);
    const taken = await daemon.docker(['rename', renamed, other]);
    assert.match(taken.stderr, /Conflict\. The container name "\/.*" is already in use by container/);
    assert.match(
      (await daemon.docker(['rename', renamed, 'a b'])).stderr,
      /Error when allocating new name: Invalid container name \(\/a b\), only \[a-zA-Z0-9\]\[a-zA-Z0-9_\.-\] are allowed/,
    );
    const same = await daemon.docker(['rename', renamed, renamed]);
    assert.match(same.stderr, /Renaming a container with the same name as its current name/);
  });

  test('rm refuses running containers and -f kills them', async () => {
    const name = await start('rm', [], 'sleep', '1000');
    const refused = await daemon.docker(['rm', name]);
    assert.equal(refused.code, 1);
    assert.match(
      refused.stderr,
      /cannot remove container ".*": container is running: stop the container before removing or force remove/,
    );
    assert.equal(await daemon.ok('rm', '-f', name), name);
    const gone = await daemon.docker(['rm', name]);
    assert.match(gone.stderr, /No such container/);
    assert.equal((await daemon.docker(['rm', '-f', name])).code, 0);
  });

  test('start of a running container is no error', async () => {
    const name = await start('twice', [], 'sleep', '1000');
    assert.equal(await daemon.ok('start', name), name);
  });

  test('wait conditions: next-exit and removed', async () => {
    const name = await start('conditions', ['--rm'], 'sleep', '1000');
    const next = daemon.api('POST', `/v1.51/containers/${name}/wait?condition=next-exit`);
    const removed = daemon.api('POST', `/v1.51/containers/${name}/wait?condition=removed`);
    await new Promise((resolve) => setTimeout(resolve, 200));
    await daemon.ok('kill', name);
    assert.equal((await next).json<{ StatusCode: number }>().StatusCode, 137);
    assert.equal((await removed).json<{ StatusCode: number }>().StatusCode, 137);
    const wrong = await daemon.api('POST', `/v1.51/containers/whatever/wait?condition=sometime`);
    assert.equal(wrong.status, 400);
    assert.match(wrong.text, /invalid condition: \\"sometime\\"/);
  });
});
