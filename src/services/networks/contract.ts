/**
 * Container networking as the engine sees it: networks, and one sandbox (network namespace) a container
 * with endpoints in it. Drivers (bridge, macvlan, ipvlan, host, none) sit behind this.
 *
 * A sandbox is a bind-mounted namespace file, so it exists before and independent of the container's processes.
 */
import type { Id } from '#types/ids.ts';

/** One address pool of a network as its creator wrote it, or as it was allocated. */
export interface IpamPool {
  readonly subnet: string;
  readonly ipRange?: string;
  readonly gateway?: string;
  readonly auxiliaryAddresses?: Readonly<Record<string, string>>;
}

/** What a network is made from; every field parsed and defaulted. */
export interface NetworkSpec {
  readonly name: string;
  readonly driver: string;
  readonly ipv4: boolean;
  readonly ipv6: boolean;
  readonly internal: boolean;
  readonly attachable: boolean;
  readonly ingress: boolean;
  /** '' or `local`, `swarm`, `global`. */
  readonly scope: string;
  readonly configOnly: boolean;
  /** Name of a configuration-only network; '' for none. */
  readonly configFrom: string;
  readonly options: Readonly<Record<string, string>>;
  readonly labels: Readonly<Record<string, string>>;
  readonly ipam: {
    readonly driver: string;
    readonly options: Readonly<Record<string, string>> | null;
    readonly pools: readonly IpamPool[];
  };
}

export interface NetworkSummary {
  readonly id: Id;
  readonly name: string;
  readonly driver: string;
  readonly scope: 'local';
}

/** A network with everything `inspect` shows. */
export interface NetworkDetails extends NetworkSummary, Omit<NetworkSpec, 'scope' | 'ipam'> {
  readonly createdAt: string;
  readonly ipam: { readonly driver: string; readonly options: Readonly<Record<string, string>> | null };
  /** Subnets with their gateways; undefined where the driver has no addresses. */
  readonly subnets: readonly IpamPool[] | undefined;
  /** The subnets its creator named. */
  readonly givenSubnets: readonly string[];
  readonly endpoints: readonly {
    readonly containerId: Id;
    readonly containerName: string;
    readonly endpoint: Endpoint;
  }[];
}

/** A port to publish, after parsing of HostConfig.PortBindings / PublishAllPorts. */
export interface PublishRequest {
  readonly protocol: 'tcp' | 'udp' | 'sctp';
  readonly containerPort: number;
  /** '' means all addresses, IPv4 and IPv6. */
  readonly hostAddress: string;
  /** 0 picks a free ephemeral port; first..last is a range to pick from. */
  readonly hostPortFirst: number;
  readonly hostPortLast: number;
}

export interface PublishedPort {
  readonly protocol: 'tcp' | 'udp' | 'sctp';
  readonly containerPort: number;
  readonly hostAddress: string;
  readonly hostPort: number;
}

export interface EndpointRequest {
  /** Network name or ID. */
  readonly network: string;
  readonly containerId: Id;
  readonly containerName: string;
  readonly macAddress?: string;
  readonly ipv4Address?: string;
  readonly ipv6Address?: string;
  readonly linkLocalAddresses?: readonly string[];
  readonly driverOptions?: Readonly<Record<string, string>>;
  /** Higher ones give the default route. */
  readonly gatewayPriority?: number;
  /** Names the resolver answers to, docker's order: container name, aliases, short ID, hostname. */
  readonly names?: readonly string[];
  /** Links inside a user-defined network: alias → name of the other container. */
  readonly aliasedLinks?: Readonly<Record<string, string>>;
  readonly publish: readonly PublishRequest[];
  /** Exposed ports: reachable from linked containers when icc is off. */
  readonly exposed: readonly { protocol: 'tcp' | 'udp' | 'sctp'; port: number }[];
  /** Legacy links: IDs of the containers this one may reach although icc is off. */
  readonly links: readonly Id[];
}

export interface Endpoint {
  readonly endpointId: Id;
  readonly networkId: Id;
  readonly networkName: string;
  readonly interfaceName: string;
  readonly ipAddress: string;
  readonly prefixLength: number;
  readonly gateway: string;
  readonly macAddress: string;
  readonly ipv6Address: string;
  readonly ipv6PrefixLength: number;
  readonly ipv6Gateway: string;
  /** Only the endpoints that give the default routes publish ports. */
  readonly ports: readonly PublishedPort[];
}

export interface Sandbox {
  readonly id: Id;
  /** Path of the namespace file (`NetworkSettings.SandboxKey`). */
  readonly path: string;
}

export interface Networks extends AsyncDisposable {
  list(): NetworkSummary[];
  /** By name, ID or ID prefix; throws `notFound`: `network {n} not found`. */
  find(nameOrId: string): NetworkSummary;
  /** Everything known of one network of `list`. */
  describe(id: Id): NetworkDetails;
  /** Names of the built-in drivers, for `docker info`. */
  driverNames(): string[];
  /** Makes a network: durable, then in the kernel; nothing remains when it fails. Docker's errors. */
  create(spec: NetworkSpec): Promise<NetworkSummary>;
  /** Throws `forbidden` for predefined networks, those with endpoints, and configurations in use. */
  remove(id: Id): Promise<void>;
  /** New namespace with loopback up. */
  createSandbox(containerId: Id): Promise<Sandbox>;
  /** Removes the namespace and whatever endpoints are left in it. Idempotent. */
  removeSandbox(containerId: Id): Promise<void>;
  /** Joins the container's sandbox to a network: address, interface, routes, published ports — all or nothing. */
  connect(sandbox: Sandbox, request: EndpointRequest, signal?: AbortSignal): Promise<Endpoint>;
  disconnect(containerId: Id, networkId: Id): Promise<void>;
  /** The container's endpoints as they are now: joining or leaving one network can move ports to another. */
  endpoints(containerId: Id): Endpoint[];
  /** Changes the names the resolver answers to in a network. */
  rename(containerId: Id, containerName: string, names: (networkId: Id) => readonly string[]): void;
  /** Interface counters of a sandbox, for stats: interface name → counters. */
  statistics(sandbox: Sandbox): Record<string, InterfaceStatistics>;
  /** What the embedded resolver needs of a container's networks, default route first. */
  resolverNetworks(containerId: Id): ResolverNetworks;
  /** Host resolver content for a container's /etc/resolv.conf on this kind of network. */
  resolvConf(options: ResolvConfOptions): string;
  /** Where the embedded resolver forwards what it does not know. */
  resolverSettings(options: Omit<ResolvConfOptions, 'mode'>): ResolverSettings;
  /** Address to substitute for `host-gateway`. */
  hostGateway(): string[];
  /** After a restart: keeps sandboxes of `running`, removes every other interface, rule, address and namespace of this daemon. */
  recover(running: ReadonlySet<Id>): Promise<void>;
}

/** The names of a container's user-defined networks. An `endpoints` array is the same object until it changes. */
export interface ResolverNetworks {
  readonly networks: readonly {
    readonly name: string;
    readonly endpoints: readonly { readonly names: readonly string[]; readonly ipv4: string; readonly ipv6: string }[];
    readonly links: ReadonlyMap<string, string>;
  }[];
  readonly external: boolean;
}

export interface InterfaceStatistics {
  readonly rx_bytes: number;
  readonly rx_packets: number;
  readonly rx_errors: number;
  readonly rx_dropped: number;
  readonly tx_bytes: number;
  readonly tx_packets: number;
  readonly tx_errors: number;
  readonly tx_dropped: number;
}

export interface ResolverSettings {
  /** `fromHost`: named by the host's resolv.conf, so reached from the host's namespace. */
  readonly upstreams: readonly { readonly address: string; readonly fromHost: boolean }[];
  /** Whether the user or the host said what `ndots` is. */
  readonly ndotsSet: boolean;
}

export interface ResolvConfOptions {
  /** `resolver`: the container is on a user-defined network and asks the embedded resolver. */
  readonly mode: 'bridge' | 'host' | 'resolver';
  readonly servers: readonly string[];
  readonly search: readonly string[];
  readonly options: readonly string[];
}
