/**
 * The `macvlan` and `ipvlan` drivers: containers with devices of their own on top of one of the host's. Nothing is
 * translated and nothing published. A parent named `eth0.100` that does not exist is made as a VLAN, and removed
 * with its last network; without a parent the network is internal, on a device nothing else is connected to.
 */
import { closeSync, openSync } from 'node:fs';
import { errnoText, hasCode, KernelError } from '#system/kernel/errno.ts';
import { deleteLink, setLink } from '#system/netlink/route.ts';
import { NetlinkSocket } from '#system/netlink/socket.ts';
import {
  addIpvlan,
  addMacvlan,
  addSimpleLink,
  addVlan,
  IPVLAN_FLAGS,
  IPVLAN_MODES,
  MACVLAN_MODES,
} from '#system/netlink/stacked-links.ts';
import { errorMessage, GantryError } from '#types/errors.ts';
import type { Id } from '#types/ids.ts';
import { macOf, parseCidr, parseIp } from './address.ts';
import { isInterfaceName } from './bridge-settings.ts';
import type { Endpoint, NetworkSpec } from './contract.ts';
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

export interface MacvlanOptions {
  readonly kind: 'macvlan' | 'ipvlan';
  readonly warn: (message: string) => void;
}

/** A network's settings. */
interface Settings {
  readonly parent: string;
  readonly mode: string;
  readonly flag: string;
  /** No parent was named: nothing leads outside. */
  readonly isIsolated: boolean;
}

const VLAN_ID_MAX = 4094;
/** Docker's prefixes of stand-in parents, followed by the first twelve digits of the network. */
const STAND_IN_PREFIX = { macvlan: 'dm-', ipvlan: 'di-' };
const DEFAULT_MODE = { macvlan: 'bridge', ipvlan: 'l2' };

/** The driver of one of the two kinds. */
export class Macvlan implements NetworkDriver {
  readonly name: 'macvlan' | 'ipvlan';
  readonly hasAddresses = true;
  readonly #warn: (message: string) => void;
  readonly #netlink: NetlinkSocket = NetlinkSocket.open();
  readonly #networks = new Map<Id, { readonly settings: Settings; readonly own: boolean }>();

  constructor(options: MacvlanOptions) {
    this.name = options.kind;
    this.#warn = options.warn;
  }

  plan(spec: NetworkSpec, id: Id): NetworkPlan {
    const settings = this.#parse(spec.options, id);
    const gateway = !spec.internal;
    for (const [other, { settings: theirs }] of this.#networks) {
      if (theirs.parent !== settings.parent) continue;
      if (settings.mode === 'passthru') {
        throw new GantryError(
          'system',
          `cannot use mode passthru, macvlan network ${other} is already using parent interface ${settings.parent}`,
        );
      }
      if (theirs.mode === 'passthru') {
        throw new GantryError(
          'system',
          `macvlan network ${other} is already using parent interface ${settings.parent} in mode passthru`,
        );
      }
    }
    const shared = [...this.#networks.values()].some((each) => each.own && each.settings.parent === settings.parent);
    const own = shared || this.#netlink.link(settings.parent) === undefined;
    return { gateway: { ipv4: gateway, ipv6: gateway }, made: { parent: settings.parent, own: String(own) } };
  }

  #parse(options: Readonly<Record<string, string>>, id: Id): Settings {
    const { name } = this;
    const parent = options['parent'] ?? '';
    const mode = options[`${name}_mode`] || DEFAULT_MODE[name];
    const flag = (name === 'ipvlan' ? options['ipvlan_flag'] : '') || 'bridge';
    const modes = name === 'macvlan' ? MACVLAN_MODES : IPVLAN_MODES;
    if (!(mode in modes)) {
      throw new GantryError(
        'system',
        `requested ${name} mode '${mode}' is not valid, '${DEFAULT_MODE[name]}' mode is the ${name} driver default`,
      );
    }
    if (!(flag in IPVLAN_FLAGS))
      throw new GantryError(
        'system',
        `requested ipvlan flag '${flag}' is not valid, 'bridge' is the ipvlan driver default`,
      );
    if (parent === 'lo') throw new GantryError('system', `loopback interface is not a valid ${name} parent link`);
    if (parent !== '' && !isInterfaceName(parent))
      throw new GantryError('invalid', `invalid interface name: ${JSON.stringify(parent)}`);
    const isIsolated = parent === '';
    return { parent: isIsolated ? `${STAND_IN_PREFIX[name]}${id.slice(0, 12)}` : parent, mode, flag, isIsolated };
  }

  create(network: NetworkRecord): void {
    const settings = this.#parse(network.options, network.id);
    if (this.#netlink.link(settings.parent) === undefined) this.#makeParent(settings);
    this.#networks.set(network.id, { settings, own: network.made['own'] === 'true' });
  }

  #makeParent({ parent, isIsolated }: Settings): void {
    if (!isIsolated) {
      this.#makeVlan(parent);
      return;
    }
    try {
      this.#netlink.request(addSimpleLink(parent, 'dummy'));
    } catch (error) {
      // A kernel without dummy devices: a bridge that nothing is plugged into does as well.
      if (!hasCode(error, 'ENOTSUP')) throw error;
      this.#netlink.request(addSimpleLink(parent, 'bridge'));
    }
  }

  #makeVlan(name: string): void {
    if (!name.includes('.'))
      throw new GantryError('system', `invalid subinterface vlan name ${name}, example formatting is eth0.10`);
    const [below = '', idText = '', extra] = name.split('.');
    if (extra !== undefined) {
      throw new GantryError(
        'system',
        `required interface name format is: name.vlan_id, ex. eth0.10 for vlan 10, instead received ${name}`,
      );
    }
    if (!/^\d{1,9}$/.test(idText))
      throw new GantryError('system', `unable to parse a valid vlan id from: ${idText} (ex. eth0.10 for vlan 10)`);
    const link = this.#netlink.link(below);
    if (link === undefined) throw new GantryError('system', `-o parent interface was not found on the host: ${below}`);
    const vlanId = Number(idText);
    if (vlanId < 1 || vlanId > VLAN_ID_MAX)
      throw new GantryError('system', `vlan id must be between 1-4094, received: ${vlanId}`);
    try {
      this.#netlink.request(addVlan(name, link.index, vlanId));
    } catch (error) {
      throw new GantryError('system', `failed to create ${name} vlan link: ${kernelText(error)}`, { cause: error });
    }
  }

  remove(network: NetworkRecord): void {
    this.#networks.delete(network.id);
    const { parent = '', own } = network.made;
    const isShared = [...this.#networks.values()].some(({ settings }) => settings.parent === parent);
    if (own === 'true' && parent !== '' && !isShared) this.#delete(this.#netlink, parent);
  }

  #delete(netlink: NetlinkSocket, name: string): void {
    try {
      netlink.request(deleteLink(name));
    } catch (error) {
      if (!hasCode(error, 'ENODEV')) throw error;
    }
  }

  async join(context: JoinContext, signal?: AbortSignal): Promise<EndpointRecord> {
    signal?.throwIfAborted();
    const { request, network, addresses, sandbox } = context;
    const known = this.#networks.get(network.id);
    if (known === undefined) throw new GantryError('notFound', `network ${network.id} not found`);
    const { settings } = known;
    const parent = this.#netlink.link(settings.parent);
    if (parent === undefined)
      throw new GantryError('system', `failed to find parent interface ${settings.parent} on the host`);
    const { ipv4, ipv6 } = addresses;
    const leadsOut = !network.internal && !settings.isIsolated;
    // The layer 3 modes of ipvlan route by device: they know no neighbours.
    const byDevice = this.name === 'ipvlan' && settings.mode !== 'l2';
    const gatewayOf = (subnet: NonNullable<typeof ipv4>['subnet'] | undefined): string =>
      subnet === undefined || !leadsOut || byDevice ? '' : gatewayIn(network, subnet);
    const wantedMac = request.macAddress ?? (ipv4 === undefined ? undefined : macOf(parseIp(ipv4.address)));
    const endpoint: Endpoint = {
      endpointId: context.endpointId,
      networkId: network.id,
      networkName: network.name,
      interfaceName: context.interfaceName('eth'),
      ipAddress: ipv4?.address ?? '',
      prefixLength: ipv4?.subnet.length ?? 0,
      gateway: gatewayOf(ipv4?.subnet),
      // ipvlan devices, and one in passthru mode, have their parent's.
      macAddress: this.name === 'ipvlan' || settings.mode === 'passthru' ? parent.address : (wantedMac ?? ''),
      ipv6Address: ipv6?.address ?? '',
      ipv6PrefixLength: ipv6?.subnet.length ?? 0,
      ipv6Gateway: gatewayOf(ipv6?.subnet),
      ports: [],
    };
    const record: EndpointRecord = {
      ...endpointRecord(request, endpoint),
      ...(leadsOut && byDevice ? { routesByDevice: true } : {}),
    };
    context.save(record);
    this.#add(context, settings, { endpoint, parent: parent.index });
    try {
      if (!parent.up) this.#netlink.request(setLink(parent.index, { up: true }));
      configureInterface(context, endpoint);
    } catch (error) {
      this.#delete(sandbox.netlink, endpoint.interfaceName);
      throw error;
    }
    return record;
  }

  #add(context: JoinContext, settings: Settings, made: { endpoint: Endpoint; parent: number }): void {
    const { endpoint, parent } = made;
    const namespaceFd = openSync(context.sandbox.path, 'r');
    const isMacvlan = this.name === 'macvlan';
    const hasOwnMac = isMacvlan && settings.mode !== 'passthru' && endpoint.macAddress !== '';
    const options = {
      name: endpoint.interfaceName,
      parent,
      namespaceFd,
      ...(hasOwnMac ? { address: endpoint.macAddress } : {}),
    };
    try {
      this.#netlink.request(
        isMacvlan
          ? addMacvlan({ ...options, mode: MACVLAN_MODES[settings.mode] ?? 0 })
          : addIpvlan({ ...options, mode: IPVLAN_MODES[settings.mode] ?? 0, flags: IPVLAN_FLAGS[settings.flag] ?? 0 }),
      );
    } catch (error) {
      throw new GantryError('system', `failed to create the ${this.name} port: ${kernelText(error)}`, { cause: error });
    } finally {
      closeSync(namespaceFd);
    }
  }

  async leave({ endpoint }: EndpointRecord, sandbox: OpenSandbox | undefined): Promise<void> {
    if (sandbox !== undefined) this.#delete(sandbox.netlink, endpoint.interfaceName);
  }

  /** Compat: published ports mean nothing on these networks. */
  async publish(): Promise<Endpoint['ports']> {
    return [];
  }

  async unpublish(): Promise<void> {}

  async recover(networks: readonly NetworkRecord[]): Promise<void> {
    for (const network of networks) {
      try {
        this.create(network);
      } catch (error) {
        this.#warn(`network ${network.name} cannot be restored: ${errorMessage(error)}`);
      }
    }
  }

  hostAddress(): undefined {
    return undefined;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.#netlink[Symbol.dispose]();
  }
}

/** The gateway of the pool an address was given from. */
function gatewayIn(network: NetworkRecord, subnet: { readonly family: 4 | 6; readonly base: bigint }): string {
  const pool = network.pools.find((each) => {
    const { subnet: other } = parseCidr(each.subnet);
    return other.family === subnet.family && other.base === subnet.base;
  });
  return pool?.gateway ?? '';
}

function kernelText(error: unknown): string {
  return error instanceof KernelError ? errnoText(error.errno) : errorMessage(error);
}
