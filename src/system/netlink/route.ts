/**
 * rtnetlink(7): link, address, route and neighbour requests as data, and parsing of what dumps return. Pure.
 * Addresses travel as text (`10.0.0.1`, `fe80::1`, `02:42:…`).
 */
import { isIPv6, SocketAddress } from 'node:net';
import {
  type Attribute,
  decodeAttributes,
  type Message,
  NetlinkFormatError,
  NLM_F_CREATE,
  NLM_F_DUMP,
  NLM_F_EXCL,
  NLM_F_REPLACE,
  readText,
  readU32,
  text,
  u32,
} from './message.ts';

export const RTM_NEWLINK = 16;
export const RTM_DELLINK = 17;
export const RTM_GETLINK = 18;
const RTM_SETLINK = 19;
export const RTM_NEWADDR = 20;
export const RTM_DELADDR = 21;
export const RTM_GETADDR = 22;
export const RTM_NEWROUTE = 24;
const RTM_DELROUTE = 25;
export const RTM_GETROUTE = 26;
export const RTM_NEWNEIGH = 28;
export const AF_INET = 2;
export const AF_INET6 = 10;
export const AF_BRIDGE = 7;
export const IFF_UP = 1;
export const IFLA_ADDRESS = 1;
export const IFLA_IFNAME = 3;
export const IFLA_MTU = 4;
const IFLA_MASTER = 10;
const IFLA_GROUP = 27;
const IFLA_PROTINFO = 12;
export const IFLA_LINKINFO = 18;
const IFLA_STATS64 = 23;
export const IFLA_NET_NS_FD = 28;
export const IFLA_INFO_KIND = 1;
export const IFLA_INFO_DATA = 2;
const VETH_INFO_PEER = 1;
const IFA_ADDRESS = 1;
const IFA_LOCAL = 2;
const IFA_BROADCAST = 4;
const IFA_F_NODAD = 2;
const RTA_DST = 1;
const RTA_OIF = 4;
const RTA_GATEWAY = 5;
const RT_TABLE_MAIN = 254;
const RTPROT_BOOT = 3;
const RTPROT_STATIC = 4;
const RTN_UNICAST = 1;
const RT_SCOPE_LINK = 253;
const RT_SCOPE_NOWHERE = 255;
const NLA_F_NESTED = 0x8000;
const IFLA_BRPORT_MODE = 4;

/** A request without sequence number. `what` names operation and object in errors. */
export interface Request {
  readonly what: string;
  readonly type: number;
  readonly flags: number;
  readonly body: Buffer;
  readonly attributes: readonly Attribute[];
}

export interface LinkStatistics {
  readonly rx_bytes: number;
  readonly rx_packets: number;
  readonly rx_errors: number;
  readonly rx_dropped: number;
  readonly tx_bytes: number;
  readonly tx_packets: number;
  readonly tx_errors: number;
  readonly tx_dropped: number;
}

export interface Link {
  readonly index: number;
  readonly name: string;
  readonly up: boolean;
  readonly mtu: number;
  readonly address: string;
  /** Index of the bridge it belongs to; 0 for none. */
  readonly master: number;
  readonly group: number;
  /** `veth`, `bridge` …; empty for physical ones. */
  readonly kind: string;
  readonly statistics: LinkStatistics | undefined;
}

export interface Address {
  readonly index: number;
  readonly address: string;
  readonly prefixLength: number;
}

export interface Route {
  /** Empty for the default route. */
  readonly destination: string;
  readonly prefixLength: number;
  readonly gateway: string;
  readonly index: number;
  readonly table: number;
}

/** Bytes of an IP address. */
export function addressBytes(address: string): Buffer {
  if (!isIPv6(address)) return Buffer.from(address.split('.').map(Number));
  // The parser writes any IPv6 spelling in its canonical form; only `::` is left to expand.
  const canonical = SocketAddress.parse(`[${address}]:0`)?.address ?? address;
  const [head = '', tail] = canonical.split('::');
  const words = (part: string): number[] =>
    part === ''
      ? []
      : part.split(':').flatMap((word) => {
          if (!word.includes('.')) return [Number.parseInt(word, 16)];
          const [a = 0, b = 0, c = 0, d = 0] = word.split('.').map(Number);
          return [(a << 8) | b, (c << 8) | d];
        });
  const left = words(head);
  const right = words(tail ?? '');
  const bytes = Buffer.alloc(16);
  [...left, ...Array<number>(Math.max(0, 8 - left.length - right.length)).fill(0), ...right]
    .slice(0, 8)
    .forEach((word, index) => {
      bytes.writeUInt16BE(word & 0xffff, index * 2);
    });
  return bytes;
}

/** Text of address bytes; empty for other lengths. */
export function addressText(bytes: Buffer | undefined): string {
  if (bytes?.length === 4) return bytes.join('.');
  if (bytes?.length !== 16) return '';
  const words = Array.from({ length: 8 }, (_, index) => bytes.readUInt16BE(index * 2).toString(16));
  return SocketAddress.parse(`[${words.join(':')}]:0`)?.address ?? words.join(':');
}

/** Bytes of a MAC address. */
export function macBytes(mac: string): Buffer {
  return Buffer.from(mac.replaceAll(':', ''), 'hex');
}

function macText(bytes: Buffer | undefined): string {
  return bytes === undefined ? '' : Array.from(bytes, (byte) => byte.toString(16).padStart(2, '0')).join(':');
}

export function linkBody(index = 0, flags = 0, change = 0): Buffer {
  const body = Buffer.alloc(16);
  body.writeInt32LE(index, 4);
  body.writeUInt32LE(flags, 8);
  body.writeUInt32LE(change, 12);
  return body;
}

/** Adds a bridge, up. */
export function addBridge(name: string, options: { mtu?: number; address?: string } = {}): Request {
  return {
    what: `add bridge ${name}`,
    type: RTM_NEWLINK,
    flags: NLM_F_CREATE | NLM_F_EXCL,
    body: linkBody(0, IFF_UP, IFF_UP),
    attributes: [
      [IFLA_IFNAME, text(name)],
      ...(options.mtu === undefined ? [] : [[IFLA_MTU, u32(options.mtu)] as const]),
      ...(options.address === undefined ? [] : [[IFLA_ADDRESS, macBytes(options.address)] as const]),
      [IFLA_LINKINFO, [[IFLA_INFO_KIND, Buffer.from('bridge')]]],
    ],
  };
}

export interface VethOptions {
  readonly name: string;
  readonly master: number;
  readonly mtu: number;
  /** Marks devices as belonging together; 0 is everybody's. */
  readonly group?: number;
  readonly peer: { readonly name: string; readonly address: string; readonly namespaceFd: number };
}

/** Adds a veth pair in one message: our end up and in its bridge, the peer inside another namespace (a veth cannot be made up before both ends exist). */
export function addVeth(options: VethOptions): Request {
  const { name, master, mtu, peer, group = 0 } = options;
  const peerAttributes: Attribute[] = [
    [IFLA_IFNAME, text(peer.name)],
    [IFLA_ADDRESS, macBytes(peer.address)],
    [IFLA_MTU, u32(mtu)],
    [IFLA_NET_NS_FD, u32(peer.namespaceFd)],
  ];
  return {
    what: `add veth ${name}`,
    type: RTM_NEWLINK,
    flags: NLM_F_CREATE | NLM_F_EXCL,
    body: linkBody(0, IFF_UP, IFF_UP),
    attributes: [
      [IFLA_IFNAME, text(name)],
      [IFLA_MTU, u32(mtu)],
      [IFLA_MASTER, u32(master)],
      [IFLA_GROUP, u32(group)],
      [
        IFLA_LINKINFO,
        [
          [IFLA_INFO_KIND, Buffer.from('veth')],
          [IFLA_INFO_DATA, [[VETH_INFO_PEER, peerBytes(peerAttributes)]]],
        ],
      ],
    ],
  };
}

/** VETH_INFO_PEER is an ifinfomsg followed by attributes. */
function peerBytes(attributes: readonly Attribute[]): Buffer {
  const parts = [linkBody()];
  for (const [type, value] of attributes) {
    const bytes = value as Buffer;
    const encoded = Buffer.alloc((4 + bytes.length + 3) & ~3);
    encoded.writeUInt16LE(4 + bytes.length, 0);
    encoded.writeUInt16LE(type, 2);
    bytes.copy(encoded, 4);
    parts.push(encoded);
  }
  return Buffer.concat(parts);
}

/** Changes a link; only the given properties. */
export function setLink(
  index: number,
  changes: { up?: boolean; mtu?: number; name?: string; address?: string; master?: number },
): Request {
  const attributes: Attribute[] = [];
  if (changes.mtu !== undefined) attributes.push([IFLA_MTU, u32(changes.mtu)]);
  if (changes.name !== undefined) attributes.push([IFLA_IFNAME, text(changes.name)]);
  if (changes.address !== undefined) attributes.push([IFLA_ADDRESS, macBytes(changes.address)]);
  if (changes.master !== undefined) attributes.push([IFLA_MASTER, u32(changes.master)]);
  const change = changes.up === undefined ? 0 : IFF_UP;
  return {
    what: `set link ${index}`,
    type: RTM_NEWLINK,
    flags: 0,
    body: linkBody(index, changes.up === true ? IFF_UP : 0, change),
    attributes,
  };
}

/** Moves a link into another namespace under a new name. */
export function moveLink(index: number, to: { readonly name: string; readonly namespaceFd: number }): Request {
  return {
    what: `move link ${index}`,
    type: RTM_NEWLINK,
    flags: 0,
    body: linkBody(index),
    attributes: [
      [IFLA_NET_NS_FD, u32(to.namespaceFd)],
      [IFLA_IFNAME, text(to.name)],
    ],
  };
}

/** Lets a bridge send a frame back out of the port it came from: needed to reach oneself by a published port. */
export function setHairpin(portIndex: number): Request {
  const body = linkBody(portIndex);
  body.writeUInt8(AF_BRIDGE, 0);
  return {
    what: `set hairpin mode of link ${portIndex}`,
    type: RTM_SETLINK,
    flags: 0,
    body,
    attributes: [[IFLA_PROTINFO | NLA_F_NESTED, [[IFLA_BRPORT_MODE, Buffer.from([1])]]]],
  };
}

/** Deletes a link by index or name. */
export function deleteLink(link: number | string): Request {
  return {
    what: `delete link ${link}`,
    type: RTM_DELLINK,
    flags: 0,
    body: linkBody(typeof link === 'number' ? link : 0),
    attributes: typeof link === 'number' ? [] : [[IFLA_IFNAME, text(link)]],
  };
}

/** One link by name or index. */
export function getLink(link: number | string): Request {
  return { ...deleteLink(link), what: `get link ${link}`, type: RTM_GETLINK };
}

export function dumpLinks(): Request {
  return { what: 'list links', type: RTM_GETLINK, flags: NLM_F_DUMP, body: linkBody(), attributes: [] };
}

function addressBody(family: number, prefixLength: number, index: number): Buffer {
  const body = Buffer.alloc(8);
  body.writeUInt8(family, 0);
  body.writeUInt8(prefixLength, 1);
  body.writeUInt32LE(index, 4);
  return body;
}

export function familyOf(address: string): number {
  return isIPv6(address) ? AF_INET6 : AF_INET;
}

/** Adds an address; IPv4 gets its subnet's broadcast address as docker sets it. */
export function addAddress(index: number, address: string, prefixLength: number): Request {
  const bytes = addressBytes(address);
  const attributes: Attribute[] = [
    [IFA_LOCAL, bytes],
    [IFA_ADDRESS, bytes],
  ];
  if (bytes.length === 4 && prefixLength < 31) {
    const broadcast = Buffer.alloc(4);
    broadcast.writeUInt32BE((bytes.readUInt32BE(0) | (0xffffffff >>> prefixLength)) >>> 0);
    attributes.push([IFA_BROADCAST, broadcast]);
  }
  const body = addressBody(familyOf(address), prefixLength, index);
  // Given out by us once only: usable at once instead of after duplicate address detection.
  if (bytes.length === 16) body.writeUInt8(IFA_F_NODAD, 2);
  return {
    what: `add address ${address}/${prefixLength} to link ${index}`,
    type: RTM_NEWADDR,
    flags: NLM_F_CREATE | NLM_F_EXCL,
    body,
    attributes,
  };
}

export function deleteAddress(index: number, address: string, prefixLength: number): Request {
  return {
    what: `delete address ${address}/${prefixLength} of link ${index}`,
    type: RTM_DELADDR,
    flags: 0,
    body: addressBody(familyOf(address), prefixLength, index),
    attributes: [[IFA_LOCAL, addressBytes(address)]],
  };
}

export function dumpAddresses(family: number = AF_INET): Request {
  const body = addressBody(family, 0, 0);
  return { what: 'list addresses', type: RTM_GETADDR, flags: NLM_F_DUMP, body, attributes: [] };
}

/** Adds a route; no destination means the default route, no gateway a directly attached one. */
export function addRoute(route: {
  index: number;
  gateway?: string;
  destination?: string;
  prefixLength?: number;
}): Request {
  const body = Buffer.alloc(12);
  body.writeUInt8(familyOf(route.gateway ?? route.destination ?? ''), 0);
  body.writeUInt8(route.prefixLength ?? 0, 1);
  body.writeUInt8(RT_TABLE_MAIN, 4);
  body.writeUInt8(route.gateway === undefined ? RTPROT_STATIC : RTPROT_BOOT, 5);
  body.writeUInt8(route.gateway === undefined ? RT_SCOPE_LINK : 0, 6);
  body.writeUInt8(RTN_UNICAST, 7);
  const attributes: Attribute[] = [[RTA_OIF, u32(route.index)]];
  if (route.destination !== undefined) attributes.push([RTA_DST, addressBytes(route.destination)]);
  if (route.gateway !== undefined) attributes.push([RTA_GATEWAY, addressBytes(route.gateway)]);
  const what = `add route ${route.destination ?? 'default'} via ${route.gateway ?? `link ${route.index}`}`;
  return { what, type: RTM_NEWROUTE, flags: NLM_F_CREATE | NLM_F_EXCL, body, attributes };
}

/** Makes this the default route of its family, in place of any other. `gateway` undefined: directly attached. */
export function setDefaultRoute(family: number, index: number, gateway?: string): Request {
  const body = defaultRouteBody(family);
  body.writeUInt8(RTPROT_BOOT, 5);
  body.writeUInt8(gateway === undefined ? RT_SCOPE_LINK : 0, 6);
  body.writeUInt8(RTN_UNICAST, 7);
  return {
    what: `set default route via ${gateway ?? `link ${index}`}`,
    type: RTM_NEWROUTE,
    flags: NLM_F_CREATE | NLM_F_REPLACE,
    body,
    attributes: [
      [RTA_OIF, u32(index)],
      ...(gateway === undefined ? [] : [[RTA_GATEWAY, addressBytes(gateway)] as const]),
    ],
  };
}

/** Deletes a default route of the main table. */
export function deleteDefaultRoute(family: number): Request {
  const body = defaultRouteBody(family);
  // Any scope.
  body.writeUInt8(RT_SCOPE_NOWHERE, 6);
  return { what: 'delete default route', type: RTM_DELROUTE, flags: 0, body, attributes: [] };
}

function defaultRouteBody(family: number): Buffer {
  const body = Buffer.alloc(12);
  body.writeUInt8(family, 0);
  body.writeUInt8(RT_TABLE_MAIN, 4);
  return body;
}

export function dumpRoutes(family: number = AF_INET): Request {
  const body = Buffer.alloc(12);
  body.writeUInt8(family, 0);
  return { what: 'list routes', type: RTM_GETROUTE, flags: NLM_F_DUMP, body, attributes: [] };
}

function need(message: Message, bytes: number): Buffer {
  if (message.payload.length < bytes) throw new NetlinkFormatError('truncated message');
  return message.payload;
}

const STATISTICS_BYTES = 64;

function readStatistics(bytes: Buffer | undefined): LinkStatistics | undefined {
  if (bytes === undefined || bytes.length < STATISTICS_BYTES) return undefined;
  const at = (position: number): number => Number(bytes.readBigUInt64LE(position * 8));
  return {
    rx_packets: at(0),
    tx_packets: at(1),
    rx_bytes: at(2),
    tx_bytes: at(3),
    rx_errors: at(4),
    tx_errors: at(5),
    rx_dropped: at(6),
    tx_dropped: at(7),
  };
}

/** Parses an RTM_NEWLINK. */
export function parseLink(message: Message): Link {
  const payload = need(message, 16);
  const attributes = decodeAttributes(payload.subarray(16));
  const info = attributes.get(IFLA_LINKINFO);
  return {
    index: payload.readInt32LE(4),
    name: readText(attributes.get(IFLA_IFNAME)),
    up: (payload.readUInt32LE(8) & IFF_UP) !== 0,
    mtu: readU32(attributes.get(IFLA_MTU)) ?? 0,
    address: macText(attributes.get(IFLA_ADDRESS)),
    master: readU32(attributes.get(IFLA_MASTER)) ?? 0,
    group: readU32(attributes.get(IFLA_GROUP)) ?? 0,
    kind: info === undefined ? '' : readText(decodeAttributes(info).get(IFLA_INFO_KIND)),
    statistics: readStatistics(attributes.get(IFLA_STATS64)),
  };
}

/** Parses an RTM_NEWADDR. */
export function parseAddress(message: Message): Address {
  const payload = need(message, 8);
  const attributes = decodeAttributes(payload.subarray(8));
  return {
    index: payload.readUInt32LE(4),
    address: addressText(attributes.get(IFA_LOCAL) ?? attributes.get(IFA_ADDRESS)),
    prefixLength: payload.readUInt8(1),
  };
}

/** Parses an RTM_NEWROUTE. */
export function parseRoute(message: Message): Route {
  const payload = need(message, 12);
  const attributes = decodeAttributes(payload.subarray(12));
  return {
    destination: addressText(attributes.get(RTA_DST)),
    prefixLength: payload.readUInt8(1),
    gateway: addressText(attributes.get(RTA_GATEWAY)),
    index: readU32(attributes.get(RTA_OIF)) ?? 0,
    table: payload.readUInt8(4),
  };
}
