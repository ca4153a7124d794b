/** Samples of a container's cgroup in the shape of `GET /containers/{id}/stats`. */
import { readFileSync } from 'node:fs';
import { totalmem } from 'node:os';
import type { InterfaceStatistics } from '#services/networks/contract.ts';
import type { CgroupStatistics } from '#system/cgroup/statistics.ts';
import type {
  ContainerBlkioStatEntry,
  ContainerCPUStats,
  ContainerMemoryStats,
  ContainerStatsResponse,
} from '#wire/engine.ts';

const ZERO_TIME = '0001-01-01T00:00:00Z';
/** USER_HZ is 100 on every Linux. */
const NS_PER_TICK = 10_000_000;
/** user, nice, system, idle, iowait, irq, softirq: what docker adds up. */
const SYSTEM_FIELDS = 7;

/** One look at a container. `cgroup` undefined: it is not running. */
export interface StatsSample {
  readonly id: string;
  readonly name: string;
  readonly read: string;
  readonly cgroup: CgroupStatistics | undefined;
  readonly systemCpuNs: number;
  readonly networks: Readonly<Record<string, InterfaceStatistics>> | undefined;
}

/** CPU time the whole machine has spent, idle included. */
export function systemCpuUsageNs(procStat: string = readFileSync('/proc/stat', 'utf8')): number {
  const fields = /^cpu +(.*)$/m.exec(procStat)?.[1]?.split(' ') ?? [];
  return fields.slice(0, SYSTEM_FIELDS).reduce((sum, field) => sum + Number(field), 0) * NS_PER_TICK;
}

let cpus = 0;
function onlineCpus(): number {
  if (cpus === 0) cpus = (readFileSync('/proc/stat', 'utf8').match(/^cpu\d+ /gm) ?? []).length;
  return cpus;
}

/** Docker's answer for a sample and the one before it. */
export function statsResponse(sample: StatsSample, previous: StatsSample | undefined): ContainerStatsResponse {
  const blkio = sample.cgroup?.blkio;
  const list = (name: string): ContainerBlkioStatEntry[] => {
    const found = blkio?.[name];
    // Compat: a list nobody measured is null, although the schema says array.
    return found === undefined ? (null as unknown as ContainerBlkioStatEntry[]) : [...found];
  };
  return {
    name: sample.name,
    id: sample.id,
    read: sample.cgroup === undefined ? ZERO_TIME : sample.read,
    preread: previous?.cgroup === undefined ? ZERO_TIME : previous.read,
    pids_stats: pids(sample.cgroup),
    blkio_stats: {
      io_service_bytes_recursive: list('io_service_bytes_recursive'),
      io_serviced_recursive: list('io_serviced_recursive'),
      io_queue_recursive: list('io_queue_recursive'),
      io_service_time_recursive: list('io_service_time_recursive'),
      io_wait_time_recursive: list('io_wait_time_recursive'),
      io_merged_recursive: list('io_merged_recursive'),
      io_time_recursive: list('io_time_recursive'),
      sectors_recursive: list('sectors_recursive'),
    },
    num_procs: 0,
    storage_stats: {},
    cpu_stats: cpu(sample),
    precpu_stats: cpu(previous),
    memory_stats: memory(sample.cgroup),
    ...(sample.networks === undefined ? {} : { networks: { ...sample.networks } }),
  };
}

function pids(cgroup: CgroupStatistics | undefined): { current?: number; limit?: number } {
  if (cgroup?.pids === undefined) return {};
  const { current, limit } = cgroup.pids;
  // Compat: Go leaves zero values out here.
  return { ...(current === 0 ? {} : { current }), ...(limit === 0 ? {} : { limit }) };
}

function cpu(sample: StatsSample | undefined): ContainerCPUStats {
  const found = sample?.cgroup?.cpu;
  return {
    cpu_usage: {
      total_usage: found?.totalNs ?? 0,
      ...(found?.perCpuNs === undefined ? {} : { percpu_usage: [...found.perCpuNs] }),
      usage_in_kernelmode: found?.kernelNs ?? 0,
      usage_in_usermode: found?.userNs ?? 0,
    },
    ...(sample?.cgroup === undefined ? {} : { system_cpu_usage: sample.systemCpuNs, online_cpus: onlineCpus() }),
    throttling_data: {
      periods: found?.periods ?? 0,
      throttled_periods: found?.throttledPeriods ?? 0,
      throttled_time: found?.throttledNs ?? 0,
    },
  };
}

function memory(cgroup: CgroupStatistics | undefined): ContainerMemoryStats {
  const found = cgroup?.memory;
  if (found === undefined) return {};
  return {
    usage: found.usageBytes,
    ...(found.maxUsageBytes === undefined || found.maxUsageBytes === 0 ? {} : { max_usage: found.maxUsageBytes }),
    stats: found.details,
    ...(found.failures === 0 ? {} : { failcnt: found.failures }),
    // An unlimited container is limited by the machine.
    limit: Math.min(found.limitBytes, totalmem()),
  };
}
