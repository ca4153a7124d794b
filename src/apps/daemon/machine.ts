/** Facts about this machine, looked up once at start: what specs, validation and /info depend on. */
import { existsSync, readdirSync, readFileSync } from 'node:fs';
import { cpus, hostname, release } from 'node:os';
import { gunzipSync } from 'node:zlib';
import type { MachineInfo } from '#engine/containers/create/defaults.ts';
import { goArchitecture } from '#engine/system/version.ts';
import type { SpecHost } from '#services/spec/build-spec.ts';
import { availableCapabilities } from '#services/spec/capabilities.ts';
import { kernelAtLeast } from '#services/spec/seccomp.ts';
import { detectCgroups } from '#system/cgroup/support.ts';

/** Sysctls docker sets in every network namespace of its own, where the kernel has them. */
const DEFAULT_SYSCTLS: readonly string[] = ['net.ipv4.ip_unprivileged_port_start', 'net.ipv4.ping_group_range'];
const CPU_DIRECTORY = '/sys/devices/system/cpu';

/** Facts for validation. */
export function machineInfo(cgroupDriver: 'cgroupfs' | 'systemd'): MachineInfo {
  return {
    cgroup: detectCgroups(),
    cgroupDriver,
    cpuCount: cpus().length,
    hostName: hostname(),
    ipv4Forwarding: read('/proc/sys/net/ipv4/ip_forward').trim() === '1',
    cgroupNamespaces: existsSync('/proc/self/ns/cgroup'),
    capabilities: availableCapabilities(read('/proc/self/status')),
    thermalThrottlePaths: thermalThrottlePaths(),
    platform: `linux/${goArchitecture()}`,
  };
}

/** Facts for building specs. `recursiveReadOnly` needs mount_setattr (5.12) and a runtime that knows `rro` (runc 1.1). */
export function specHost(runcFeatures: { readonly recursiveReadOnly: boolean }): SpecHost {
  return {
    architecture: goArchitecture(),
    kernelRelease: release(),
    absentArchitectures: absentArchitectures(kernelConfiguration()),
    capabilities: availableCapabilities(read('/proc/self/status')),
    appArmor: read('/sys/module/apparmor/parameters/enabled').startsWith('Y'),
    seccomp: read('/proc/self/status').includes('\nSeccomp:'),
    recursiveReadOnly: runcFeatures.recursiveReadOnly && kernelAtLeast(release(), '5.12'),
    sysctls: DEFAULT_SYSCTLS.filter((name) => existsSync(`/proc/sys/${name.replaceAll('.', '/')}`)),
  };
}

/** ABIs of x86 that a kernel's configuration says it was built without; none when the configuration is not known. */
export function absentArchitectures(configuration: string): string[] {
  const without = (option: string): boolean => configuration.includes(`# ${option} is not set`);
  return [
    ...(without('CONFIG_X86_X32_ABI') ? ['SCMP_ARCH_X32'] : []),
    ...(without('CONFIG_IA32_EMULATION') ? ['SCMP_ARCH_X86'] : []),
  ];
}

/** The running kernel's build configuration; empty when the host does not show it. */
function kernelConfiguration(): string {
  try {
    return gunzipSync(readFileSync('/proc/config.gz')).toString('latin1');
  } catch {
    return read(`/boot/config-${release()}`);
  }
}

/** Docker masks each CPU's thermal counters: they leak what neighbours do. */
function thermalThrottlePaths(): string[] {
  try {
    return readdirSync(CPU_DIRECTORY)
      .filter((name) => /^cpu\d+$/.test(name))
      .map((name) => `${CPU_DIRECTORY}/${name}/thermal_throttle`)
      .filter((path) => existsSync(path));
  } catch {
    return [];
  }
}

function read(path: string): string {
  try {
    return readFileSync(path, 'utf8');
  } catch {
    return '';
  }
}
