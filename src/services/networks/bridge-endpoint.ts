/** What an endpoint of a bridge network means for the rules, and the addresses derived for it. Pure. */
import { createHash } from 'node:crypto';
import { GantryError } from '#types/errors.ts';
import { formatPrefix, type Prefix, parseCidr } from './address.ts';
import type { Endpoint } from './contract.ts';
import type { JoinContext } from './driver.ts';
import type { LinkRule, PortRule } from './firewall.ts';

/** The rules of an endpoint's published ports. */
export function portRules(endpoint: Endpoint, ports: Endpoint['ports']): PortRule[] {
  return ports.map((port) => {
    const isIpv6 = port.hostAddress.includes(':');
    return { port, containerAddress: (isIpv6 ? endpoint.ipv6Address : '') || endpoint.ipAddress };
  });
}

/** Openings to the exposed ports of the containers this one is linked to. */
export function linkRules(context: JoinContext, ipAddress: string): LinkRule[] {
  const { links } = context.request;
  return context.others
    .filter((other) => links.includes(other.containerId))
    .flatMap(({ endpoint, exposed }) =>
      exposed.map(({ protocol, port }) => ({ from: ipAddress, to: endpoint.ipAddress, protocol, port })),
    );
}

const LINK_LOCAL = parseCidr('fe80::/64').subnet;

/** Throws for subnets that cannot be a network. */
export function checkIpv6Subnet(subnet: Prefix): void {
  const text = formatPrefix(subnet);
  if (subnet.base >> 120n === 0xffn) throw new GantryError('invalid', `multicast subnet '${text}' is not allowed`);
  const isLinkLocal = subnet.base === LINK_LOCAL.base && subnet.length === LINK_LOCAL.length;
  if (!isLinkLocal && subnet.base >> 64n === LINK_LOCAL.base >> 64n)
    throw new GantryError('invalid', `'${text}' clashes with the Link-Local prefix 'fe80::/64'`);
}

/** A locally administered MAC address that stays the same for the same text. */
export function localMac(text: string): string {
  const hash = createHash('sha256').update(`mac ${text}`).digest('hex');
  return `02:42:${hash.slice(0, 8).replace(/(..)(?=.)/g, '$1:')}`;
}

/** Interface group of an instance; 0 is the group of everything else. */
export function linkGroup(instance: string): number {
  return (createHash('sha256').update(`group ${instance}`).digest().readUInt32LE(0) & 0x7fff_ffff) | 1;
}
