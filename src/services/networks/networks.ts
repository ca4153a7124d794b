/**
 * The networks service: networks, sandboxes and endpoints of one daemon.
 *
 * Networks and endpoints are durable before anything of them exists in the kernel. Of a container's endpoints one
 * (or one a family) gives the default route and publishes the ports; each joining and leaving settles anew which.
 * Call `recover` once before the first `connect`: it restores networks and installs the rules.
 */
import { now } from '#system/clock/clock.ts';
import type { Database } from '#system/database/database.ts';
import { NetlinkSocket } from '#system/netlink/socket.ts';
import { openNftables, type RuleSet } from '#system/nftables/nftables.ts';
import { findPluginSocket, PLUGIN_DIRECTORIES, Plugin, type PluginDirectories } from '#system/plugins/plugin.ts';
import { GantryError } from '#types/errors.ts';
import { type Id, newId } from '#types/ids.ts';
import { parseCidr } from './address.ts';
import { EndpointAddressing } from './addressing.ts';
import { BridgeDriver } from './bridge.ts';
import { type BridgeOptions, hostPrefixes } from './bridge-device.ts';
import type {
  Endpoint,
  EndpointRequest,
  InterfaceStatistics,
  NetworkDetails,
  NetworkSpec,
  NetworkSummary,
  Networks,
  ResolvConfOptions,
  ResolverNetworks,
  ResolverSettings,
  Sandbox,
} from './contract.ts';
import type { EndpointRecord, NetworkDriver, NetworkRecord, OpenSandbox } from './driver.ts';
import { chooseGateways, type Gateways, leadsOut, sortCandidates } from './gateway.ts';
import { GatewayMover } from './gateway-mover.ts';
import { hostResolvConf } from './host-resolv-conf.ts';
import { type AddressPool, type Pools, poolsOf } from './ipam.ts';
import { Macvlan } from './macvlan.ts';
import { allocatePools, applyConfiguration, checkSpec } from './network-plan.ts';
import { RemoteDriver } from './remote-driver.ts';
import { containerResolvConf, resolverSettings } from './resolv-conf.ts';
import { LOOPBACK_INDEX, Sandboxes } from './sandboxes.ts';
import { StaticDriver } from './static-driver.ts';
import { isPredefined, NetworkStore } from './store.ts';

export interface NetworksOptions {
  readonly database: Database;
  /** Short hash of this daemon's roots; names its firewall table. */
  readonly instance: string;
  /** Directory of namespace files, `<exec-root>/netns`. */
  readonly namespaceDirectory: string;
  readonly bridge: BridgeOptions;
  /** `--default-address-pool`; empty: the built-in ones. */
  readonly addressPools?: readonly AddressPool[];
  /** Where network plugins are looked for; docker's directories when left out. */
  readonly plugins?: PluginDirectories;
  readonly warn: (message: string) => void;
}

/** Opens the service: makes the default bridge; other networks and rules come with `recover`. */
export function openNetworks(options: NetworksOptions): Networks {
  const store = new NetworkStore(options.database);
  const pools = poolsOf(options.addressPools ?? [], options.instance);
  const rules: RuleSet | undefined = options.bridge.firewall === false ? undefined : openNftables();
  const { instance, warn } = options;
  const drivers: NetworkDriver[] = [
    new StaticDriver('host'),
    new StaticDriver('null'),
    new BridgeDriver({ bridge: { ...options.bridge, pools }, instance, warn, store, rules }),
    new Macvlan({ kind: 'macvlan', warn }),
    new Macvlan({ kind: 'ipvlan', warn }),
  ];
  return new LocalNetworks(options, { store, pools, drivers });
}

interface Parts {
  readonly store: NetworkStore;
  readonly pools: Pools;
  readonly drivers: readonly NetworkDriver[];
}

class LocalNetworks implements Networks {
  readonly #options: NetworksOptions;
  readonly #store: NetworkStore;
  readonly #pools: Pools;
  readonly #drivers: Map<string, NetworkDriver>;
  readonly #sandboxes: Sandboxes;
  readonly #addressing: EndpointAddressing;
  readonly #mover: GatewayMover;
  /** Names in a network for the resolver; dropped when the network changes. */
  readonly #named = new Map<Id, ResolverNetworks['networks'][number]['endpoints']>();

  constructor(options: NetworksOptions, { store, pools, drivers }: Parts) {
    this.#options = options;
    this.#store = store;
    this.#pools = pools;
    this.#drivers = new Map(drivers.map((driver) => [driver.name, driver]));
    this.#sandboxes = new Sandboxes(options.namespaceDirectory);
    this.#mover = new GatewayMover({
      store,
      sandboxes: this.#sandboxes,
      driverOf: (network) => this.#driverOf(network),
      warn: options.warn,
    });
    this.#addressing = new EndpointAddressing((network) => this.#poolsOf(network));
  }

  #poolsOf(network: NetworkRecord): NetworkRecord['pools'] {
    return this.#drivers.get(network.driver)?.pools?.(network) ?? network.pools;
  }

  /** The driver of a plugin, kept from its first use on. */
  #remote(name: string): NetworkDriver {
    const socketPath = findPluginSocket(name, this.#options.plugins ?? PLUGIN_DIRECTORIES);
    if (socketPath === undefined) throw new GantryError('notFound', `plugin ${JSON.stringify(name)} not found`);
    const driver = new RemoteDriver({ plugin: new Plugin(name, socketPath), warn: this.#options.warn });
    this.#drivers.set(name, driver);
    return driver;
  }

  driverNames(): string[] {
    return [...this.#drivers.keys()].sort();
  }

  list(): NetworkSummary[] {
    return this.#visible().map(summaryOf);
  }

  #visible(): NetworkRecord[] {
    const hidesBridge = this.#options.bridge.name === 'none';
    return this.#store.networks().filter(({ name, isPending }) => !isPending && !(hidesBridge && name === 'bridge'));
  }

  find(nameOrId: string): NetworkSummary {
    return summaryOf(this.#find(nameOrId));
  }

  #find(nameOrId: string): NetworkRecord {
    const all = this.#visible();
    const exact = all.find(({ id }) => id === nameOrId) ?? all.find(({ name }) => name === nameOrId);
    if (exact !== undefined) return exact;
    const matches = nameOrId === '' ? [] : all.filter(({ id }) => id.startsWith(nameOrId));
    if (matches.length > 1) {
      throw new GantryError(
        'invalid',
        `network ${nameOrId} is ambiguous (${matches.length} matches found based on ID prefix)`,
      );
    }
    const [found] = matches;
    if (found === undefined) throw new GantryError('notFound', `network ${nameOrId} not found`);
    return found;
  }

  describe(id: Id): NetworkDetails {
    const network = this.#find(id);
    const { pools, made: _made, isPending: _isPending, ipam, ...shown } = network;
    const driver = this.#drivers.get(network.driver);
    // Compat: what was given is shown as it was given, then what was allocated.
    const given = ipam.pools.filter(({ subnet }) => network.configOnly || pools.some((pool) => pool.subnet === subnet));
    const allocated = pools.filter(({ isGiven }) => !isGiven).map(({ isGiven: _isGiven, ...pool }) => pool);
    const subnets = [...given, ...allocated];
    return {
      ...shown,
      ...summaryOf(network),
      ipam: { driver: ipam.driver, options: ipam.options },
      subnets: driver?.hasAddresses === true || network.configOnly ? subnets : undefined,
      givenSubnets: pools.filter(({ isGiven }) => isGiven).map(({ subnet }) => subnet),
      ...driver?.describe?.(network),
      endpoints: this.#store.endpointsIn(network.id),
    };
  }

  async create(spec: NetworkSpec): Promise<NetworkSummary> {
    checkSpec(spec);
    this.#checkAddressDriver(spec.ipam.driver);
    const all = this.#store.networks();
    if (all.some(({ name }) => name === spec.name))
      throw new GantryError('conflict', `network with name ${spec.name} already exists`);
    const id = newId();
    const base = { id, createdAt: now(), pools: [], made: {}, isPending: true };
    if (spec.configOnly) {
      const { scope: _scope, ...kept } = spec;
      const record: NetworkRecord = { ...kept, ...base, driver: 'null', isPending: false };
      this.#store.saveNetwork(record);
      return summaryOf(record);
    }
    const driver = this.#drivers.get(spec.driver) ?? this.#remote(spec.driver);
    const { scope, ...kept } = spec.configFrom === '' ? spec : applyConfiguration(spec, all);
    if (scope === 'swarm')
      throw new GantryError('forbidden', 'cannot create a swarm scoped network when swarm is not active');
    if (spec.ingress) throw new GantryError('forbidden', 'Ingress network can only be global scope network');
    const plan = driver.plan({ ...kept, scope }, id);
    const pools = allocatePools({ ...kept, scope }, plan, {
      pools: this.#pools,
      // macvlan and ipvlan share what is outside: only what this host routes itself must be unique.
      taken: all.flatMap((network) => this.#poolsOf(network)).map(({ subnet }) => parseCidr(subnet).subnet),
      hostRoutes: hostRoutes(),
    });
    const record: NetworkRecord = { ...kept, ...base, pools, made: plan.made };
    this.#store.saveNetwork(record);
    try {
      await driver.create(record);
      this.#store.saveNetwork({ ...record, isPending: false });
    } catch (error) {
      this.#store.deleteNetwork(id);
      throw error;
    }
    return summaryOf(record);
  }

  #checkAddressDriver(name: string): void {
    if (name === 'default' || name === 'null') return;
    if (findPluginSocket(name, this.#options.plugins ?? PLUGIN_DIRECTORIES) === undefined)
      throw new GantryError('notFound', `plugin ${JSON.stringify(name)} not found`);
    throw new GantryError('notImplemented', `IPAM plugins (${name}) are not implemented by this version of Gantry`);
  }

  async remove(id: Id): Promise<void> {
    const network = this.#find(id);
    if (isPredefined(network.name))
      throw new GantryError('forbidden', `${network.name} is a pre-defined network and cannot be removed`);
    const endpoints = this.#store.endpointsIn(network.id);
    if (endpoints.length > 0) {
      const listed = endpoints.map(
        ({ containerName, endpoint }) =>
          `name:${JSON.stringify(containerName)} id:"${endpoint.endpointId.slice(0, 12)}"`,
      );
      throw new GantryError(
        'forbidden',
        `error while removing network: network ${network.name} has active endpoints (${listed.join(', ')})`,
      );
    }
    if (network.configOnly && this.#store.networks().some(({ configFrom }) => configFrom === network.name)) {
      throw new GantryError(
        'forbidden',
        `error while removing network: configuration network ${JSON.stringify(network.name)} is in use`,
      );
    }
    // From here on it is as good as gone: nobody joins it, and a daemon that dies now leaves the rest to the next.
    this.#store.saveNetwork({ ...network, isPending: true });
    try {
      if (!network.configOnly) await this.#drivers.get(network.driver)?.remove(network);
    } catch (error) {
      this.#store.saveNetwork(network);
      throw error;
    }
    this.#store.deleteNetwork(network.id);
    this.#addressing.forget(network.id);
    this.#named.delete(network.id);
  }

  async createSandbox(containerId: Id): Promise<Sandbox> {
    return this.#sandboxes.create(containerId);
  }

  async removeSandbox(containerId: Id): Promise<void> {
    for (const record of this.#store.endpointsOf(containerId)) await this.#leave(record, undefined);
    this.#sandboxes.remove(containerId);
  }

  async connect(sandbox: Sandbox, request: EndpointRequest, signal?: AbortSignal): Promise<Endpoint> {
    const network = this.#find(request.network);
    if (network.configOnly) throw new GantryError('forbidden', 'cannot create endpoint on configuration-only network');
    this.#checkFree(network, request);
    const driver = this.#driverOf(network);
    await using undo = new AsyncDisposableStack();
    const addresses = this.#addressing.take(network, request, driver.hasAddresses);
    const present = this.#store.endpointsOf(request.containerId);
    const endpointId = newId();
    let saved: EndpointRecord | undefined;
    undo.defer(() => {
      if (saved !== undefined) this.#forget(saved);
      this.#addressing.release(network.id, addresses);
    });
    const sandboxes = this.#sandboxes;
    const record = await driver.join(
      {
        network,
        // Drivers without interfaces need none, and a container in the host's namespace has none.
        get sandbox() {
          return sandboxes.open(sandbox);
        },
        request,
        addresses,
        interfaceName: (prefix) => interfaceName(present, request, prefix),
        endpointId,
        save: (next) => {
          saved = next;
          this.#store.save(next);
        },
        others: this.#store.endpointsIn(network.id),
      },
      signal,
    );
    this.#named.delete(network.id);
    if (!driver.hasAddresses) {
      undo.move();
      return record.endpoint;
    }
    undo.defer(() => driver.leave(this.#mover.current(record), this.#sandboxes.open(sandbox)));
    const before = chooseGateways(this.#candidates(present));
    await this.#mover.settle(sandbox, before, this.#gateways(request.containerId));
    undo.move();
    return this.#mover.current(record).endpoint;
  }

  #checkFree(network: NetworkRecord, request: EndpointRequest): void {
    const { containerId, containerName } = request;
    const isTaken = this.#store
      .endpointsIn(network.id)
      .some((other) => other.containerId === containerId || other.containerName === containerName);
    if (!isTaken) return;
    throw new GantryError('forbidden', `endpoint with name ${containerName} already exists in network ${network.name}`);
  }

  async disconnect(containerId: Id, networkId: Id): Promise<void> {
    const record = this.#store.endpointsOf(containerId).find(({ endpoint }) => endpoint.networkId === networkId);
    if (record === undefined) {
      const name = this.#store.network(networkId)?.name ?? networkId;
      throw new GantryError('system', `container ${containerId} is not connected to network ${name}`);
    }
    const before = this.#gateways(containerId);
    const sandbox = this.#sandboxes.of(containerId);
    if (record.endpoint.interfaceName === '') return this.#leave(record, undefined);
    await this.#leave(record, this.#sandboxes.open(sandbox));
    await this.#mover.settle(sandbox, before, this.#gateways(containerId));
  }

  async #leave(record: EndpointRecord, sandbox: OpenSandbox | undefined): Promise<void> {
    const network = this.#store.network(record.endpoint.networkId);
    if (network !== undefined) await this.#drivers.get(network.driver)?.leave(record, sandbox);
    this.#forget(record);
    this.#addressing.releaseRecord(record);
  }

  #forget(record: EndpointRecord): void {
    this.#store.delete(record);
    this.#named.delete(record.endpoint.networkId);
  }

  endpoints(containerId: Id): Endpoint[] {
    return this.#store.endpointsOf(containerId).map(({ endpoint }) => endpoint);
  }

  #candidates(records: readonly EndpointRecord[]): { record: EndpointRecord; internal: boolean }[] {
    return records.map((record) => ({
      record,
      internal: this.#store.network(record.endpoint.networkId)?.internal ?? false,
    }));
  }

  #gateways(containerId: Id): Gateways {
    return chooseGateways(this.#candidates(this.#store.endpointsOf(containerId)));
  }

  rename(containerId: Id, containerName: string, names: (networkId: Id) => readonly string[]): void {
    for (const record of this.#store.endpointsOf(containerId)) {
      const { networkId } = record.endpoint;
      this.#store.save({ ...record, containerName, names: names(networkId) });
      this.#named.delete(networkId);
    }
  }

  statistics(sandbox: Sandbox): Record<string, InterfaceStatistics> {
    const counters: Record<string, InterfaceStatistics> = {};
    for (const link of this.#sandboxes.open(sandbox).netlink.links()) {
      if (link.index !== LOOPBACK_INDEX && link.statistics !== undefined) counters[link.name] = link.statistics;
    }
    return counters;
  }

  resolverNetworks(containerId: Id): ResolverNetworks {
    const candidates = sortCandidates(this.#candidates(this.#store.endpointsOf(containerId)));
    const userDefined = candidates.filter(({ record }) => !isPredefined(record.endpoint.networkName));
    return {
      networks: userDefined.map(({ record }) => ({
        name: record.endpoint.networkName,
        endpoints: this.#namedIn(record.endpoint.networkId),
        links: new Map(Object.entries(record.aliasedLinks ?? {})),
      })),
      external: candidates.some(({ record, internal }) => !internal && (leadsOut(record, 4) || leadsOut(record, 6))),
    };
  }

  #namedIn(networkId: Id): ResolverNetworks['networks'][number]['endpoints'] {
    const known = this.#named.get(networkId);
    if (known !== undefined) return known;
    const named = this.#store.endpointsIn(networkId).map(({ endpoint, names = [] }) => ({
      names,
      ipv4: endpoint.ipAddress,
      ipv6: endpoint.ipv6Address,
    }));
    this.#named.set(networkId, named);
    return named;
  }

  resolvConf(options: ResolvConfOptions): string {
    return containerResolvConf(hostResolvConf(), options);
  }

  resolverSettings(options: Omit<ResolvConfOptions, 'mode'>): ResolverSettings {
    return resolverSettings(hostResolvConf(), options);
  }

  hostGateway(): string[] {
    const address = this.#drivers.get('bridge')?.hostAddress();
    return address === undefined ? [] : [address];
  }

  async recover(running: ReadonlySet<Id>): Promise<void> {
    const kept: EndpointRecord[] = [];
    for (const record of this.#store.endpoints()) {
      if (running.has(record.containerId) && this.#store.network(record.endpoint.networkId) !== undefined)
        kept.push(record);
      else this.#store.delete(record);
    }
    this.#sandboxes.keepOnly(running);
    for (const { driver, configOnly, name } of this.#store.networks()) {
      if (configOnly || this.#drivers.has(driver)) continue;
      try {
        this.#remote(driver);
      } catch {
        this.#options.warn(`network ${name}: its driver ${driver} is not there`);
      }
    }
    for (const network of this.#store.networks()) {
      if (!network.isPending) continue;
      // Its creation was never acknowledged. What exists of it is told by its options.
      await this.#drivers.get(network.driver)?.remove(network);
      this.#store.deleteNetwork(network.id);
    }
    this.#addressing.load(kept);
    for (const driver of this.#drivers.values()) {
      const networks = this.#store
        .networks()
        .filter((network) => network.driver === driver.name && !network.configOnly);
      const ids = new Set(networks.map(({ id }) => id));
      await driver.recover(
        networks,
        kept.filter(({ endpoint }) => ids.has(endpoint.networkId)),
      );
    }
  }

  #driverOf(network: NetworkRecord): NetworkDriver {
    const driver = this.#drivers.get(network.driver);
    if (driver === undefined) throw new GantryError('notFound', `network ${network.name} not found`);
    return driver;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.#sandboxes[Symbol.dispose]();
    for (const driver of this.#drivers.values()) await driver[Symbol.asyncDispose]();
  }
}

function summaryOf({ id, name, driver }: NetworkRecord): NetworkSummary {
  return { id, name, driver, scope: 'local' };
}

const INTERFACE_OPTION = 'com.docker.network.endpoint.ifname';

/** The name asked for, or the first `ethN` the container does not have yet. */
function interfaceName(present: readonly EndpointRecord[], request: EndpointRequest, prefix: string): string {
  const names = new Set(present.map(({ endpoint }) => endpoint.interfaceName));
  const wanted = request.driverOptions?.[INTERFACE_OPTION];
  if (wanted !== undefined && wanted !== '') {
    if (!/^[^\s/:]{1,15}$/.test(wanted) || wanted === 'lo' || wanted === '.' || wanted === '..')
      throw new GantryError('invalid', `invalid interface name ${JSON.stringify(wanted)}`);
    if (names.has(wanted)) throw new GantryError('conflict', `interface name ${wanted} is in use`);
    return wanted;
  }
  for (let number = 0; ; number += 1) if (!names.has(`${prefix}${number}`)) return `${prefix}${number}`;
}

function hostRoutes(): ReturnType<typeof hostPrefixes> {
  using netlink = NetlinkSocket.open();
  return [...hostPrefixes(netlink, 4), ...hostPrefixes(netlink, 6)];
}
