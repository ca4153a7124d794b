/**
 * The warnings of `docker info`: what this host's cgroups and network cannot do. The texts are docker's; they
 * differ from those a daemon logs at its start.
 */
import type { CgroupSupport } from '#system/cgroup/support.ts';

/** Warnings in docker's order, or null when there is nothing to warn of. */
export function hostWarnings(cgroup: CgroupSupport, ipv4Forwarding: boolean): string[] | null {
  const v1 = cgroup.version === 1;
  const wanted: readonly (readonly [present: boolean, text: string])[] = [
    [cgroup.memoryLimit, 'No memory limit support'],
    [cgroup.swapLimit, 'No swap limit support'],
    [cgroup.oomKillDisable || !v1, 'No oom kill disable support'],
    [cgroup.cpuCfs, 'No cpu cfs quota support'],
    [cgroup.cpuCfs, 'No cpu cfs period support'],
    [cgroup.cpuShares, 'No cpu shares support'],
    [cgroup.cpuset, 'No cpuset support'],
    // Compat: weights that version 1 lacks are not warned of.
    [cgroup.blkioWeight || v1, 'No io.weight support'],
    [cgroup.blkioWeightDevice || v1, 'No io.weight (per device) support'],
    [cgroup.blkioReadBps, v1 ? 'No blkio throttle.read_bps_device support' : 'No io.max (rbps) support'],
    [cgroup.blkioWriteBps, v1 ? 'No blkio throttle.write_bps_device support' : 'No io.max (wbps) support'],
    [cgroup.blkioReadIops, v1 ? 'No blkio throttle.read_iops_device support' : 'No io.max (riops) support'],
    [cgroup.blkioWriteIops, v1 ? 'No blkio throttle.write_iops_device support' : 'No io.max (wiops) support'],
  ];
  const warnings = wanted.filter(([present]) => !present).map(([, text]) => `WARNING: ${text}`);
  if (!ipv4Forwarding) warnings.push('WARNING: IPv4 forwarding is disabled');
  return warnings.length === 0 ? null : warnings;
}
