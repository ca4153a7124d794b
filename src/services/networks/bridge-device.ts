/**
 * The Linux bridge behind the default network: choosing its subnet, making it, its kernel settings, removing it.
 * Choosing is pure (`planBridge`); a bridge somebody else made is used with its address and never removed.
 */
import { existsSync, writeFileSync } from 'node:fs';
import { hasCode } from '#system/kernel/errno.ts';
import { addAddress, addBridge, deleteAddress, deleteLink, setLink } from '#system/netlink/route.ts';
import type { NetlinkSocket } from '#system/netlink/socket.ts';
import { GantryError } from '#types/errors.ts';
import {
  type AddressPool,
  chooseSubnet,
  contains,
  DEFAULT_ADDRESS_POOLS,
  formatIpv4,
  macOf,
  overlaps,
  parseCidr,
  parseIpv4,
  type Subnet,
} from './address.ts';

/** dockerd's options about the default bridge. */
export interface BridgeOptions {
  /** Interface name; `none` turns the network off. */
  readonly name: string;
  /** --bip: address and prefix of the bridge. */
  readonly bip?: string;
  /** --fixed-cidr: containers get addresses from this part. */
  readonly fixedCidr?: string;
  /** --default-gateway. */
  readonly defaultGateway?: string;
  readonly mtu?: number;
  readonly icc?: boolean;
  readonly ipMasquerade?: boolean;
  readonly ipForward?: boolean;
  /** --iptables: whether firewall rules are made at all. */
  readonly firewall?: boolean;
  /** --ip. */
  readonly defaultAddress?: string;
  readonly userlandProxy?: boolean;
  readonly addressPools?: readonly AddressPool[];
}

/** What was decided about the bridge's addresses. */
export interface BridgePlan {
  readonly address: number;
  readonly subnet: Subnet;
  /** Where containers' addresses come from. */
  readonly range: Subnet;
  readonly gateway: number;
}

/** What the plan depends on besides the options. */
export interface HostAddressing {
  /** `10.0.0.1/16` the bridge has already, if any. */
  readonly existing: string | undefined;
  /** What it had when this daemon last made it. */
  readonly remembered: string | undefined;
  /** Subnets of other routes of the host. */
  readonly routes: readonly Subnet[];
}

/** Decides the bridge's address: --bip, else what it has, else what it had, else the first free pool subnet. */
export function planBridge(options: BridgeOptions, host: HostAddressing): BridgePlan {
  const free = (text: string | undefined): string | undefined =>
    text !== undefined && !host.routes.some((route) => overlaps(route, parseCidr(text).subnet)) ? text : undefined;
  const chosen = options.bip ?? host.existing ?? free(host.remembered);
  let address: number;
  let subnet: Subnet;
  if (chosen !== undefined) {
    ({ address, subnet } = parseCidr(chosen));
    if (address === subnet.base)
      throw new GantryError('invalid', `invalid bridge address ${chosen}: it is the subnet itself`);
  } else if (options.fixedCidr !== undefined) {
    ({ subnet } = parseCidr(options.fixedCidr));
    address = subnet.base + 1;
  } else {
    subnet = chooseSubnet(options.addressPools ?? DEFAULT_ADDRESS_POOLS, host.routes);
    address = subnet.base + 1;
  }
  const range = options.fixedCidr === undefined ? subnet : parseCidr(options.fixedCidr).subnet;
  if (!contains(subnet, range.base) || range.prefixLength < subnet.prefixLength) {
    throw new GantryError('invalid', `--fixed-cidr ${options.fixedCidr} is outside the bridge's subnet`);
  }
  const gateway = options.defaultGateway === undefined ? address : parseIpv4(options.defaultGateway);
  if (!contains(subnet, gateway))
    throw new GantryError('invalid', `gateway ${options.defaultGateway} is outside the bridge's subnet`);
  return { address, subnet, range, gateway };
}

/** The bridge as it is now. */
export interface BridgeDevice extends BridgePlan {
  readonly name: string;
  readonly index: number;
  readonly mtu: number;
  /** Made by this daemon, so removed by it. */
  readonly own: boolean;
}

const DEFAULT_MTU = 1500;
const MAIN_TABLE = 254;

/** Makes the bridge what the options say; `remembered` is this function's `config` of the last start. */
export function ensureBridge(
  netlink: NetlinkSocket,
  options: BridgeOptions,
  remembered: Record<string, unknown>,
): BridgeDevice {
  const { name } = options;
  const mtu = options.mtu === undefined || options.mtu === 0 ? DEFAULT_MTU : options.mtu;
  let link = netlink.link(name);
  const same = remembered['name'] === name;
  const own = link === undefined || (same && remembered['own'] === true);
  if (link !== undefined && link.kind !== 'bridge') {
    throw new GantryError('invalid', `existing interface ${name} is not a bridge`);
  }
  const index = link?.index;
  const existing = index === undefined ? undefined : netlink.addresses().find((address) => address.index === index);
  const plan = planBridge(options, {
    existing: existing === undefined ? undefined : `${existing.address}/${existing.prefixLength}`,
    remembered: same && typeof remembered['address'] === 'string' ? remembered['address'] : undefined,
    routes: hostSubnets(netlink, index),
  });
  if (link === undefined) {
    netlink.request(addBridge(name, { mtu, address: macOf(plan.address) }));
    link = netlink.link(name);
    if (link === undefined) throw new GantryError('system', `bridge ${name} vanished`);
  } else {
    netlink.request(setLink(link.index, { up: true, ...(own ? { mtu } : {}) }));
  }
  setAddress(netlink, link.index, plan, own);
  applySettings(name, options);
  return { ...plan, name, index: link.index, mtu, own };
}

function hostSubnets(netlink: NetlinkSocket, except: number | undefined): Subnet[] {
  return netlink
    .routes()
    .filter((route) => route.table === MAIN_TABLE && route.destination !== '' && route.index !== except)
    .map((route) => ({ base: parseIpv4(route.destination), prefixLength: route.prefixLength }));
}

/** Adds the wanted address, then drops others from a bridge that is ours. */
function setAddress(netlink: NetlinkSocket, index: number, plan: BridgePlan, own: boolean): void {
  const wanted = formatIpv4(plan.address);
  const present = netlink.addresses().filter((address) => address.index === index);
  if (!present.some((each) => each.address === wanted && each.prefixLength === plan.subnet.prefixLength)) {
    netlink.request(addAddress(index, wanted, plan.subnet.prefixLength));
  }
  if (!own) return;
  for (const each of present) {
    if (each.address !== wanted || each.prefixLength !== plan.subnet.prefixLength) {
      netlink.request(deleteAddress(index, each.address, each.prefixLength));
    }
  }
}

const BRIDGE_FILTERING = '/proc/sys/net/bridge/bridge-nf-call-iptables';

function applySettings(name: string, options: BridgeOptions): void {
  if (options.ipForward !== false) writeFileSync('/proc/sys/net/ipv4/ip_forward', '1');
  if (options.firewall !== false) writeFileSync(`/proc/sys/net/ipv4/conf/${name}/route_localnet`, '1');
  if (options.icc !== false || options.firewall === false) return;
  if (!existsSync(BRIDGE_FILTERING)) {
    throw new GantryError(
      'system',
      `cannot restrict inter-container communication: stat ${BRIDGE_FILTERING}: no such file or directory`,
    );
  }
  writeFileSync(BRIDGE_FILTERING, '1');
}

/** Removes a bridge this daemon made. */
export function removeBridge(netlink: NetlinkSocket, bridge: BridgeDevice): void {
  if (!bridge.own) return;
  try {
    netlink.request(deleteLink(bridge.name));
  } catch (error) {
    if (!hasCode(error, 'ENODEV')) throw error;
  }
}
