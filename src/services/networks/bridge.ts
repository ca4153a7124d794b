/**
 * The `bridge` driver: a veth pair between the container and the bridge, an address, and published ports.
 * A join is made durable first, then built with netlink from the main thread; one firewall transaction opens
 * all its ports. Removing a veth takes the kernel a grace period (about 17 ms), so a veth normally just dies
 * with its namespace, in the background.
 */

import { randomBytes } from 'node:crypto';
import { closeSync, openSync, writeFileSync } from 'node:fs';
import { hasCode } from '#system/kernel/errno.ts';
import { inNetworkNamespace } from '#system/kernel/namespaces.ts';
import {
  addAddress,
  addRoute,
  addVeth,
  deleteLink,
  setForwarding,
  setHairpin,
  setLink,
  setNeighbour,
} from '#system/netlink/route.ts';
import { NetlinkSocket } from '#system/netlink/socket.ts';
import type { RuleSet } from '#system/nftables/nftables.ts';
import { errorMessage, GantryError, wrapError } from '#types/errors.ts';
import { contains, formatIpv4, formatSubnet, lowestFree, macOf, parseIpv4 } from './address.ts';
import { type BridgeDevice, type BridgeOptions, ensureBridge, removeBridge } from './bridge-device.ts';
import type { Endpoint, NetworkDetails } from './contract.ts';
import type { EndpointRecord, JoinContext, NetworkDriver } from './driver.ts';
import {
  addElements,
  deleteElements,
  deleteTable,
  foreignForwardDrops,
  type LinkRule,
  type PortRule,
  replaceTable,
  tableName,
} from './firewall.ts';
import { HostPorts } from './host-ports.ts';
import type { NetworkStore } from './store.ts';

/** How long a veth of a container that goes on running may outlive its disconnection; its death blocks for a grace period. */
const LINGERING_LINK_MS = 20;

export interface BridgeDriverOptions {
  readonly bridge: BridgeOptions;
  readonly instance: string;
  readonly store: NetworkStore;
  /** Undefined with --iptables=false. */
  readonly rules: RuleSet | undefined;
  readonly warn: (message: string) => void;
}

/** The driver of the default bridge. */
export class BridgeDriver implements NetworkDriver {
  readonly name = 'bridge';
  readonly #options: BridgeDriverOptions;
  readonly #netlink: NetlinkSocket;
  readonly #device: BridgeDevice;
  readonly #ports: HostPorts;
  readonly #table: string;
  readonly #used = new Set<number>();
  readonly #lingering = new Map<string, NodeJS.Timeout>();

  constructor(options: BridgeDriverOptions) {
    this.#options = options;
    const { bridge, store } = options;
    this.#table = tableName(options.instance);
    this.#netlink = NetlinkSocket.open();
    try {
      this.#device = ensureBridge(this.#netlink, bridge, store.config('bridge'));
    } catch (error) {
      this.#netlink[Symbol.dispose]();
      throw error;
    }
    const { name, own, address, subnet } = this.#device;
    store.saveConfig('bridge', { name, own, address: `${formatIpv4(address)}/${subnet.prefixLength}` });
    this.#ports = new HostPorts({
      defaultAddress: bridge.defaultAddress ?? '',
      translated: options.rules !== undefined,
      proxy: bridge.userlandProxy ?? true,
    });
  }

  async join(context: JoinContext, signal?: AbortSignal): Promise<EndpointRecord> {
    signal?.throwIfAborted();
    await using undo = new AsyncDisposableStack();
    const { request } = context;
    const address = this.#allocate(request.ipv4Address);
    undo.defer(() => void this.#used.delete(address));
    const ipAddress = formatIpv4(address);
    const ports = await this.#publish(context, ipAddress);
    undo.defer(() => this.#ports.release(ports));
    signal?.throwIfAborted();
    const macAddress = request.macAddress ?? macOf(address);
    const endpoint: Endpoint = {
      endpointId: context.endpointId,
      networkId: context.network.id,
      networkName: context.network.name,
      interfaceName: context.interfaceName,
      ipAddress,
      prefixLength: this.#device.subnet.prefixLength,
      gateway: formatIpv4(this.#device.gateway),
      macAddress,
      ipv6Address: '',
      ipv6PrefixLength: 0,
      ipv6Gateway: '',
      ports,
    };
    const record: EndpointRecord = {
      endpoint,
      containerId: request.containerId,
      containerName: request.containerName,
      hostInterface: `veth${randomBytes(4).toString('hex').slice(0, 7)}`,
      links: linkRules(context, ipAddress),
      exposed: request.exposed,
    };
    context.save(record);
    undo.defer(() => this.#deleteLink(record.hostInterface));
    this.#plug(context, record);
    this.#runRules(addElements(this.#table, elementsOf([record])));
    undo.move();
    return record;
  }

  async #publish(context: JoinContext, ipAddress: string): Promise<Endpoint['ports']> {
    const { request, endpointId } = context;
    try {
      return await this.#ports.publish(request.publish, ipAddress);
    } catch (error) {
      throw wrapError(
        `driver failed programming external connectivity on endpoint ${request.containerName} (${endpointId})`,
        error,
      );
    }
  }

  #allocate(wanted: string | undefined): number {
    const { subnet, range } = this.#device;
    if (wanted !== undefined) {
      const address = parseIpv4(wanted);
      if (!contains(subnet, address)) throw new GantryError('invalid', 'requested address is out of range');
      if (this.#reserved(address)) throw new GantryError('forbidden', 'Address already in use');
      this.#used.add(address);
      return address;
    }
    for (const fixed of [this.#device.address, this.#device.gateway]) this.#used.add(fixed);
    const address = lowestFree(subnet, range, this.#used);
    if (address === undefined)
      throw new GantryError('unavailable', "no available IPv4 addresses on this network's address pools: bridge");
    this.#used.add(address);
    return address;
  }

  #reserved(address: number): boolean {
    return this.#used.has(address) || address === this.#device.address || address === this.#device.gateway;
  }

  /** Makes the veth pair and configures the container's end. */
  #plug(context: JoinContext, record: EndpointRecord): void {
    const { sandbox, interfaceName, request } = context;
    const { endpoint, hostInterface } = record;
    const { index: master, mtu } = this.#device;
    const namespaceFd = openSync(sandbox.path, 'r');
    try {
      const peer = { name: interfaceName, address: endpoint.macAddress, namespaceFd };
      this.#netlink.request(addVeth({ name: hostInterface, master, mtu, peer }));
    } finally {
      closeSync(namespaceFd);
    }
    const inside = sandbox.netlink.link(interfaceName);
    const outside = this.#netlink.link(hostInterface);
    if (inside === undefined || outside === undefined)
      throw new GantryError('system', `interface ${hostInterface} vanished`);
    inNetworkNamespace(sandbox.path, () => applySysctls(interfaceName, request.sysctls));
    sandbox.netlink.request(addAddress(inside.index, endpoint.ipAddress, endpoint.prefixLength));
    sandbox.netlink.request(setLink(inside.index, { up: true }));
    if (context.interfaceName === 'eth0') {
      sandbox.netlink.request(addRoute({ index: inside.index, gateway: endpoint.gateway }));
    }
    // An address is reused at once, while the bridge and the host may still point at its last owner.
    this.#netlink.request(setForwarding(outside.index, endpoint.macAddress));
    // With bridge netfilter, translation back to the sender happens on the bridge itself.
    if (endpoint.ports.length > 0) this.#netlink.request(setHairpin(outside.index));
    this.#netlink.request(setNeighbour(master, endpoint.ipAddress, endpoint.macAddress));
  }

  async leave(record: EndpointRecord, options: { sandboxGoes: boolean }): Promise<void> {
    const { endpoint, hostInterface } = record;
    try {
      this.#runRules(deleteElements(this.#table, elementsOf([record])));
    } catch (error) {
      this.#options.warn(`firewall elements of endpoint ${endpoint.endpointId} were gone: ${errorMessage(error)}`);
    }
    await this.#ports.release(endpoint.ports);
    if (!options.sandboxGoes) {
      const timer = setTimeout(() => {
        this.#lingering.delete(hostInterface);
        this.#deleteLink(hostInterface);
      }, LINGERING_LINK_MS);
      this.#lingering.set(hostInterface, timer);
    }
    this.#used.delete(parseIpv4(endpoint.ipAddress));
  }

  async recover(records: readonly EndpointRecord[]): Promise<void> {
    const keep = new Set(records.map((record) => record.hostInterface));
    for (const link of this.#netlink.links()) {
      const leftover = link.kind === 'veth' && link.master === this.#device.index && !keep.has(link.name);
      if (leftover && /^veth[0-9a-f]{7}$/.test(link.name)) this.#deleteLink(link.name);
    }
    for (const { endpoint } of records) {
      this.#used.add(parseIpv4(endpoint.ipAddress));
      const lost = await this.#ports.adopt(endpoint.ports, endpoint.ipAddress);
      for (const port of lost)
        this.#options.warn(`port ${port.hostAddress}:${port.hostPort}/${port.protocol} is held by another program`);
    }
    this.#installTable(records);
  }

  #installTable(records: readonly EndpointRecord[]): void {
    const { rules, bridge, warn } = this.#options;
    if (rules === undefined) return;
    const { name, subnet } = this.#device;
    const own = {
      name,
      subnet: formatSubnet(subnet),
      icc: bridge.icc ?? true,
      masquerade: bridge.ipMasquerade ?? true,
    };
    rules.run(replaceTable(this.#table, [own], elementsOf(records)));
    for (const chain of foreignForwardDrops(rules.list('list chains'), this.#table)) {
      warn(
        `firewall chain "${chain}" drops forwarded packets by policy: containers on ${name} reach only what it accepts`,
      );
    }
  }

  #runRules(commands: string): void {
    if (commands !== '') this.#options.rules?.run(commands);
  }

  #deleteLink(name: string): void {
    try {
      this.#netlink.request(deleteLink(name));
    } catch (error) {
      if (!hasCode(error, 'ENODEV')) throw error;
    }
  }

  hostAddress(): string {
    return formatIpv4(this.#device.address);
  }

  describe(): Pick<NetworkDetails, 'subnets' | 'options'> {
    const { name, mtu, subnet, gateway } = this.#device;
    const { icc = true, ipMasquerade = true, defaultAddress } = this.#options.bridge;
    return {
      subnets: [{ subnet: formatSubnet(subnet), gateway: formatIpv4(gateway) }],
      options: {
        'com.docker.network.bridge.default_bridge': 'true',
        'com.docker.network.bridge.enable_icc': String(icc),
        'com.docker.network.bridge.enable_ip_masquerade': String(ipMasquerade),
        'com.docker.network.bridge.host_binding_ipv4': defaultAddress || '0.0.0.0',
        'com.docker.network.bridge.name': name,
        'com.docker.network.driver.mtu': String(mtu),
      },
    };
  }

  /** Closes sockets. Rules and bridge stay for containers that go on running, otherwise they go too. */
  async [Symbol.asyncDispose](): Promise<void> {
    for (const [name, timer] of this.#lingering) {
      clearTimeout(timer);
      this.#deleteLink(name);
    }
    const records = this.#options.store.endpoints().filter((record) => record.hostInterface !== '');
    await this.#ports.release(records.flatMap((record) => record.endpoint.ports));
    if (records.length === 0) {
      this.#runRules(deleteTable(this.#table));
      removeBridge(this.#netlink, this.#device);
    }
    this.#netlink[Symbol.dispose]();
  }
}

function elementsOf(records: readonly EndpointRecord[]): { ports: PortRule[]; links: LinkRule[] } {
  return {
    ports: records.flatMap(({ endpoint }) =>
      endpoint.ports.map((port) => ({ port, containerAddress: endpoint.ipAddress })),
    ),
    links: records.flatMap((record) => [...record.links]),
  };
}

/** Openings to the exposed ports of the containers this one is linked to. */
function linkRules(context: JoinContext, ipAddress: string): LinkRule[] {
  const { links } = context.request;
  return context.others
    .filter((other) => links.includes(other.containerId))
    .flatMap(({ endpoint, exposed }) =>
      exposed.map(({ protocol, port }) => ({ from: ipAddress, to: endpoint.ipAddress, protocol, port })),
    );
}

/** Settings of the new interface; runs inside the container's namespace. */
function applySysctls(interfaceName: string, sysctls: Readonly<Record<string, string>>): void {
  try {
    // Compat: a network without IPv6 gives its interface none, link-local addresses included.
    writeFileSync(`/proc/sys/net/ipv6/conf/${interfaceName}/disable_ipv6`, '1');
  } catch (error) {
    if (!hasCode(error, 'ENOENT')) throw error;
  }
  for (const [key, value] of Object.entries(sysctls)) {
    const match = /^net\.(ipv4|ipv6|mpls)\.(conf|neigh|input)\.IFNAME\.([a-z0-9_]+)$/.exec(key);
    if (match === null) throw new GantryError('invalid', `unrecognised network interface sysctl '${key}'`);
    writeFileSync(`/proc/sys/net/${match[1]}/${match[2]}/${interfaceName}/${match[3]}`, value);
  }
}
