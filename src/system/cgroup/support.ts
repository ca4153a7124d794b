/**
 * Which cgroup features the host has: version 1, hybrid (treated as version 1, as runc does) or version 2.
 * Warnings are the texts `docker info` prints.
 */
import { existsSync, readFileSync } from 'node:fs';
import { join } from 'node:path';

const ROOT = '/sys/fs/cgroup';

/** Features docker reports and validates against. */
export interface CgroupSupport {
  readonly version: 1 | 2;
  readonly memoryLimit: boolean;
  readonly swapLimit: boolean;
  readonly memoryReservation: boolean;
  readonly memorySwappiness: boolean;
  readonly oomKillDisable: boolean;
  readonly kernelMemory: boolean;
  readonly kernelMemoryTcp: boolean;
  readonly cpuShares: boolean;
  readonly cpuCfs: boolean;
  readonly cpuRealtime: boolean;
  readonly cpuset: boolean;
  /** Lists as the kernel writes them, `0-3`. */
  readonly cpus: string;
  readonly memoryNodes: string;
  readonly blkioWeight: boolean;
  readonly blkioWeightDevice: boolean;
  readonly blkioReadBps: boolean;
  readonly blkioWriteBps: boolean;
  readonly blkioReadIops: boolean;
  readonly blkioWriteIops: boolean;
  readonly pidsLimit: boolean;
  readonly devices: boolean;
  readonly warnings: readonly string[];
}

/** How files of the host are looked at; replaced in tests. */
export interface HostFiles {
  exists(path: string): boolean;
  /** Empty when unreadable. */
  read(path: string): string;
}

/** The real file system. */
export const hostFiles: HostFiles = {
  exists: existsSync,
  read(path) {
    try {
      return readFileSync(path, 'utf8');
    } catch {
      return '';
    }
  },
};

/** Detects what this host's cgroups can do. */
export function detectCgroups(files: HostFiles = hostFiles): CgroupSupport {
  return files.exists(join(ROOT, 'cgroup.controllers')) ? detectV2(files) : detectV1(files);
}

/** Mount point of each version 1 controller, from /proc/self/mountinfo. */
export function controllerMounts(mountInfo: string): Map<string, string> {
  const mounts = new Map<string, string>();
  for (const line of mountInfo.split('\n')) {
    const [before = '', after = ''] = line.split(' - ');
    const [type, , options = ''] = after.split(' ');
    const target = before.split(' ')[4];
    if (type !== 'cgroup' || target === undefined) continue;
    for (const option of options.split(',')) if (!mounts.has(option)) mounts.set(option, target);
  }
  return mounts;
}

function detectV1(files: HostFiles): CgroupSupport {
  const mounts = controllerMounts(files.read('/proc/self/mountinfo'));
  const warnings: string[] = [];
  const has = (controller: string, file: string, warning?: string): boolean => {
    const mount = mounts.get(controller);
    if (mount === undefined) return false;
    const found = files.exists(join(mount, file));
    if (!found && warning !== undefined) warnings.push(warning);
    return found;
  };
  const missing: Readonly<Record<string, string>> = {
    memory: 'Your kernel does not support cgroup memory limit',
    cpu: 'Unable to find cpu cgroup in mounts',
    blkio: 'Unable to find blkio cgroup in mounts',
    cpuset: 'Unable to find cpuset cgroup in mounts',
    pids: 'Unable to find pids cgroup in mounts',
  };
  for (const [controller, warning] of Object.entries(missing)) if (!mounts.has(controller)) warnings.push(warning);
  const no = 'Your kernel does not support';
  const blkio = (file: string): boolean => has('blkio', `blkio.${file}`, `${no} cgroup blkio ${file}`);
  const cpuset = (file: string): string =>
    mounts.has('cpuset') ? files.read(join(mounts.get('cpuset') ?? '', file)).trim() : '';
  return {
    version: 1,
    memoryLimit: mounts.has('memory'),
    swapLimit: has('memory', 'memory.memsw.limit_in_bytes', `${no} swap memory limit`),
    memoryReservation: has('memory', 'memory.soft_limit_in_bytes', `${no} memory reservation`),
    oomKillDisable: has('memory', 'memory.oom_control', `${no} oom control`),
    memorySwappiness: has('memory', 'memory.swappiness', `${no} memory swappiness`),
    kernelMemory: has('memory', 'memory.kmem.limit_in_bytes'),
    kernelMemoryTcp: has('memory', 'memory.kmem.tcp.limit_in_bytes'),
    cpuShares: has('cpu', 'cpu.shares', `${no} CPU shares`),
    cpuCfs: has('cpu', 'cpu.cfs_quota_us', `${no} CPU CFS scheduler`),
    cpuRealtime: has('cpu', 'cpu.rt_period_us', `${no} CPU realtime scheduler`),
    cpuset: mounts.has('cpuset'),
    cpus: cpuset('cpuset.cpus'),
    memoryNodes: cpuset('cpuset.mems'),
    blkioWeight: blkio('weight'),
    blkioWeightDevice: blkio('weight_device'),
    blkioReadBps: blkio('throttle.read_bps_device'),
    blkioWriteBps: blkio('throttle.write_bps_device'),
    blkioReadIops: blkio('throttle.read_iops_device'),
    blkioWriteIops: blkio('throttle.write_iops_device'),
    pidsLimit: mounts.has('pids'),
    devices: mounts.has('devices'),
    warnings,
  };
}

function detectV2(files: HostFiles): CgroupSupport {
  const controllers = new Set(files.read(join(ROOT, 'cgroup.controllers')).trim().split(/\s+/));
  const warnings = ['memory', 'cpu', 'io', 'cpuset', 'pids']
    .filter((name) => !controllers.has(name))
    .map((name) => `Unable to find ${name} controller`);
  const memory = controllers.has('memory');
  const cpu = controllers.has('cpu');
  const io = controllers.has('io');
  const own = /^0::(.*)$/m.exec(files.read('/proc/self/cgroup'))?.[1] ?? '/';
  return {
    version: 2,
    memoryLimit: memory,
    swapLimit: memory && files.exists(join(ROOT, own, 'memory.swap.max')),
    memoryReservation: memory,
    memorySwappiness: false,
    oomKillDisable: false,
    kernelMemory: false,
    kernelMemoryTcp: false,
    cpuShares: cpu,
    cpuCfs: cpu,
    cpuRealtime: false,
    cpuset: controllers.has('cpuset'),
    cpus: files.read(join(ROOT, 'cpuset.cpus.effective')).trim(),
    memoryNodes: files.read(join(ROOT, 'cpuset.mems.effective')).trim(),
    blkioWeight: io,
    blkioWeightDevice: io,
    blkioReadBps: io,
    blkioWriteBps: io,
    blkioReadIops: io,
    blkioWriteIops: io,
    pidsLimit: controllers.has('pids'),
    devices: true,
    warnings,
  };
}
