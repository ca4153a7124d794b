/** Docker's checks of a create request, in docker's order, with docker's texts. Nothing is changed here. */
import { isIP } from 'node:net';
import { normaliseCapabilities } from '#services/spec/capabilities.ts';
import { errorMessage, GantryError } from '#types/errors.ts';
import { parseSignal } from '#types/signal.ts';
import type { ContainerConfig, EndpointSettings, HealthConfig, HostConfig, RestartPolicy } from '#wire/engine.ts';
import { isShimName } from '../../settings.ts';
import type { MachineInfo } from './defaults.ts';
import { checkTmpfsDestination, type PathExists, validateMount } from './mount-specs.ts';

const MIN_DURATION_NS = 1_000_000;

function refuse(message: string): never {
  throw new GantryError('invalid', message);
}

const isContainer = (mode: string | undefined): boolean => mode?.startsWith('container:') === true;
const validShared = (mode: string | undefined, others: readonly string[]): boolean =>
  others.includes(mode ?? '') || /^container:./.test(mode ?? '');

/** Combinations of network mode and other options, and what Linux cannot do. */
export function checkModes(config: ContainerConfig, hostConfig: HostConfig, machine: MachineInfo): void {
  const mode = hostConfig.NetworkMode ?? '';
  const some = (list: readonly unknown[] | null | undefined): boolean => (list ?? []).length > 0;
  if (isContainer(mode) || mode === 'container') {
    if (mode === 'container' || mode === 'container:')
      refuse('invalid network mode: invalid container format container:<name|id>');
    if (config.Hostname) refuse('conflicting options: hostname and the network mode');
    if (some(hostConfig.Links)) {
      refuse(
        "conflicting options: container type network can't be used with links. This would result in undefined behavior",
      );
    }
    if (some(hostConfig.Dns)) refuse('conflicting options: dns and the network mode');
    if (some(hostConfig.ExtraHosts)) refuse('conflicting options: custom host-to-IP mapping and the network mode');
    if (some(Object.keys(hostConfig.PortBindings ?? {})) || hostConfig.PublishAllPorts === true) {
      refuse('conflicting options: port publishing and the container type network mode');
    }
    if (some(Object.keys(config.ExposedPorts ?? {}))) {
      refuse('conflicting options: port exposing and the container type network mode');
    }
  }
  if (hostConfig.UTSMode === 'host' && config.Hostname) refuse('conflicting options: hostname and the UTS mode');
  if (mode === 'host' && some(hostConfig.Links)) {
    refuse(
      "conflicting options: host type networking can't be used with links. This would result in undefined behavior",
    );
  }
  const isolation = (hostConfig.Isolation ?? '').toLowerCase();
  if (isolation !== '' && isolation !== 'default')
    refuse(`invalid isolation (${hostConfig.Isolation}): linux only supports 'default'`);
  if (hostConfig.IOMaximumBandwidth)
    refuse('invalid option: QoS maximum bandwidth configuration is not supported on linux');
  if (hostConfig.IOMaximumIOps) refuse('invalid option: QoS maximum IOPs configuration is not supported on linux');
  checkRealtime(hostConfig, machine);
}

function checkRealtime(hostConfig: HostConfig, { cgroup }: MachineInfo): void {
  const period = hostConfig.CpuRealtimePeriod ?? 0;
  const runtime = hostConfig.CpuRealtimeRuntime ?? 0;
  if ((period !== 0 || runtime !== 0) && !cgroup.cpuRealtime) refuse('kernel does not support CPU real-time scheduler');
  if (period !== 0 && runtime > period) refuse('cpu real-time runtime cannot be higher than cpu real-time period');
  const shares = hostConfig.CpuShares ?? 0;
  if (cgroup.cpuShares && shares < 0) refuse(`invalid CPU shares (${shares}): value must be a positive integer`);
}

/** The container's own configuration. */
export function checkConfig(config: ContainerConfig): void {
  if (config.WorkingDir && !config.WorkingDir.startsWith('/')) {
    refuse(`the working directory '${config.WorkingDir}' is invalid, it needs to be an absolute path`);
  }
  if (config.StopSignal) parseSignal(config.StopSignal);
  for (const pair of config.Env ?? [])
    if (pair === '' || pair.startsWith('=')) refuse(`invalid environment variable: ${pair}`);
  if (config.Healthcheck != null) checkHealth(config.Healthcheck);
}

function checkHealth(health: HealthConfig): void {
  for (const name of ['Interval', 'Timeout', 'StartPeriod', 'StartInterval'] as const) {
    // Compat: docker names the retries after the timeout, before the start period.
    if (name === 'StartPeriod' && (health.Retries ?? 0) < 0) refuse('Retries in Healthcheck cannot be negative');
    const value = health[name] ?? 0;
    if (value !== 0 && value < MIN_DURATION_NS) refuse(`${name} in Healthcheck cannot be less than 1ms`);
  }
}

/** Restart policies, also for update. */
export function checkRestartPolicy(policy: RestartPolicy): void {
  const retries = policy.MaximumRetryCount ?? 0;
  switch (policy.Name ?? '') {
    case 'always':
    case 'unless-stopped':
    case 'no':
      if (retries !== 0) {
        const negative = retries < 0 ? ' and cannot be negative' : '';
        refuse(`invalid restart policy: maximum retry count can only be used with 'on-failure'${negative}`);
      }
      return;
    case 'on-failure':
      if (retries < 0) refuse('invalid restart policy: maximum retry count cannot be negative');
      return;
    case '':
      return;
    default:
      refuse(
        `invalid restart policy: unknown policy '${policy.Name}'; use one of 'no', 'always', 'on-failure', or 'unless-stopped'`,
      );
  }
}

/** HostConfig, apart from resources. `warnings` is added to. */
export function checkHostConfig(
  hostConfig: HostConfig,
  context: { readonly machine: MachineInfo; readonly pathExists: PathExists; readonly warnings: string[] },
): void {
  const restart = hostConfig.RestartPolicy?.Name ?? '';
  if (hostConfig.AutoRemove === true && restart !== '' && restart !== 'no') {
    refuse("can't create 'AutoRemove' container with restart policy");
  }
  for (const mount of hostConfig.Mounts ?? []) {
    if (mount.Type === 'image') context.warnings.push('Image mount is an experimental feature');
    validateMount(mount, context.pathExists);
  }
  for (const extra of hostConfig.ExtraHosts ?? []) checkExtraHost(extra);
  checkPorts(hostConfig);
  checkRestartPolicy(hostConfig.RestartPolicy ?? {});
  for (const field of ['CapAdd', 'CapDrop'] as const) {
    try {
      normaliseCapabilities(hostConfig[field] ?? [], context.machine.capabilities);
    } catch (error) {
      refuse(`invalid ${field}: ${errorMessage(error)}`);
    }
  }
  if ('' in (hostConfig.Annotations ?? {}))
    refuse('invalid Annotations: the empty string is not permitted as an annotation key');
}

function checkExtraHost(text: string): void {
  const at = text.indexOf(':');
  if (at <= 0) refuse(`bad format for add-host: ${JSON.stringify(text)}`);
  const address = text.slice(at + 1);
  if (address !== 'host-gateway' && isIP(address.replace(/^\[(.*)\]$/, '$1')) === 0) {
    refuse(`invalid IP address in add-host: ${JSON.stringify(address)}`);
  }
}

const isPort = (text: string): boolean => /^\d+$/.test(text) && Number(text) <= 65535;

function checkPorts(hostConfig: HostConfig): void {
  for (const [port, bindings] of Object.entries(hostConfig.PortBindings ?? {})) {
    const number = port.split('/')[0] ?? '';
    if (!isPort(number)) refuse(`invalid port specification: ${JSON.stringify(number)}`);
    for (const binding of bindings ?? []) {
      const text = binding.HostPort ?? '';
      const [first = '', last] = (text.split('/')[0] ?? '').split('-');
      const good =
        text === '' || (isPort(first) && (last === undefined || (isPort(last) && Number(last) >= Number(first))));
      if (!good) refuse(`invalid port specification: ${JSON.stringify(text)}`);
    }
  }
}

/** Modes, limits and names that depend on the platform; after the resources were checked. */
export function checkPlatform(
  hostConfig: HostConfig,
  context: { readonly machine: MachineInfo; readonly runtimes: readonly string[]; readonly warnings: string[] },
): void {
  const { machine, warnings } = context;
  const mode = hostConfig.NetworkMode ?? '';
  // Compat: an IPC donor without a name is only missed at the start.
  if (!validShared(hostConfig.IpcMode, ['', 'none', 'host', 'private', 'shareable', 'container:']))
    refuse(`invalid IPC mode: ${hostConfig.IpcMode}`);
  if (!validShared(hostConfig.PidMode, ['', 'host'])) refuse(`invalid PID mode: ${hostConfig.PidMode}`);
  if ((hostConfig.ShmSize ?? 0) < 0) refuse('SHM size can not be less than 0');
  if (!['', 'host'].includes(hostConfig.UTSMode ?? '')) refuse(`invalid UTS mode: ${hostConfig.UTSMode}`);
  const score = hostConfig.OomScoreAdj ?? 0;
  if (score < -1000 || score > 1000) refuse(`Invalid value ${score}, range for oom score adj is [-1000, 1000]`);
  if (!machine.ipv4Forwarding && mode !== 'host' && mode !== 'none') {
    warnings.push('IPv4 forwarding is disabled. Networking will not work.');
  }
  if (mode === 'host' && Object.keys(hostConfig.PortBindings ?? {}).length > 0) {
    warnings.push('Published ports are discarded when using host network mode');
  }
  const parent = hostConfig.CgroupParent ?? '';
  if (parent !== '' && machine.cgroupDriver === 'systemd' && !/^.+\.slice$/.test(parent)) {
    refuse('cgroup-parent for systemd cgroup should be a valid slice named as "xxx.slice"');
  }
  const runtime = hostConfig.Runtime ?? '';
  if (!context.runtimes.includes(runtime) && !isShimName(runtime)) {
    refuse(`unknown or invalid runtime name: ${runtime}`);
  }
  for (const destination of Object.keys(hostConfig.Tmpfs ?? {})) checkTmpfsDestination(destination);
  const cgroupns: string = hostConfig.CgroupnsMode ?? '';
  if (!['', 'private', 'host'].includes(cgroupns)) refuse(`invalid cgroup namespace mode: ${cgroupns}`);
  if (cgroupns === 'private' && !machine.cgroupNamespaces) {
    warnings.push('Your kernel does not support cgroup namespaces.  Cgroup namespace setting discarded.');
  }
}

/** Several mistakes as one text, the way docker lists them. */
export function joinMistakes(mistakes: readonly string[]): string {
  if (mistakes.length === 1) return mistakes[0] ?? '';
  return mistakes.map((mistake) => `* ${mistake.replaceAll('\n', '\n\t')}`).join('\n');
}

/** Endpoint settings of all networks, all mistakes of one network together; `more` finds those that depend on it. */
export function checkEndpoints(
  endpoints: Readonly<Record<string, EndpointSettings | null>>,
  more: (network: string, endpoint: EndpointSettings) => string[],
): void {
  const failures: string[] = [];
  for (const [name, endpoint] of Object.entries(endpoints)) {
    if (endpoint === null) {
      failures.push(`invalid config for network ${name}: EndpointsConfig is nil`);
      continue;
    }
    const wrong = [...endpointMistakes(name, endpoint), ...more(name, endpoint)];
    if (wrong.length > 0)
      failures.push(`invalid config for network ${name}: invalid endpoint settings:\n${joinMistakes(wrong)}`);
  }
  if (failures.length > 0) refuse(joinMistakes(failures));
}

/** Whether a network mode or name means a network that somebody made. */
export function isUserDefined(network: string): boolean {
  return !['', 'default', 'bridge', 'host', 'none'].includes(network) && !isContainer(network);
}

const MAC_ADDRESS = /^[0-9a-f]{2}(?::[0-9a-f]{2}){5}$|^[0-9a-f]{2}(?:-[0-9a-f]{2}){5}$/i;
const ENDPOINT_SYSCTL = /^[^.]*\.(ipv4|ipv6|mpls)\.[^.]*\.(IFNAME|ifname)\./;

/** What is wrong with settings whatever network it is. */
export function endpointMistakes(network: string, endpoint: EndpointSettings): string[] {
  const wrong: string[] = [];
  const userDefined = isUserDefined(network);
  const ipam = endpoint.IPAMConfig;
  const { IPv4Address: v4 = '', IPv6Address: v6 = '' } = ipam ?? {};
  const linkLocal = ipam?.LinkLocalIPs ?? [];
  if ((v4 !== '' || v6 !== '' || linkLocal.length > 0) && !userDefined) {
    wrong.push('user specified IP address is supported on user defined networks only');
  }
  if ((endpoint.Aliases ?? []).length > 0 && !userDefined) {
    wrong.push('network-scoped alias is supported only for containers in user defined networks');
  }
  if (v4 !== '' && isIP(v4) !== 4) wrong.push(`invalid IPv4 address: ${v4}`);
  if (v6 !== '' && isIP(v6) !== 6) wrong.push(`invalid IPv6 address: ${v6}`);
  for (const address of linkLocal) if (isIP(address) === 0) wrong.push(`invalid link-local IP address: ${address}`);
  if (endpoint.MacAddress && !MAC_ADDRESS.test(endpoint.MacAddress))
    wrong.push(`invalid MAC address ${endpoint.MacAddress}`);
  const sysctls = endpoint.DriverOpts?.['com.docker.network.endpoint.sysctls'];
  for (const sysctl of sysctls === undefined ? [] : sysctls.split(',')) {
    if (ENDPOINT_SYSCTL.test(sysctl)) continue;
    wrong.push(
      `unrecognised network interface sysctl '${sysctl}'; represent 'net.X.Y.ethN.Z=V' as 'net.X.Y.IFNAME.Z=V', 'X' must be 'ipv4', 'ipv6' or 'mpls'`,
    );
  }
  return wrong;
}
