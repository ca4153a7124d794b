/**
 * Every option of dockerd: flag, daemon.json key, type, default and what this version does with it.
 *
 * `support` is `built` (reaches DaemonOptions), `harmless` (accepted; changes nothing here) or `refused`
 * (would change behaviour and is not built: any value but the default is refused by name).
 */

export type FlagType =
  | 'string'
  | 'bool'
  | 'int'
  | 'bytes'
  | 'list'
  | 'map'
  | 'mapOfMaps'
  | 'ulimits'
  | 'runtimes'
  | 'pools'
  | 'switches';

/** A value after parsing, in the shape daemon.json has. */
export type OptionValue = unknown;

export interface FlagSpec {
  readonly name: string;
  readonly short?: string;
  /** Key in daemon.json; `undefined` when only a flag. */
  readonly key: string | undefined;
  /** Go's "named option": conflicts are reported by key. */
  readonly isNamed: boolean;
  readonly type: FlagType;
  readonly support: 'built' | 'harmless' | 'refused';
  readonly initial: OptionValue;
  /** Re-read on SIGHUP. */
  readonly isReloadable: boolean;
  readonly usage: string;
  readonly isHidden: boolean;
}

const EMPTY: Readonly<Partial<Record<FlagType, OptionValue>>> = {
  string: '',
  bool: false,
  int: 0,
  bytes: 0,
  list: [],
  map: {},
  mapOfMaps: {},
  ulimits: {},
  runtimes: {},
  pools: [],
  switches: {},
};

interface Row {
  readonly short?: string;
  readonly key?: string | null;
  readonly support?: FlagSpec['support'];
  readonly initial?: OptionValue;
  readonly reload?: true;
  readonly hidden?: true;
}

function flag(name: string, type: FlagType, usage: string, row: Row = {}): FlagSpec {
  const base = {
    name,
    key: row.key === null ? undefined : (row.key ?? name),
    isNamed: row.key !== undefined && row.key !== null,
    type,
    support: row.support ?? 'built',
    initial: row.initial ?? EMPTY[type],
    isReloadable: row.reload ?? false,
    usage,
    isHidden: row.hidden ?? false,
  };
  return row.short === undefined ? base : { ...base, short: row.short };
}

/** All flags, in the order of `--help`. */
export const FLAGS: readonly FlagSpec[] = [
  flag('add-runtime', 'runtimes', 'Register an additional OCI compatible runtime', { key: 'runtimes', reload: true }),
  flag('allow-direct-routing', 'bool', 'Allow remote access to published ports on container IP addresses', {
    support: 'refused',
  }),
  flag('authorization-plugin', 'list', 'Authorization plugins to load', {
    key: 'authorization-plugins',
    support: 'refused',
    reload: true,
  }),
  flag('bip', 'string', 'IPv4 address for the default bridge'),
  flag('bip6', 'string', 'IPv6 address for the default bridge', { support: 'refused' }),
  flag('bridge', 'string', 'Attach containers to a network bridge', { short: 'b' }),
  flag('bridge-accept-fwmark', 'string', 'Accept packets with this firewall mark in bridge networks', {
    support: 'refused',
    hidden: true,
  }),
  flag('cdi-spec-dir', 'list', 'CDI specification directories to use', { key: 'cdi-spec-dirs', support: 'harmless' }),
  flag('cgroup-parent', 'string', 'Set parent cgroup for all containers'),
  flag('config-file', 'string', 'Daemon configuration file', { key: null, initial: '/etc/gantry/daemon.json' }),
  flag('containerd', 'string', 'containerd grpc address', { support: 'refused' }),
  flag('containerd-namespace', 'string', 'Containerd namespace to use', { initial: 'moby' }),
  flag('containerd-plugins-namespace', 'string', 'Containerd namespace to use for plugins', {
    key: 'containerd-plugin-namespace',
    initial: 'plugins.moby',
    support: 'harmless',
  }),
  flag('cpu-rt-period', 'int', 'Limit the CPU real-time period of the parent cgroup', { support: 'refused' }),
  flag('cpu-rt-runtime', 'int', 'Limit the CPU real-time runtime of the parent cgroup', { support: 'refused' }),
  flag('cri-containerd', 'bool', 'start containerd with cri', { support: 'refused' }),
  flag('data-root', 'string', 'Root directory of persistent state', { initial: '/var/lib/gantry' }),
  flag('debug', 'bool', 'Enable debug mode', { short: 'D', reload: true }),
  flag('default-address-pool', 'pools', 'Default address pools for node specific local networks', {
    key: 'default-address-pools',
  }),
  flag('default-cgroupns-mode', 'string', 'Default mode for containers cgroup namespace ("host" | "private")', {
    reload: true,
  }),
  flag('default-gateway', 'string', 'Default gateway IPv4 address for the default bridge network'),
  flag('default-gateway-v6', 'string', 'Default gateway IPv6 address for the default bridge network', {
    support: 'refused',
  }),
  flag('default-ipc-mode', 'string', 'Default mode for containers ipc ("shareable" | "private")', {
    initial: 'private',
    reload: true,
  }),
  flag('default-network-opt', 'mapOfMaps', 'Default network options', {
    key: 'default-network-opts',
  }),
  flag('default-runtime', 'string', 'Default OCI runtime for containers', { initial: 'runc', reload: true }),
  flag('default-shm-size', 'bytes', 'Default shm size for containers', { initial: 67108864, reload: true }),
  flag('default-ulimit', 'ulimits', 'Default ulimits for containers', { key: 'default-ulimits' }),
  flag('dns', 'list', 'DNS server to use'),
  flag('dns-opt', 'list', 'DNS options to use', { key: 'dns-opts' }),
  flag('dns-search', 'list', 'DNS search domains to use'),
  flag('exec-opt', 'list', 'Runtime execution options', { key: 'exec-opts' }),
  flag('exec-root', 'string', 'Root directory for execution state files', { initial: '/run/gantry' }),
  flag('experimental', 'bool', 'Enable experimental features'),
  flag('feature', 'switches', 'Enable feature in the daemon', { key: 'features', reload: true }),
  flag('firewall-backend', 'string', 'Firewall backend to use, nftables only', {
    initial: 'nftables',
    support: 'refused',
    hidden: true,
  }),
  flag('fixed-cidr', 'string', 'IPv4 subnet for the default bridge network'),
  flag('fixed-cidr-v6', 'string', 'IPv6 subnet for the default bridge network', { support: 'refused' }),
  flag('group', 'string', 'Group for the unix socket', { short: 'G', initial: 'docker' }),
  flag('help', 'bool', 'Print usage', { short: 'h', key: null }),
  flag('host', 'list', 'Daemon socket(s) to connect to', { short: 'H', key: 'hosts' }),
  flag('host-gateway-ip', 'list', "IP addresses that the special 'host-gateway' string in --add-host resolves to", {
    key: 'host-gateway-ips',
  }),
  flag('http-proxy', 'string', 'HTTP proxy URL to use for outgoing traffic'),
  flag('https-proxy', 'string', 'HTTPS proxy URL to use for outgoing traffic'),
  flag('icc', 'bool', 'Enable inter-container communication for the default bridge network', { initial: true }),
  flag('init', 'bool', 'Run an init in the container to forward signals and reap processes'),
  flag('init-path', 'string', 'Path to the docker-init binary'),
  flag('insecure-registry', 'list', 'Enable insecure registry communication', {
    key: 'insecure-registries',
    reload: true,
  }),
  flag('ip', 'string', 'Host IP for port publishing from the default bridge network', { initial: '0.0.0.0' }),
  flag('ip-forward', 'bool', 'Enable IP forwarding in system configuration', { initial: true }),
  flag('ip-forward-no-drop', 'bool', 'Do not set the filter-FORWARD policy to DROP when enabling IP forwarding'),
  flag('ip-masq', 'bool', 'Enable IP masquerading for the default bridge network', { initial: true }),
  flag('ip6tables', 'bool', 'Enable addition of ip6tables rules', { initial: true }),
  flag('iptables', 'bool', 'Enable addition of iptables rules', { initial: true }),
  flag('ipv6', 'bool', 'Enable IPv6 networking for the default bridge network', { support: 'refused' }),
  flag('label', 'list', 'Set key=value labels to the daemon', { key: 'labels', reload: true }),
  flag('live-restore', 'bool', 'Enable live restore of containers when the daemon stops', { reload: true }),
  flag('log-driver', 'string', 'Default driver for container logs', { initial: 'json-file' }),
  flag('log-format', 'string', 'Set the logging format ("text"|"json")', { initial: 'text' }),
  flag('log-level', 'string', 'Set the logging level ("debug"|"info"|"warn"|"error"|"fatal")', {
    short: 'l',
    initial: 'info',
  }),
  flag('log-opt', 'map', 'Default log driver options for containers', { key: 'log-opts' }),
  flag('max-concurrent-downloads', 'int', 'Set the max concurrent downloads', { initial: 3, reload: true }),
  flag('max-concurrent-uploads', 'int', 'Set the max concurrent uploads', { initial: 5, reload: true }),
  flag('max-download-attempts', 'int', 'Set the max download attempts for each pull', { initial: 5, reload: true }),
  flag('metrics-addr', 'string', 'Set default address and port to serve the metrics api on', { support: 'refused' }),
  flag('mtu', 'int', 'Set the MTU for the default "bridge" network', { initial: 1500 }),
  flag('network-control-plane-mtu', 'int', 'Network Control plane MTU', { initial: 1500, support: 'harmless' }),
  flag('network-diagnostic-port', 'int', 'TCP port number of the network diagnostic server', {
    support: 'refused',
    reload: true,
    hidden: true,
  }),
  flag('no-new-privileges', 'bool', 'Set no-new-privileges by default for new containers'),
  flag('no-proxy', 'string', 'Comma-separated list of hosts or IP addresses for which the proxy is skipped'),
  flag('node-generic-resource', 'list', 'Advertise user-defined resource', {
    key: 'node-generic-resources',
    support: 'harmless',
  }),
  flag('pidfile', 'string', 'Path to use for daemon PID file', { short: 'p', initial: '/run/gantry.pid' }),
  flag('raw-logs', 'bool', 'Full timestamps without ANSI coloring', { support: 'harmless' }),
  flag('registry-config', 'string', 'JSON file with further options of the registry that --registry-listen serves'),
  flag('registry-listen', 'string', 'Serve a registry on this address (host:port)'),
  flag('registry-mirror', 'list', 'Preferred registry mirror', { key: 'registry-mirrors', reload: true }),
  flag('rootless', 'bool', 'Enable rootless mode; typically used with RootlessKit', { support: 'refused' }),
  flag(
    'seccomp-profile',
    'string',
    'Path to seccomp profile. Set to "unconfined" to disable the default seccomp profile',
    { initial: 'builtin' },
  ),
  flag('selinux-enabled', 'bool', 'Enable selinux support', { support: 'refused' }),
  flag('shutdown-timeout', 'int', 'Set the default shutdown timeout', { initial: 15, reload: true }),
  flag('storage-driver', 'string', 'Storage driver to use', { short: 's' }),
  flag('storage-opt', 'list', 'Storage driver options', { key: 'storage-opts', support: 'refused' }),
  flag('swarm-default-advertise-addr', 'string', 'Set default address or interface for swarm advertised address', {
    support: 'harmless',
  }),
  flag('tls', 'bool', 'Use TLS; implied by --tlsverify'),
  flag('tlscacert', 'string', 'Trust certs signed only by this CA'),
  flag('tlscert', 'string', 'Path to TLS certificate file'),
  flag('tlskey', 'string', 'Path to TLS key file'),
  flag('tlsverify', 'bool', 'Use TLS and verify the remote'),
  flag('userland-proxy', 'bool', 'Use userland proxy for loopback traffic', { initial: true }),
  flag('userland-proxy-path', 'string', 'Path to the userland proxy binary'),
  flag('userns-remap', 'string', 'User/Group setting for user namespaces', { support: 'refused' }),
  flag('validate', 'bool', 'Validate daemon configuration and exit', { key: null }),
  flag('version', 'bool', 'Print version information and quit', { short: 'v', key: null }),
  flag('respect-host-firewall', 'bool', 'Let published ports pass the input rules of the host firewall'),
  flag('restart', 'bool', 'Deprecated: use a restart policy on docker run', {
    short: 'r',
    key: null,
    initial: true,
    support: 'harmless',
    hidden: true,
  }),
  flag('allow-nondistributable-artifacts', 'list', 'Deprecated: always on', {
    key: 'allow-nondistributable-artifacts',
    support: 'harmless',
    hidden: true,
  }),
];

/** daemon.json keys without a flag: `true` when they are accepted without effect. */
export const FILE_ONLY_KEYS: Readonly<Record<string, boolean>> = {
  builder: true,
  'deprecated-key-path': true,
  'default-init': true,
  'resolv-conf': true,
  'swarm-raft-heartbeat-tick': true,
  'swarm-raft-election-tick': true,
  'min-api-version': true,
  'registry-hosts': false,
  'registry-certs-dir': false,
};

const BY_NAME: ReadonlyMap<string, FlagSpec> = new Map(FLAGS.map((spec) => [spec.name, spec]));
const BY_SHORT: ReadonlyMap<string, FlagSpec> = new Map(
  FLAGS.flatMap((spec) => (spec.short ? [[spec.short, spec] as const] : [])),
);
const BY_KEY: ReadonlyMap<string, FlagSpec> = new Map(
  FLAGS.flatMap((spec) => (spec.key ? [[spec.key, spec] as const] : [])),
);

/** The flag called `--name`. */
export function flagNamed(name: string): FlagSpec | undefined {
  return BY_NAME.get(name);
}

/** The flag called `-letter`. */
export function flagShort(letter: string): FlagSpec | undefined {
  return BY_SHORT.get(letter);
}

/** The flag behind a daemon.json key. */
export function flagOfKey(key: string): FlagSpec | undefined {
  return BY_KEY.get(key);
}
