/**
 * The stored configuration with every field that Go's encoder would print, in Go's order: absent lists are null,
 * absent numbers 0. Fields that Go omits when empty stay absent.
 */
import type { ContainerConfig, HostConfig } from '#wire/engine.ts';

type Loose = Record<string, unknown>;

function isEmpty(value: unknown): boolean {
  if (value === undefined || value === null || value === '' || value === 0 || value === false) return true;
  if (Array.isArray(value)) return value.length === 0;
  return typeof value === 'object' && Object.keys(value).length === 0;
}

function shape(given: Loose, always: Readonly<Loose>, whenSet: readonly string[]): Loose {
  const result: Loose = {};
  for (const [name, zero] of Object.entries(always)) result[name] = given[name] ?? zero;
  for (const name of whenSet) if (!isEmpty(given[name])) result[name] = given[name];
  return result;
}

const CONFIG: Readonly<Loose> = {
  Hostname: '',
  Domainname: '',
  User: '',
  AttachStdin: false,
  AttachStdout: false,
  AttachStderr: false,
  Tty: false,
  OpenStdin: false,
  StdinOnce: false,
  Env: null,
  Cmd: null,
  Image: '',
  Volumes: null,
  WorkingDir: '',
  Entrypoint: null,
  OnBuild: null,
  Labels: {},
};

/** Config as stored. */
export function storedConfig(config: ContainerConfig): ContainerConfig {
  const whenSet = [
    'ExposedPorts',
    'Healthcheck',
    'ArgsEscaped',
    'NetworkDisabled',
    'MacAddress',
    'StopSignal',
    'Shell',
  ];
  const stored = shape({ ...config }, CONFIG, whenSet);
  // A pointer in Go: 0 (kill at once) is not the same as unset.
  if (config.StopTimeout != null) stored['StopTimeout'] = config.StopTimeout;
  return stored as ContainerConfig;
}

const HOST_CONFIG: Readonly<Loose> = {
  Binds: null,
  ContainerIDFile: '',
  LogConfig: {},
  NetworkMode: '',
  PortBindings: {},
  RestartPolicy: { Name: 'no', MaximumRetryCount: 0 },
  AutoRemove: false,
  VolumeDriver: '',
  VolumesFrom: null,
  ConsoleSize: [0, 0],
  CapAdd: null,
  CapDrop: null,
  CgroupnsMode: '',
  Dns: [],
  DnsOptions: [],
  DnsSearch: [],
  ExtraHosts: null,
  GroupAdd: null,
  IpcMode: '',
  Cgroup: '',
  Links: null,
  OomScoreAdj: 0,
  PidMode: '',
  Privileged: false,
  PublishAllPorts: false,
  ReadonlyRootfs: false,
  SecurityOpt: null,
  UTSMode: '',
  UsernsMode: '',
  ShmSize: 0,
  Runtime: '',
  Isolation: '',
  CpuShares: 0,
  Memory: 0,
  NanoCpus: 0,
  CgroupParent: '',
  BlkioWeight: 0,
  BlkioWeightDevice: [],
  BlkioDeviceReadBps: [],
  BlkioDeviceWriteBps: [],
  BlkioDeviceReadIOps: [],
  BlkioDeviceWriteIOps: [],
  CpuPeriod: 0,
  CpuQuota: 0,
  CpuRealtimePeriod: 0,
  CpuRealtimeRuntime: 0,
  CpusetCpus: '',
  CpusetMems: '',
  Devices: [],
  DeviceCgroupRules: null,
  DeviceRequests: null,
  MemoryReservation: 0,
  MemorySwap: 0,
  MemorySwappiness: null,
  OomKillDisable: null,
  PidsLimit: null,
  Ulimits: [],
  CpuCount: 0,
  CpuPercent: 0,
  IOMaximumIOps: 0,
  IOMaximumBandwidth: 0,
  MaskedPaths: null,
  ReadonlyPaths: null,
};

/** HostConfig as stored. */
export function storedHostConfig(hostConfig: HostConfig): HostConfig {
  const whenSet = ['Annotations', 'StorageOpt', 'Tmpfs', 'Sysctls', 'Mounts', 'KernelMemory', 'KernelMemoryTCP'];
  const stored = shape({ ...hostConfig }, HOST_CONFIG, whenSet);
  if (hostConfig.Init != null) stored['Init'] = hostConfig.Init;
  return stored as HostConfig;
}
