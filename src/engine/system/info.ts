/** `GET /info`: what this daemon is, has and can. */
import { readdirSync, readFileSync } from 'node:fs';
import { cpus, release, totalmem } from 'node:os';
import { isAlive } from '#services/containers/container.ts';
import type { CgroupSupport } from '#system/cgroup/support.ts';
import { now } from '#system/clock/clock.ts';
import type { Services } from '../services.ts';
import { ENGINE_VERSION } from '../version.ts';
import { toolVersions } from './version.ts';
import { hostWarnings } from './warnings.ts';

/** What info shows that only the assembling process knows. */
export interface InfoSources {
  readonly cgroup: CgroupSupport;
  readonly backingFilesystem: string;
  readonly securityOptions: readonly string[];
  readonly goroutines: () => number;
}

/** The answer of `GET /info`. */
export function systemInfo(services: Services, sources: InfoSources, apiMinor: number): object {
  const settings = services.settings.current();
  const { cgroup } = sources;
  const tools = toolVersions();
  return {
    ID: services.settings.daemonId,
    ...counts(services),
    Images: services.images.list().length,
    Driver: services.snapshots.driver,
    DriverStatus: driverStatus(services, sources),
    Plugins: {
      Volume: ['local'],
      Network: services.networks.driverNames(),
      Authorization: null,
      // Compat: `none` is no plugin.
      Log: services.logs.names.filter((name) => name !== 'none'),
    },
    ...limits(cgroup),
    IPv4Forwarding: readFlag('/proc/sys/net/ipv4/ip_forward'),
    ...(apiMinor < 50 ? { BridgeNfIptables: false, BridgeNfIp6tables: false } : {}),
    Debug: settings.debug,
    NFd: openDescriptors(),
    NGoroutines: sources.goroutines(),
    SystemTime: now(),
    LoggingDriver: settings.defaults.logDriver,
    CgroupDriver: services.settings.cgroupDriver,
    CgroupVersion: String(services.settings.cgroupVersion),
    NEventsListener: services.events.listenerCount,
    ...host(),
    IndexServerAddress: 'https://index.docker.io/v1/',
    RegistryConfig: registryConfig(settings.insecureRegistries, settings.registryMirrors, apiMinor),
    GenericResources: null,
    DockerRootDir: services.settings.paths.dataRoot,
    HttpProxy: hideCredentials(process.env['HTTP_PROXY'] ?? process.env['http_proxy'] ?? ''),
    HttpsProxy: hideCredentials(process.env['HTTPS_PROXY'] ?? process.env['https_proxy'] ?? ''),
    NoProxy: process.env['NO_PROXY'] ?? process.env['no_proxy'] ?? '',
    Name: services.settings.hostName,
    Labels: settings.labels,
    ExperimentalBuild: settings.experimental,
    ServerVersion: ENGINE_VERSION,
    Runtimes: Object.fromEntries(
      Object.entries(settings.runtimes).map(([name, runtime]) => [
        name,
        { path: runtime.path ?? 'runc', ...(runtime.args.length > 0 ? { runtimeArgs: runtime.args } : {}) },
      ]),
    ),
    DefaultRuntime: settings.defaults.defaultRuntime,
    Swarm: {
      NodeID: '',
      NodeAddr: '',
      LocalNodeState: 'inactive',
      ControlAvailable: false,
      Error: '',
      RemoteManagers: null,
    },
    LiveRestoreEnabled: settings.liveRestore,
    Isolation: '',
    InitBinary: 'docker-init',
    ContainerdCommit: commit(tools.shim, apiMinor),
    RuncCommit: commit(tools.runc, apiMinor),
    InitCommit: commit('', apiMinor),
    SecurityOptions: sources.securityOptions,
    ...(apiMinor >= 44 ? { CDISpecDirs: [] } : {}),
    ...(apiMinor >= 49 ? { FirewallBackend: { Driver: 'nftables' } } : {}),
    Warnings: hostWarnings(cgroup, readFlag('/proc/sys/net/ipv4/ip_forward')),
  };
}

function counts(services: Services): object {
  const states = services.containers.all().map((container) => container.state);
  const running = states.filter((state) => isAlive(state) && state.status !== 'paused').length;
  const paused = states.filter((state) => state.status === 'paused').length;
  return {
    Containers: states.length,
    ContainersRunning: running,
    ContainersPaused: paused,
    ContainersStopped: states.length - running - paused,
  };
}

function driverStatus(services: Services, sources: InfoSources): string[][] {
  if (services.snapshots.driver !== 'overlay2') return [];
  return [
    ['Backing Filesystem', sources.backingFilesystem],
    ['Supports d_type', 'true'],
    ['Using metacopy', 'false'],
    ['Native Overlay Diff', 'true'],
    ['userxattr', 'false'],
  ];
}

function limits(cgroup: CgroupSupport): object {
  return {
    MemoryLimit: cgroup.memoryLimit,
    SwapLimit: cgroup.swapLimit,
    CpuCfsPeriod: cgroup.cpuCfs,
    CpuCfsQuota: cgroup.cpuCfs,
    CPUShares: cgroup.cpuShares,
    CPUSet: cgroup.cpuset,
    PidsLimit: cgroup.pidsLimit,
    ...(cgroup.kernelMemoryTcp ? { KernelMemoryTCP: true } : {}),
    OomKillDisable: cgroup.oomKillDisable,
  };
}

function host(): object {
  const osRelease = readOsRelease();
  return {
    KernelVersion: release(),
    OperatingSystem: osRelease['PRETTY_NAME'] ?? 'Linux',
    OSVersion: osRelease['VERSION_ID'] ?? '',
    OSType: 'linux',
    Architecture: { x64: 'x86_64', arm64: 'aarch64' }[process.arch as string] ?? process.arch,
    NCPU: cpus().length,
    MemTotal: totalmem(),
  };
}

function readOsRelease(): Record<string, string | undefined> {
  try {
    return Object.fromEntries(
      readFileSync('/etc/os-release', 'utf8')
        .split('\n')
        .filter((line) => line.includes('='))
        .map((line) => [
          line.slice(0, line.indexOf('=')),
          line.slice(line.indexOf('=') + 1).replace(/^["']|["']$/g, ''),
        ]),
    );
  } catch {
    return {};
  }
}

function readFlag(path: string): boolean {
  try {
    return readFileSync(path, 'utf8').trim() === '1';
  } catch {
    return false;
  }
}

function openDescriptors(): number {
  return readdirSync('/proc/self/fd').length;
}

function registryConfig(insecure: readonly string[], mirrors: readonly string[], apiMinor: number): object {
  const addresses = insecure.filter((entry) => entry.includes('/'));
  const indexes = insecure.filter((entry) => !entry.includes('/'));
  return {
    ...(apiMinor < 49
      ? { AllowNondistributableArtifactsCIDRs: null, AllowNondistributableArtifactsHostnames: null }
      : {}),
    InsecureRegistryCIDRs: ['::1/128', '127.0.0.0/8', ...addresses],
    IndexConfigs: Object.fromEntries([
      ['docker.io', { Name: 'docker.io', Mirrors: mirrors, Secure: true, Official: true }],
      ...indexes.map((name) => [name, { Name: name, Mirrors: [], Secure: false, Official: false }]),
    ]),
    Mirrors: mirrors.length === 0 ? null : mirrors,
  };
}

function commit(id: string, apiMinor: number): object {
  return apiMinor < 49 ? { ID: id, Expected: id } : { ID: id };
}

/** A proxy URL without its password. */
function hideCredentials(url: string): string {
  return url.replace(/\/\/[^/@]*@/, '//xxxxx:xxxxx@');
}
