/**
 * Docker's rules for resource limits: what is refused, and what is dropped with a warning when the kernel
 * cannot do it. Used by create and update.
 */
import type { CgroupSupport } from '#system/cgroup/support.ts';
import { GantryError } from '#types/errors.ts';
import type { Resources } from '#wire/engine.ts';

/** Docker's floor, so that a container can start at all. */
const MIN_MEMORY_BYTES = 6 * 1024 * 1024;
/** The kernel's usual maximum of CPUs; keeps a hostile list small. */
const MAX_LIST_VALUE = 8192;

/** Fields checked here; KernelMemory only reaches this below API 1.42. */
export type ResourceLimits = Resources & { KernelMemory?: number | undefined };
type Mutable = { -readonly [K in keyof ResourceLimits]: ResourceLimits[K] };

export interface ResourceHost {
  readonly cgroup: CgroupSupport;
  readonly cpuCount: number;
}

function refuse(message: string): never {
  throw new GantryError('invalid', message);
}

/** Checks limits; returns them as they will be used, with warnings. */
export function checkResources<T extends ResourceLimits>(
  wanted: T,
  host: ResourceHost,
  options: { readonly update: boolean },
): { readonly resources: T; readonly warnings: string[] } {
  const limits = { ...wanted };
  const warnings: string[] = [];
  checkMemory(limits, host.cgroup, warnings, options.update);
  checkCpu(limits, host, warnings);
  checkCpuset(limits, host.cgroup, warnings);
  checkBlkio(limits, host.cgroup, warnings);
  return { resources: limits, warnings };
}

function checkMemory(limits: Mutable, cgroup: CgroupSupport, warnings: string[], update: boolean): void {
  const lacks = 'Your kernel does not support';
  const unmounted = 'capabilities or the cgroup is not mounted.';
  if (limits.MemorySwappiness === -1 || limits.MemorySwappiness === null) delete limits.MemorySwappiness;
  const memory = (): number => limits.Memory ?? 0;
  const swap = (): number => limits.MemorySwap ?? 0;
  if (memory() !== 0 && memory() < MIN_MEMORY_BYTES) refuse('Minimum memory limit allowed is 6MB');
  if (memory() > 0 && !cgroup.memoryLimit) {
    warnings.push(`${lacks} memory limit ${unmounted} Limitation discarded.`);
    limits.Memory = 0;
    limits.MemorySwap = -1;
  }
  if (memory() > 0 && swap() !== -1 && !cgroup.swapLimit) {
    warnings.push(`${lacks} swap limit ${unmounted} Memory limited without swap.`);
    limits.MemorySwap = -1;
  }
  if (memory() > 0 && swap() > 0 && swap() < memory()) {
    refuse('Minimum memoryswap limit should be larger than memory limit, see usage');
  }
  if (memory() === 0 && swap() > 0 && !update) {
    refuse('You should always set the Memory limit when using Memoryswap limit, see usage');
  }
  const swappiness = limits.MemorySwappiness;
  if (swappiness !== undefined && !cgroup.memorySwappiness) {
    warnings.push(`${lacks} memory swappiness ${unmounted} Memory swappiness discarded.`);
    delete limits.MemorySwappiness;
  } else if (swappiness !== undefined && (swappiness < 0 || swappiness > 100)) {
    refuse(`Invalid value: ${swappiness}, valid memory swappiness range is 0-100`);
  }
  checkReservation(limits, cgroup, warnings);
  if ((limits.KernelMemory ?? 0) > 0) {
    if (!cgroup.kernelMemory) {
      warnings.push(`${lacks} kernel memory limit ${unmounted} Limitation discarded.`);
      limits.KernelMemory = 0;
    } else if ((limits.KernelMemory ?? 0) < MIN_MEMORY_BYTES) refuse('Minimum kernel memory limit allowed is 6MB');
  }
  checkOom(limits, cgroup, warnings);
}

function checkReservation(limits: Mutable, cgroup: CgroupSupport, warnings: string[]): void {
  const reservation = limits.MemoryReservation ?? 0;
  if (reservation <= 0) return;
  if (!cgroup.memoryReservation) {
    warnings.push(
      'Your kernel does not support memory soft limit capabilities or the cgroup is not mounted. Limitation discarded.',
    );
    limits.MemoryReservation = 0;
    return;
  }
  if (reservation < MIN_MEMORY_BYTES) refuse('Minimum memory reservation allowed is 6MB');
  const memory = limits.Memory ?? 0;
  if (memory > 0 && memory < reservation) {
    refuse('Minimum memory limit can not be less than memory reservation limit, see usage');
  }
}

function checkOom(limits: Mutable, cgroup: CgroupSupport, warnings: string[]): void {
  if (limits.OomKillDisable != null && !cgroup.oomKillDisable) {
    if (limits.OomKillDisable) warnings.push('Your kernel does not support OomKillDisable. OomKillDisable discarded.');
    delete limits.OomKillDisable;
  }
  if (limits.OomKillDisable === true && (limits.Memory ?? 0) === 0) {
    warnings.push(
      'OOM killer is disabled for the container, but no memory limit is set, this can result in the system running out of resources.',
    );
  }
  if (limits.PidsLimit != null && !cgroup.pidsLimit) {
    if (limits.PidsLimit > 0) {
      warnings.push(
        'Your kernel does not support PIDs limit capabilities or the cgroup is not mounted. PIDs limit discarded.',
      );
    }
    limits.PidsLimit = null;
  }
}

function checkCpu(limits: Mutable, host: ResourceHost, warnings: string[]): void {
  const { cgroup, cpuCount } = host;
  const nano = limits.NanoCpus ?? 0;
  if (nano > 0 && (limits.CpuPeriod ?? 0) > 0)
    refuse('Conflicting options: Nano CPUs and CPU Period cannot both be set');
  if (nano > 0 && (limits.CpuQuota ?? 0) > 0) refuse('Conflicting options: Nano CPUs and CPU Quota cannot both be set');
  if (nano > 0 && !cgroup.cpuCfs) {
    refuse('NanoCPUs can not be set, as your kernel does not support CPU CFS scheduler or the cgroup is not mounted');
  }
  if (nano < 0 || nano > cpuCount * 1e9) {
    refuse(`range of CPUs is from 0.01 to ${cpuCount}.00, as there are only ${cpuCount} CPUs available`);
  }
  if ((limits.CpuShares ?? 0) > 0 && !cgroup.cpuShares) {
    warnings.push('Your kernel does not support CPU shares or the cgroup is not mounted. Shares discarded.');
    limits.CpuShares = 0;
  }
  if (((limits.CpuPeriod ?? 0) !== 0 || (limits.CpuQuota ?? 0) !== 0) && !cgroup.cpuCfs) {
    warnings.push('Your kernel does not support CPU CFS scheduler. CPU period/quota discarded.');
    limits.CpuPeriod = 0;
    limits.CpuQuota = 0;
  }
  const period = limits.CpuPeriod ?? 0;
  if (period !== 0 && (period < 1000 || period > 1_000_000)) {
    refuse('CPU cfs period can not be less than 1ms (i.e. 1000) or larger than 1s (i.e. 1000000)');
  }
  const quota = limits.CpuQuota ?? 0;
  if (quota > 0 && quota < 1000) refuse('CPU cfs quota can not be less than 1ms (i.e. 1000)');
  if ((limits.CpuPercent ?? 0) > 0) {
    warnings.push('linux does not support CPU percent. Percent discarded.');
    limits.CpuPercent = 0;
  }
}

/** Parses `0-2,4`. Throws with Go's texts; bounded. */
export function parseList(text: string, maximum: number = MAX_LIST_VALUE): Set<number> {
  const values = new Set<number>();
  if (text === '') return values;
  for (const part of text.split(',')) {
    const match = /^(\d+)(?:-(\d+))?$/.exec(part);
    const first = Number(match?.[1]);
    const last = match?.[2] === undefined ? first : Number(match[2]);
    if (match === null || last < first) refuse(`invalid format: ${text}`);
    if (last > maximum) refuse(`value of out range, maximum is ${maximum}`);
    for (let value = first; value <= last; value += 1) values.add(value);
  }
  return values;
}

function available(requested: string, host: string, what: string): boolean {
  let wanted: Set<number>;
  try {
    wanted = parseList(requested);
  } catch (error) {
    refuse(`Invalid value ${requested} for cpuset ${what}: ${(error as Error).message}`);
  }
  return wanted.isSubsetOf(parseList(host));
}

function checkCpuset(limits: Mutable, cgroup: CgroupSupport, warnings: string[]): void {
  if ((limits.CpusetCpus || limits.CpusetMems) && !cgroup.cpuset) {
    warnings.push('Your kernel does not support cpuset or the cgroup is not mounted. Cpuset discarded.');
    limits.CpusetCpus = '';
    limits.CpusetMems = '';
  }
  const cpus = limits.CpusetCpus ?? '';
  if (!available(cpus, cgroup.cpus, 'cpus')) {
    refuse(`Requested CPUs are not available - requested ${cpus}, available: ${cgroup.cpus}`);
  }
  const nodes = limits.CpusetMems ?? '';
  if (!available(nodes, cgroup.memoryNodes, 'mems')) {
    refuse(`Requested memory nodes are not available - requested ${nodes}, available: ${cgroup.memoryNodes}`);
  }
}

function checkBlkio(limits: Mutable, cgroup: CgroupSupport, warnings: string[]): void {
  const weight = limits.BlkioWeight ?? 0;
  if (weight > 0 && !cgroup.blkioWeight) {
    warnings.push('Your kernel does not support Block I/O weight or the cgroup is not mounted. Weight discarded.');
    limits.BlkioWeight = 0;
  } else if (weight > 0 && (weight < 10 || weight > 1000)) refuse('Range of blkio weight is from 10 to 1000');
  if ((limits.IOMaximumBandwidth ?? 0) !== 0 || (limits.IOMaximumIOps ?? 0) !== 0) {
    refuse('Invalid QoS settings: linux does not support Maximum IO Bandwidth or Maximum IO IOps');
  }
  const lists = [
    ['BlkioWeightDevice', cgroup.blkioWeightDevice, 'Block I/O weight_device', 'Weight-device'],
    ['BlkioDeviceReadBps', cgroup.blkioReadBps, 'BPS Block I/O read limit', 'Block I/O BPS read limit'],
    ['BlkioDeviceWriteBps', cgroup.blkioWriteBps, 'BPS Block I/O write limit', 'Block I/O BPS write limit'],
    ['BlkioDeviceReadIOps', cgroup.blkioReadIops, 'IOPS Block read limit', 'Block I/O IOPS read limit'],
    ['BlkioDeviceWriteIOps', cgroup.blkioWriteIops, 'IOPS Block write limit', 'Block I/O IOPS write limit'],
  ] as const;
  for (const [field, supported, feature, dropped] of lists) {
    if ((limits[field] ?? []).length === 0 || supported) continue;
    warnings.push(`Your kernel does not support ${feature} or the cgroup is not mounted. ${dropped} discarded.`);
    limits[field] = [];
  }
}
