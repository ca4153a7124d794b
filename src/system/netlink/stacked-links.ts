/** rtnetlink(7) requests for devices on top of others (macvlan, ipvlan, VLAN) and stand-ins below them. Pure. */
import { type Attribute, NLM_F_CREATE, NLM_F_EXCL, text, u32 } from './message.ts';
import {
  IFF_UP,
  IFLA_ADDRESS,
  IFLA_IFNAME,
  IFLA_INFO_DATA,
  IFLA_INFO_KIND,
  IFLA_LINKINFO,
  IFLA_MTU,
  IFLA_NET_NS_FD,
  linkBody,
  macBytes,
  type Request,
  RTM_NEWLINK,
} from './route.ts';

const IFLA_LINK = 5;
const IFLA_MACVLAN_MODE = 1;
const IFLA_IPVLAN_MODE = 1;
const IFLA_IPVLAN_FLAGS = 2;
const IFLA_VLAN_ID = 1;

/** A device on top of another one, made inside a namespace. */
export interface StackedOptions {
  readonly name: string;
  /** Index of the device below, in the namespace of the request. */
  readonly parent: number;
  readonly namespaceFd: number;
  readonly mtu?: number;
  readonly address?: string;
}

/** macvlan modes as the kernel numbers them. */
export const MACVLAN_MODES: Readonly<Record<string, number>> = { private: 1, vepa: 2, bridge: 4, passthru: 8 };
/** ipvlan modes as the kernel numbers them. */
export const IPVLAN_MODES: Readonly<Record<string, number>> = { l2: 0, l3: 1, l3s: 2 };
/** ipvlan flags as the kernel numbers them. */
export const IPVLAN_FLAGS: Readonly<Record<string, number>> = { bridge: 0, private: 1, vepa: 2 };

/** Adds a macvlan device. */
export function addMacvlan(options: StackedOptions & { readonly mode: number }): Request {
  return addStacked('macvlan', options, [[IFLA_MACVLAN_MODE, u32(options.mode)]]);
}

/** Adds an ipvlan device. */
export function addIpvlan(options: StackedOptions & { readonly mode: number; readonly flags: number }): Request {
  return addStacked('ipvlan', options, [
    [IFLA_IPVLAN_MODE, u16(options.mode)],
    [IFLA_IPVLAN_FLAGS, u16(options.flags)],
  ]);
}

function addStacked(kind: string, options: StackedOptions, data: readonly Attribute[]): Request {
  const { name, parent, namespaceFd, mtu, address } = options;
  return {
    what: `add ${kind} ${name}`,
    type: RTM_NEWLINK,
    flags: NLM_F_CREATE | NLM_F_EXCL,
    body: linkBody(),
    attributes: [
      [IFLA_IFNAME, text(name)],
      [IFLA_LINK, u32(parent)],
      [IFLA_NET_NS_FD, u32(namespaceFd)],
      ...(mtu === undefined ? [] : [[IFLA_MTU, u32(mtu)] as const]),
      ...(address === undefined ? [] : [[IFLA_ADDRESS, macBytes(address)] as const]),
      [
        IFLA_LINKINFO,
        [
          [IFLA_INFO_KIND, Buffer.from(kind)],
          [IFLA_INFO_DATA, data],
        ],
      ],
    ],
  };
}

/** Adds a VLAN device, up. */
export function addVlan(name: string, parent: number, vlanId: number): Request {
  return {
    what: `add vlan ${name}`,
    type: RTM_NEWLINK,
    flags: NLM_F_CREATE | NLM_F_EXCL,
    body: linkBody(0, IFF_UP, IFF_UP),
    attributes: [
      [IFLA_IFNAME, text(name)],
      [IFLA_LINK, u32(parent)],
      [
        IFLA_LINKINFO,
        [
          [IFLA_INFO_KIND, Buffer.from('vlan')],
          [IFLA_INFO_DATA, [[IFLA_VLAN_ID, u16(vlanId)]]],
        ],
      ],
    ],
  };
}

/** Adds a device of a kind without settings (`dummy`), up. */
export function addSimpleLink(name: string, kind: string): Request {
  return {
    what: `add ${kind} ${name}`,
    type: RTM_NEWLINK,
    flags: NLM_F_CREATE | NLM_F_EXCL,
    body: linkBody(0, IFF_UP, IFF_UP),
    attributes: [
      [IFLA_IFNAME, text(name)],
      [IFLA_LINKINFO, [[IFLA_INFO_KIND, Buffer.from(kind)]]],
    ],
  };
}

function u16(value: number): Buffer {
  const bytes = Buffer.alloc(2);
  bytes.writeUInt16LE(value);
  return bytes;
}
