/** What `docker info` warns of. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import type { CgroupSupport } from '#system/cgroup/support.ts';
import { hostWarnings } from './warnings.ts';

const COMPLETE: CgroupSupport = {
  version: 1,
  memoryLimit: true,
  swapLimit: true,
  memoryReservation: true,
  memorySwappiness: true,
  oomKillDisable: true,
  kernelMemory: true,
  kernelMemoryTcp: true,
  cpuShares: true,
  cpuCfs: true,
  cpuRealtime: true,
  cpuset: true,
  cpus: '0',
  memoryNodes: '0',
  blkioWeight: true,
  blkioWeightDevice: true,
  blkioReadBps: true,
  blkioWriteBps: true,
  blkioReadIops: true,
  blkioWriteIops: true,
  pidsLimit: true,
  devices: true,
  warnings: [],
};

test('a host without lacks has null for warnings', () => {
  assert.equal(hostWarnings(COMPLETE, true), null);
});

test('missing blkio weights are warned of on version 2 only', () => {
  const lacking = { ...COMPLETE, blkioWeight: false, blkioWeightDevice: false };
  assert.equal(hostWarnings(lacking, true), null);
  assert.deepEqual(hostWarnings({ ...lacking, version: 2 }, true), [
    'WARNING: No io.weight support',
    'WARNING: No io.weight (per device) support',
  ]);
});

test('warnings are in the words of the command line', () => {
  assert.deepEqual(hostWarnings({ ...COMPLETE, swapLimit: false, blkioReadBps: false }, false), [
    'WARNING: No swap limit support',
    'WARNING: No blkio throttle.read_bps_device support',
    'WARNING: IPv4 forwarding is disabled',
  ]);
});
