/** Listing and looking at containers: ps, inspect, top, port, stats, update. */
import assert from 'node:assert/strict';
import { after, before, describe, test } from 'node:test';
import { startDaemon, type TestDaemon } from '../harness/daemon.ts';

describe('ps, inspect, top, stats, update', () => {
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

  const ps = (...args: string[]): Promise<string> => daemon.ok('ps', '--no-trunc', '--format', '{{.Names}}', ...args);

  test('ps shows running containers and -a all', async () => {
    const running = await start('running', [], 'sleep', '1000');
    const ended = await start('ended', [], 'true');
    await daemon.ok('wait', ended);
    const now = (await ps()).split('\n');
    assert.ok(now.includes(running) && !now.includes(ended));
    const all = (await ps('-a')).split('\n');
    assert.ok(all.includes(running) && all.includes(ended));
    assert.equal(await ps('-l'), ended);
  });

  test('the table has the usual columns', async () => {
    const name = await start('table', [], 'sleep', '1000');
    const [head, row] = (await daemon.ok('ps', '--filter', `name=${name}`)).split('\n');
    assert.match(head ?? '', /^CONTAINER ID +IMAGE +COMMAND +CREATED +STATUS +PORTS +NAMES$/);
    assert.match(row ?? '', /^[0-9a-f]{12} +busybox +"sleep 1000" +.+ ago +Up .+ +\S+$/);
  });

  test('filters choose by status, exit code, label, ancestor, name and order', async () => {
    const label = daemon.name('mark');
    const first = await start('first', ['-l', label, '-l', 'colour=red'], 'sleep', '1000');
    const second = await start('second', ['-l', label], 'sh', '-c', 'exit 3');
    await daemon.ok('wait', second);
    const mine = ['-a', '--filter', `label=${label}`];
    assert.equal(await ps(...mine, '--filter', 'status=running'), first);
    assert.equal(await ps(...mine, '--filter', 'status=exited'), second);
    assert.equal(await ps(...mine, '--filter', 'exited=3'), second);
    assert.equal(await ps(...mine, '--filter', 'label=colour=red'), first);
    assert.equal(await ps(...mine, '--filter', `since=${first}`), second);
    assert.equal(await ps(...mine, '--filter', `before=${second}`), first);
    assert.equal((await ps(...mine, '--filter', 'ancestor=busybox')).split('\n').length, 2);
    assert.equal(await ps(...mine, '--filter', 'ancestor=other'), '');
    assert.equal(await ps('-a', '--filter', `id=${await daemon.inspect(first, '{{.Id}}')}`), first);
  });

  test('an unknown filter or status is refused', async () => {
    assert.match((await daemon.docker(['ps', '--filter', 'shape=round'])).stderr, /invalid filter 'shape'/);
    assert.match(
      (await daemon.docker(['ps', '--filter', 'status=asleep'])).stderr,
      /invalid filter 'status=asleep'|Unrecognised filter value for status/i,
    );
  });

  test('-s shows sizes', async () => {
    const name = await start('size', [], 'sh', '-c', 'head -c 100000 /dev/zero >/f; sleep 1000');
    await daemon.ok('exec', name, 'sh', '-c', 'until [ $(stat -c %s /f) = 100000 ]; do sleep 0.05; done');
    assert.match(
      await daemon.ok('ps', '-s', '--filter', `name=${name}`, '--format', '{{.Size}}'),
      /^100kB \(virtual .+\)$/,
    );
  });

  test('inspect finds by name, ID and prefix, and gives many at once', async () => {
    const name = await start('inspect', [], 'sleep', '1000');
    const id = await daemon.inspect(name, '{{.Id}}');
    assert.equal(await daemon.inspect(id.slice(0, 12), '{{.Name}}'), `/${name}`);
    assert.equal(JSON.parse(await daemon.ok('inspect', name, id)).length, 2);
    const missing = await daemon.docker(['inspect', 'no-such-object']);
    assert.deepEqual([missing.code, missing.stdout], [1, '[]\n']);
    assert.match(missing.stderr, /no such object: no-such-object/i);
    assert.match((await daemon.docker(['container', 'inspect', 'none-such'])).stderr, /No such container: none-such/);
  });

  test('inspect has the fields that programs read', async () => {
    const name = await start('fields', ['-e', 'A=b', '-p', '80', '-v', '/data'], 'sleep', '1000');
    const [about] = JSON.parse(await daemon.ok('inspect', name));
    assert.equal(about.Path, 'sleep');
    assert.deepEqual(about.Args, ['1000']);
    assert.equal(about.State.Status, 'running');
    assert.ok(about.State.Pid > 0);
    assert.match(about.Created, /^\d{4}-.*Z$/);
    assert.match(about.Image, /^sha256:/);
    assert.equal(about.Config.Image, 'busybox');
    assert.equal(about.HostConfig.NetworkMode, 'none');
    assert.equal(about.HostConfig.LogConfig.Type, 'json-file');
    assert.equal(about.Mounts.length, 1);
    assert.equal(about.Mounts[0].Destination, '/data');
    assert.equal(about.Mounts[0].Type, 'volume');
    assert.deepEqual(Object.keys(about.NetworkSettings.Networks), ['none']);
    assert.match(about.ResolvConfPath, /resolv\.conf$/);
    assert.match(about.LogPath, /-json\.log$/);
    assert.equal(about.Driver, 'overlay2');
    assert.equal(about.Platform, 'linux');
  });

  test('top lists processes, with ps options too', async () => {
    const name = await start('top', [], 'sleep', '4321');
    const table = await daemon.ok('top', name);
    assert.match(table.split('\n')[0] ?? '', /^UID +PID +PPID +C +STIME +TTY +TIME +CMD$/);
    assert.match(table, /sleep 4321/);
    assert.match(await daemon.ok('top', name, '-o', 'pid,comm'), /PID +COMMAND\n\d+ +sleep/);
    await daemon.ok('kill', name);
    await daemon.ok('wait', name);
    assert.match((await daemon.docker(['top', name])).stderr, /container [0-9a-f]{64} is not running/);
  });

  test('stats shows use against the limits', async () => {
    const name = await start('stats', ['-m', '64m', '--pids-limit', '20'], 'sleep', '1000');
    const line = await daemon.ok(
      'stats',
      '--no-stream',
      '--format',
      '{{.Name}} {{.MemUsage}} {{.PIDs}} {{.CPUPerc}}',
      name,
    );
    assert.match(line, /^\S+ [\d.]+\w+B \/ 64MiB 1 [\d.]+%$/);
    const raw = (await daemon.api('GET', `/v1.51/containers/${name}/stats?stream=false`)).json<{
      memory_stats: { limit: number };
      pids_stats: { limit: number; current: number };
    }>();
    assert.equal(raw.memory_stats.limit, 64 * 1024 * 1024);
    assert.deepEqual([raw.pids_stats.limit, raw.pids_stats.current], [20, 1]);
  });

  test('update changes limits and restart policy of a running container', async () => {
    const name = await start('update', ['-m', '64m'], 'sleep', '1000');
    await daemon.ok(
      'update',
      '-m',
      '128m',
      '--memory-swap',
      '256m',
      '--restart',
      'on-failure:5',
      '--pids-limit',
      '33',
      name,
    );
    assert.equal(
      await daemon.inspect(name, '{{.HostConfig.Memory}} {{.HostConfig.RestartPolicy.Name}} {{.HostConfig.PidsLimit}}'),
      '134217728 on-failure 33',
    );
    const raw = (await daemon.api('GET', `/v1.51/containers/${name}/stats?stream=false`)).json<{
      memory_stats: { limit: number };
      pids_stats: { limit: number };
    }>();
    assert.deepEqual([raw.memory_stats.limit, raw.pids_stats.limit], [134217728, 33]);
  });
});
