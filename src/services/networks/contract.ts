/**
 * Container networking as the engine sees it: networks, and one sandbox (network namespace) a container
 * with endpoints in it. Drivers (bridge, host, none; later macvlan, overlay) sit behind this.
 *
 * A sandbox is a bind-mounted namespace file, so it exists before and independent of the container's processes.
 */
import type { Id } from '#types/ids.ts';

export interface NetworkSummary {
  readonly id: Id;
  readonly name: string;
  readonly driver: string;
  readonly scope: 'local';
}

/** What `network inspect` shows beyond the summary. */
export interface NetworkDetails extends NetworkSummary {
  readonly createdAt: string;
  /** Subnets with their gateways; undefined where the driver has no addresses. */
  readonly subnets: readonly { readonly subnet: string; readonly gateway: string }[] | undefined;
  readonly options: Readonly<Record<string, string>>;
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
  readonly aliases: readonly string[];
  readonly publish: readonly PublishRequest[];
  /** Exposed ports: reachable from linked containers when icc is off. */
  readonly exposed: readonly { protocol: 'tcp' | 'udp' | 'sctp'; port: number }[];
  /** Legacy links: IDs of the containers this one may reach although icc is off. */
  readonly links: readonly Id[];
  readonly sysctls: Readonly<Record<string, string>>;
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
  /** New namespace with loopback up. */
  createSandbox(containerId: Id): Promise<Sandbox>;
  /** Removes the namespace and whatever endpoints are left in it. Idempotent. */
  removeSandbox(containerId: Id): Promise<void>;
  /** Joins the container's sandbox to a network: address, interface, routes, published ports — all or nothing. */
  connect(sandbox: Sandbox, request: EndpointRequest, signal?: AbortSignal): Promise<Endpoint>;
  disconnect(containerId: Id, networkId: Id): Promise<void>;
  /** Interface counters of a sandbox, for stats: interface name → counters. */
  statistics(sandbox: Sandbox): Record<string, InterfaceStatistics>;
  /** Host resolver content for a container's /etc/resolv.conf on this kind of network. */
  resolvConf(options: ResolvConfOptions): string;
  /** Address to substitute for `host-gateway`. */
  hostGateway(): string[];
  /** After a restart: keeps sandboxes of `running`, removes every other interface, rule, address and namespace of this daemon. */
  recover(running: ReadonlySet<Id>): Promise<void>;
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

export interface ResolvConfOptions {
  readonly mode: 'bridge' | 'host';
  readonly servers: readonly string[];
  readonly search: readonly string[];
  readonly options: readonly string[];
}
