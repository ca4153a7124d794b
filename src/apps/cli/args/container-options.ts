/**
 * The flags of `run` and `create` as the body of POST /containers/create.
 *
 * Checks are made in docker's order with docker's texts; files named by flags are read here.
 */
import type { ConfigFile } from '../config/endpoint.ts';
import type { ParsedFlags } from './parse-flags.ts';
import { planPorts } from './ports.ts';
import {
  type Json,
  type NetworkOption,
  parseGpuRequest,
  parseMount,
  parseNetwork,
  parseUlimit,
} from './structured-values.ts';

const fs = process.getBuiltinModule('node:fs');

/** The three objects of a create request. */
export interface ContainerOptions {
  readonly config: Json;
  readonly hostConfig: Json;
  readonly networkingConfig: Json;
}

/** Lines of an env or label file. */
function readKeyFile(path: string, what: 'env' | 'label'): string[] {
  let text: string;
  try {
    text = fs.readFileSync(path, 'utf8');
  } catch {
    throw new Error(`open ${path}: no such file or directory`);
  }
  const lines: string[] = [];
  for (const raw of text.replace(/^\uFEFF/, '').split(/\r?\n/)) {
    const line = raw.trimStart();
    if (line === '' || line.startsWith('#')) continue;
    const [name = '', value] = line.split(/=(.*)/s);
    if (name === '')
      throw new Error(
        `invalid ${what === 'env' ? 'environment file' : 'label file'} (${path}): no variable name on line '${line}'`,
      );
    if (/\s/.test(name)) throw new Error(`invalid env file (${path}): variable '${name}' contains whitespaces`);
    if (value !== undefined) lines.push(`${name}=${value}`);
    else if (what === 'label') lines.push(name);
    else if (process.env[name] !== undefined) lines.push(`${name}=${process.env[name]}`);
  }
  return lines;
}

/** Environment of `-e` and `--env-file`; a bare name takes the caller's value and is dropped when unset. */
export function readEnvironment(flags: ParsedFlags): string[] {
  const fromFiles = flags.list('env-file').flatMap((path) => readKeyFile(path, 'env'));
  const direct = flags.list('env').flatMap((entry) => {
    if (entry.includes('=')) return [entry];
    const value = process.env[entry];
    return value === undefined ? [entry] : [`${entry}=${value}`];
  });
  return [...fromFiles, ...direct];
}

/** `KEY=VALUE` texts as an object. */
export function keyValues(entries: readonly string[]): Record<string, string> {
  return Object.fromEntries(
    entries.map((entry) => entry.split(/=(.*)/s)).map(([key = '', value = '']) => [key, value]),
  );
}

function proxyEnvironment(config: ConfigFile, host: string, environment: readonly string[]): string[] {
  const proxies = config.proxies?.[host] ?? config.proxies?.['default'];
  if (proxies === undefined) return [];
  const names: Readonly<Record<string, string>> = {
    httpProxy: 'HTTP_PROXY',
    httpsProxy: 'HTTPS_PROXY',
    noProxy: 'NO_PROXY',
    ftpProxy: 'FTP_PROXY',
    allProxy: 'ALL_PROXY',
  };
  const given = new Set(environment.map((entry) => entry.split('=')[0]));
  const added: string[] = [];
  for (const [key, name] of Object.entries(names)) {
    const value = proxies[key];
    if (value === undefined || value === '') continue;
    for (const variable of [name, name.toLowerCase()]) if (!given.has(variable)) added.push(`${variable}=${value}`);
  }
  return added;
}

function healthCheck(flags: ParsedFlags): Json | undefined {
  const names = ['health-interval', 'health-timeout', 'health-start-period', 'health-start-interval', 'health-retries'];
  const any = flags.text('health-cmd') !== '' || names.some((name) => flags.number(name) !== 0);
  if (flags.bool('no-healthcheck')) {
    if (any) throw new Error('--no-healthcheck conflicts with --health-* options');
    return { Test: ['NONE'] };
  }
  if (!any) return undefined;
  for (const name of names.slice(0, 4)) if (flags.number(name) < 0) throw new Error(`--${name} cannot be negative`);
  if (flags.number('health-retries') < 0) throw new Error('--health-retries cannot be negative');
  const command = flags.text('health-cmd');
  return {
    ...(command === '' ? {} : { Test: ['CMD-SHELL', command] }),
    Interval: flags.number('health-interval'),
    Timeout: flags.number('health-timeout'),
    StartPeriod: flags.number('health-start-period'),
    StartInterval: flags.number('health-start-interval'),
    Retries: flags.number('health-retries'),
  };
}

/** `on-failure:3` as the API's policy. */
export function restartPolicy(text: string): Json {
  if (text === '') return { Name: 'no', MaximumRetryCount: 0 };
  const [name = '', count, ...more] = text.split(':');
  if (name === '') throw new Error('invalid restart policy format: no policy provided before colon');
  if (more.length > 0) throw new Error('invalid restart policy format: maximum retry count must be an integer');
  if (count !== undefined && !/^[+-]?\d+$/.test(count))
    throw new Error('invalid restart policy format: maximum retry count must be an integer');
  return { Name: name, MaximumRetryCount: Number(count ?? 0) };
}

function securityOptions(values: readonly string[]): { options: string[]; unmasked: boolean } {
  let unmasked = false;
  const options: string[] = [];
  for (const value of values) {
    if (value === 'systempaths=unconfined') {
      unmasked = true;
      continue;
    }
    const [key = '', setting] = value.split(/[=:](.*)/s);
    if (setting === undefined && value !== 'no-new-privileges')
      throw new Error(`Invalid --security-opt: ${JSON.stringify(value)}`);
    if (key === 'seccomp' && setting !== undefined && setting !== 'unconfined' && setting !== 'builtin') {
      try {
        options.push(`seccomp=${JSON.stringify(JSON.parse(fs.readFileSync(setting, 'utf8')))}`);
      } catch (error) {
        const code = (error as { code?: string }).code;
        throw new Error(
          `opening seccomp profile (${setting}) failed: ${code === 'ENOENT' ? `open ${setting}: no such file or directory` : (error as Error).message}`,
        );
      }
    } else options.push(value);
  }
  return { options, unmasked };
}

/** Each part is an absolute path, or what may be done with the device. */
function checkDevicePaths(parts: readonly string[]): void {
  const mode = /^[rwm]{1,3}$/;
  const last = parts.at(-1) ?? '';
  for (const part of parts.length > 1 && mode.test(last) ? parts.slice(0, -1) : parts.slice(1))
    if (!part.startsWith('/')) throw new Error(`${part} is not an absolute path`);
}

function parseDevice(text: string): Json {
  const parts = text.split(':');
  const [source = '', second, third] = parts;
  const isMode = (value: string): boolean => /^[rwm]{1,3}$/.test(value);
  if (parts.length > 3) throw new Error(`invalid device specification: ${text}`);
  checkDevicePaths(parts);
  let target = source;
  let permissions = 'rwm';
  if (third !== undefined) {
    target = second ?? source;
    permissions = third;
  } else if (second !== undefined) {
    if (isMode(second)) permissions = second;
    else target = second;
  }
  return { PathOnHost: source, PathInContainer: target === '' ? source : target, CgroupPermissions: permissions };
}

/** A relative or home path of a bind is made absolute; a name stays a volume. */
function bindOf(volume: string): string {
  const [source = '', ...rest] = volume.split(':');
  if (rest.length === 0 || !/^[.~]/.test(source)) return volume;
  const absolute = process
    .getBuiltinModule('node:path')
    .resolve(source.replace(/^~(?=\/|$)/, process.env['HOME'] ?? '~'));
  return [absolute, ...rest].join(':');
}

/** A device rate or weight: `/dev/sda:1mb`. */
function deviceSetting(text: string, value: (amount: string) => number, key: 'Rate' | 'Weight'): Json {
  const at = text.lastIndexOf(':');
  return { Path: text.slice(0, at), [key]: value(text.slice(at + 1)) };
}

async function deviceLimits(flags: ParsedFlags): Promise<Json> {
  const { ramInBytes } = await import('../text/go-text.ts');
  const rates = (flag: string, value: (amount: string) => number): Json[] =>
    flags.list(flag).map((text) => deviceSetting(text, value, 'Rate'));
  return {
    BlkioWeightDevice: flags.list('blkio-weight-device').map((text) => deviceSetting(text, Number, 'Weight')),
    BlkioDeviceReadBps: rates('device-read-bps', ramInBytes),
    BlkioDeviceWriteBps: rates('device-write-bps', ramInBytes),
    BlkioDeviceReadIOps: rates('device-read-iops', Number),
    BlkioDeviceWriteIOps: rates('device-write-iops', Number),
  };
}

/** The limits shared by `run`, `create` and `update`. */
export function resourceLimits(flags: ParsedFlags): Json {
  return {
    CpuShares: flags.number('cpu-shares'),
    Memory: flags.number('memory'),
    NanoCpus: flags.number('cpus'),
    BlkioWeight: flags.number('blkio-weight'),
    CpuPeriod: flags.number('cpu-period'),
    CpuQuota: flags.number('cpu-quota'),
    CpuRealtimePeriod: flags.number('cpu-rt-period'),
    CpuRealtimeRuntime: flags.number('cpu-rt-runtime'),
    CpusetCpus: flags.text('cpuset-cpus'),
    CpusetMems: flags.text('cpuset-mems'),
    MemoryReservation: flags.number('memory-reservation'),
    MemorySwap: flags.number('memory-swap'),
    PidsLimit: flags.number('pids-limit'),
    ...(flags.has('kernel-memory') ? { KernelMemory: flags.number('kernel-memory') } : {}),
  };
}

const USER_DEFINED_ONLY = new Set(['', 'default', 'bridge', 'host', 'none']);

/** A hardware address of 6, 8 or 20 bytes, in the notations Go reads. */
function checkedMac(text: string): string {
  const address = text.trim();
  const bytes = /^[0-9a-fA-F]{2}([:-])[0-9a-fA-F]{2}(?:\1[0-9a-fA-F]{2})*$/.test(address)
    ? (address.length + 1) / 3
    : /^[0-9a-fA-F]{4}(?:\.[0-9a-fA-F]{4})+$/.test(address)
      ? ((address.length + 1) / 5) * 2
      : 0;
  if (![6, 8, 20].includes(bytes)) throw new Error(`${address} is not a valid mac address`);
  return address;
}

function networkSettings(flags: ParsedFlags): { mode: string; config: Json } {
  const networks = flags.list('network', 'net').map(parseNetwork);
  const first: NetworkOption = networks[0] ?? parseNetwork('default');
  first.aliases.push(...flags.list('network-alias', 'net-alias'));
  first.linkLocalIps.push(...flags.list('link-local-ip'));
  if (flags.has('ip')) first.ipv4 = flags.text('ip');
  if (flags.has('ip6')) first.ipv6 = flags.text('ip6');
  if (flags.text('mac-address') !== '') first.mac = checkedMac(flags.text('mac-address'));
  const all = networks.length === 0 ? [first] : networks;
  const endpoints: Json = {};
  for (const network of all) {
    const builtIn = USER_DEFINED_ONLY.has(network.target) || network.target.startsWith('container:');
    if (builtIn && network.aliases.length > 0)
      throw new Error('network-scoped aliases are only supported for user-defined networks');
    if (
      builtIn &&
      (network.ipv4 !== '' || network.ipv6 !== '') &&
      !(network.target === 'default' || network.target === 'bridge')
    ) {
      throw new Error('conflicting options: cannot attach both user-defined and non-user-defined network-modes');
    }
    if (endpoints[network.target] !== undefined)
      throw new Error(`network "${network.target}" is specified multiple times`);
    endpoints[network.target] = endpointOf(network, builtIn ? [] : [...network.links, ...flags.list('link')]);
  }
  return { mode: first.target, config: { EndpointsConfig: endpoints } };
}

function endpointOf(network: NetworkOption, links: readonly string[]): Json {
  const hasIpam = network.ipv4 !== '' || network.ipv6 !== '' || network.linkLocalIps.length > 0;
  return {
    IPAMConfig: hasIpam
      ? { IPv4Address: network.ipv4, IPv6Address: network.ipv6, LinkLocalIPs: network.linkLocalIps }
      : null,
    Links: links.length > 0 ? links : null,
    Aliases: network.aliases.length > 0 ? network.aliases : null,
    MacAddress: network.mac,
    DriverOpts: Object.keys(network.driverOptions).length > 0 ? network.driverOptions : null,
    GwPriority: network.gatewayPriority,
  };
}

function entryPoint(flags: ParsedFlags): readonly string[] | null {
  if (!flags.has('entrypoint')) return null;
  // Compat: an empty entrypoint resets the image's.
  return [flags.text('entrypoint')];
}

function attachments(flags: ParsedFlags, name: string): { stdin: boolean; stdout: boolean; stderr: boolean } {
  const given = flags.list('attach').map((stream) => stream.toLowerCase());
  if (given.length > 0)
    return { stdin: given.includes('stdin'), stdout: given.includes('stdout'), stderr: given.includes('stderr') };
  const foreground = name !== 'run' || !flags.bool('detach');
  return { stdin: foreground && flags.bool('interactive'), stdout: foreground, stderr: foreground };
}

function containerConfig(
  flags: ParsedFlags,
  image: string,
  options: { args: readonly string[]; config: ConfigFile; verb: string; host: string; exposed: Json },
): Json {
  const attach = attachments(flags, options.verb);
  const environment = readEnvironment(flags);
  const labels = [...flags.list('label-file').flatMap((path) => readKeyFile(path, 'label')), ...flags.list('label')];
  const health = healthCheck(flags);
  return {
    Hostname: flags.text('hostname'),
    Domainname: flags.text('domainname'),
    User: flags.text('user'),
    AttachStdin: attach.stdin,
    AttachStdout: attach.stdout,
    AttachStderr: attach.stderr,
    ...(Object.keys(options.exposed).length > 0 ? { ExposedPorts: options.exposed } : {}),
    Tty: flags.bool('tty'),
    OpenStdin: flags.bool('interactive'),
    // Compat: stdin is closed after one attach when the client is attached to it.
    StdinOnce: flags.bool('interactive') && attach.stdin,
    Env: [...proxyEnvironment(options.config, options.host, environment), ...environment],
    Cmd: options.args.length > 0 ? options.args : null,
    ...(health === undefined ? {} : { Healthcheck: health }),
    Image: image,
    Volumes: Object.fromEntries(
      flags
        .list('volume')
        .filter((volume) => !volume.includes(':'))
        .map((volume) => [volume, {}]),
    ),
    WorkingDir: flags.text('workdir'),
    Entrypoint: entryPoint(flags),
    Labels: keyValues(labels),
    ...(flags.has('stop-signal') ? { StopSignal: flags.text('stop-signal') } : {}),
    ...(flags.has('stop-timeout') ? { StopTimeout: flags.number('stop-timeout') } : {}),
  };
}

function checkModes(flags: ParsedFlags): void {
  const swappiness = flags.number('memory-swappiness', -1);
  if (swappiness !== -1 && (swappiness < 0 || swappiness > 100))
    throw new Error(`invalid value: ${swappiness}. Valid memory swappiness range is 0-100`);
  for (const [flag, text] of [
    ['pid', 'PID'],
    ['uts', 'UTS'],
    ['userns', 'USER'],
    ['cgroupns', 'CGROUP'],
  ] as const) {
    const value = flags.text(flag);
    const allowed =
      value === '' ||
      value === 'host' ||
      (flag === 'pid' && /^container:.+/.test(value)) ||
      (flag === 'cgroupns' && value === 'private');
    if (!allowed) throw new Error(`--${flag}: invalid ${text} mode`);
  }
}

function capabilityNames(values: readonly string[]): ReadonlySet<string> {
  const names = values
    .map((value) => value.trim().toUpperCase())
    // RESET belongs to the update of services.
    .filter((name) => name !== 'RESET')
    .map((name) => (name === 'ALL' || name.startsWith('CAP_') ? name : `CAP_${name}`));
  return names.includes('ALL') ? new Set(['ALL']) : new Set(names);
}

/** Capabilities by their full names, sorted; adding one beats dropping it, and ALL stands for the rest. */
function capabilityChanges(
  add: readonly string[],
  drop: readonly string[],
): { readonly added: string[]; readonly dropped: string[] } {
  const added = capabilityNames(add);
  const dropped = [...capabilityNames(drop)].filter((name) => !added.has(name));
  return { added: [...added].sort(), dropped: dropped.sort() };
}

/** Compat: Go sends an empty list as null. */
function orNull<T>(list: readonly T[]): readonly T[] | null {
  return list.length === 0 ? null : list;
}

/** The create request for parsed flags; throws Errors with docker's texts. */
export async function containerOptions(
  flags: ParsedFlags,
  context: { args: readonly string[]; config: ConfigFile; verb: 'run' | 'create'; host: string },
): Promise<ContainerOptions> {
  const [image = '', ...args] = context.args;
  checkModes(flags);
  const ports = planPorts(flags.list('publish'), flags.list('expose'));
  const security = securityOptions(flags.list('security-opt'));
  const policy = restartPolicy(flags.text('restart'));
  const config = containerConfig(flags, image, { ...context, args, exposed: ports.exposed });
  if (flags.bool('rm') && !['no', ''].includes(String(policy['Name'])))
    throw new Error('conflicting options: cannot specify both --restart and --rm');
  const network = networkSettings(flags);
  const capabilities = capabilityChanges(flags.list('cap-add'), flags.list('cap-drop'));
  const cidfile = flags.text('cidfile');
  const hostConfig: Json = {
    Binds: orNull(
      flags
        .list('volume')
        .filter((volume) => volume.includes(':'))
        .map(bindOf),
    ),
    ContainerIDFile: cidfile,
    LogConfig: { Type: flags.text('log-driver'), Config: keyValues(flags.list('log-opt')) },
    NetworkMode: network.mode,
    PortBindings: ports.bindings,
    RestartPolicy: policy,
    AutoRemove: flags.bool('rm'),
    VolumeDriver: flags.text('volume-driver'),
    VolumesFrom: orNull(flags.list('volumes-from')),
    ConsoleSize: [process.stdout.rows ?? 0, process.stdout.columns ?? 0],
    CapAdd: orNull(capabilities.added),
    CapDrop: orNull(capabilities.dropped),
    CgroupnsMode: flags.text('cgroupns'),
    Dns: flags.list('dns'),
    DnsOptions: flags.list('dns-option', 'dns-opt'),
    DnsSearch: flags.list('dns-search'),
    ExtraHosts: orNull(flags.list('add-host').map((entry) => entry.replace('=', ':'))),
    GroupAdd: orNull(flags.list('group-add')),
    IpcMode: flags.text('ipc'),
    Cgroup: '',
    Links: orNull(flags.list('link')),
    OomScoreAdj: flags.number('oom-score-adj'),
    PidMode: flags.text('pid'),
    Privileged: flags.bool('privileged'),
    PublishAllPorts: flags.bool('publish-all'),
    ReadonlyRootfs: flags.bool('read-only'),
    SecurityOpt: orNull(security.options),
    UTSMode: flags.text('uts'),
    UsernsMode: flags.text('userns'),
    ShmSize: flags.number('shm-size'),
    Sysctls: keyValues(flags.list('sysctl')),
    Runtime: flags.text('runtime'),
    Isolation: flags.text('isolation'),
    ...resourceLimits(flags),
    CgroupParent: flags.text('cgroup-parent'),
    ...(await deviceLimits(flags)),
    Devices: flags
      .list('device')
      .filter((device) => !/^[^/]+\/.+=/.test(device))
      .map(parseDevice),
    DeviceCgroupRules: orNull(flags.list('device-cgroup-rule')),
    DeviceRequests: orNull(deviceRequests(flags)),
    MemorySwappiness: flags.number('memory-swappiness', -1),
    OomKillDisable: flags.bool('oom-kill-disable'),
    Ulimits: flags.list('ulimit').map(parseUlimit),
    StorageOpt: keyValues(flags.list('storage-opt')),
    Tmpfs: Object.fromEntries(
      flags
        .list('tmpfs')
        .map((entry) => entry.split(/:(.*)/s))
        .map(([path = '', options = '']) => [path, options]),
    ),
    Annotations: keyValues(flags.list('annotation')),
    Mounts: flags.list('mount').map(parseMount),
    ...(flags.has('init') ? { Init: flags.bool('init') } : {}),
    ...(security.unmasked ? { MaskedPaths: [], ReadonlyPaths: [] } : {}),
  };
  return { config, hostConfig, networkingConfig: network.config };
}

function deviceRequests(flags: ParsedFlags): Json[] {
  const names = flags.list('device').filter((device) => /^[^/]+\/.+=/.test(device));
  const named = names.length === 0 ? [] : [{ Driver: 'cdi', DeviceIDs: names }];
  return [...flags.list('gpus').map(parseGpuRequest), ...named];
}
