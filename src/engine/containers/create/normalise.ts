/**
 * A create request from the wire to what is stored: adjusted to its API version, checked, completed with the
 * daemon's defaults and the image's configuration. Pure; everything it must ask is handed in.
 */
import { posix } from 'node:path';
import type { ImageRunConfig } from '#services/images/contract.ts';
import { parseSecurityOptions } from '#services/spec/security.ts';
import { GantryError } from '#types/errors.ts';
import { shortId } from '#types/ids.ts';
import type { ContainerConfig, ContainerCreateRequest, EndpointSettings, HostConfig } from '#wire/engine.ts';
import { adjustForVersion, type Draft, type RequestVersion } from './adjust-version.ts';
import type { DaemonDefaults, MachineInfo } from './defaults.ts';
import { storedConfig, storedHostConfig } from './go-shape.ts';
import { argumentsOf, mergeImage } from './merge-image.ts';
import { type PathExists, type PlannedMount, parseBind, planAnonymousVolume, planMount } from './mount-specs.ts';
import { checkResources } from './resource-rules.ts';
import { checkConfig, checkEndpoints, checkHostConfig, checkModes, checkPlatform } from './validate.ts';

/** What a request is judged against. */
export interface CreateContext {
  readonly version: RequestVersion;
  readonly defaults: DaemonDefaults;
  readonly machine: MachineInfo;
  /** Names accepted for `--runtime`. */
  readonly runtimes: readonly string[];
  readonly pathExists: PathExists;
  /** What is wrong with an endpoint's settings for the network they are for; nothing when there is none yet. */
  readonly endpointMistakes: (network: string, settings: EndpointSettings) => string[];
  /** ID of a container by any reference; undefined when there is none. */
  readonly containerId: (reference: string) => string | undefined;
}

/** A request that passed every check that needs no image. */
export interface CheckedRequest {
  readonly config: ContainerConfig;
  readonly hostConfig: HostConfig;
  readonly endpoints: Readonly<Record<string, EndpointSettings>>;
  readonly readOnlyNonRecursive: boolean;
  readonly warnings: readonly string[];
  /** Warnings about the API version; docker lists them last. */
  readonly versionWarnings: readonly string[];
}

/** What is stored. */
export interface NormalisedContainer {
  readonly config: ContainerConfig;
  readonly hostConfig: HostConfig;
  readonly args: readonly string[];
  /** Binds then Mounts then the image's and config's anonymous volumes; destinations are unique. */
  readonly mounts: readonly PlannedMount[];
}

/** First half: before the image is looked up, as docker answers. */
export function checkRequest(request: ContainerCreateRequest, context: CreateContext): CheckedRequest {
  const { HostConfig: hostConfig, NetworkingConfig: networking, ...config } = request;
  if (Object.keys(config).length === 0) {
    throw new GantryError('invalid', 'config cannot be empty in order to create a container');
  }
  const draft: Draft = {
    config: { ...config },
    hostConfig: { ...hostConfig },
    endpoints: Object.fromEntries(
      Object.entries(networking?.EndpointsConfig ?? {}).map(([name, endpoint]) => [
        name,
        endpoint === null ? endpoint : { ...endpoint },
      ]),
    ),
    readOnlyNonRecursive: false,
    warnings: [],
  };
  if (hostConfig != null) checkModes(draft.config, draft.hostConfig, context.machine);
  if ((draft.hostConfig as { Capabilities?: unknown[] }).Capabilities?.length) {
    throw new GantryError(
      'invalid',
      'the HostConfig.Capabilities field is not supported by this daemon; use CapAdd and CapDrop to set capabilities',
    );
  }
  nameDefaultNetwork(draft);
  adjustForVersion(draft, context.version, context.machine.cgroup.version);
  const warnings = verify(draft, context);
  checkEndpoints(draft.endpoints, context.endpointMistakes);
  applyDefaults(draft.hostConfig, context);
  const { config: kept, hostConfig: host, endpoints, readOnlyNonRecursive } = draft;
  return { config: kept, hostConfig: host, endpoints, readOnlyNonRecursive, warnings, versionWarnings: draft.warnings };
}

function nameDefaultNetwork(draft: Draft): void {
  const { hostConfig, endpoints } = draft;
  if (hostConfig.NetworkMode && hostConfig.NetworkMode !== 'default') return;
  hostConfig.NetworkMode = 'bridge';
  const settings = endpoints['default'];
  if (settings === undefined) return;
  delete endpoints['default'];
  endpoints['bridge'] = settings;
}

function verify(draft: Draft, context: CreateContext): string[] {
  const { machine, pathExists, runtimes } = context;
  const { config, hostConfig } = draft;
  const warnings: string[] = [];
  if (!hostConfig.RestartPolicy?.Name) {
    hostConfig.RestartPolicy = { Name: 'no', MaximumRetryCount: hostConfig.RestartPolicy?.MaximumRetryCount ?? 0 };
  }
  checkConfig(config);
  if (config.WorkingDir) config.WorkingDir = cleanDirectory(config.WorkingDir);
  checkHostConfig(hostConfig, { machine, pathExists, warnings });
  const checked = checkResources(hostConfig, machine, { update: false });
  warnings.push(...checked.warnings);
  draft.hostConfig = checked.resources;
  if (!draft.hostConfig.Runtime) draft.hostConfig.Runtime = context.defaults.defaultRuntime;
  checkPlatform(draft.hostConfig, { machine, runtimes, warnings });
  return warnings;
}

function cleanDirectory(path: string): string {
  const clean = posix.normalize(path);
  return clean.length > 1 && clean.endsWith('/') ? clean.slice(0, -1) : clean;
}

function applyDefaults(hostConfig: HostConfig, context: CreateContext): void {
  const { defaults, machine } = context;
  const memory = hostConfig.Memory ?? 0;
  if (memory > 0 && (hostConfig.MemorySwap ?? 0) === 0) hostConfig.MemorySwap = memory * 2;
  if (!hostConfig.ShmSize) hostConfig.ShmSize = defaults.shmSizeBytes;
  if (!hostConfig.IpcMode) hostConfig.IpcMode = defaults.ipcMode;
  if (!hostConfig.CgroupnsMode) {
    const shared = hostConfig.Privileged === true && machine.cgroup.version === 1;
    hostConfig.CgroupnsMode = shared ? 'host' : defaults.cgroupnsMode;
  }
  for (const field of ['PidMode', 'IpcMode', 'NetworkMode'] as const) {
    const mode = hostConfig[field] ?? '';
    if (!mode.startsWith('container:')) continue;
    const reference = mode.slice('container:'.length);
    const id = context.containerId(reference);
    if (id !== undefined) hostConfig[field] = `container:${id}`;
    // Compat: a network's donor may come later; the other two are looked up now.
    else if (field !== 'NetworkMode' && reference !== '') {
      throw new GantryError('invalid', `No such container: ${reference}`);
    }
  }
  const unlabelled = !(hostConfig.SecurityOpt ?? []).some((option) => option.split('=')[0] === 'label');
  const shares = hostConfig.IpcMode === 'host' || hostConfig.PidMode === 'host' || hostConfig.Privileged === true;
  if (unlabelled && shares) hostConfig.SecurityOpt = [...(hostConfig.SecurityOpt ?? []), 'label=disable'];
  // Compat: docker sets this even where the kernel has no such switch.
  hostConfig.OomKillDisable ??= false;
}

/** Second half: with the image at hand. `validateLog` is the log service's check. */
export function normaliseRequest(
  checked: CheckedRequest,
  image: ImageRunConfig | undefined,
  context: CreateContext & {
    readonly id: string;
    readonly validateLog: (driver: string, options: Readonly<Record<string, string>>) => void;
  },
): NormalisedContainer {
  const { defaults, machine } = context;
  const config = mergeImage(checked.config, image);
  const hostConfig = { ...checked.hostConfig };
  const log = logConfig(hostConfig, defaults);
  context.validateLog(log.Type, log.Config);
  hostConfig.LogConfig = log as NonNullable<HostConfig['LogConfig']>;
  if (!config.Hostname) config.Hostname = hostConfig.NetworkMode === 'host' ? machine.hostName : shortId(context.id);
  parseSecurityOptions(hostConfig.SecurityOpt ?? [], defaults.noNewPrivileges);
  if (hostConfig.Privileged !== true) {
    hostConfig.MaskedPaths ??= [...MASKED_PATHS, ...machine.thermalThrottlePaths];
    hostConfig.ReadonlyPaths ??= [...READONLY_PATHS];
  }
  const mounts = planMounts(hostConfig, config, checked.readOnlyNonRecursive);
  return { config: storedConfig(config), hostConfig: storedHostConfig(hostConfig), args: argumentsOf(config), mounts };
}

function logConfig(hostConfig: HostConfig, defaults: DaemonDefaults): { Type: string; Config: Record<string, string> } {
  const type = hostConfig.LogConfig?.Type || defaults.logDriver;
  const inherited = type === defaults.logDriver ? defaults.logOptions : {};
  return { Type: type, Config: { ...inherited, ...hostConfig.LogConfig?.Config } };
}

function planMounts(hostConfig: HostConfig, config: ContainerConfig, readOnlyNonRecursive: boolean): PlannedMount[] {
  const planned = new Map<string, PlannedMount>();
  const add = (mount: PlannedMount, shown: string): void => {
    const duplicate = planned.has(mount.destination);
    if (duplicate) throw new GantryError('invalid', `Duplicate mount point: ${shown}`);
    const restrict = readOnlyNonRecursive && mount.type === 'bind' && !mount.writable;
    const spec = restrict
      ? { ...mount.spec, BindOptions: { ...mount.spec.BindOptions, ReadOnlyNonRecursive: true } }
      : mount.spec;
    planned.set(mount.destination, { ...mount, spec });
  };
  for (const raw of hostConfig.Binds ?? []) {
    const mount = parseBind(raw, hostConfig.VolumeDriver ?? '');
    if (mount.destination in (hostConfig.Tmpfs ?? {})) {
      throw new GantryError('invalid', `Duplicate mount point: ${mount.destination}`);
    }
    add(mount, mount.destination);
  }
  // Sources were checked before; they may legitimately have gone since.
  for (const spec of hostConfig.Mounts ?? [])
    add(
      planMount(spec, () => true),
      spec.Target ?? '',
    );
  for (const path of Object.keys(config.Volumes ?? {})) {
    const volume = planAnonymousVolume(path);
    if (planned.has(volume.destination) || volume.destination in (hostConfig.Tmpfs ?? {})) continue;
    planned.set(volume.destination, { ...volume, driver: hostConfig.VolumeDriver ?? '' });
  }
  return [...planned.values()];
}

/** Paths hidden from a container, docker 28.5's list. */
export const MASKED_PATHS: readonly string[] = [
  '/proc/asound',
  '/proc/acpi',
  '/proc/interrupts',
  '/proc/kcore',
  '/proc/keys',
  '/proc/latency_stats',
  '/proc/timer_list',
  '/proc/timer_stats',
  '/proc/sched_debug',
  '/proc/scsi',
  '/sys/firmware',
  '/sys/devices/virtual/powercap',
];

/** Paths a container can only read. */
export const READONLY_PATHS: readonly string[] = [
  '/proc/bus',
  '/proc/fs',
  '/proc/irq',
  '/proc/sys',
  '/proc/sysrq-trigger',
];
