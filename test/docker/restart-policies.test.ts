/** Restart policies and health checks. */
import assert from 'node:assert/strict';
import { after, before, describe, test } from 'node:test';
import { startDaemon, type TestDaemon } from '../harness/daemon.ts';
import { eventually } from '../harness/processes.ts';

describe('restart policies and health checks', () => {
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

  test('on-failure:2 restarts twice and gives up', async () => {
    const name = await start('twice', ['--restart', 'on-failure:2'], 'sh', '-c', 'echo run; exit 7');
    await daemon.becomes(name, '{{.State.Status}} {{.State.ExitCode}} {{.RestartCount}}', 'exited 7 2');
    assert.equal(await daemon.ok('logs', name), 'run\nrun\nrun');
  });

  test('on-failure leaves a success alone', async () => {
    const name = await start('fine', ['--restart', 'on-failure'], 'true');
    await daemon.becomes(name, '{{.State.Status}} {{.RestartCount}}', 'exited 0');
  });

  test('always restarts until it is stopped', async () => {
    const name = await start('always', ['--restart', 'always'], 'sh', '-c', 'echo run; sleep 0.1');
    await eventually(async () => Number(await daemon.inspect(name, '{{.RestartCount}}')) >= 2);
    await daemon.ok('stop', '-t', '1', name);
    assert.equal(await daemon.inspect(name, '{{.State.Status}}'), 'exited');
    const count = await daemon.inspect(name, '{{.RestartCount}}');
    await new Promise((resolve) => setTimeout(resolve, 1_000));
    assert.equal(await daemon.inspect(name, '{{.RestartCount}}'), count);
  });

  test('a waiting container can be seen and removed', async () => {
    const name = await start('wait', ['--restart', 'always'], 'false');
    await daemon.becomes(name, '{{.State.Restarting}}', 'true');
    await daemon.ok('rm', '-f', name);
    assert.equal((await daemon.docker(['inspect', name])).code, 1);
  });

  test('bad policies are refused', async () => {
    const both = await daemon.docker(['run', '--rm', '--restart', 'always', 'busybox', 'true']);
    assert.equal(both.code, 125);
    assert.match(both.stderr, /conflicting options: cannot specify both --restart and --rm/);
    const unknown = await daemon.docker(['create', '--restart', 'sometimes', 'busybox', 'true']);
    assert.equal(unknown.code, 1);
    assert.match(unknown.stderr, /invalid restart policy: unknown policy 'sometimes'/);
    const count = await daemon.docker(['create', '--restart', 'always:3', 'busybox', 'true']);
    assert.match(count.stderr, /invalid restart policy: maximum retry count can only be used with 'on-failure'/);
  });

  test('a passing health check makes the container healthy', async () => {
    const name = await start(
      'healthy',
      ['--health-cmd', 'test -e /ok', '--health-interval', '200ms', '--health-retries', '2'],
      'sh',
      '-c',
      'touch /ok; sleep 1000',
    );
    assert.match(await daemon.inspect(name, '{{.State.Health.Status}}'), /starting|healthy/);
    await daemon.becomes(name, '{{.State.Health.Status}}', 'healthy');
    assert.match(await daemon.ok('ps', '--filter', `name=${name}`, '--format', '{{.Status}}'), /\(healthy\)/);
    await daemon.ok('exec', name, 'rm', '/ok');
    await daemon.becomes(name, '{{.State.Health.Status}}', 'unhealthy');
    assert.ok(Number(await daemon.inspect(name, '{{.State.Health.FailingStreak}}')) >= 2);
    assert.equal(
      await daemon.inspect(name, '{{(index .State.Health.Log 0).ExitCode}}').then((text) => /^[01]$/.test(text)),
      true,
    );
  });

  test('a health check that takes too long fails', async () => {
    const name = await start(
      'slow',
      ['--health-cmd', 'sleep 10', '--health-interval', '100ms', '--health-timeout', '200ms', '--health-retries', '1'],
      'sleep',
      '1000',
    );
    await daemon.becomes(name, '{{.State.Health.Status}}', 'unhealthy');
    assert.match(
      await daemon.inspect(name, '{{(index .State.Health.Log 0).Output}}'),
      /Health check exceeded timeout \(200ms\)/,
    );
  });

  test('the output of a health check is kept as it was written', async () => {
    const check = 'printf 123456789; sleep 0.1; printf abc; sleep 0.1; echo; exit 1';
    const name = await start(
      'pieces',
      ['--health-cmd', check, '--health-interval', '100ms', '--health-retries', '1'],
      'sleep',
      '1000',
    );
    await daemon.becomes(name, '{{.State.Health.Status}}', 'unhealthy');
    assert.equal(await daemon.inspect(name, '{{json (index .State.Health.Log 0).Output}}'), '"123456789abc\\n"');
  });

  test('failures in the start period do not count', async () => {
    const name = await start(
      'period',
      [
        '--health-cmd',
        'false',
        '--health-interval',
        '100ms',
        '--health-retries',
        '1',
        '--health-start-period',
        '60s',
        '--health-start-interval',
        '100ms',
      ],
      'sleep',
      '1000',
    );
    await eventually(async () => Number(await daemon.inspect(name, '{{len .State.Health.Log}}')) >= 2);
    assert.equal(await daemon.inspect(name, '{{.State.Health.Status}}'), 'starting');
  });

  test('--no-healthcheck turns it off', async () => {
    const name = await start('off', ['--no-healthcheck'], 'sleep', '1000');
    assert.equal(await daemon.inspect(name, '{{json .Config.Healthcheck}}'), '{"Test":["NONE"]}');
  });
});
