/** Exit codes and messages of `docker run`: 125 engine, 126 not executable, 127 not found, else the command's own. */
import assert from 'node:assert/strict';
import { after, before, describe, test } from 'node:test';
import { startDaemon, type TestDaemon } from '../harness/daemon.ts';

describe('exit codes', () => {
  let daemon: TestDaemon;
  before(async () => {
    daemon = await startDaemon();
  });
  after(() => daemon?.[Symbol.asyncDispose]());

  const code = async (...args: string[]): Promise<number> =>
    (await daemon.docker(['run', '--rm', '--net', 'none', ...args])).code;

  test('the code of the command is the code of docker run', async () => {
    assert.equal(await code('busybox', 'true'), 0);
    assert.equal(await code('busybox', 'sh', '-c', 'exit 42'), 42);
  });

  test('a command killed by a signal gives 128 plus the signal', async () => {
    assert.equal(await code('--init', 'busybox', 'sh', '-c', 'kill -9 $$'), 137);
    assert.equal(await code('--init', 'busybox', 'sh', '-c', 'kill -TERM $$'), 143);
  });

  test('a command that does not exist gives 127 and says so', async () => {
    const result = await daemon.docker(['run', '--rm', '--net', 'none', 'busybox', 'no-such-command']);
    assert.equal(result.code, 127);
    assert.match(result.stderr, /exec: "no-such-command": executable file not found in \$PATH/);
  });

  test('a path that does not exist gives 127', async () => {
    const result = await daemon.docker(['run', '--rm', '--net', 'none', 'busybox', '/no/such/file']);
    assert.equal(result.code, 127);
    assert.match(result.stderr, /no such file or directory/);
  });

  test('a directory or a file that is not executable gives 126', async () => {
    for (const path of ['/etc', '/etc/passwd']) {
      const result = await daemon.docker(['run', '--rm', '--net', 'none', 'busybox', path]);
      assert.equal(result.code, 126, path);
      assert.match(result.stderr, /permission denied|is a directory/i);
    }
  });

  test('a container that failed to start is kept with the code and the error', async () => {
    const name = daemon.name('failed');
    const result = await daemon.docker(['run', '-d', '--net', 'none', '--name', name, 'busybox', 'no-such-command']);
    assert.equal(result.code, 127);
    assert.equal(await daemon.inspect(name, '{{.State.Status}} {{.State.ExitCode}}'), 'created 127');
    assert.match(await daemon.inspect(name, '{{.State.Error}}'), /executable file not found/);
  });

  test('engine errors give 125', async () => {
    assert.equal(await code('--memory', '1k', 'busybox', 'true'), 125);
    assert.equal(await code('--cap-add', 'NOT_A_CAP', 'busybox', 'true'), 125);
    assert.equal(await code('-v', '/a:/b:/c:/d', 'busybox', 'true'), 125);
  });

  test('an unknown flag gives 125 and shows the usage hint', async () => {
    const result = await daemon.docker(['run', '--no-such-flag', 'busybox']);
    assert.equal(result.code, 125);
    assert.match(result.stderr, /unknown flag: --no-such-flag/);
  });

  test('docker wait prints the code', async () => {
    const name = daemon.name('wait');
    await daemon.ok('run', '-d', '--net', 'none', '--name', name, 'busybox', 'sh', '-c', 'exit 9');
    assert.equal(await daemon.ok('wait', name), '9');
  });

  test('docker start -a gives the code of the command', async () => {
    const name = daemon.name('start-a');
    await daemon.ok('create', '--net', 'none', '--name', name, 'busybox', 'sh', '-c', 'echo again; exit 5');
    const result = await daemon.docker(['start', '-a', name]);
    assert.deepEqual([result.code, result.stdout], [5, 'again\n']);
  });

  test('docker exec gives the code of its command, 126 and 127 alike', async () => {
    const name = daemon.name('exec');
    await daemon.ok('run', '-d', '--net', 'none', '--name', name, 'busybox', 'sleep', '1000');
    assert.equal((await daemon.docker(['exec', name, 'sh', '-c', 'exit 6'])).code, 6);
    assert.equal((await daemon.docker(['exec', name, 'no-such-command'])).code, 127);
    assert.equal((await daemon.docker(['exec', name, '/etc/passwd'])).code, 126);
    await daemon.ok('rm', '-f', name);
  });
});
