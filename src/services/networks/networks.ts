/**
 * The networks service: networks, sandboxes and endpoints of one daemon.
 *
 * A sandbox is the file `<netns>/<12 hex>`, named after its container, so none can be lost track of: `recover`
 * removes every file in the directory that no running container owns. Endpoint records are durable before
 * anything exists in the kernel. Call `recover` once before the first `connect`: it installs the rules.
 */
import { createHash } from 'node:crypto';
import { mkdirSync, readdirSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import type { Database } from '#system/database/database.ts';
import { createNetworkNamespace, removeNetworkNamespace } from '#system/kernel/namespaces.ts';
import { setLink } from '#system/netlink/route.ts';
import { NetlinkSocket } from '#system/netlink/socket.ts';
import { openNftables, type RuleSet } from '#system/nftables/nftables.ts';
import { GantryError } from '#types/errors.ts';
import { type Id, newId } from '#types/ids.ts';
import { BridgeDriver } from './bridge.ts';
import type { BridgeOptions } from './bridge-device.ts';
import type {
  Endpoint,
  EndpointRequest,
  InterfaceStatistics,
  NetworkDetails,
  NetworkSummary,
  Networks,
  ResolvConfOptions,
  Sandbox,
} from './contract.ts';
import type { EndpointRecord, NetworkDriver } from './driver.ts';
import { containerResolvConf, parseResolvConf, RESOLVED_STUB } from './resolv-conf.ts';
import { StaticDriver } from './static-driver.ts';
import { NetworkStore } from './store.ts';

export interface NetworksOptions {
  readonly database: Database;
  /** Short hash of this daemon's roots; names its firewall table. */
  readonly instance: string;
  /** Directory of namespace files, `<exec-root>/netns`. */
  readonly namespaceDirectory: string;
  readonly bridge: BridgeOptions;
  readonly warn: (message: string) => void;
}

const LOOPBACK_INDEX = 1;
const SANDBOX_NAME = /^[0-9a-f]{12}$/;
const RESOLV_CONF = '/etc/resolv.conf';
const RESOLVED_RESOLV_CONF = '/run/systemd/resolve/resolv.conf';

/** Opens the service: makes the bridge; rules come with `recover`. */
export function openNetworks(options: NetworksOptions): Networks {
  mkdirSync(options.namespaceDirectory, { recursive: true, mode: 0o755 });
  const store = new NetworkStore(options.database);
  const drivers = new Map<string, NetworkDriver>();
  for (const driver of [new StaticDriver('host'), new StaticDriver('null')]) drivers.set(driver.name, driver);
  if (options.bridge.name !== 'none') {
    const rules: RuleSet | undefined = options.bridge.firewall === false ? undefined : openNftables();
    const { bridge, instance, warn } = options;
    drivers.set('bridge', new BridgeDriver({ bridge, instance, warn, store, rules }));
  }
  return new LocalNetworks(options, store, drivers);
}

class LocalNetworks implements Networks {
  readonly #options: NetworksOptions;
  readonly #store: NetworkStore;
  readonly #drivers: ReadonlyMap<string, NetworkDriver>;
  /** A socket inside each sandbox in use, by path. */
  readonly #sockets = new Map<string, NetlinkSocket>();

  constructor(options: NetworksOptions, store: NetworkStore, drivers: ReadonlyMap<string, NetworkDriver>) {
    this.#options = options;
    this.#store = store;
    this.#drivers = drivers;
  }

  list(): NetworkSummary[] {
    return this.#store.networks().filter((network) => this.#drivers.has(network.driver));
  }

  find(nameOrId: string): NetworkSummary {
    const all = this.list();
    const exact = all.find(({ id, name }) => name === nameOrId || id === nameOrId);
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
    const network = this.find(id);
    const shown = this.#driver(network).describe?.() ?? { subnets: undefined, options: {} };
    return {
      ...network,
      ...shown,
      createdAt: this.#store.createdAt(network.id),
      endpoints: this.#store.endpoints().filter(({ endpoint }) => endpoint.networkId === network.id),
    };
  }

  async createSandbox(containerId: Id): Promise<Sandbox> {
    const sandbox = this.#sandboxOf(containerId);
    // A file left by a start that failed half-way.
    this.#closeSocket(sandbox.path);
    removeNetworkNamespace(sandbox.path);
    createNetworkNamespace(sandbox.path);
    try {
      this.#socket(sandbox.path).request(setLink(LOOPBACK_INDEX, { up: true }));
    } catch (error) {
      this.#closeSocket(sandbox.path);
      removeNetworkNamespace(sandbox.path);
      throw error;
    }
    return sandbox;
  }

  async removeSandbox(containerId: Id): Promise<void> {
    const { path } = this.#sandboxOf(containerId);
    for (const record of this.#store.endpointsOf(containerId)) await this.#leave(record, true);
    this.#closeSocket(path);
    removeNetworkNamespace(path);
  }

  async connect(sandbox: Sandbox, request: EndpointRequest, signal?: AbortSignal): Promise<Endpoint> {
    const network = this.find(request.network);
    const present = this.#store.endpointsOf(request.containerId);
    if (present.some(({ endpoint }) => endpoint.networkId === network.id)) {
      throw new GantryError(
        'forbidden',
        `endpoint with name ${request.containerName} already exists in network ${network.name}`,
      );
    }
    const endpointId = newId();
    try {
      const record = await this.#driver(network).join(
        {
          network,
          sandbox: { ...sandbox, netlink: this.#socket(sandbox.path) },
          request,
          interfaceName: nextInterface(present),
          endpointId,
          save: (saved) => this.#store.save(saved),
          others: this.#store.endpoints().filter(({ endpoint }) => endpoint.networkId === network.id),
        },
        signal,
      );
      return record.endpoint;
    } catch (error) {
      this.#store.delete(endpointId);
      throw error;
    }
  }

  async disconnect(containerId: Id, networkId: Id): Promise<void> {
    const record = this.#store.endpointsOf(containerId).find(({ endpoint }) => endpoint.networkId === networkId);
    if (record === undefined) {
      const name = this.#store.networks().find(({ id }) => id === networkId)?.name ?? networkId;
      throw new GantryError('system', `container ${containerId} is not connected to the network ${name}`);
    }
    await this.#leave(record, false);
  }

  async #leave(record: EndpointRecord, sandboxGoes: boolean): Promise<void> {
    const { networkId, endpointId } = record.endpoint;
    const network = this.#store.networks().find(({ id }) => id === networkId);
    if (network !== undefined) await this.#drivers.get(network.driver)?.leave(record, { sandboxGoes });
    this.#store.delete(endpointId);
  }

  statistics(sandbox: Sandbox): Record<string, InterfaceStatistics> {
    const counters: Record<string, InterfaceStatistics> = {};
    for (const link of this.#socket(sandbox.path).links()) {
      if (link.index !== LOOPBACK_INDEX && link.statistics !== undefined) counters[link.name] = link.statistics;
    }
    return counters;
  }

  resolvConf(options: ResolvConfOptions): string {
    return containerResolvConf(hostResolvConf(), options);
  }

  hostGateway(): string[] {
    const address = this.#drivers.get('bridge')?.hostAddress();
    return address === undefined ? [] : [address];
  }

  async recover(running: ReadonlySet<Id>): Promise<void> {
    const { namespaceDirectory } = this.#options;
    const kept: EndpointRecord[] = [];
    for (const record of this.#store.endpoints()) {
      if (running.has(record.containerId)) kept.push(record);
      else this.#store.delete(record.endpoint.endpointId);
    }
    const alive = new Set([...running].map((containerId) => this.#sandboxOf(containerId).path));
    for (const name of readdirSync(namespaceDirectory)) {
      const path = join(namespaceDirectory, name);
      if (SANDBOX_NAME.test(name) && !alive.has(path)) removeNetworkNamespace(path);
    }
    for (const driver of this.#drivers.values()) {
      const ids = new Set(
        this.list()
          .filter((network) => network.driver === driver.name)
          .map(({ id }) => id),
      );
      await driver.recover(kept.filter(({ endpoint }) => ids.has(endpoint.networkId)));
    }
  }

  #driver(network: NetworkSummary): NetworkDriver {
    const driver = this.#drivers.get(network.driver);
    if (driver === undefined) throw new GantryError('notFound', `network ${network.name} not found`);
    return driver;
  }

  #sandboxOf(containerId: Id): Sandbox {
    const id = createHash('sha256').update(`sandbox ${containerId}`).digest('hex') as Id;
    return { id, path: join(this.#options.namespaceDirectory, id.slice(0, 12)) };
  }

  #socket(path: string): NetlinkSocket {
    let socket = this.#sockets.get(path);
    if (socket === undefined) {
      socket = NetlinkSocket.open(path);
      this.#sockets.set(path, socket);
    }
    return socket;
  }

  /** An open socket would keep the namespace alive. */
  #closeSocket(path: string): void {
    this.#sockets.get(path)?.[Symbol.dispose]();
    this.#sockets.delete(path);
  }

  async [Symbol.asyncDispose](): Promise<void> {
    for (const path of [...this.#sockets.keys()]) this.#closeSocket(path);
    for (const driver of this.#drivers.values()) await driver[Symbol.asyncDispose]();
  }
}

/** The first `ethN` the container does not have yet. */
function nextInterface(present: readonly EndpointRecord[]): string {
  const names = new Set(present.map(({ endpoint }) => endpoint.interfaceName));
  for (let number = 0; ; number += 1) if (!names.has(`eth${number}`)) return `eth${number}`;
}

/** The host's resolver file; systemd-resolved's list of real servers where its stub is configured. */
function hostResolvConf(): string {
  const content = readOptional(RESOLV_CONF);
  const { servers } = parseResolvConf(content);
  return servers.length === 1 && servers[0] === RESOLVED_STUB ? readOptional(RESOLVED_RESOLV_CONF) || content : content;
}

function readOptional(path: string): string {
  try {
    return readFileSync(path, 'utf8');
  } catch {
    return '';
  }
}
