/**
 * A network driver in another process, spoken to by Docker's network-plugin protocol (`/NetworkDriver.*`). The
 * plugin makes an interface on the host; it is moved into the sandbox, named and given its addresses here. What
 * a plugin answers is checked before it is used. Its networks outlive this daemon in the plugin.
 */
import { closeSync, openSync } from 'node:fs';
import { hasCode } from '#system/kernel/errno.ts';
import { addRoute, deleteLink, moveLink, setLink } from '#system/netlink/route.ts';
import { NetlinkSocket } from '#system/netlink/socket.ts';
import type { Plugin } from '#system/plugins/plugin.ts';
import { errorMessage, GantryError } from '#types/errors.ts';
import { formatPrefix, parseCidr, tryParseCidr, tryParseIp } from './address.ts';
import { isInterfaceName } from './bridge-settings.ts';
import type { Endpoint } from './contract.ts';
import {
  type EndpointRecord,
  endpointRecord,
  type JoinContext,
  type NetworkDriver,
  type NetworkPlan,
  type NetworkRecord,
  type OpenSandbox,
} from './driver.ts';
import { configureInterface } from './interface.ts';

const GENERIC = 'com.docker.network.generic';
const MAC_ADDRESS = /^[0-9a-f]{2}(?::[0-9a-f]{2}){5}$/i;
/** Routes a plugin may give an endpoint. */
const ROUTES_MAX = 256;

type Answer = Readonly<Record<string, unknown>>;

export interface RemoteDriverOptions {
  readonly plugin: Plugin;
  readonly warn: (message: string) => void;
}

/** The driver of one plugin. */
export class RemoteDriver implements NetworkDriver {
  readonly name: string;
  readonly hasAddresses = true;
  readonly #plugin: Plugin;
  readonly #warn: (message: string) => void;

  constructor({ plugin, warn }: RemoteDriverOptions) {
    this.name = plugin.name;
    this.#plugin = plugin;
    this.#warn = warn;
  }

  plan(): NetworkPlan {
    return { gateway: { ipv4: true, ipv6: true }, made: {} };
  }

  #call(method: string, body: object): Promise<Answer> {
    return this.#plugin.call(`NetworkDriver.${method}`, body);
  }

  async create(network: NetworkRecord): Promise<void> {
    const kinds = await this.#plugin.implements();
    if (!kinds.includes('NetworkDriver'))
      throw new GantryError('notFound', `plugin ${JSON.stringify(this.name)} does not implement "NetworkDriver"`);
    await this.#call('GetCapabilities', {});
    const data = network.pools.map((pool) => {
      const { subnet } = parseCidr(pool.subnet);
      return {
        family: subnet.family,
        AddressSpace: 'LocalDefault',
        Pool: formatPrefix(subnet),
        Gateway: pool.gateway === undefined ? '' : `${pool.gateway}/${subnet.length}`,
        AuxAddresses: Object.fromEntries(
          Object.entries(pool.auxiliaryAddresses ?? {}).map(([name, address]) => [name, `${address}/${subnet.length}`]),
        ),
      };
    });
    const ofFamily = (wanted: number): object[] =>
      data.filter(({ family }) => family === wanted).map(({ family: _family, ...rest }) => rest);
    await this.#call('CreateNetwork', {
      NetworkID: network.id,
      Options: {
        [GENERIC]: network.options,
        'com.docker.network.enable_ipv4': network.ipv4,
        'com.docker.network.enable_ipv6': network.ipv6,
        ...(network.internal ? { 'com.docker.network.internal': true } : {}),
      },
      IPv4Data: ofFamily(4),
      IPv6Data: ofFamily(6),
    });
  }

  async remove(network: NetworkRecord): Promise<void> {
    await this.#call('DeleteNetwork', { NetworkID: network.id });
  }

  async join(context: JoinContext, signal?: AbortSignal): Promise<EndpointRecord> {
    signal?.throwIfAborted();
    await using undo = new AsyncDisposableStack();
    const { request, network, addresses, endpointId, sandbox } = context;
    const { ipv4, ipv6 } = addresses;
    const ids = { NetworkID: network.id, EndpointID: endpointId };
    const planned: Endpoint = {
      endpointId,
      networkId: network.id,
      networkName: network.name,
      interfaceName: context.interfaceName('eth'),
      ipAddress: ipv4?.address ?? '',
      prefixLength: ipv4?.subnet.length ?? 0,
      gateway: '',
      macAddress: request.macAddress ?? '',
      ipv6Address: ipv6?.address ?? '',
      ipv6PrefixLength: ipv6?.subnet.length ?? 0,
      ipv6Gateway: '',
      ports: [],
    };
    const recordOf = (endpoint: Endpoint): EndpointRecord => endpointRecord(request, endpoint);
    context.save(recordOf(planned));
    const created = await this.#call('CreateEndpoint', {
      ...ids,
      Interface: {
        Address: ipv4 === undefined ? '' : `${ipv4.address}/${ipv4.subnet.length}`,
        AddressIPv6: ipv6 === undefined ? '' : `${ipv6.address}/${ipv6.subnet.length}`,
        MacAddress: planned.macAddress,
      },
      Options: { [GENERIC]: request.driverOptions ?? {}, ...request.driverOptions },
    });
    undo.defer(() => this.#quietly('DeleteEndpoint', ids));
    const answer = await this.#call('Join', { ...ids, SandboxKey: sandbox.path, Options: {} });
    undo.defer(() => this.#quietly('Leave', ids));
    const macAddress = planned.macAddress || macIn(created);
    const leads = !network.internal;
    const endpoint: Endpoint = {
      ...planned,
      macAddress,
      gateway: leads ? addressIn(answer, 'Gateway', 4) : '',
      ipv6Gateway: leads ? addressIn(answer, 'GatewayIPv6', 6) : '',
    };
    const moved = this.#moveIn(context, endpoint, answer);
    const record = recordOf({ ...endpoint, macAddress: moved.macAddress });
    context.save(record);
    undo.move();
    return record;
  }

  /** Moves the plugin's interface into the sandbox and configures it; tells its address. */
  #moveIn(context: JoinContext, endpoint: Endpoint, answer: Answer): { macAddress: string } {
    const { sandbox } = context;
    const source = (answer['InterfaceName'] as { SrcName?: unknown } | null | undefined)?.SrcName;
    if (typeof source !== 'string' || !isInterfaceName(source))
      throw new GantryError('system', `plugin ${this.name}: Join named no interface`);
    using host = NetlinkSocket.open();
    const link = host.link(source);
    if (link === undefined) throw new GantryError('system', `plugin ${this.name}: interface ${source} does not exist`);
    const namespaceFd = openSync(sandbox.path, 'r');
    try {
      host.request(moveLink(link.index, { name: endpoint.interfaceName, namespaceFd }));
    } finally {
      closeSync(namespaceFd);
    }
    const inside = sandbox.netlink.link(endpoint.interfaceName);
    if (inside === undefined) throw new GantryError('system', `interface ${endpoint.interfaceName} vanished`);
    if (endpoint.macAddress !== '' && endpoint.macAddress !== inside.address)
      sandbox.netlink.request(setLink(inside.index, { address: endpoint.macAddress }));
    configureInterface(context, endpoint);
    for (const route of routesIn(answer)) sandbox.netlink.request(addRoute({ index: inside.index, ...route }));
    return { macAddress: endpoint.macAddress || inside.address };
  }

  async #quietly(method: string, body: object): Promise<void> {
    try {
      await this.#call(method, body);
    } catch (error) {
      this.#warn(`plugin ${this.name}: ${method} failed: ${errorMessage(error)}`);
    }
  }

  async leave({ endpoint, publish = [] }: EndpointRecord, sandbox: OpenSandbox | undefined): Promise<void> {
    const ids = { NetworkID: endpoint.networkId, EndpointID: endpoint.endpointId };
    if (publish.length > 0) await this.#quietly('RevokeExternalConnectivity', ids);
    await this.#quietly('Leave', ids);
    if (sandbox !== undefined) {
      try {
        sandbox.netlink.request(deleteLink(endpoint.interfaceName));
      } catch (error) {
        if (!hasCode(error, 'ENODEV')) throw error;
      }
    }
    await this.#quietly('DeleteEndpoint', ids);
  }

  /** The plugin opens the ports; it tells nothing about them. */
  async publish(network: NetworkRecord, record: EndpointRecord): Promise<Endpoint['ports']> {
    const bindings = (record.publish ?? []).map((each) => ({
      Proto: { tcp: 6, udp: 17, sctp: 132 }[each.protocol],
      IP: '',
      Port: each.containerPort,
      HostIP: each.hostAddress,
      HostPort: each.hostPortFirst,
      HostPortEnd: each.hostPortLast,
    }));
    await this.#call('ProgramExternalConnectivity', {
      NetworkID: network.id,
      EndpointID: record.endpoint.endpointId,
      Options: { 'com.docker.network.portmap': bindings },
    });
    return [];
  }

  async unpublish(network: NetworkRecord, record: EndpointRecord): Promise<void> {
    await this.#quietly('RevokeExternalConnectivity', {
      NetworkID: network.id,
      EndpointID: record.endpoint.endpointId,
    });
  }

  async recover(): Promise<void> {}

  hostAddress(): undefined {
    return undefined;
  }

  async [Symbol.asyncDispose](): Promise<void> {}
}

function macIn(created: Answer): string {
  const mac = (created['Interface'] as { MacAddress?: unknown } | null | undefined)?.MacAddress;
  return typeof mac === 'string' && MAC_ADDRESS.test(mac) ? mac.toLowerCase() : '';
}

function addressIn(answer: Answer, field: string, family: 4 | 6): string {
  const text = answer[field];
  if (typeof text !== 'string' || text === '') return '';
  if (tryParseIp(text)?.family !== family) throw new GantryError('system', `invalid ${field} of a plugin: ${text}`);
  return text;
}

interface StaticRoute {
  readonly destination: string;
  readonly prefixLength: number;
  readonly gateway?: string;
}

/** RouteType 0 has a next hop, 1 is directly connected. */
function routesIn(answer: Answer): StaticRoute[] {
  const routes = answer['StaticRoutes'];
  if (!Array.isArray(routes)) return [];
  if (routes.length > ROUTES_MAX) throw new GantryError('system', `a plugin gave more than ${ROUTES_MAX} routes`);
  return routes.map((route: { Destination?: unknown; RouteType?: unknown; NextHop?: unknown } | null) => {
    const parsed = tryParseCidr(String(route?.Destination ?? ''));
    const hop = String(route?.NextHop ?? '');
    if (parsed === undefined || (route?.RouteType === 0 && tryParseIp(hop) === undefined))
      throw new GantryError('system', 'invalid static route of a plugin');
    const [destination = '', length = ''] = formatPrefix(parsed.subnet).split('/');
    return { destination, prefixLength: Number(length), ...(route?.RouteType === 0 ? { gateway: hop } : {}) };
  });
}
