/** `docker logs` and the log drivers behind it. */
import assert from 'node:assert/strict';
import { after, before, describe, test } from 'node:test';
import { startDaemon, type TestDaemon } from '../harness/daemon.ts';

describe('logs', () => {
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

  const script = 'for i in 1 2 3 4 5; do echo line $i; done; echo oops >&2';

  test('shows both streams where they belong', async () => {
    const name = await start('both', [], 'sh', '-c', script);
    await daemon.ok('wait', name);
    const result = await daemon.docker(['logs', name]);
    assert.equal(result.stdout, 'line 1\nline 2\nline 3\nline 4\nline 5\n');
    assert.equal(result.stderr, 'oops\n');
  });

  test('--tail counts lines from the end', async () => {
    const name = await start('tail', [], 'sh', '-c', 'for i in 1 2 3 4 5; do echo line $i; done');
    await daemon.ok('wait', name);
    assert.equal(await daemon.ok('logs', '--tail', '2', name), 'line 4\nline 5');
    assert.equal(await daemon.ok('logs', '-n', '0', name), '');
    assert.equal((await daemon.ok('logs', '--tail', 'all', name)).split('\n').length, 5);
  });

  test('-t puts a nanosecond time before each line', async () => {
    const name = await start('time', [], 'echo', 'hello');
    await daemon.ok('wait', name);
    assert.match(await daemon.ok('logs', '-t', name), /^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{1,9}Z hello$/);
  });

  test('--since and --until cut by time', async () => {
    const name = await start('cut', [], 'sh', '-c', 'echo early; sleep 1.2; echo late');
    await daemon.ok('wait', name);
    const stamp = (await daemon.ok('logs', '-t', name)).split('\n')[1]?.split(' ')[0] ?? '';
    assert.equal(await daemon.ok('logs', '--since', stamp, name), 'late');
    assert.equal(await daemon.ok('logs', '--until', stamp.replace(/\.\d+Z$/, 'Z'), name), 'early');
  });

  test('-f follows until the container ends', async () => {
    const name = await start('follow', [], 'sh', '-c', 'for i in 1 2 3; do echo tick $i; sleep 0.3; done');
    assert.equal(await daemon.ok('logs', '-f', name), 'tick 1\ntick 2\ntick 3');
  });

  test('--details shows the labels and variables asked for', async () => {
    const name = await start(
      'details',
      ['--log-opt', 'labels=team', '--log-opt', 'env=STAGE', '-l', 'team=red', '-e', 'STAGE=dev'],
      'echo',
      'x',
    );
    await daemon.ok('wait', name);
    assert.equal(await daemon.ok('logs', '--details', name), 'STAGE=dev,team=red x');
  });

  test('a line of more than 16 KiB comes back whole', async () => {
    const name = await start('long', [], 'sh', '-c', 'head -c 50000 /dev/zero | tr "\\0" x; echo');
    await daemon.ok('wait', name);
    assert.equal((await daemon.ok('logs', name)).length, 50_000);
  });

  test('output of a terminal keeps its carriage returns', async () => {
    const name = await start('tty', ['-t'], 'echo', 'x');
    await daemon.ok('wait', name);
    assert.equal((await daemon.docker(['logs', name])).stdout, 'x\r\n');
  });

  test('json-file rotates by max-size and max-file and still reads', async () => {
    const name = await start(
      'rotate',
      ['--log-opt', 'max-size=4k', '--log-opt', 'max-file=3'],
      'sh',
      '-c',
      'for i in $(seq 1 200); do echo number $i; done',
    );
    await daemon.ok('wait', name);
    const lines = (await daemon.ok('logs', name)).split('\n');
    assert.equal(lines.at(-1), 'number 200');
    assert.ok(lines.length < 200 && lines.length > 40, `${lines.length} lines are left`);
  });

  test('the local driver reads back too', async () => {
    const name = await start('local', ['--log-driver', 'local'], 'sh', '-c', 'echo a; echo b >&2');
    await daemon.ok('wait', name);
    const result = await daemon.docker(['logs', name]);
    assert.deepEqual([result.stdout, result.stderr], ['a\n', 'b\n']);
  });

  test('the none driver cannot be read', async () => {
    const name = await start('none', ['--log-driver', 'none'], 'echo', 'x');
    const result = await daemon.docker(['logs', name]);
    assert.equal(result.code, 1);
    assert.match(result.stderr, /configured logging driver does not support reading/);
  });

  test('an unknown driver or option is refused', async () => {
    const driver = await daemon.docker(['run', '--rm', '--log-driver', 'carrier-pigeon', 'busybox', 'true']);
    assert.equal(driver.code, 125);
    assert.match(driver.stderr, /carrier-pigeon/);
    const option = await daemon.docker(['run', '--rm', '--log-opt', 'wings=2', 'busybox', 'true']);
    assert.equal(option.code, 125);
    assert.match(option.stderr, /unknown log opt 'wings' for json-file log driver/);
  });

  test('restarted containers append to their log', async () => {
    const name = await start('again', [], 'echo', 'once more');
    await daemon.ok('wait', name);
    await daemon.ok('start', '-a', name);
    assert.equal(await daemon.ok('logs', name), 'once more\nonce more');
  });
});
