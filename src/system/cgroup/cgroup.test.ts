import assert from 'node:assert/strict';
import { test } from 'node:test';
import { oomKills } from './leftovers.ts';
import { parseBlkioV1, readCgroupStatistics } from './statistics.ts';
import { detectCgroups, type HostFiles } from './support.ts';

function fake(files: Readonly<Record<string, string>>): HostFiles {
  return { exists: (path) => path in files, read: (path) => files[path] ?? '' };
}

const MOUNTS_V1 = [
  '25 24 0:22 / /sys/fs/cgroup rw - tmpfs cgroup rw',
  '26 25 0:23 / /sys/fs/cgroup/memory rw shared:1 - cgroup cgroup rw,memory',
  '27 25 0:24 / /sys/fs/cgroup/cpu,cpuacct rw - cgroup cgroup rw,cpu,cpuacct',
  '28 25 0:25 / /sys/fs/cgroup/pids rw - cgroup cgroup rw,pids',
  '29 25 0:26 / /sys/fs/cgroup/blkio rw - cgroup cgroup rw,blkio',
].join('\n');

const V1: Readonly<Record<string, string>> = {
  '/proc/self/mountinfo': MOUNTS_V1,
  '/proc/7/cgroup': '4:memory:/g/x\n3:pids:/g/x\n2:blkio:/g/x\n1:cpu,cpuacct:/g/x\n0::/\n',
  '/sys/fs/cgroup/memory/memory.memsw.limit_in_bytes': '1',
  '/sys/fs/cgroup/memory/memory.oom_control': '',
  '/sys/fs/cgroup/memory/g/x/memory.usage_in_bytes': '4096\n',
  '/sys/fs/cgroup/memory/g/x/memory.max_usage_in_bytes': '8192\n',
  '/sys/fs/cgroup/memory/g/x/memory.limit_in_bytes': '9223372036854771712\n',
  '/sys/fs/cgroup/memory/g/x/memory.failcnt': '3\n',
  '/sys/fs/cgroup/memory/g/x/memory.stat': 'cache 10\ntotal_inactive_file 20\nother 1\n',
  '/sys/fs/cgroup/memory/g/x/memory.oom_control': 'oom_kill_disable 0\nunder_oom 0\noom_kill 2\n',
  '/sys/fs/cgroup/cpu,cpuacct/g/x/cpuacct.usage': '1000000\n',
  '/sys/fs/cgroup/cpu,cpuacct/g/x/cpuacct.usage_percpu': '600000 400000 \n',
  '/sys/fs/cgroup/cpu,cpuacct/g/x/cpuacct.stat': 'user 2\nsystem 3\n',
  '/sys/fs/cgroup/cpu,cpuacct/g/x/cpu.stat': 'nr_periods 5\nnr_throttled 1\nthrottled_time 99\n',
  '/sys/fs/cgroup/pids/g/x/pids.current': '2\n',
  '/sys/fs/cgroup/pids/g/x/pids.max': 'max\n',
  '/sys/fs/cgroup/blkio/g/x/blkio.throttle.io_service_bytes_recursive': '8:0 Read 10\n8:0 Write 20\nTotal 30\n',
};

test('version 1 statistics are read from each controller’s hierarchy', () => {
  const found = readCgroupStatistics(7, fake(V1));
  assert.equal(found.version, 1);
  assert.deepEqual(found.cpu, {
    totalNs: 1_000_000,
    perCpuNs: [600000, 400000],
    kernelNs: 30_000_000,
    userNs: 20_000_000,
    periods: 5,
    throttledPeriods: 1,
    throttledNs: 99,
  });
  assert.equal(found.memory?.usageBytes, 4096);
  assert.equal(found.memory?.failures, 3);
  assert.equal(found.memory?.details['total_inactive_file'], 20);
  assert.equal(found.memory?.details['other'], undefined);
  assert.deepEqual(found.pids, { current: 2, limit: 0 });
  assert.deepEqual(
    found.blkio['io_service_bytes_recursive']?.map((entry) => [entry.op, entry.value]),
    [
      ['Read', 10],
      ['Write', 20],
    ],
  );
  assert.equal(oomKills(7, fake(V1)), 2);
});

const V2: Readonly<Record<string, string>> = {
  '/sys/fs/cgroup/cgroup.controllers': 'cpuset cpu io memory pids\n',
  '/sys/fs/cgroup/cpuset.cpus.effective': '0-3\n',
  '/proc/self/mountinfo': '30 1 0:5 / /sys/fs/cgroup rw - cgroup2 cgroup2 rw\n',
  '/proc/self/cgroup': '0::/init\n',
  '/sys/fs/cgroup/init/memory.swap.max': 'max',
  '/proc/7/cgroup': '0::/g/x\n',
  '/sys/fs/cgroup/g/x/cpu.stat':
    'usage_usec 10\nuser_usec 6\nsystem_usec 4\nnr_periods 1\nnr_throttled 0\nthrottled_usec 2\n',
  '/sys/fs/cgroup/g/x/memory.current': '100\n',
  '/sys/fs/cgroup/g/x/memory.max': '200\n',
  '/sys/fs/cgroup/g/x/memory.stat': 'anon 50\ninactive_file 7\n',
  '/sys/fs/cgroup/g/x/memory.events': 'low 0\noom 1\noom_kill 4\n',
  '/sys/fs/cgroup/g/x/pids.current': '3\n',
  '/sys/fs/cgroup/g/x/pids.max': '64\n',
  '/sys/fs/cgroup/g/x/io.stat': '8:0 rbytes=1 wbytes=2 rios=3 wios=4\n',
};

test('version 2 statistics come from the unified hierarchy', () => {
  const found = readCgroupStatistics(7, fake(V2));
  assert.equal(found.version, 2);
  assert.equal(found.cpu?.totalNs, 10_000);
  assert.equal(found.memory?.limitBytes, 200);
  assert.equal(found.memory?.failures, 1);
  assert.deepEqual(found.pids, { current: 3, limit: 64 });
  assert.deepEqual(
    found.blkio['io_service_bytes_recursive']?.map((entry) => [entry.op, entry.value]),
    [
      ['read', 1],
      ['write', 2],
    ],
  );
  assert.equal(oomKills(7, fake(V2)), 4);
});

test('support of both versions', () => {
  const v1 = detectCgroups(fake(V1));
  assert.deepEqual([v1.version, v1.memoryLimit, v1.swapLimit, v1.cpuset], [1, true, true, false]);
  assert.ok(v1.warnings.includes('Unable to find cpuset cgroup in mounts'));
  assert.ok(v1.warnings.includes('Your kernel does not support cgroup blkio weight'));
  const v2 = detectCgroups(fake(V2));
  assert.deepEqual([v2.version, v2.swapLimit, v2.oomKillDisable, v2.cpus, v2.warnings], [2, true, false, '0-3', []]);
});

test('a cgroup that is gone leaves everything undefined', () => {
  const found = readCgroupStatistics(8, fake({ '/proc/self/mountinfo': MOUNTS_V1 }));
  assert.deepEqual([found.cpu, found.memory, found.pids], [undefined, undefined, undefined]);
});

test('blkio lines without operation are read, totals are not', () => {
  assert.deepEqual(parseBlkioV1('8:16 512\nTotal 5\n'), [{ major: 8, minor: 16, op: '', value: 512 }]);
});
