/**
 * The `bridge` driver: a Linux bridge a network, a veth pair between it and each container, and published ports.
 * A join is made durable first, then built with netlink from the main thread; one firewall transaction opens
 * all its ports. Removing a veth takes the kernel a grace period (about 17 ms), so a veth normally just dies
 * with its namespace, in the background.
 */
import { randomBytes } from 'node:crypto';
import { closeSync, openSync } from 'node:fs';
import { hasCode } from '#system/kernel/errno.ts';
import { setForwarding, setNeighbour } from '#system/netlink/neighbours.ts';
import { addVeth, deleteLink, setHairpin } from '#system/netlink/route.ts';
import { NetlinkSocket } from '#system/netlink/socket.ts';
import type { RuleSet } from '#system/nftables/nftables.ts';
import { errorMessage, GantryError, wrapError } from '#types/errors.ts';
import type { Id } from '#types/ids.ts';
import { formatIp, formatPrefix, macOf, type Prefix, parseCidr, parseIp } from './address.ts';
import {
  type BridgeDevice,
  type BridgeOptions,
  type BridgePlan,
  ensureBridge,
  ensureDefaultBridge,
  removeBridge,
} from './bridge-device.ts';
import { checkIpv6Subnet, linkGroup, linkRules, localMac, portRules } from './bridge-endpoint.ts';
import { type BridgeSettings, parseBridgeSettings } from './bridge-settings.ts';
import type { Endpoint, NetworkDetails, NetworkSpec } from './contract.ts';
import {
  type AllocatedPool,
  type EndpointRecord,
  endpointRecord,
  type JoinContext,
  type NetworkDriver,
  type NetworkPlan,
  type NetworkRecord,
  type OpenSandbox,
  type PublishFamilies,
} from './driver.ts';
import {
  addBridge,
  addElements,
  type BridgeRules,
  deleteBridge,
  deleteElements,
  type LinkRule,
  type PortRule,
} from './firewall.ts';
import { FirewallTable } from './firewall-table.ts';
import { HostPorts } from './host-ports.ts';
import { configureInterface } from './interface.ts';
import { isPredefined, type NetworkStore } from './store.ts';

/** How long a veth of a container that goes on running may outlive its disconnection; its death blocks for a grace period. */
const LINGERING_LINK_MS = 20;
const VETH_NAME = /^veth[0-9a-f]{7}$/;

export interface BridgeDriverOptions {
  readonly bridge: BridgeOptions;
  readonly instance: string;
  readonly store: NetworkStore;
  /** Undefined with --iptables=false. */
  readonly rules: RuleSet | undefined;
  readonly warn: (message: string) => void;
}

/** One network of this driver as it is in the kernel. */
interface BridgeNetwork {
  readonly device: BridgeDevice;
  readonly rules: BridgeRules;
  readonly settings: BridgeSettings;
}

/** The driver of the default bridge and of user-defined ones. */
export class BridgeDriver implements NetworkDriver {
  readonly name = 'bridge';
  readonly hasAddresses = true;
  readonly #options: BridgeDriverOptions;
  readonly #netlink: NetlinkSocket;
  readonly #networks = new Map<Id, BridgeNetwork>();
  readonly #default: { readonly id: Id; readonly plan: BridgePlan } | undefined;
  readonly #ports: HostPorts;
  readonly #table: FirewallTable;
  /** Marks our veths: one whose bridge is gone is told from those of others by it. */
  readonly #group: number;
  readonly #lingering = new Map<string, NodeJS.Timeout>();

  constructor(options: BridgeDriverOptions) {
    this.#options = options;
    const { bridge, rules, instance, warn } = options;
    this.#group = linkGroup(instance);
    this.#table = new FirewallTable({ instance, rules, warn, content: () => this.#content() });
    this.#ports = new HostPorts({
      defaultAddress: bridge.defaultAddress ?? '',
      translated: rules !== undefined && bridge.respectHostFirewall !== true,
      proxy: bridge.userlandProxy ?? true,
    });
    this.#netlink = NetlinkSocket.open();
    try {
      this.#default = bridge.name === 'none' ? undefined : this.#openDefault();
    } catch (error) {
      this.#netlink[Symbol.dispose]();
      throw error;
    }
  }

  #openDefault(): { id: Id; plan: BridgePlan } | undefined {
    const { bridge, store } = this.#options;
    const network = store.networks().find(({ name }) => name === 'bridge');
    if (network === undefined) return undefined;
    const reserved = store.networks().flatMap(({ pools }) => pools.map(({ subnet }) => parseCidr(subnet).subnet));
    const { device, plan } = ensureDefaultBridge(this.#netlink, bridge, {
      remembered: store.config('bridge'),
      reserved,
    });
    const { name, own } = device;
    store.saveConfig('bridge', { name, own, address: `${formatIp(plan.address)}/${plan.subnet.length}` });
    const { icc = true, ipMasquerade = true } = bridge;
    const settings = {
      ...parseBridgeSettings({}, network.id, false),
      name,
      icc,
      masquerade: ipMasquerade,
      mtu: device.mtu,
    };
    const subnets = [{ subnet: formatPrefix(plan.subnet), mode: 'nat', masquerade: ipMasquerade, source: '' } as const];
    this.#networks.set(network.id, {
      device,
      settings,
      rules: { name, icc, internal: false, trusted: [], subnets },
    });
    return { id: network.id, plan };
  }

  plan(spec: NetworkSpec, id: Id): NetworkPlan {
    const { gatewayMode, inhibitIpv4, name } = parseBridgeSettings(spec.options, id, spec.internal);
    return {
      made: { name, own: String(this.#netlink.link(name) === undefined) },
      gateway: {
        ipv4: gatewayMode.ipv4 !== 'isolated' && !(inhibitIpv4 && spec.internal),
        ipv6: gatewayMode.ipv6 !== 'isolated',
      },
    };
  }

  create(network: NetworkRecord): void {
    const { settings, subnets } = this.#check(network);
    const built = this.#build(network, settings, subnets, network.made['own'] === 'true');
    try {
      this.#table.run(addBridge(this.#table.name, built.rules));
    } catch (error) {
      this.#networks.delete(network.id);
      removeBridge(this.#netlink, built.device);
      throw error;
    }
  }

  /** Docker's checks of a network whose addresses are known. */
  #check(network: NetworkRecord): { settings: BridgeSettings; subnets: { pool: AllocatedPool; subnet: Prefix }[] } {
    const settings = parseBridgeSettings(network.options, network.id, network.internal);
    const subnets = network.pools.map((pool) => ({ pool, subnet: parseCidr(pool.subnet).subnet }));
    if (subnets.length === 0) throw new GantryError('invalid', 'IPv4 or IPv6 must be enabled');
    for (const family of [4, 6] as const) {
      if (subnets.filter(({ subnet }) => subnet.family === family).length > 1)
        throw new GantryError('forbidden', "bridge driver doesn't support multiple subnets");
    }
    for (const { subnet } of subnets) if (subnet.family === 6) checkIpv6Subnet(subnet);
    for (const [id, other] of this.#networks) {
      if (id !== network.id && other.device.name === settings.name) {
        throw new GantryError(
          'forbidden',
          `cannot create network ${network.id} (${settings.name}): conflicts with network ${id} (${settings.name}): networks have same bridge name`,
        );
      }
    }
    return { settings, subnets };
  }

  /** Makes the bridge and registers the network. */
  #build(
    network: NetworkRecord,
    settings: BridgeSettings,
    subnets: readonly { pool: AllocatedPool; subnet: Prefix }[],
    own: boolean,
  ): BridgeNetwork {
    const { bridge } = this.#options;
    const { gatewayMode, inhibitIpv4, name, icc, masquerade, source } = settings;
    const addresses = subnets.flatMap(({ pool, subnet }) => {
      const isIpv4 = subnet.family === 4;
      if (pool.gateway === undefined || gatewayMode[isIpv4 ? 'ipv4' : 'ipv6'] === 'isolated') return [];
      return isIpv4 && inhibitIpv4 ? [] : [{ address: parseIp(pool.gateway), length: subnet.length }];
    });
    const device = ensureBridge(
      this.#netlink,
      {
        name,
        mtu: settings.mtu,
        macAddress: localMac(network.id),
        addresses,
        ipv4: network.ipv4,
        ipv6: network.ipv6,
        icc,
      },
      { ...bridge, own },
    );
    const rules: BridgeRules = {
      name,
      icc,
      internal: network.internal,
      trusted: settings.trusted,
      subnets: subnets.map(({ subnet }) => ({
        subnet: formatPrefix(subnet),
        mode: gatewayMode[subnet.family === 4 ? 'ipv4' : 'ipv6'],
        masquerade,
        source: source[subnet.family === 4 ? 'ipv4' : 'ipv6'],
      })),
    };
    const built = { device, rules, settings };
    this.#networks.set(network.id, built);
    return built;
  }

  remove(network: NetworkRecord): void {
    const built = this.#networks.get(network.id);
    this.#networks.delete(network.id);
    if (built !== undefined) {
      try {
        this.#table.run(deleteBridge(this.#table.name, built.rules));
      } catch (error) {
        this.#options.warn(`firewall elements of network ${network.id} were gone: ${errorMessage(error)}`);
      }
    }
    const device = built?.device ?? { name: network.made['name'] ?? '', own: network.made['own'] === 'true' };
    if (device.name !== '') removeBridge(this.#netlink, device);
  }

  async join(context: JoinContext, signal?: AbortSignal): Promise<EndpointRecord> {
    signal?.throwIfAborted();
    await using undo = new AsyncDisposableStack();
    const { request, network, addresses } = context;
    const built = this.#built(network.id);
    const [ipv4, ipv6] = [addresses.ipv4, addresses.ipv6];
    const endpoint: Endpoint = {
      endpointId: context.endpointId,
      networkId: network.id,
      networkName: network.name,
      interfaceName: context.interfaceName(built.settings.interfacePrefix),
      ipAddress: ipv4?.address ?? '',
      prefixLength: ipv4?.subnet.length ?? 0,
      gateway: this.#gateway(network, 4),
      macAddress:
        request.macAddress ?? (ipv4 === undefined ? localMac(ipv6?.address ?? '') : macOf(parseIp(ipv4.address))),
      ipv6Address: ipv6?.address ?? '',
      ipv6PrefixLength: ipv6?.subnet.length ?? 0,
      ipv6Gateway: ipv6 === undefined ? '' : this.#gateway(network, 6),
      ports: [],
    };
    const record: EndpointRecord = {
      ...endpointRecord(request, endpoint),
      hostInterface: `veth${randomBytes(4).toString('hex').slice(0, 7)}`,
      links: linkRules(context, endpoint.ipAddress),
    };
    context.save(record);
    undo.defer(() => this.#deleteLink(record.hostInterface));
    this.#plug(context, record, built.device);
    this.#table.run(addElements(this.#table.name, { ports: [], links: record.links }));
    undo.move();
    return record;
  }

  #built(id: Id): BridgeNetwork {
    const built = this.#networks.get(id);
    if (built === undefined) throw new GantryError('notFound', `network ${id} not found`);
    return built;
  }

  /** Where containers of a network send what is not local; '' when nowhere. */
  #gateway(network: NetworkRecord, family: 4 | 6): string {
    if (network.internal) return '';
    if (network.id === this.#default?.id) return family === 4 ? formatIp(this.#default.plan.gateway) : '';
    const pool = network.pools.find(({ subnet }) => parseCidr(subnet).subnet.family === family);
    // Compat: an auxiliary address of this name stands in for the bridge's own.
    return pool?.auxiliaryAddresses?.[`DefaultGatewayIPv${family}`] ?? pool?.gateway ?? '';
  }

  async publish(network: NetworkRecord, record: EndpointRecord, families: PublishFamilies): Promise<Endpoint['ports']> {
    const { endpoint, publish = [] } = record;
    if (publish.length === 0) return [];
    const { settings } = this.#built(network.id);
    const mode = settings.gatewayMode;
    const addresses = {
      ipv4: families.ipv4 && endpoint.ipAddress !== '' ? endpoint.ipAddress : undefined,
      ipv6: families.ipv6 && endpoint.ipv6Address !== '' ? endpoint.ipv6Address : undefined,
    };
    const isTranslated = { ipv4: mode.ipv4 !== 'routed', ipv6: mode.ipv6 !== 'routed' };
    const opened = (['ipv4', 'ipv6'] as const)
      .filter((family) => addresses[family] !== undefined && !isTranslated[family])
      .flatMap((family) =>
        publish.map(({ protocol, containerPort }) => ({
          protocol,
          containerPort,
          hostAddress: family === 'ipv4' ? '0.0.0.0' : '::',
          hostPort: 0,
        })),
      );
    try {
      const held = await this.#ports.publish(publish, {
        ipv4: isTranslated.ipv4 ? addresses.ipv4 : undefined,
        ipv6: isTranslated.ipv6 ? addresses.ipv6 : undefined,
        forwardsIpv6: addresses.ipv6 === undefined,
        hostBinding: settings.hostBinding || undefined,
      });
      const ports = [...held, ...opened];
      try {
        this.#table.run(addElements(this.#table.name, { ports: this.#portRules(endpoint, ports), links: [] }));
        this.#setHairpin(record);
      } catch (error) {
        await this.#ports.release(held);
        throw error;
      }
      return ports;
    } catch (error) {
      throw wrapError(
        `driver failed programming external connectivity on endpoint ${record.containerName} (${endpoint.endpointId})`,
        error,
      );
    }
  }

  /** Ports that are forwarded by their sockets alone need no rule; opened ones of routed networks do. */
  #portRules(endpoint: Endpoint, ports: Endpoint['ports']): PortRule[] {
    const isForwarded = this.#options.bridge.respectHostFirewall === true;
    return portRules(endpoint, isForwarded ? ports.filter(({ hostPort }) => hostPort === 0) : ports);
  }

  /** With bridge netfilter, translation back to the sender happens on the bridge itself. */
  #setHairpin(record: EndpointRecord): void {
    const outside = this.#netlink.link(record.hostInterface);
    if (outside !== undefined) this.#netlink.request(setHairpin(outside.index));
  }

  async unpublish(_network: NetworkRecord, { endpoint }: EndpointRecord): Promise<void> {
    this.#deleteElements({ ports: this.#portRules(endpoint, endpoint.ports), links: [] }, endpoint.endpointId);
    await this.#ports.release(endpoint.ports);
  }

  #deleteElements(elements: { ports: readonly PortRule[]; links: readonly LinkRule[] }, endpointId: Id): void {
    try {
      this.#table.run(deleteElements(this.#table.name, elements));
    } catch (error) {
      this.#options.warn(`firewall elements of endpoint ${endpointId} were gone: ${errorMessage(error)}`);
    }
  }

  /** Makes the veth pair and configures the container's end. */
  #plug(context: JoinContext, record: EndpointRecord, device: BridgeDevice): void {
    const { sandbox } = context;
    const { endpoint, hostInterface } = record;
    const namespaceFd = openSync(sandbox.path, 'r');
    try {
      const peer = { name: endpoint.interfaceName, address: endpoint.macAddress, namespaceFd };
      this.#netlink.request(
        addVeth({ name: hostInterface, master: device.index, mtu: device.mtu, group: this.#group, peer }),
      );
    } finally {
      closeSync(namespaceFd);
    }
    const outside = this.#netlink.link(hostInterface);
    if (outside === undefined) throw new GantryError('system', `interface ${hostInterface} vanished`);
    configureInterface(context, endpoint);
    // An address is reused at once, while the bridge and the host may still point at its last owner.
    this.#netlink.request(setForwarding(outside.index, endpoint.macAddress));
    for (const address of [endpoint.ipAddress, endpoint.ipv6Address]) {
      if (address !== '') this.#netlink.request(setNeighbour(device.index, address, endpoint.macAddress));
    }
  }

  async leave(record: EndpointRecord, sandbox: OpenSandbox | undefined): Promise<void> {
    const { endpoint, hostInterface } = record;
    const elements = { ports: this.#portRules(endpoint, endpoint.ports), links: record.links };
    this.#deleteElements(elements, endpoint.endpointId);
    await this.#ports.release(endpoint.ports);
    if (sandbox === undefined) return;
    const timer = setTimeout(() => {
      this.#lingering.delete(hostInterface);
      this.#deleteLink(hostInterface);
    }, LINGERING_LINK_MS);
    this.#lingering.set(hostInterface, timer);
  }

  async recover(networks: readonly NetworkRecord[], records: readonly EndpointRecord[]): Promise<void> {
    const { warn } = this.#options;
    for (const network of networks) {
      // The default one is there since the start, or switched off.
      if (isPredefined(network.name)) continue;
      try {
        const { settings, subnets } = this.#check(network);
        this.#build(network, settings, subnets, network.made['own'] === 'true');
      } catch (error) {
        warn(`network ${network.name} cannot be restored: ${errorMessage(error)}`);
      }
    }
    const keep = new Set(records.map((record) => record.hostInterface));
    const bridges = new Set([...this.#networks.values()].map(({ device }) => device.index));
    for (const link of this.#netlink.links()) {
      const isOurs = bridges.has(link.master) || link.group === this.#group;
      const leftover = link.kind === 'veth' && isOurs && !keep.has(link.name);
      if (leftover && VETH_NAME.test(link.name)) this.#deleteLink(link.name);
    }
    for (const { endpoint } of records) {
      const targets = { ipv4: endpoint.ipAddress || undefined, ipv6: endpoint.ipv6Address || undefined };
      const lost = await this.#ports.adopt(endpoint.ports, targets);
      for (const port of lost)
        warn(`port ${port.hostAddress}:${port.hostPort}/${port.protocol} is held by another program`);
    }
    this.#table.install();
  }

  #content(): { bridges: BridgeRules[]; ports: PortRule[]; links: LinkRule[] } {
    const records = [...this.#networks.keys()].flatMap((id) => this.#options.store.endpointsIn(id));
    return {
      bridges: [...this.#networks.values()].map(({ rules }) => rules),
      ports: records.flatMap(({ endpoint }) => this.#portRules(endpoint, endpoint.ports)),
      links: records.flatMap((record) => [...record.links]),
    };
  }

  #deleteLink(name: string): void {
    try {
      this.#netlink.request(deleteLink(name));
    } catch (error) {
      if (!hasCode(error, 'ENODEV')) throw error;
    }
  }

  hostAddress(): string | undefined {
    return this.#default === undefined ? undefined : formatIp(this.#default.plan.address);
  }

  pools(network: NetworkRecord): readonly AllocatedPool[] | undefined {
    if (network.id !== this.#default?.id) return undefined;
    const { subnet, range, gateway, address } = this.#default.plan;
    return [
      {
        subnet: formatPrefix(subnet),
        ...(range.length === subnet.length ? {} : { ipRange: formatPrefix(range) }),
        gateway: formatIp(gateway),
        // The bridge's own address where another one is the gateway.
        auxiliaryAddresses: { bridge: formatIp(address) },
        isGiven: false,
      },
    ];
  }

  describe(network: NetworkRecord): Partial<Pick<NetworkDetails, 'subnets' | 'options' | 'givenSubnets'>> {
    if (network.id !== this.#default?.id) return {};
    const { plan } = this.#default;
    const { name, mtu } = this.#built(network.id).device;
    const { icc = true, ipMasquerade = true, defaultAddress } = this.#options.bridge;
    return {
      subnets: [{ subnet: formatPrefix(plan.subnet), gateway: formatIp(plan.gateway) }],
      givenSubnets: [formatPrefix(plan.subnet)],
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

  /**
   * Closes sockets. Rules and the default bridge stay for containers that go on running, otherwise they go too.
   * User-defined bridges stay as dockerd leaves them: removing one takes a grace period, and the next start uses it.
   */
  async [Symbol.asyncDispose](): Promise<void> {
    for (const [name, timer] of this.#lingering) {
      clearTimeout(timer);
      this.#deleteLink(name);
    }
    const records = this.#options.store.endpoints().filter((record) => record.hostInterface !== '');
    await this.#ports.release(records.flatMap((record) => record.endpoint.ports));
    if (records.length === 0) {
      this.#table.remove();
      if (this.#default !== undefined) removeBridge(this.#netlink, this.#built(this.#default.id).device);
    } else this.#table[Symbol.dispose]();
    this.#netlink[Symbol.dispose]();
  }
}
