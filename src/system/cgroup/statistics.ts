/**
 * Resource use of one cgroup, read from its files (kernel docs: cgroup-v1/*, cgroup-v2.rst).
 * A controller that is missing, or a cgroup that is just gone, leaves its part undefined: reading never throws.
 */
import { join } from 'node:path';
import { controllerMounts, type HostFiles, hostFiles } from './support.ts';

export interface BlkioEntry {
  readonly major: number;
  readonly minor: number;
  readonly op: string;
  readonly value: number;
}

export interface CpuStatistics {
  readonly totalNs: number;
  readonly perCpuNs: readonly number[] | undefined;
  readonly kernelNs: number;
  readonly userNs: number;
  readonly periods: number;
  readonly throttledPeriods: number;
  readonly throttledNs: number;
}

export interface MemoryStatistics {
  readonly usageBytes: number;
  readonly maxUsageBytes: number | undefined;
  /** Infinity when unlimited. */
  readonly limitBytes: number;
  readonly failures: number;
  readonly details: Readonly<Record<string, number>>;
}

export interface CgroupStatistics {
  readonly version: 1 | 2;
  readonly cpu: CpuStatistics | undefined;
  readonly memory: MemoryStatistics | undefined;
  /** `limit` 0 means none. */
  readonly pids: { readonly current: number; readonly limit: number } | undefined;
  /** By docker's names: `io_service_bytes_recursive` … */
  readonly blkio: Readonly<Record<string, readonly BlkioEntry[]>>;
}

/** Directory of each controller (version 1) or of `''` (version 2) for a process. */
export function cgroupDirectories(pid: number, files: HostFiles = hostFiles): Map<string, string> {
  const directories = new Map<string, string>();
  const mounts = controllerMounts(files.read('/proc/self/mountinfo'));
  for (const line of files.read(`/proc/${pid}/cgroup`).split('\n')) {
    const match = /^\d+:([^:]*):(.*)$/.exec(line);
    if (match === null) continue;
    const path = match[2] ?? '/';
    for (const controller of (match[1] ?? '').split(',')) {
      const mount = controller === '' ? '/sys/fs/cgroup' : mounts.get(controller);
      if (mount !== undefined) directories.set(controller, join(mount, path));
    }
  }
  return directories;
}

/** Statistics of the cgroup that a process is in. */
export function readCgroupStatistics(pid: number, files: HostFiles = hostFiles): CgroupStatistics {
  const directories = cgroupDirectories(pid, files);
  const unified = directories.get('');
  if (files.exists('/sys/fs/cgroup/cgroup.controllers') && unified !== undefined) return readV2(unified, files);
  return readV1(directories, files);
}

/** `key value` lines. */
export function parseFlat(text: string): Record<string, number> {
  const values: Record<string, number> = {};
  for (const line of text.split('\n')) {
    const [key, value] = line.split(' ');
    if (key !== undefined && key !== '' && value !== undefined) values[key] = Number(value);
  }
  return values;
}

/** Version 1 blkio files: `8:0 Read 123`, or `8:0 123` without operation; the closing total is left out. */
export function parseBlkioV1(text: string): BlkioEntry[] {
  const entries: BlkioEntry[] = [];
  for (const line of text.split('\n')) {
    const match = /^(\d+):(\d+)(?: (\w+))? (\d+)$/.exec(line);
    if (match === null) continue;
    entries.push({ major: Number(match[1]), minor: Number(match[2]), op: match[3] ?? '', value: Number(match[4]) });
  }
  return entries;
}

/** Version 2 `io.stat`: `8:0 rbytes=1 wbytes=2 …`; docker shows bytes only, as read and write. */
export function parseIoV2(text: string): BlkioEntry[] {
  const entries: BlkioEntry[] = [];
  for (const line of text.split('\n')) {
    const match = /^(\d+):(\d+) (.*)$/.exec(line);
    if (match === null) continue;
    const values = Object.fromEntries((match[3] ?? '').split(' ').map((pair) => pair.split('=')));
    const device = { major: Number(match[1]), minor: Number(match[2]) };
    entries.push({ ...device, op: 'read', value: Number(values['rbytes'] ?? 0) });
    entries.push({ ...device, op: 'write', value: Number(values['wbytes'] ?? 0) });
  }
  return entries;
}

function limit(text: string): number {
  const trimmed = text.trim();
  return trimmed === 'max' || trimmed === '' ? Number.POSITIVE_INFINITY : Number(trimmed);
}

function pidsOf(directory: string | undefined, files: HostFiles): CgroupStatistics['pids'] {
  if (directory === undefined) return undefined;
  const current = files.read(join(directory, 'pids.current')).trim();
  if (current === '') return undefined;
  const max = limit(files.read(join(directory, 'pids.max')));
  return { current: Number(current), limit: Number.isFinite(max) ? max : 0 };
}

const BLKIO_V1: Readonly<Record<string, readonly string[]>> = {
  io_service_bytes_recursive: [
    'blkio.bfq.io_service_bytes_recursive',
    'blkio.io_service_bytes_recursive',
    'blkio.throttle.io_service_bytes_recursive',
    'blkio.throttle.io_service_bytes',
  ],
  io_serviced_recursive: [
    'blkio.bfq.io_serviced_recursive',
    'blkio.io_serviced_recursive',
    'blkio.throttle.io_serviced_recursive',
    'blkio.throttle.io_serviced',
  ],
  io_queue_recursive: ['blkio.io_queued_recursive'],
  io_service_time_recursive: ['blkio.io_service_time_recursive'],
  io_wait_time_recursive: ['blkio.io_wait_time_recursive'],
  io_merged_recursive: ['blkio.io_merged_recursive'],
  io_time_recursive: ['blkio.time_recursive'],
  sectors_recursive: ['blkio.sectors_recursive'],
};

function readV1(directories: ReadonlyMap<string, string>, files: HostFiles): CgroupStatistics {
  const file = (controller: string, name: string): string => {
    const directory = directories.get(controller);
    return directory === undefined ? '' : files.read(join(directory, name));
  };
  const blkio: Record<string, BlkioEntry[]> = {};
  for (const [name, candidates] of Object.entries(BLKIO_V1)) {
    blkio[name] =
      candidates.map((candidate) => parseBlkioV1(file('blkio', candidate))).find((list) => list.length > 0) ?? [];
  }
  return { version: 1, cpu: cpuV1(file), memory: memoryV1(file), pids: pidsOf(directories.get('pids'), files), blkio };
}

function cpuV1(file: (controller: string, name: string) => string): CpuStatistics | undefined {
  const usage = file('cpuacct', 'cpuacct.usage').trim();
  if (usage === '') return undefined;
  const ticks = parseFlat(file('cpuacct', 'cpuacct.stat'));
  const throttling = parseFlat(file('cpu', 'cpu.stat'));
  // cpuacct.stat counts in USER_HZ, which is 100 on every Linux.
  const nsPerTick = 10_000_000;
  return {
    totalNs: Number(usage),
    perCpuNs: file('cpuacct', 'cpuacct.usage_percpu').trim().split(/\s+/).map(Number),
    kernelNs: (ticks['system'] ?? 0) * nsPerTick,
    userNs: (ticks['user'] ?? 0) * nsPerTick,
    periods: throttling['nr_periods'] ?? 0,
    throttledPeriods: throttling['nr_throttled'] ?? 0,
    throttledNs: throttling['throttled_time'] ?? 0,
  };
}

function memoryV1(file: (controller: string, name: string) => string): MemoryStatistics | undefined {
  const usage = file('memory', 'memory.usage_in_bytes').trim();
  if (usage === '') return undefined;
  return {
    usageBytes: Number(usage),
    maxUsageBytes: Number(file('memory', 'memory.max_usage_in_bytes').trim()),
    limitBytes: limit(file('memory', 'memory.limit_in_bytes')),
    failures: Number(file('memory', 'memory.failcnt').trim()),
    details: pick(parseFlat(file('memory', 'memory.stat')), MEMORY_V1_KEYS),
  };
}

const MEMORY_V1_BASE =
  'cache rss rss_huge mapped_file dirty writeback pgpgin pgpgout pgfault pgmajfault inactive_anon active_anon inactive_file active_file unevictable'.split(
    ' ',
  );
const MEMORY_V1_KEYS: readonly string[] = [
  ...MEMORY_V1_BASE,
  'hierarchical_memory_limit',
  'hierarchical_memsw_limit',
  ...MEMORY_V1_BASE.map((name) => `total_${name}`),
];
const MEMORY_V2_KEYS: readonly string[] =
  'anon file kernel_stack slab sock shmem file_mapped file_dirty file_writeback anon_thp inactive_anon active_anon inactive_file active_file unevictable slab_reclaimable slab_unreclaimable pgfault pgmajfault workingset_refault workingset_activate workingset_nodereclaim pgrefill pgscan pgsteal pgactivate pgdeactivate pglazyfree pglazyfreed thp_fault_alloc thp_collapse_alloc'.split(
    ' ',
  );

function pick(values: Readonly<Record<string, number>>, keys: readonly string[]): Record<string, number> {
  return Object.fromEntries(keys.map((key) => [key, values[key] ?? 0]));
}

function readV2(directory: string, files: HostFiles): CgroupStatistics {
  const file = (name: string): string => files.read(join(directory, name));
  const cpu = parseFlat(file('cpu.stat'));
  const usage = file('memory.current').trim();
  const events = parseFlat(file('memory.events'));
  return {
    version: 2,
    cpu:
      cpu['usage_usec'] === undefined
        ? undefined
        : {
            totalNs: cpu['usage_usec'] * 1000,
            perCpuNs: undefined,
            kernelNs: (cpu['system_usec'] ?? 0) * 1000,
            userNs: (cpu['user_usec'] ?? 0) * 1000,
            periods: cpu['nr_periods'] ?? 0,
            throttledPeriods: cpu['nr_throttled'] ?? 0,
            throttledNs: (cpu['throttled_usec'] ?? 0) * 1000,
          },
    memory:
      usage === ''
        ? undefined
        : {
            usageBytes: Number(usage),
            maxUsageBytes: undefined,
            limitBytes: limit(file('memory.max')),
            failures: events['oom'] ?? 0,
            details: pick(parseFlat(file('memory.stat')), MEMORY_V2_KEYS),
          },
    pids: pidsOf(directory, files),
    blkio: { io_service_bytes_recursive: parseIoV2(file('io.stat')) },
  };
}
