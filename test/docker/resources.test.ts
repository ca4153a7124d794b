/** Resource flags, read back from the container and the kernel. */
import assert from 'node:assert/strict';
import { after, before, describe, test } from 'node:test';
import { startDaemon, type TestDaemon } from '../harness/daemon.ts';

describe('resource limits', () => {
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

  const create = async (flags: string[], field: string): Promise<string> => {
    const name = daemon.name('r');
    await daemon.ok('create', '--name', name, ...flags, 'busybox', 'true');
    return daemon.inspect(name, `{{json .HostConfig.${field}}}`);
  };

  test('flags arrive in the host configuration', async () => {
    assert.equal(await create(['-m', '100m'], 'Memory'), '104857600');
    assert.equal(await create(['-m', '100m'], 'MemorySwap'), '209715200');
    assert.equal(await create(['-m', '100m', '--memory-swap', '-1'], 'MemorySwap'), '-1');
    assert.equal(await create(['--memory-reservation', '50m'], 'MemoryReservation'), '52428800');
    assert.equal(await create(['--cpus', '1.5'], 'NanoCpus'), '1500000000');
    assert.equal(await create(['--cpu-shares', '512'], 'CpuShares'), '512');
    assert.equal(await create(['--cpuset-cpus', '0'], 'CpusetCpus'), '"0"');
    assert.equal(await create(['--pids-limit', '50'], 'PidsLimit'), '50');
    assert.equal(await create(['--oom-score-adj', '100'], 'OomScoreAdj'), '100');
    assert.equal(await create(['--ulimit', 'nofile=1:2'], 'Ulimits'), '[{"Name":"nofile","Hard":2,"Soft":1}]');
  });

  test('limits reach the cgroup of the container', async () => {
    const name = await start(
      'cgroup',
      [
        '-m',
        '64m',
        '--pids-limit',
        '33',
        '--cpu-shares',
        '512',
        '--cpu-period',
        '50000',
        '--cpu-quota',
        '25000',
        '--cpuset-cpus',
        '0',
      ],
      'sleep',
      '1000',
    );
    const read = (first: string, second: string): Promise<string> =>
      daemon.ok('exec', name, 'sh', '-c', `cat /sys/fs/cgroup/${first} 2>/dev/null || cat /sys/fs/cgroup/${second}`);
    assert.equal(await read('memory/memory.limit_in_bytes', 'memory.max'), String(64 * 1024 * 1024));
    assert.equal(await read('pids/pids.max', 'pids.max'), '33');
    assert.match(await read('cpu/cpu.cfs_quota_us', 'cpu.max'), /^25000/);
    assert.equal(await read('cpuset/cpuset.cpus', 'cpuset.cpus'), '0');
  });

  test('the oom score reaches the process', async () => {
    assert.equal(
      await daemon.ok(
        'run',
        '--rm',
        '--net',
        'none',
        '--oom-score-adj',
        '321',
        'busybox',
        'cat',
        '/proc/self/oom_score_adj',
      ),
      '321',
    );
  });

  test('a process that takes too much memory is killed and said to be', async () => {
    const name = await start(
      'oom',
      ['-m', '16m', '--memory-swap', '16m'],
      'sh',
      '-c',
      'x=$(head -c 100000000 /dev/zero | tr "\\0" x)',
    );
    assert.equal(await daemon.ok('wait', name), '137');
    await daemon.becomes(name, '{{.State.OOMKilled}}', 'true');
  });

  test('values out of range are refused with their reason', async () => {
    const refused = async (...flags: string[]): Promise<string> => {
      const result = await daemon.docker(['create', ...flags, 'busybox', 'true']);
      assert.equal(result.code, 1, flags.join(' '));
      return result.stderr;
    };
    assert.match(await refused('-m', '1m'), /Minimum memory limit allowed is 6MB/);
    assert.match(
      await refused('-m', '50m', '--memory-swap', '10m'),
      /Minimum memoryswap limit should be larger than memory limit/,
    );
    assert.match(
      await refused('--memory-swap', '50m'),
      /You should always set the Memory limit when using Memoryswap limit/,
    );
    assert.match(
      await refused('--cpus', '1000'),
      /range of CPUs is from 0\.01 to \d+\.00, as there are only \d+ CPUs available/,
    );
    assert.match(
      await refused('--cpus', '1', '--cpu-quota', '5000'),
      /Conflicting options: Nano CPUs and CPU Quota cannot both be set/i,
    );
    assert.match(await refused('--cpuset-cpus', '0-x'), /invalid|Invalid/);
    assert.match(await refused('--cpuset-cpus', '99'), /Requested CPUs are not available - requested 99, available/);
  });
});
