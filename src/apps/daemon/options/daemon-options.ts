/**
 * The daemon's typed options: defaults, then daemon.json, then flags; validated with dockerd's texts.
 *
 * Defaults differ from dockerd's in places only, so that both can run on one host: data under /var/lib/gantry,
 * state under /run/gantry, socket /run/gantry.sock, configuration /etc/gantry/daemon.json.
 */
import { homedir } from 'node:os';
import { join, resolve } from 'node:path';
import type { RegistryHostOptions } from '#system/registry-http/endpoints.ts';
import { GantryError } from '#types/errors.ts';
import { type ListenAddress, parseListenAddress } from '../listeners-address.ts';
import { type FileValues, parseConfigFile, readConfigFile } from './config-file.ts';
import { FLAGS, flagNamed, type OptionValue } from './flag-table.ts';
import type { UlimitValue } from './flag-values.ts';
import { type GivenFlags, parseFlags } from './parse-flags.ts';
import { registryHosts } from './registry-hosts.ts';
import { validate } from './validate.ts';

export const DEFAULT_HOST = 'unix:///run/gantry.sock';

export interface RuntimeOption {
  /** OCI binary for the runc shim. */
  readonly path: string;
  readonly args: readonly string[];
  /** Shim type or path; empty for runc's. */
  readonly type: string;
  readonly options: Readonly<Record<string, unknown>>;
}

export interface AddressPool {
  readonly base: string;
  readonly size: number;
}

export interface BridgeOptions {
  /** Empty: our own default bridge; `none`: no default network. */
  readonly name: string;
  readonly bip: string;
  readonly fixedCidr: string;
  readonly defaultGateway: string;
  readonly mtu: number;
  readonly icc: boolean;
  readonly ipMasquerade: boolean;
  readonly ipForward: boolean;
  readonly ipForwardNoDrop: boolean;
  readonly iptables: boolean;
  readonly ip6tables: boolean;
  /** Default host address of published ports. */
  readonly hostAddress: string;
  readonly userlandProxy: boolean;
  /** Our own: published ports are not translated, so that the host's input rules decide about them. */
  readonly respectHostFirewall: boolean;
  readonly userlandProxyPath: string;
}

export interface DaemonOptions {
  readonly hosts: readonly ListenAddress[];
  readonly group: string;
  readonly isGroupExplicit: boolean;
  readonly tls:
    | { readonly ca: string; readonly cert: string; readonly key: string; readonly verify: boolean }
    | undefined;
  readonly dataRoot: string;
  readonly execRoot: string;
  readonly pidfile: string;
  readonly configFile: string;
  readonly debug: boolean;
  readonly logLevel: 'debug' | 'info' | 'warn' | 'error' | 'fatal';
  readonly logFormat: 'text' | 'json';
  readonly experimental: boolean;
  readonly features: Readonly<Record<string, boolean>>;
  readonly minApiVersion: string;
  readonly bridge: BridgeOptions;
  readonly addressPools: readonly AddressPool[];
  /** Driver → options of new networks. */
  readonly networkOptions: Readonly<Record<string, Readonly<Record<string, string>>>>;
  readonly dns: {
    readonly servers: readonly string[];
    readonly options: readonly string[];
    readonly search: readonly string[];
  };
  readonly hostGatewayIps: readonly string[];
  readonly resolvConf: string;
  /** Empty: the best available. */
  readonly storageDriver: string;
  readonly logDriver: string;
  readonly logOptions: Readonly<Record<string, string>>;
  readonly defaultUlimits: Readonly<Record<string, UlimitValue>>;
  readonly runtimes: Readonly<Record<string, RuntimeOption>>;
  readonly defaultRuntime: string;
  readonly shimNamespace: string;
  /** From native.cgroupdriver; undefined: by the host. */
  readonly cgroupDriver: 'cgroupfs' | 'systemd' | undefined;
  readonly cgroupParent: string;
  /** Empty: private on cgroup v2, host on v1. */
  readonly defaultCgroupNamespace: '' | 'host' | 'private';
  readonly defaultIpcMode: 'private' | 'shareable';
  readonly defaultShmSizeBytes: number;
  readonly init: boolean;
  readonly initPath: string;
  readonly seccompProfile: string;
  readonly noNewPrivileges: boolean;
  readonly labels: readonly string[];
  readonly insecureRegistries: readonly string[];
  readonly registryMirrors: readonly string[];
  /** The registry this daemon serves; undefined: none. */
  readonly ownRegistry: { readonly listen: string; readonly configFile: string } | undefined;
  /** Further hosts' mirrors and TLS; ours, not docker's. */
  readonly registryHosts: Readonly<Record<string, RegistryHostOptions>>;
  readonly registryCertificates: string;
  readonly proxies: { readonly http: string; readonly https: string; readonly no: string };
  readonly liveRestore: boolean;
  readonly shutdownTimeoutSeconds: number;
  readonly maxConcurrentDownloads: number;
  readonly maxConcurrentUploads: number;
  readonly maxDownloadAttempts: number;
}

/** What the command line asks for. */
export type Invocation =
  | { readonly action: 'run'; readonly options: DaemonOptions; readonly flags: GivenFlags }
  | { readonly action: 'help' | 'version' }
  | { readonly action: 'validate'; readonly options: DaemonOptions };

/** Merged raw values by flag name. */
export class RawOptions {
  readonly #given: GivenFlags;
  readonly #file: FileValues;

  constructor(given: GivenFlags, file: FileValues) {
    this.#given = given;
    this.#file = file;
  }

  /** Whether a flag or the file set it. */
  isSet(name: string): boolean {
    const key = flagNamed(name)?.key;
    return this.#given.has(name) || (key !== undefined && this.#file.has(key));
  }

  value(name: string): OptionValue {
    const spec = flagNamed(name);
    const fromFile = spec?.key === undefined ? undefined : this.#file.get(spec.key);
    const fromFlag = this.#given.get(name);
    if (spec?.type === 'runtimes') return { ...(fromFile as object | undefined), ...(fromFlag as object | undefined) };
    return fromFlag ?? fromFile ?? spec?.initial;
  }

  fileOnly(key: string): OptionValue {
    return this.#file.get(key);
  }

  text(name: string): string {
    return this.value(name) as string;
  }

  flag(name: string): boolean {
    return this.value(name) as boolean;
  }

  number(name: string): number {
    return this.value(name) as number;
  }

  list(name: string): readonly string[] {
    return this.value(name) as readonly string[];
  }

  map<T>(name: string): Readonly<Record<string, T>> {
    return this.value(name) as Readonly<Record<string, T>>;
  }
}

type Environment = Readonly<Record<string, string | undefined>>;

/** Reads the command line and the configuration file. Throws `invalid` or, for what is not built, `notImplemented`. */
export function readInvocation(argv: readonly string[], environment: Environment): Invocation {
  const given = parseFlags(argv);
  if (given.get('help') === true) return { action: 'help' };
  if (given.get('version') === true) return { action: 'version' };
  const options = loadOptions(given, environment);
  if (given.get('validate') === true) return { action: 'validate', options };
  return { action: 'run', options, flags: given };
}

/** Loads the options for flags already parsed; used again on SIGHUP. */
export function loadOptions(given: GivenFlags, environment: Environment): DaemonOptions {
  const isExplicit = given.has('config-file');
  const path = (given.get('config-file') ?? flagNamed('config-file')?.initial) as string;
  const raw = new RawOptions(given, readFile(path, isExplicit, given));
  refuseNotBuilt(raw);
  validate(raw);
  return typed(raw, path, environment);
}

function readFile(path: string, isExplicit: boolean, given: GivenFlags): FileValues {
  const wrap = (text: string): GantryError =>
    new GantryError('invalid', `unable to configure the Docker daemon with file ${path}: ${text}`);
  try {
    const text = path === '' ? undefined : readConfigFile(path);
    if (text !== undefined) return parseConfigFile(text, given);
  } catch (error) {
    if (error instanceof GantryError) throw wrap(error.message);
    throw error;
  }
  if (isExplicit && path !== '') throw wrap(`open ${path}: no such file or directory`);
  return new Map();
}

function refuseNotBuilt(raw: RawOptions): void {
  for (const spec of FLAGS) {
    if (spec.support !== 'refused' || !raw.isSet(spec.name)) continue;
    if (JSON.stringify(raw.value(spec.name)) === JSON.stringify(spec.initial)) continue;
    throw new GantryError('notImplemented', `option --${spec.name} is not implemented by this version of Gantry`);
  }
}

function tlsOf(raw: RawOptions, environment: Environment): DaemonOptions['tls'] {
  const verifyByEnvironment = (environment['DOCKER_TLS_VERIFY'] ?? '') !== '';
  const isVerifySet = raw.isSet('tlsverify') || verifyByEnvironment;
  // Compat: naming --tlsverify at all turns TLS on, whatever its value.
  if (!isVerifySet && !raw.flag('tls')) return undefined;
  const verify = raw.isSet('tlsverify') ? raw.flag('tlsverify') : true;
  const directory = environment['DOCKER_CERT_PATH'] || environment['DOCKER_CONFIG'] || join(homedir(), '.docker');
  const file = (name: string, base: string): string => raw.text(name) || join(directory, base);
  return { ca: file('tlscacert', 'ca.pem'), cert: file('tlscert', 'cert.pem'), key: file('tlskey', 'key.pem'), verify };
}

function runtimesOf(raw: RawOptions): Record<string, RuntimeOption> {
  const runtimes: Record<string, RuntimeOption> = {};
  for (const [name, value] of Object.entries(raw.map<Record<string, unknown>>('add-runtime'))) {
    runtimes[name] = {
      path: String(value['path'] ?? ''),
      args: (value['runtimeArgs'] ?? []) as string[],
      type: String(value['runtimeType'] ?? ''),
      options: (value['options'] ?? {}) as Record<string, unknown>,
    };
  }
  return runtimes;
}

function bridgeOf(raw: RawOptions): BridgeOptions {
  return {
    name: raw.text('bridge'),
    bip: raw.text('bip'),
    fixedCidr: raw.text('fixed-cidr'),
    defaultGateway: raw.text('default-gateway'),
    mtu: raw.number('mtu') || 1500,
    icc: raw.flag('icc'),
    ipMasquerade: raw.flag('ip-masq'),
    ipForward: raw.flag('ip-forward'),
    ipForwardNoDrop: raw.flag('ip-forward-no-drop'),
    iptables: raw.flag('iptables'),
    ip6tables: raw.flag('ip6tables'),
    hostAddress: raw.text('ip'),
    userlandProxy: raw.flag('userland-proxy'),
    respectHostFirewall: raw.flag('respect-host-firewall'),
    userlandProxyPath: raw.text('userland-proxy-path'),
  };
}

function ownRegistryOf(raw: RawOptions): DaemonOptions['ownRegistry'] {
  const [listen, configFile] = [raw.text('registry-listen'), raw.text('registry-config')];
  if (listen === '' && configFile !== '') throw new GantryError('invalid', '--registry-config needs --registry-listen');
  return listen === '' ? undefined : { listen, configFile: configFile === '' ? '' : resolve(configFile) };
}

function cgroupDriverOf(raw: RawOptions): DaemonOptions['cgroupDriver'] {
  const option = raw.list('exec-opt').findLast((text) => text.startsWith('native.cgroupdriver='));
  return option === undefined ? undefined : (option.slice(option.indexOf('=') + 1) as 'cgroupfs' | 'systemd');
}

function typed(raw: RawOptions, configFile: string, environment: Environment): DaemonOptions {
  const tls = tlsOf(raw, environment);
  const hosts = raw.list('host').length > 0 ? raw.list('host') : [DEFAULT_HOST];
  const proxy = (name: string): string => {
    const variable = name.replace('-', '_');
    return raw.text(name) || environment[variable.toUpperCase()] || environment[variable] || '';
  };
  return {
    hosts: hosts.map((host) => parseListenAddress(host, DEFAULT_HOST, tls !== undefined)),
    group: raw.text('group'),
    isGroupExplicit: raw.isSet('group'),
    tls,
    dataRoot: resolve(raw.text('data-root')),
    execRoot: resolve(raw.text('exec-root')),
    pidfile: raw.text('pidfile') === '' ? '' : resolve(raw.text('pidfile')),
    configFile,
    debug: raw.flag('debug'),
    logLevel: logLevelOf(raw),
    logFormat: raw.text('log-format') as 'text' | 'json',
    experimental: raw.flag('experimental'),
    features: raw.map<boolean>('feature'),
    minApiVersion: environment['DOCKER_MIN_API_VERSION'] || String(raw.fileOnly('min-api-version') ?? '1.24'),
    bridge: bridgeOf(raw),
    addressPools: raw.value('default-address-pool') as AddressPool[],
    networkOptions: raw.map<Readonly<Record<string, string>>>('default-network-opt'),
    dns: { servers: raw.list('dns'), options: raw.list('dns-opt'), search: raw.list('dns-search') },
    hostGatewayIps: raw.list('host-gateway-ip'),
    resolvConf: String(raw.fileOnly('resolv-conf') ?? ''),
    ...containerDefaults(raw),
    storageDriver: raw.text('storage-driver') || environment['DOCKER_DRIVER'] || '',
    runtimes: runtimesOf(raw),
    labels: raw.list('label'),
    insecureRegistries: raw.list('insecure-registry'),
    registryMirrors: raw.list('registry-mirror'),
    ownRegistry: ownRegistryOf(raw),
    registryHosts: registryHosts(raw.fileOnly('registry-hosts')),
    registryCertificates: String(raw.fileOnly('registry-certs-dir') ?? '/etc/docker/certs.d'),
    proxies: { http: proxy('http-proxy'), https: proxy('https-proxy'), no: proxy('no-proxy') },
    liveRestore: raw.flag('live-restore'),
    shutdownTimeoutSeconds: raw.number('shutdown-timeout'),
    maxConcurrentDownloads: raw.number('max-concurrent-downloads'),
    maxConcurrentUploads: raw.number('max-concurrent-uploads'),
    maxDownloadAttempts: raw.number('max-download-attempts'),
  };
}

function logLevelOf(raw: RawOptions): DaemonOptions['logLevel'] {
  const level = raw.text('log-level').toLowerCase();
  if (level === 'panic') return 'fatal';
  return level === 'trace' ? 'debug' : (level as DaemonOptions['logLevel']);
}

type ContainerDefaults = Pick<
  DaemonOptions,
  | 'logDriver'
  | 'logOptions'
  | 'defaultUlimits'
  | 'defaultRuntime'
  | 'shimNamespace'
  | 'cgroupDriver'
  | 'cgroupParent'
  | 'defaultCgroupNamespace'
  | 'defaultIpcMode'
  | 'defaultShmSizeBytes'
  | 'init'
  | 'initPath'
  | 'seccompProfile'
  | 'noNewPrivileges'
>;

function containerDefaults(raw: RawOptions): ContainerDefaults {
  return {
    logDriver: raw.text('log-driver'),
    logOptions: raw.map<string>('log-opt'),
    defaultUlimits: raw.map<UlimitValue>('default-ulimit'),
    defaultRuntime: raw.text('default-runtime'),
    shimNamespace: raw.text('containerd-namespace'),
    cgroupDriver: cgroupDriverOf(raw),
    cgroupParent: raw.text('cgroup-parent'),
    defaultCgroupNamespace: raw.text('default-cgroupns-mode') as '' | 'host' | 'private',
    defaultIpcMode: (raw.text('default-ipc-mode') || 'private') as 'private' | 'shareable',
    defaultShmSizeBytes: raw.number('default-shm-size'),
    init: raw.flag('init'),
    initPath: raw.text('init-path'),
    seccompProfile: raw.text('seccomp-profile') || 'builtin',
    noNewPrivileges: raw.flag('no-new-privileges'),
  };
}
