/** `docker exec`: environment, users, input, terminals, and what it refuses. */
import assert from 'node:assert/strict';
import { after, before, describe, test } from 'node:test';
import { startDaemon, type TestDaemon } from '../harness/daemon.ts';

describe('exec', () => {
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

  test('runs in the container with its environment', async () => {
    const name = await start('env', ['-e', 'A=outer', '-w', '/tmp'], 'sleep', '1000');
    assert.equal(await daemon.ok('exec', name, 'sh', '-c', 'echo $A; pwd'), 'outer\n/tmp');
    assert.equal(
      await daemon.ok('exec', '-e', 'A=inner', '-w', '/etc', name, 'sh', '-c', 'echo $A; pwd'),
      'inner\n/etc',
    );
    assert.equal(await daemon.ok('exec', '-u', '12:13', name, 'sh', '-c', 'id -u; id -g'), '12\n13');
  });

  test('keeps the streams apart', async () => {
    const name = await start('streams', [], 'sleep', '1000');
    const result = await daemon.docker(['exec', name, 'sh', '-c', 'echo out; echo err >&2']);
    assert.deepEqual([result.stdout, result.stderr], ['out\n', 'err\n']);
  });

  test('-i passes input and its end', async () => {
    const name = await start('input', [], 'sleep', '1000');
    const input = Buffer.alloc(3_000_000, 'abcdefghij');
    const result = await daemon.docker(['exec', '-i', name, 'cat'], { input });
    assert.equal(result.code, 0);
    assert.ok(result.stdoutBytes.equals(input), `${result.stdoutBytes.length} bytes came back`);
  });

  test('without -i the command reads nothing', async () => {
    const name = await start('no-input', [], 'sleep', '1000');
    assert.equal((await daemon.docker(['exec', name, 'cat'], { input: 'lost' })).stdout, '');
  });

  test('-t gives a terminal of the size of ours', async () => {
    const name = await start('tty', [], 'sleep', '1000');
    const session = daemon.dockerInTerminal(['exec', '-it', name, 'sh']);
    await session.shows(/# /);
    session.type('tty; exit 4\n');
    const result = await session.done;
    assert.match(result.stdout, /\/dev\/pts\/\d/);
    assert.equal(result.code, 4);
  });

  test('-d returns at once', async () => {
    const name = await start('detached', [], 'sleep', '1000');
    assert.equal(await daemon.ok('exec', '-d', name, 'sh', '-c', 'echo done >/tmp/f'), '');
    assert.equal(
      await daemon.ok('exec', name, 'sh', '-c', 'until [ -s /tmp/f ]; do sleep 0.05; done; cat /tmp/f'),
      'done',
    );
  });

  test('--privileged gives all capabilities to this command alone', async () => {
    const name = await start('privileged', [], 'sleep', '1000');
    const usual = await daemon.ok('exec', name, 'grep', 'CapEff', '/proc/self/status');
    const raised = await daemon.ok('exec', '--privileged', name, 'grep', 'CapEff', '/proc/self/status');
    assert.match(usual, /00000000a80425fb/);
    assert.doesNotMatch(raised, /00000000a80425fb/);
  });

  test('refuses stopped and paused containers, and those that do not exist', async () => {
    const name = await start('stopped', [], 'true');
    await daemon.ok('wait', name);
    const stopped = await daemon.docker(['exec', name, 'true']);
    assert.equal(stopped.code, 1);
    assert.match(stopped.stderr, /Error response from daemon: container [0-9a-f]{64} is not running/);
    const absent = await daemon.docker(['exec', 'no-such-container', 'true']);
    assert.equal(absent.code, 1);
    assert.match(absent.stderr, /No such container: no-such-container/);
    const paused = await start('paused', [], 'sleep', '1000');
    await daemon.ok('pause', paused);
    assert.match(
      (await daemon.docker(['exec', paused, 'true'])).stderr,
      /is paused, unpause the container before exec/,
    );
    await daemon.ok('unpause', paused);
  });

  test('the API tells about a finished exec', async () => {
    const name = await start('api', [], 'sleep', '1000');
    const made = await daemon.api('POST', `/v1.51/containers/${name}/exec`, {
      Cmd: ['sh', '-c', 'exit 3'],
      AttachStdout: true,
    });
    assert.equal(made.status, 201);
    const id = made.json<{ Id: string }>().Id;
    const begun = await daemon.api('POST', `/v1.51/exec/${id}/start`, { Detach: false, Tty: false });
    assert.equal(begun.status, 200);
    const seen = (await daemon.api('GET', `/v1.51/exec/${id}/json`)).json();
    assert.equal(seen['Running'], false);
    assert.equal(seen['ExitCode'], 3);
    const again = await daemon.api('POST', `/v1.51/exec/${id}/start`, { Detach: false, Tty: false });
    // Compat: the engine has taken over the connection by then, so the refusal comes as text in a 200.
    assert.match(again.text, /has already run/);
  });

  test('gantry exec does the same', async (context) => {
    if (daemon.foreign) return context.skip('our own CLI is tested against our own daemon');
    const name = await start('gantry', [], 'sleep', '1000');
    const result = await daemon.gantry(['exec', '-i', name, 'sh', '-c', 'cat; exit 8'], { input: 'through' });
    assert.deepEqual([result.code, result.stdout], [8, 'through']);
  });
});
