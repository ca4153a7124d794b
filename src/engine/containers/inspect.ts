/** What `docker inspect` shows of a container (API 1.51; routes take away or add what older versions had). */
import { join } from 'node:path';
import type { ContainerRecord, ContainerState } from '#services/containers/container.ts';
import { isAlive, ZERO_TIME } from '#services/containers/container.ts';
import type { LiveContainer } from '#services/containers/live.ts';
import type { Endpoint } from '#services/networks/contract.ts';
import { portMap } from '#services/networks/ports.ts';
import { humanDuration } from '#types/human-duration.ts';
import type { ContainerInspectResponse, EndpointSettings } from '#wire/engine.ts';
import type { Services } from '../services.ts';
import { parseLink } from './links.ts';
import { logInfo } from './output.ts';

/** `GET /containers/{id}/json`. With `size`, SizeRw and SizeRootFs are computed. */
export async function inspectContainer(
  services: Services,
  reference: string,
  options: { readonly size: boolean },
): Promise<ContainerInspectResponse> {
  const container = services.containers.find(reference);
  const { record } = container;
  const directory = services.settings.paths.container(record.id);
  const failed = 'error' in container.state && container.state.error !== '';
  const files = record.hasBeenStartedBefore || record.sandbox !== undefined || failed;
  const [path = '', ...args] = record.args;
  return {
    Id: record.id,
    Created: record.createdAt,
    Path: path,
    Args: args,
    State: inspectState(container),
    Image: record.imageId,
    ResolvConfPath: files ? join(directory, 'resolv.conf') : '',
    HostnamePath: files ? join(directory, 'hostname') : '',
    HostsPath: files ? join(directory, 'hosts') : '',
    // Compat: the log has no path before the first start.
    LogPath: files ? services.logs.path(logInfo(services, record)) : '',
    Name: `/${record.name}`,
    RestartCount: record.restartCount,
    Driver: services.snapshots.driver,
    Platform: record.platform.os,
    MountLabel: '',
    ProcessLabel: '',
    AppArmorProfile: '',
    ExecIDs: execIds(container),
    HostConfig: { ...record.hostConfig, Links: shownLinks(services, record) },
    GraphDriver: { Name: services.snapshots.driver, Data: services.snapshots.graphDriverData(record.id) },
    ...(options.size ? await sizes(services, record) : {}),
    Mounts: [...record.mounts],
    Config: shownConfig(record),
    NetworkSettings: networkSettings(record),
  } as ContainerInspectResponse;
}

/** Links as docker stores them: `/child:/parent/alias`. */
function shownLinks(services: Pick<Services, 'containers'>, record: ContainerRecord): string[] | null {
  const links = record.hostConfig.Links ?? [];
  if (links.length === 0) return record.hostConfig.Links ?? null;
  return links.flatMap((text) => {
    const [reference, alias] = parseLink(text);
    const child = services.containers.all().find(({ id, record: { name } }) => name === reference || id === reference);
    return child === undefined ? [] : [`/${child.record.name}:/${record.name}/${alias}`];
  });
}

/** Compat: the address asked for on the primary network is also shown in Config, where it was before API 1.44. */
function shownConfig(record: ContainerRecord): ContainerRecord['config'] {
  const mode = record.hostConfig.NetworkMode ?? 'default';
  const settings = record.networks[mode] ?? (mode === 'default' ? record.networks['bridge'] : undefined);
  return settings?.MacAddress
    ? ({ ...record.config, MacAddress: settings.MacAddress } as typeof record.config)
    : record.config;
}

function execIds(container: LiveContainer): string[] | null {
  const running = [...container.execs.values()].filter((exec) => exec.state.status !== 'exited').map((exec) => exec.id);
  return running.length === 0 ? null : running;
}

/** Bytes written by the container, and with its image's. */
export async function sizes(
  services: Pick<Services, 'images' | 'snapshots'>,
  record: ContainerRecord,
): Promise<{ SizeRw: number; SizeRootFs: number }> {
  const { sizeBytes } = await services.snapshots.usage(record.id);
  return { SizeRw: sizeBytes, SizeRootFs: sizeBytes + (services.images.get(record.imageId)?.sizeBytes ?? 0) };
}

function inspectState(container: LiveContainer): ContainerInspectResponse['State'] {
  const { state } = container;
  const alive = isAlive(state);
  const restarting = state.status === 'restarting';
  return {
    Status: state.status,
    // Compat: a container waiting for its restart counts as running.
    Running: alive || restarting,
    Paused: state.status === 'paused',
    Restarting: restarting,
    OOMKilled: alive ? container.oomKilled : state.oomKilled,
    Dead: state.status === 'dead',
    Pid: alive ? state.pid : 0,
    ExitCode: alive ? 0 : state.exitCode,
    Error: alive ? '' : state.error,
    StartedAt: state.startedAt,
    FinishedAt: state.finishedAt || ZERO_TIME,
    ...(container.health === undefined ? {} : { Health: inspectHealth(container) }),
  };
}

function inspectHealth(container: LiveContainer): {
  Status: 'starting' | 'healthy' | 'unhealthy' | 'none';
  FailingStreak: number;
  Log: object[];
} {
  const { health } = container;
  return {
    Status: (health?.status || 'none') as 'starting',
    FailingStreak: health?.failingStreak ?? 0,
    Log: health?.log ?? [],
  };
}

/** NetworkSettings with docker's legacy top-level fields of the default bridge. */
export function networkSettings(record: ContainerRecord): ContainerInspectResponse['NetworkSettings'] {
  const endpoints = record.sandbox?.endpoints ?? [];
  const bridge = endpoints.find((endpoint) => endpoint.networkName === 'bridge');
  return {
    Bridge: '',
    SandboxID: record.sandbox?.id ?? '',
    SandboxKey: record.sandbox?.path ?? '',
    Ports: portMap(
      record.config.ExposedPorts ?? {},
      endpoints.flatMap((endpoint) => endpoint.ports),
      record.sandbox !== undefined && record.sandbox.path !== '',
    ),
    HairpinMode: false,
    LinkLocalIPv6Address: '',
    LinkLocalIPv6PrefixLen: 0,
    SecondaryIPAddresses: null,
    SecondaryIPv6Addresses: null,
    EndpointID: bridge?.endpointId ?? '',
    Gateway: bridge?.gateway ?? '',
    GlobalIPv6Address: bridge?.ipv6Address ?? '',
    GlobalIPv6PrefixLen: bridge?.ipv6PrefixLength ?? 0,
    IPAddress: bridge?.ipAddress ?? '',
    IPPrefixLen: bridge?.prefixLength ?? 0,
    IPv6Gateway: bridge?.ipv6Gateway ?? '',
    MacAddress: bridge?.macAddress ?? (record.networks['bridge'] ?? record.networks['default'])?.MacAddress ?? '',
    Networks: attachedNetworks(record, endpoints),
  } as ContainerInspectResponse['NetworkSettings'];
}

/** Network name → endpoint settings, wanted ones filled in with what the sandbox got. */
export function attachedNetworks(
  record: ContainerRecord,
  endpoints: readonly Endpoint[],
): Record<string, EndpointSettings> {
  const mode = record.hostConfig.NetworkMode ?? 'default';
  if (mode.startsWith('container:')) return {};
  const wanted = new Map(
    Object.entries(record.networks).map(([name, settings]) => [name === 'default' ? 'bridge' : name, settings]),
  );
  const primary = mode === 'default' ? 'bridge' : mode;
  if (wanted.size === 0 && record.hasLeftNetworks !== true) wanted.set(primary, {});
  const result: Record<string, EndpointSettings> = {};
  for (const [name, settings] of wanted) {
    const endpoint = endpoints.find((candidate) => candidate.networkName === name);
    result[name] = endpointSettings(settings ?? {}, endpoint);
  }
  return result;
}

function endpointSettings(wanted: EndpointSettings, endpoint: Endpoint | undefined): EndpointSettings {
  return {
    IPAMConfig: wanted.IPAMConfig ?? null,
    Links: wanted.Links ?? null,
    Aliases: wanted.Aliases ?? null,
    MacAddress: endpoint?.macAddress ?? wanted.MacAddress ?? '',
    DriverOpts: wanted.DriverOpts ?? null,
    GwPriority: wanted.GwPriority ?? 0,
    NetworkID: endpoint?.networkId ?? wanted.NetworkID ?? '',
    EndpointID: endpoint?.endpointId ?? '',
    Gateway: endpoint?.gateway ?? '',
    IPAddress: endpoint?.ipAddress ?? '',
    IPPrefixLen: endpoint?.prefixLength ?? 0,
    IPv6Gateway: endpoint?.ipv6Gateway ?? '',
    GlobalIPv6Address: endpoint?.ipv6Address ?? '',
    GlobalIPv6PrefixLen: endpoint?.ipv6PrefixLength ?? 0,
    DNSNames: wanted.DNSNames ?? null,
  } as unknown as EndpointSettings;
}

/** The word and the human text of a state, as `docker ps` prints them. */
export function describeState(
  container: LiveContainer,
  nowMs: number,
): { State: ContainerState['status']; Status: string } {
  return { State: container.state.status, Status: statusText(container, nowMs) };
}

function statusText(container: LiveContainer, nowMs: number): string {
  const { state } = container;
  switch (state.status) {
    case 'running':
    case 'paused': {
      const up = `Up ${humanDuration(nowMs - Date.parse(state.startedAt))}`;
      if (state.status === 'paused') return `${up} (Paused)`;
      const health = container.health?.status;
      if (health === undefined) return up;
      return `${up} (${health === 'starting' ? 'health: starting' : health})`;
    }
    case 'restarting':
      return `Restarting (${state.exitCode}) ${humanDuration(nowMs - Date.parse(state.finishedAt))} ago`;
    case 'removing':
      return 'Removal In Progress';
    case 'dead':
      return 'Dead';
    case 'created':
      return 'Created';
    case 'exited':
      if (state.finishedAt === ZERO_TIME) return '';
      return `Exited (${state.exitCode}) ${humanDuration(nowMs - Date.parse(state.finishedAt))} ago`;
    default:
      return state satisfies never;
  }
}
