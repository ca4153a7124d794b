/**
 * What a network driver is. The service keeps networks, sandboxes and endpoint records; a driver makes and
 * undoes the one connection between a sandbox and a network of its kind.
 */
import type { NetlinkSocket } from '#system/netlink/socket.ts';
import type { Id } from '#types/ids.ts';
import type { Endpoint, EndpointRequest, NetworkDetails, NetworkSummary, Sandbox } from './contract.ts';

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
}

/** A sandbox with a netlink socket inside it. */
export interface OpenSandbox extends Sandbox {
  readonly netlink: NetlinkSocket;
}

export interface JoinContext {
  readonly network: NetworkSummary;
  readonly sandbox: OpenSandbox;
  readonly request: EndpointRequest;
  /** Name the interface gets inside, `eth0` …. */
  readonly interfaceName: string;
  readonly endpointId: Id;
  /** Makes the record durable; called before anything is made in the kernel. */
  readonly save: (record: EndpointRecord) => void;
  /** Records of this network, by container. */
  readonly others: readonly EndpointRecord[];
}

export interface NetworkDriver extends AsyncDisposable {
  /** Docker's driver name. */
  readonly name: string;
  /** Connects; on failure nothing of it remains (the service drops the record). */
  join(context: JoinContext, signal?: AbortSignal): Promise<EndpointRecord>;
  /** Undoes `join`. With `sandboxGoes` the kernel removes the interface together with its namespace. */
  leave(record: EndpointRecord, options: { sandboxGoes: boolean }): Promise<void>;
  /** Start of the daemon: keeps exactly these endpoints. */
  recover(records: readonly EndpointRecord[]): Promise<void>;
  /** Address of the host as containers see it; undefined when there is none. */
  hostAddress(): string | undefined;
  /** Subnets and options as `network inspect` shows them; absent for drivers without addresses. */
  describe?(): Pick<NetworkDetails, 'subnets' | 'options'>;
}
