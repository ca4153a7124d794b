/** What a create request means under the API version it was sent with (engine-api-changes, 1.25 to 1.51). */
import { GantryError } from '#types/errors.ts';
import type { ContainerConfig, EndpointSettings, HostConfig, Mount } from '#wire/engine.ts';

/** Comparable API version. */
export interface RequestVersion {
  atLeast(minor: number): boolean;
}

/** A request being worked on. All parts are own copies and may be changed. */
export interface Draft {
  config: ContainerConfig;
  hostConfig: HostConfig & { KernelMemory?: number | undefined };
  endpoints: Record<string, EndpointSettings>;
  /** Read-only binds do not cover what is mounted below them. */
  readOnlyNonRecursive: boolean;
  warnings: string[];
}

const ENDPOINT_SYSCTLS = 'com.docker.network.endpoint.sysctls';
const VOLUME_DRIVER_WARNING =
  "WARNING: the container-wide volume-driver configuration is ignored for volumes specified via 'mount'. Use '--mount type=volume,volume-driver=...' instead";
const MAC_WARNING =
  'The container-wide MacAddress field is now deprecated. It should be specified in EndpointsConfig instead.';

function refuse(message: string): never {
  throw new GantryError('invalid', message);
}

/** Applies a version's rules to the draft. */
export function adjustForVersion(draft: Draft, version: RequestVersion, cgroupVersion: 1 | 2): void {
  const { hostConfig } = draft;
  if (!version.atLeast(25)) hostConfig.AutoRemove = false;
  if (!version.atLeast(40)) {
    hostConfig.KernelMemoryTCP = 0;
    if (!hostConfig.IpcMode) hostConfig.IpcMode = 'shareable';
  }
  if (!version.atLeast(41) && cgroupVersion === 1 && !hostConfig.CgroupnsMode) hostConfig.CgroupnsMode = 'host';
  if (version.atLeast(42)) hostConfig.KernelMemory = 0;
  else hostConfig.ConsoleSize = [0, 0];
  if (!version.atLeast(43)) delete hostConfig.Annotations;
  if (!version.atLeast(44)) {
    draft.readOnlyNonRecursive = true;
    if (draft.config.Healthcheck != null) draft.config.Healthcheck = { ...draft.config.Healthcheck, StartInterval: 0 };
    const names = Object.keys(draft.endpoints);
    if (names.length > 1) refuse(`Container cannot be created with multiple network endpoints: ${names.join(', ')}`);
  }
  if (!version.atLeast(48)) for (const endpoint of Object.values(draft.endpoints)) endpoint.GwPriority = 0;
  if (hostConfig.Mounts != null) hostConfig.Mounts = hostConfig.Mounts.map((mount) => adjustMount(mount, version));
  if ((hostConfig.PidsLimit ?? 0) <= 0) hostConfig.PidsLimit = null;
  warnVolumeDriver(draft, version);
  moveMacAddress(draft, version);
  moveSysctls(draft, version);
}

function adjustMount(given: Mount, version: RequestVersion): Mount {
  const mount = { ...given };
  if (version.atLeast(42)) {
    for (const [field, type] of [
      ['VolumeOptions', 'volume'],
      ['BindOptions', 'bind'],
      ['TmpfsOptions', 'tmpfs'],
    ] as const) {
      if (mount[field] != null && mount.Type !== type)
        refuse(`${field} must not be specified on mount type "${mount.Type ?? ''}"`);
    }
  } else {
    if (mount.BindOptions != null) mount.BindOptions = { ...mount.BindOptions, CreateMountpoint: false };
    if (mount.Type !== 'volume') delete mount.VolumeOptions;
    if (mount.Type !== 'tmpfs') delete mount.TmpfsOptions;
  }
  if (!version.atLeast(40) && mount.BindOptions != null)
    mount.BindOptions = { ...mount.BindOptions, NonRecursive: false };
  if (!version.atLeast(44) && mount.Type === 'bind' && mount.BindOptions?.ReadOnlyForceRecursive === true) {
    refuse('BindOptions.ReadOnlyForceRecursive needs API v1.44 or newer');
  }
  if (!version.atLeast(45) && mount.VolumeOptions?.Subpath) refuse('VolumeOptions.Subpath needs API v1.45 or newer');
  if (!version.atLeast(48) && mount.Type === 'image') refuse('Mount type "Image" needs API v1.48 or newer');
  return mount;
}

function warnVolumeDriver(draft: Draft, version: RequestVersion): void {
  if (!draft.hostConfig.VolumeDriver || !version.atLeast(48)) return;
  const ambiguous = (draft.hostConfig.Mounts ?? []).some(
    (mount) => mount.Type === 'volume' && !mount.VolumeOptions?.DriverConfig?.Name,
  );
  if (ambiguous) draft.warnings.push(VOLUME_DRIVER_WARNING);
}

function moveMacAddress(draft: Draft, version: RequestVersion): void {
  const address = draft.config.MacAddress ?? '';
  const mode = draft.hostConfig.NetworkMode ?? '';
  const hasNetwork = mode !== 'host' && mode !== 'none' && !mode.startsWith('container:');
  if (!version.atLeast(44)) {
    if (address === '') {
      for (const endpoint of Object.values(draft.endpoints)) endpoint.MacAddress = '';
      return;
    }
    if (!hasNetwork) refuse('conflicting options: mac-address and the network mode');
    mainEndpoint(draft, version).MacAddress = address;
    return;
  }
  if (address === '') return;
  if (hasNetwork) {
    const endpoint = mainEndpoint(draft, version);
    if (endpoint.MacAddress && endpoint.MacAddress !== address) {
      refuse(
        'the container-wide MAC address must match the endpoint-specific MAC address for the main network, or be left empty',
      );
    }
    endpoint.MacAddress = address;
  }
  delete draft.config.MacAddress;
  draft.warnings.push(MAC_WARNING);
}

function mainEndpoint(draft: Draft, version: RequestVersion): EndpointSettings {
  const mode = draft.hostConfig.NetworkMode ?? '';
  const names = Object.keys(draft.endpoints);
  if (names.length === 0) draft.endpoints[mode] = {};
  const name = names.length > 0 && !version.atLeast(44) ? (names[0] ?? mode) : mode;
  const found = draft.endpoints[name];
  if (found === undefined)
    refuse('HostConfig.NetworkMode must match the identity of a network in NetworkSettings.Networks');
  return found;
}

/** Settings that name an interface can only be applied once it exists: below 1.48 eth0's move to the endpoint. */
function moveSysctls(draft: Draft, version: RequestVersion): void {
  const { hostConfig } = draft;
  const mode = hostConfig.NetworkMode ?? '';
  if (mode === 'host' || mode.startsWith('container:')) return;
  const moved: [string, string][] = [];
  for (const [name, value] of Object.entries(hostConfig.Sysctls ?? {})) {
    const match = /^net\.([^.]+)\.([^.]+)\.(eth[^.]*)\.(.+)$/.exec(name);
    if (match === null) continue;
    if (version.atLeast(48)) {
      throw new GantryError(
        'system',
        `interface specific sysctl setting "${name}" must be supplied using driver option '${ENDPOINT_SYSCTLS}'`,
      );
    }
    if (match[3] !== 'eth0') {
      throw new GantryError(
        'system',
        `unable to determine network endpoint for sysctl ${name}, use driver option '${ENDPOINT_SYSCTLS}' to set per-interface sysctls`,
      );
    }
    moved.push([name, `net.${match[1]}.${match[2]}.IFNAME.${match[4]}=${value}`]);
  }
  if (moved.length === 0) return;
  const endpoint = mainEndpoint(draft, version);
  const settings = moved.map(([, setting]) => setting).join(',');
  const before = endpoint.DriverOpts?.[ENDPOINT_SYSCTLS];
  endpoint.DriverOpts = {
    ...endpoint.DriverOpts,
    [ENDPOINT_SYSCTLS]: before === undefined ? settings : `${settings},${before}`,
  };
  const names = moved.map(([name]) => name);
  hostConfig.Sysctls = Object.fromEntries(
    Object.entries(hostConfig.Sysctls ?? {}).filter(([name]) => !names.includes(name)),
  );
  draft.warnings.push(`Migrated sysctl "${names.join(',')}" to DriverOpts{"${ENDPOINT_SYSCTLS}":"${settings}"}.`);
}
