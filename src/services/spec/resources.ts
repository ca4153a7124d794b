/** HostConfig's resource fields as OCI `linux.resources` (the same for cgroup v1 and v2: runc converts). */
import { GantryError } from '#types/errors.ts';
import type { OciResources, OciThrottle } from '#types/oci.ts';
import type { HostConfig, Resources } from '#wire/engine.ts';

/** 100 ms, the period that docker uses for `--cpus`. */
const CPU_PERIOD_US = 100_000;

/** Looks up a device node's number; throws Go's `stat {path}: …`. */
export type DeviceNumber = (path: string) => { readonly major: number; readonly minor: number };

/** Resources of a new container, without device rules. */
export function containerResources(hostConfig: HostConfig, deviceNumber: DeviceNumber): OciResources {
  return {
    ...limits(hostConfig),
    blockIO: {
      ...(positive(hostConfig.BlkioWeight) ? { weight: hostConfig.BlkioWeight as number } : {}),
      weightDevice: (hostConfig.BlkioWeightDevice ?? []).map((device) => ({
        ...deviceNumber(device.Path ?? ''),
        weight: device.Weight ?? 0,
      })),
      throttleReadBpsDevice: throttles(hostConfig.BlkioDeviceReadBps, deviceNumber),
      throttleWriteBpsDevice: throttles(hostConfig.BlkioDeviceWriteBps, deviceNumber),
      throttleReadIOPSDevice: throttles(hostConfig.BlkioDeviceReadIOps, deviceNumber),
      throttleWriteIOPSDevice: throttles(hostConfig.BlkioDeviceWriteIOps, deviceNumber),
    },
  };
}

/** What `docker update` hands to the runtime: only what was asked for. */
export function updateResources(wanted: Resources): OciResources {
  return {
    ...limits(wanted),
    ...(positive(wanted.BlkioWeight) ? { blockIO: { weight: wanted.BlkioWeight as number } } : {}),
  };
}

function throttles(
  devices: readonly { Path?: string | undefined; Rate?: number | undefined }[] | null | undefined,
  deviceNumber: DeviceNumber,
): OciThrottle[] {
  return (devices ?? []).map((device) => ({ ...deviceNumber(device.Path ?? ''), rate: device.Rate ?? 0 }));
}

function positive(value: number | null | undefined): boolean {
  return value !== undefined && value !== null && value > 0;
}

function limits(wanted: Resources & { KernelMemory?: number | undefined }): OciResources {
  const memory = memoryOf(wanted);
  const cpu = cpuOf(wanted);
  const pids = wanted.PidsLimit;
  return {
    ...(Object.keys(memory).length === 0 ? {} : { memory }),
    ...(Object.keys(cpu).length === 0 ? {} : { cpu }),
    // Compat: zero and negative mean unlimited, which runc writes as -1.
    ...(pids === undefined || pids === null ? {} : { pids: { limit: pids <= 0 ? -1 : pids } }),
  };
}

function memoryOf(wanted: Resources & { KernelMemory?: number | undefined }): Record<string, number | boolean> {
  const memory: Record<string, number | boolean> = {};
  if (positive(wanted.Memory)) memory['limit'] = wanted.Memory as number;
  if (positive(wanted.MemoryReservation)) memory['reservation'] = wanted.MemoryReservation as number;
  // Compat: -1 (unlimited) is kept from the runtime, as docker does; only a limit is passed on.
  if (positive(wanted.MemorySwap)) memory['swap'] = wanted.MemorySwap as number;
  if (wanted.MemorySwappiness !== undefined && wanted.MemorySwappiness !== null && wanted.MemorySwappiness >= 0) {
    memory['swappiness'] = wanted.MemorySwappiness;
  }
  if (wanted.OomKillDisable !== undefined && wanted.OomKillDisable !== null) {
    memory['disableOOMKiller'] = wanted.OomKillDisable;
  }
  if (positive(wanted.KernelMemory)) memory['kernel'] = wanted.KernelMemory as number;
  if (positive(wanted.KernelMemoryTCP)) memory['kernelTCP'] = wanted.KernelMemoryTCP as number;
  return memory;
}

function cpuOf(wanted: Resources): Record<string, number | string> {
  const cpu: Record<string, number | string> = {};
  const shares = wanted.CpuShares ?? 0;
  if (shares < 0) throw new GantryError('invalid', `invalid CPU shares (${shares}): value must be a positive integer`);
  if (shares > 0) cpu['shares'] = shares;
  if (wanted.CpusetCpus) cpu['cpus'] = wanted.CpusetCpus;
  if (wanted.CpusetMems) cpu['mems'] = wanted.CpusetMems;
  if (positive(wanted.NanoCpus)) {
    cpu['period'] = CPU_PERIOD_US;
    cpu['quota'] = Math.trunc(((wanted.NanoCpus as number) * CPU_PERIOD_US) / 1e9);
  }
  if (wanted.CpuPeriod) cpu['period'] = wanted.CpuPeriod;
  if (wanted.CpuQuota) cpu['quota'] = wanted.CpuQuota;
  if (wanted.CpuRealtimePeriod) cpu['realtimePeriod'] = wanted.CpuRealtimePeriod;
  if (wanted.CpuRealtimeRuntime) cpu['realtimeRuntime'] = wanted.CpuRealtimeRuntime;
  return cpu;
}
