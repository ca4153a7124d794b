/**
 * Linux bridges behind networks: the default bridge's addresses, making a bridge with its kernel settings, removing it.
 * Choosing is pure (`planBridge`); a bridge somebody else made is used with its address and never removed.
 */
import { existsSync, readFileSync, writeFileSync } from 'node:fs';
import { hasCode } from '#system/kernel/errno.ts';
import { AF_INET, AF_INET6, addAddress, addBridge, deleteAddress, deleteLink, setLink } from '#system/netlink/route.ts';
import type { NetlinkSocket } from '#system/netlink/socket.ts';
import { GantryError } from '#types/errors.ts';
import {
  contains,
  formatIp,
  type IpAddress,
  macOf,
  overlaps,
  type Prefix,
  parseCidr,
  parseIp,
  prefixOf,
} from './address.ts';
import { chooseSubnet, DEFAULT_ADDRESS_POOLS, type Pools } from './ipam.ts';

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
  /** Published ports go through the held sockets, so that the host's own input rules decide about them. */
  readonly respectHostFirewall?: boolean;
  /** Where its subnet comes from when nothing names one. */
  readonly pools?: Pools;
}

/** What was decided about the bridge's addresses. */
export interface BridgePlan {
  readonly address: IpAddress;
  readonly subnet: Prefix;
  /** Where containers' addresses come from. */
  readonly range: Prefix;
  readonly gateway: IpAddress;
}

/** What the plan depends on besides the options. */
export interface HostAddressing {
  /** `10.0.0.1/16` the bridge has already, if any. */
  readonly existing: string | undefined;
  /** What it had when this daemon last made it. */
  readonly remembered: string | undefined;
  /** Subnets of other routes of the host. */
  readonly routes: readonly Prefix[];
}

/** Decides the bridge's address: --bip, else what it has, else what it had, else the first free pool subnet. */
export function planBridge(options: BridgeOptions, host: HostAddressing): BridgePlan {
  const free = (text: string | undefined): string | undefined =>
    text !== undefined && !host.routes.some((route) => overlaps(route, parseCidr(text).subnet)) ? text : undefined;
  const chosen = options.bip ?? host.existing ?? free(host.remembered);
  let address: IpAddress;
  let subnet: Prefix;
  if (chosen !== undefined) {
    ({ address, subnet } = parseCidr(chosen));
    if (address.value === subnet.base)
      throw new GantryError('invalid', `invalid bridge address ${chosen}: it is the subnet itself`);
  } else if (options.fixedCidr !== undefined) {
    ({ subnet } = parseCidr(options.fixedCidr));
    address = { family: subnet.family, value: subnet.base + 1n };
  } else {
    subnet = chooseSubnet(options.pools ?? { pools: DEFAULT_ADDRESS_POOLS, adaptive: false }, host.routes);
    address = { family: subnet.family, value: subnet.base + 1n };
  }
  const range = options.fixedCidr === undefined ? subnet : parseCidr(options.fixedCidr).subnet;
  if (!contains(subnet, { family: range.family, value: range.base }) || range.length < subnet.length) {
    throw new GantryError('invalid', `--fixed-cidr ${options.fixedCidr} is outside the bridge's subnet`);
  }
  const gateway = options.defaultGateway === undefined ? address : parseIp(options.defaultGateway);
  if (!contains(subnet, gateway))
    throw new GantryError('invalid', `gateway ${options.defaultGateway} is outside the bridge's subnet`);
  return { address, subnet, range, gateway };
}

/** A bridge as it is now. */
export interface BridgeDevice {
  readonly name: string;
  readonly index: number;
  readonly mtu: number;
  /** Made by this daemon, so removed by it. */
  readonly own: boolean;
}

/** What a bridge is to be. */
export interface BridgeWish {
  readonly name: string;
  /** 0: leave it. */
  readonly mtu: number;
  readonly macAddress: string;
  /** Addresses with their prefixes; others are taken from a bridge that is ours. */
  readonly addresses: readonly { readonly address: IpAddress; readonly length: number }[];
  readonly ipv4: boolean;
  readonly ipv6: boolean;
  readonly icc: boolean;
}

const DEFAULT_MTU = 1500;
const MAIN_TABLE = 254;

/**
 * Makes the default bridge what the options say. `remembered` is what was saved of the last start, `reserved`
 * the subnets of other networks.
 */
export function ensureDefaultBridge(
  netlink: NetlinkSocket,
  options: BridgeOptions,
  known: { readonly remembered: Record<string, unknown>; readonly reserved: readonly Prefix[] },
): { device: BridgeDevice; plan: BridgePlan } {
  const { name } = options;
  const { remembered, reserved } = known;
  const link = netlink.link(name);
  const same = remembered['name'] === name;
  const own = link === undefined || (same && remembered['own'] === true);
  const index = link?.index;
  const existing = index === undefined ? undefined : netlink.addresses().find((address) => address.index === index);
  const plan = planBridge(options, {
    existing: existing === undefined ? undefined : `${existing.address}/${existing.prefixLength}`,
    remembered: same && typeof remembered['address'] === 'string' ? remembered['address'] : undefined,
    routes: [...hostPrefixes(netlink, 4, index), ...reserved],
  });
  const wish: BridgeWish = {
    name,
    mtu: options.mtu || DEFAULT_MTU,
    macAddress: macOf(plan.address),
    addresses: [{ address: plan.address, length: plan.subnet.length }],
    ipv4: true,
    ipv6: false,
    icc: options.icc ?? true,
  };
  return { device: ensureBridge(netlink, wish, { ...options, own }), plan };
}

/** Subnets of the host's own routes; new networks keep clear of them. */
export function hostPrefixes(netlink: NetlinkSocket, family: 4 | 6, exceptIndex?: number): Prefix[] {
  return netlink
    .routes(family === 4 ? AF_INET : AF_INET6)
    .filter((route) => route.table === MAIN_TABLE && route.destination !== '' && route.index !== exceptIndex)
    .map((route) => prefixOf(parseIp(route.destination), route.prefixLength));
}

type KernelOptions = Pick<BridgeOptions, 'ipForward' | 'firewall'> & {
  /** Whether a bridge that is there already was made by this daemon. */
  readonly own: boolean;
};

/** Makes a bridge what it is to be. A bridge made here goes again when a later step fails. */
export function ensureBridge(netlink: NetlinkSocket, wish: BridgeWish, options: KernelOptions): BridgeDevice {
  const { name, mtu } = wish;
  let link = netlink.link(name);
  if (link !== undefined && link.kind !== 'bridge') {
    throw new GantryError('system', `existing interface ${name} is not a bridge`);
  }
  const isNew = link === undefined;
  const own = isNew || options.own;
  if (link === undefined) {
    netlink.request(addBridge(name, { mtu: mtu || DEFAULT_MTU, address: wish.macAddress }));
    link = netlink.link(name);
    if (link === undefined) throw new GantryError('system', `bridge ${name} vanished`);
  } else {
    netlink.request(setLink(link.index, { up: true, ...(own && mtu > 0 ? { mtu } : {}) }));
  }
  try {
    applySettings(wish, options);
    setAddresses(netlink, link.index, wish, own);
  } catch (error) {
    if (isNew) removeBridge(netlink, { name, own });
    throw error;
  }
  return { name, index: link.index, mtu: mtu || link.mtu, own };
}

/** Adds the wanted addresses, then drops others from a bridge that is ours. */
function setAddresses(netlink: NetlinkSocket, index: number, wish: BridgeWish, own: boolean): void {
  for (const family of [4, 6] as const) {
    if (family === 6 && !wish.ipv6) continue;
    const wanted = wish.addresses
      .filter(({ address }) => address.family === family)
      .map(({ address, length }) => ({ text: formatIp(address), length }));
    const present = netlink.addresses(family === 4 ? AF_INET : AF_INET6).filter((address) => address.index === index);
    const isSame = (each: (typeof present)[number], { text, length }: (typeof wanted)[number]): boolean =>
      each.address === text && each.prefixLength === length;
    for (const each of wanted) {
      if (!present.some((address) => isSame(address, each))) netlink.request(addAddress(index, each.text, each.length));
    }
    if (!own) continue;
    for (const each of present) {
      if (each.address.startsWith('fe80:') || wanted.some((address) => isSame(each, address))) continue;
      netlink.request(deleteAddress(index, each.address, each.prefixLength));
    }
  }
}

const BRIDGE_FILTERING = '/proc/sys/net/bridge/bridge-nf-call-ip';

function applySettings(wish: BridgeWish, options: KernelOptions): void {
  const { name } = wish;
  const forward = options.ipForward !== false;
  if (wish.ipv4 && forward) writeIfOther('/proc/sys/net/ipv4/ip_forward', '1');
  if (wish.ipv4 && options.firewall !== false) writeFileSync(`/proc/sys/net/ipv4/conf/${name}/route_localnet`, '1');
  if (wish.ipv6) {
    const own = `/proc/sys/net/ipv6/conf/${name}`;
    if (!existsSync(own)) throw new GantryError('system', 'IPv6 is disabled on this host');
    writeFileSync(`${own}/disable_ipv6`, '0');
    writeFileSync(`${own}/accept_ra`, '0');
    // Our addresses are ours: nothing to detect, and containers need the gateway at once.
    writeFileSync(`${own}/accept_dad`, '0');
    if (forward)
      for (const scope of ['default', 'all']) writeIfOther(`/proc/sys/net/ipv6/conf/${scope}/forwarding`, '1');
  }
  if (wish.icc || options.firewall === false) return;
  for (const family of [...(wish.ipv4 ? ['tables'] : []), ...(wish.ipv6 ? ['6tables'] : [])]) {
    const path = `${BRIDGE_FILTERING}${family}`;
    if (!existsSync(path)) {
      throw new GantryError(
        'system',
        `cannot restrict inter-container communication: stat ${path}: no such file or directory`,
      );
    }
    writeFileSync(path, '1');
  }
}

/** Writing a forwarding switch resets other settings of the host, so it is left alone when it is right. */
function writeIfOther(path: string, value: string): void {
  if (readFileSync(path, 'utf8').trim() !== value) writeFileSync(path, value);
}

/** Removes a bridge this daemon made. */
export function removeBridge(netlink: NetlinkSocket, bridge: Pick<BridgeDevice, 'name' | 'own'>): void {
  if (!bridge.own) return;
  try {
    netlink.request(deleteLink(bridge.name));
  } catch (error) {
    if (!hasCode(error, 'ENODEV')) throw error;
  }
}
