/**
 * What a network driver is. The service keeps networks, sandboxes, addresses and endpoint records; a driver makes
 * and undoes what a network of its kind is in the kernel, and the connection between a sandbox and such a network.
 */
import type { NetlinkSocket } from '#system/netlink/socket.ts';
import type { Id } from '#types/ids.ts';
import type { Prefix } from './address.ts';
import type {
  Endpoint,
  EndpointRequest,
  IpamPool,
  NetworkDetails,
  NetworkSpec,
  PublishRequest,
  Sandbox,
} from './contract.ts';

/** A pool of a network with everything chosen. */
export interface AllocatedPool extends IpamPool {
  /** The creator named the subnet, so containers may ask for addresses of it. */
  readonly isGiven: boolean;
}

/** A network as it is stored. */
export interface NetworkRecord extends Omit<NetworkSpec, 'scope'> {
  readonly id: Id;
  readonly createdAt: string;
  readonly pools: readonly AllocatedPool[];
  /** What the driver must remember of what it made, e.g. whether a device is its own. */
  readonly made: Readonly<Record<string, string>>;
  /** Not yet acknowledged: a daemon that finds it so removes it. */
  readonly isPending: boolean;
}

/** An endpoint with what must be known to undo it after a restart. */
export interface EndpointRecord {
  readonly endpoint: Endpoint;
  readonly containerId: Id;
  readonly containerName: string;
  /** Interface on the host side; empty when there is none. */
  readonly hostInterface: string;
  /** What legacy links of this container opened: address of the other side and its exposed ports. */
  readonly links: readonly {
    readonly from: string;
    readonly to: string;
    readonly protocol: 'tcp' | 'udp' | 'sctp';
    readonly port: number;
  }[];
  readonly exposed: EndpointRequest['exposed'];
  /** What the container publishes, by whichever endpoint gives its default route. */
  readonly publish?: readonly PublishRequest[];
  readonly gatewayPriority?: number;
  readonly names?: readonly string[];
  readonly aliasedLinks?: Readonly<Record<string, string>>;
  /** Its default route names no gateway, only the device. */
  readonly routesByDevice?: boolean;
}

/** The record of an endpoint as asked for, without a host side and without links. */
export function endpointRecord(request: EndpointRequest, endpoint: Endpoint): EndpointRecord {
  return {
    endpoint,
    containerId: request.containerId,
    containerName: request.containerName,
    hostInterface: '',
    links: [],
    exposed: request.exposed,
    publish: request.publish,
    gatewayPriority: request.gatewayPriority ?? 0,
    names: request.names ?? [],
    aliasedLinks: request.aliasedLinks ?? {},
  };
}

/** A sandbox with a netlink socket inside it. */
export interface OpenSandbox extends Sandbox {
  readonly netlink: NetlinkSocket;
}

/** Addresses of an endpoint, chosen by the service. */
export interface EndpointAddresses {
  readonly ipv4: { readonly address: string; readonly subnet: Prefix } | undefined;
  readonly ipv6: { readonly address: string; readonly subnet: Prefix } | undefined;
}

export interface JoinContext {
  readonly network: NetworkRecord;
  readonly sandbox: OpenSandbox;
  readonly request: EndpointRequest;
  readonly addresses: EndpointAddresses;
  /** Name of the interface inside, from its first part (`eth`). */
  readonly interfaceName: (prefix: string) => string;
  readonly endpointId: Id;
  /** Makes the record durable; called before anything is made in the kernel. */
  readonly save: (record: EndpointRecord) => void;
  /** Records of this network, by container. */
  readonly others: readonly EndpointRecord[];
}

/** Which families of a container's ports an endpoint publishes. */
export interface PublishFamilies {
  readonly ipv4: boolean;
  readonly ipv6: boolean;
}

/** What a driver says of a network about to be made. */
export interface NetworkPlan {
  /** Whether its pools need a gateway address. */
  readonly gateway: { readonly ipv4: boolean; readonly ipv6: boolean };
  /** What to remember of what `create` is going to make, so that it can be undone at any moment. */
  readonly made: Readonly<Record<string, string>>;
}

export interface NetworkDriver extends AsyncDisposable {
  /** Docker's driver name. */
  readonly name: string;
  /** Whether its networks have addresses, and may be made by users. */
  readonly hasAddresses: boolean;
  /** Checks a network's options; throws docker's errors. */
  plan(spec: NetworkSpec, id: Id): NetworkPlan;
  /** Makes the network in the kernel. On failure nothing of it remains. */
  create(network: NetworkRecord): void | Promise<void>;
  /** Undoes `create`. Idempotent. */
  remove(network: NetworkRecord): void | Promise<void>;
  /** Connects; on failure nothing of it remains (the service drops the record). */
  join(context: JoinContext, signal?: AbortSignal): Promise<EndpointRecord>;
  /** Undoes `join`. Without a sandbox the kernel removes the interface together with its namespace. */
  leave(record: EndpointRecord, sandbox: OpenSandbox | undefined): Promise<void>;
  /** Publishes ports by this endpoint; returns them. On failure none is kept. */
  publish(network: NetworkRecord, record: EndpointRecord, families: PublishFamilies): Promise<Endpoint['ports']>;
  /** Takes the endpoint's published ports back. */
  unpublish(network: NetworkRecord, record: EndpointRecord): Promise<void>;
  /** Start of the daemon: keeps exactly these networks and endpoints. */
  recover(networks: readonly NetworkRecord[], records: readonly EndpointRecord[]): Promise<void>;
  /** Address of the host as containers see it; undefined when there is none. */
  hostAddress(): string | undefined;
  /** Subnets and options as `network inspect` shows them where they differ from the record's. */
  describe?(network: NetworkRecord): Partial<Pick<NetworkDetails, 'subnets' | 'options' | 'givenSubnets'>>;
  /** Address ranges of a network whose addresses are not in its record (the default bridge). */
  pools?(network: NetworkRecord): readonly AllocatedPool[] | undefined;
}
