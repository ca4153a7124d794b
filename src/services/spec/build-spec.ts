/**
 * The OCI runtime spec (1.0.2) of a container, built from its stored configuration as dockerd does.
 * Pure but for device nodes, which are looked up on the host.
 */
import { GantryError } from '#types/errors.ts';
import type { OciNamespace, OciProcess, OciRlimit, OciSeccomp, OciSpec } from '#types/oci.ts';
import type { ContainerConfig, ExecConfig, HostConfig } from '#wire/engine.ts';
import { capabilitySets, containerCapabilities } from './capabilities.ts';
import { containerDevices, deviceNumber } from './devices.ts';
import { type ContainerMount, planMounts } from './mounts.ts';
import { containerResources } from './resources.ts';
import { customSeccomp, defaultSeccomp } from './seccomp.ts';
import { parseSecurityOptions, type SecurityOptions } from './security.ts';
import type { ResolvedUser } from './user.ts';

export const INIT_PATH_IN_CONTAINER = '/sbin/docker-init';
const DEFAULT_PATH = 'PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin';
const APPARMOR_DEFAULT = 'docker-default';

/** Facts about the host. */
export interface SpecHost {
  /** amd64, arm64 … */
  readonly architecture: string;
  readonly kernelRelease: string;
  /** Secondary ABIs the kernel was built without, as seccomp names them. */
  readonly absentArchitectures?: readonly string[];
  /** What may be handed out (`availableCapabilities`). */
  readonly capabilities: readonly string[];
  readonly appArmor: boolean;
  readonly seccomp: boolean;
  readonly recursiveReadOnly: boolean;
  /** Sysctls that exist, among those docker sets by default. */
  readonly sysctls: readonly string[];
}

/** Daemon options that matter here. */
export interface SpecDefaults {
  readonly ulimits: readonly { readonly Name: string; readonly Soft: number; readonly Hard: number }[];
  readonly cgroupDriver: 'cgroupfs' | 'systemd';
  readonly cgroupParent: string;
  readonly noNewPrivileges: boolean;
  readonly seccompProfile: string;
  readonly init: boolean;
  /** Absolute path of the init binary on the host; undefined when none is installed. */
  readonly initPath: string | undefined;
}

export interface SpecInput {
  readonly id: string;
  readonly config: ContainerConfig;
  readonly hostConfig: HostConfig;
  /** Entry point joined with command. */
  readonly args: readonly string[];
  readonly rootfs: string;
  readonly user: ResolvedUser;
  /** Binds, volumes, tmpfs and the network files. */
  readonly mounts: readonly ContainerMount[];
  /** Namespaces to join by path; absent ones are new. `container:` modes must be given here. */
  readonly namespaces: {
    readonly network?: string | undefined;
    readonly pid?: string | undefined;
    readonly ipc?: string | undefined;
  };
  /** Environment of legacy links. */
  readonly linkedEnv: readonly string[];
  readonly host: SpecHost;
  readonly defaults: SpecDefaults;
}

/** Builds the spec. Throws what dockerd would say at start. */
export function buildSpec(input: SpecInput): OciSpec {
  const { hostConfig, config } = input;
  const security = parseSecurityOptions(hostConfig.SecurityOpt ?? [], input.defaults.noNewPrivileges);
  const capabilities = capabilitiesOf(input);
  const privileged = hostConfig.Privileged === true;
  const init = initMounts(input);
  const plan = planMounts({
    hostConfig,
    mounts: input.mounts,
    recursiveReadOnly: input.host.recursiveReadOnly,
    writableCgroups: security.writableCgroups ?? privileged,
  });
  const { devices, rules } = containerDevices(hostConfig);
  const seccomp = seccompOf(input, security, capabilities);
  const hostUts = hostConfig.UTSMode === 'host';
  return {
    ociVersion: '1.0.2',
    process: processOf(input, security, capabilities),
    root: { path: input.rootfs, readonly: hostConfig.ReadonlyRootfs === true },
    ...(hostUts ? {} : { hostname: config.Hostname ?? '' }),
    // runc 1.1 knows no domainname field in 1.0.2: docker sets the sysctl instead.
    mounts: [...plan.mounts, ...init],
    ...(hostConfig.Annotations == null ? {} : { annotations: hostConfig.Annotations }),
    linux: {
      namespaces: namespacesOf(input),
      devices,
      resources: { ...containerResources(hostConfig, deviceNumber), devices: rules },
      sysctl: sysctlsOf(input),
      cgroupsPath: cgroupsPath(
        input.id,
        hostConfig.CgroupParent || input.defaults.cgroupParent,
        input.defaults.cgroupDriver,
      ),
      ...(seccomp === undefined ? {} : { seccomp }),
      ...(privileged
        ? {}
        : { maskedPaths: hostConfig.MaskedPaths ?? [], readonlyPaths: hostConfig.ReadonlyPaths ?? [] }),
      ...(plan.rootfsPropagation === undefined ? {} : { rootfsPropagation: plan.rootfsPropagation }),
    },
  };
}

/** `cgroupsPath` in the form the driver wants. */
export function cgroupsPath(id: string, parent: string, driver: 'cgroupfs' | 'systemd'): string {
  if (driver === 'systemd') return `${parent === '' ? 'system.slice' : parent}:docker:${id}`;
  // Compat: tools tell a container, and read its ID, by docker's own names here.
  const segments = `${parent === '' ? '/docker' : parent}/${id}`
    .split('/')
    .filter((part) => part !== '' && part !== '.' && part !== '..');
  return `/${segments.join('/')}`;
}

function capabilitiesOf(input: SpecInput): string[] {
  return containerCapabilities({
    add: input.hostConfig.CapAdd ?? [],
    drop: input.hostConfig.CapDrop ?? [],
    privileged: input.hostConfig.Privileged === true,
    available: input.host.capabilities,
  });
}

function usesInit(input: SpecInput): boolean {
  return (input.hostConfig.PidMode ?? '') === '' && (input.hostConfig.Init ?? input.defaults.init);
}

function initMounts(input: SpecInput): { destination: string; type: string; source: string; options: string[] }[] {
  if (!usesInit(input)) return [];
  if (input.defaults.initPath === undefined) {
    throw new GantryError('system', 'exec: "docker-init": executable file not found in $PATH (Debian package: tini)');
  }
  return [
    { destination: INIT_PATH_IN_CONTAINER, type: 'bind', source: input.defaults.initPath, options: ['bind', 'ro'] },
  ];
}

function processOf(input: SpecInput, security: SecurityOptions, capabilities: readonly string[]): OciProcess {
  const { config, hostConfig, user } = input;
  const terminal = config.Tty === true;
  const [height = 0, width = 0] = hostConfig.ConsoleSize ?? [];
  return {
    terminal,
    ...(terminal && (height > 0 || width > 0) ? { consoleSize: { height, width } } : {}),
    user: user.user,
    args: usesInit(input) ? [INIT_PATH_IN_CONTAINER, '--', ...input.args] : input.args,
    env: containerEnvironment(config, input.linkedEnv, user.home),
    cwd: config.WorkingDir || '/',
    capabilities: capabilitySets(capabilities),
    rlimits: rlimitsOf(input),
    ...(security.noNewPrivileges ? { noNewPrivileges: true } : {}),
    ...(input.host.appArmor ? { apparmorProfile: appArmor(input, security) } : {}),
    oomScoreAdj: hostConfig.OomScoreAdj ?? 0,
  };
}

function appArmor(input: SpecInput, security: SecurityOptions): string {
  if (security.appArmorProfile !== '') return security.appArmorProfile;
  return input.hostConfig.Privileged === true ? 'unconfined' : APPARMOR_DEFAULT;
}

/** Defaults, links, then the container's own; `NAME` without `=` removes. HOME comes from passwd unless set. */
export function containerEnvironment(config: ContainerConfig, linked: readonly string[], home: string): string[] {
  const defaults = [
    DEFAULT_PATH,
    `HOSTNAME=${config.Hostname ?? ''}`,
    ...(config.Tty === true ? ['TERM=xterm'] : []),
    ...linked,
  ];
  const env = replaceOrAppend(defaults, config.Env ?? []);
  return env.some((pair) => pair.startsWith('HOME=')) ? env : [...env, `HOME=${home === '' ? '/' : home}`];
}

function replaceOrAppend(base: readonly string[], changes: readonly string[]): string[] {
  const values = new Map(base.map((pair) => [pair.split('=', 1)[0] ?? '', pair]));
  for (const change of changes) {
    const name = change.split('=', 1)[0] ?? '';
    if (change.includes('=')) values.set(name, change);
    else values.delete(name);
  }
  return [...values.values()];
}

function rlimitsOf(input: SpecInput): OciRlimit[] {
  const own = (input.hostConfig.Ulimits ?? []).map((one) => ({
    Name: one.Name ?? '',
    Soft: one.Soft ?? 0,
    Hard: one.Hard ?? 0,
  }));
  const inherited = input.defaults.ulimits.filter((one) => !own.some((other) => other.Name === one.Name));
  return [...own, ...inherited].map((one) => ({
    type: `RLIMIT_${one.Name.toUpperCase()}`,
    soft: unsigned(one.Soft),
    hard: unsigned(one.Hard),
  }));
}

/** -1 means unlimited: the largest unsigned number, which only raw JSON can carry. */
function unsigned(value: number): number {
  if (value >= 0) return value;
  const raw = JSON as unknown as { rawJSON(text: string): unknown };
  return raw.rawJSON(String(BigInt.asUintN(64, BigInt(value)))) as number;
}

function namespacesOf(input: SpecInput): OciNamespace[] {
  const { hostConfig, namespaces } = input;
  const list: OciNamespace[] = [{ type: 'mount' }];
  const add = (type: OciNamespace['type'], mode: string | undefined, path: string | undefined): void => {
    if (mode === 'host') return;
    if (mode?.startsWith('container:') && path === undefined) {
      throw new GantryError('system', `the ${type} namespace of ${mode} is not known`);
    }
    list.push(path === undefined ? { type } : { type, path });
  };
  add('network', hostConfig.NetworkMode, namespaces.network);
  add('uts', hostConfig.UTSMode, undefined);
  add('pid', hostConfig.PidMode, namespaces.pid);
  add('ipc', hostConfig.IpcMode, namespaces.ipc);
  if (hostConfig.CgroupnsMode === 'private') list.push({ type: 'cgroup' });
  return list;
}

function sysctlsOf(input: SpecInput): Record<string, string> {
  const { hostConfig, config, host } = input;
  const mode = hostConfig.NetworkMode ?? '';
  const sysctl: Record<string, string> = {};
  if (config.Domainname && hostConfig.UTSMode !== 'host') sysctl['kernel.domainname'] = config.Domainname;
  if (mode !== 'host' && !mode.startsWith('container:')) {
    if (host.sysctls.includes('net.ipv4.ping_group_range')) sysctl['net.ipv4.ping_group_range'] = '0 2147483647';
    if (host.sysctls.includes('net.ipv4.ip_unprivileged_port_start'))
      sysctl['net.ipv4.ip_unprivileged_port_start'] = '0';
  }
  return { ...sysctl, ...hostConfig.Sysctls };
}

function seccompOf(
  input: SpecInput,
  security: SecurityOptions,
  capabilities: readonly string[],
): OciSeccomp | undefined {
  const own = security.seccompProfile;
  const { architecture, kernelRelease, absentArchitectures = [] } = input.host;
  const target = { architecture, kernelRelease, absentArchitectures, capabilities };
  if (own === 'unconfined') return undefined;
  if (input.hostConfig.Privileged === true && own === '') return undefined;
  if (!input.host.seccomp) {
    if (own === '' || own === 'builtin') return undefined;
    throw new GantryError('system', 'seccomp is not enabled in your kernel, cannot run a custom seccomp profile');
  }
  const profile = own === '' ? input.defaults.seccompProfile : own;
  if (profile === 'unconfined') return undefined;
  return profile === '' || profile === 'builtin' ? defaultSeccomp(target) : customSeccomp(profile, target);
}

export interface ExecInput {
  readonly exec: ExecConfig;
  /** The spec the container was started with. */
  readonly spec: OciSpec;
  readonly user: ResolvedUser;
  readonly available: readonly string[];
}

/** The OCI process of an exec: the container's environment and security, its own user, terminal and directory. */
export function execProcess(input: ExecInput): OciProcess {
  const { exec, spec, user } = input;
  const { consoleSize: _container, ...base } = spec.process;
  const terminal = exec.Tty === true;
  const [height = 0, width = 0] = exec.ConsoleSize ?? [];
  const changes = [...(terminal ? ['TERM=xterm'] : []), ...(exec.Env ?? [])];
  const own = base.env.filter((pair) => !pair.startsWith('HOME='));
  const configured = base.env.find((pair) => pair.startsWith('HOME='));
  const env = replaceOrAppend(exec.User ? own : base.env, changes);
  const home = exec.User ? `HOME=${user.home || '/'}` : configured;
  return {
    ...base,
    terminal,
    ...(terminal && (height > 0 || width > 0) ? { consoleSize: { height, width } } : {}),
    user: user.user,
    args: exec.Cmd ?? [],
    env: home === undefined || env.some((pair) => pair.startsWith('HOME=')) ? env : [...env, home],
    cwd: exec.WorkingDir || base.cwd,
    capabilities: exec.Privileged === true ? capabilitySets(input.available) : base.capabilities,
  };
}
