/**
 * The rule set of one daemon as text: one table of the `ip` family with fixed chains; bridges, published ports
 * and link exceptions are elements of sets and maps, so the cost of a packet does not grow with their number.
 * Pure: the texts are what nftables/ runs, each one transaction.
 */
import type { PublishedPort } from './contract.ts';

/** A bridge as the rules see it. */
export interface BridgeRules {
  readonly name: string;
  readonly subnet: string;
  /** Containers may talk to each other. */
  readonly icc: boolean;
  readonly masquerade: boolean;
}

/** A published port and where it leads. */
export interface PortRule {
  readonly port: PublishedPort;
  readonly containerAddress: string;
}

/** One direction of a legacy link: `from` may reach `to` at a port although icc is off. */
export interface LinkRule {
  readonly from: string;
  readonly to: string;
  readonly protocol: PublishedPort['protocol'];
  readonly port: number;
}

/** Table name of an instance (a short hash). */
export function tableName(instance: string): string {
  return `gantry-${instance}`;
}

function quoted(name: string): string {
  return `"${name}"`;
}

/** Replaces the whole table by one holding exactly these rules. */
export function replaceTable(
  table: string,
  bridges: readonly BridgeRules[],
  elements: { ports: readonly PortRule[]; links: readonly LinkRule[] },
): string {
  const lines = [`add table ip ${table}`, `delete table ip ${table}`, skeleton(table)];
  for (const bridge of bridges) {
    const pair = `${quoted(bridge.name)} . ${quoted(bridge.name)}`;
    lines.push(
      `add element ip ${table} bridges { ${quoted(bridge.name)} }`,
      `add element ip ${table} inside { ${quoted(bridge.name)} . ${bridge.subnet} }`,
      `add element ip ${table} same { ${pair} : ${bridge.icc ? 'accept' : 'drop'} }`,
    );
    if (bridge.masquerade) lines.push(`add element ip ${table} masqueraded { ${bridge.subnet} }`);
  }
  return [...lines, addElements(table, elements)].join('\n');
}

function skeleton(table: string): string {
  return `table ip ${table} {
  map published_any { type inet_proto . inet_service : ipv4_addr . inet_service; }
  map published { type ipv4_addr . inet_proto . inet_service : ipv4_addr . inet_service; }
  set bridges { type ifname; }
  set inside { type ifname . ipv4_addr; flags interval; }
  set masqueraded { type ipv4_addr; flags interval; }
  map same { type ifname . ifname : verdict; }
  set links { type ipv4_addr . ipv4_addr . inet_proto . inet_service; }
  chain publish {
    dnat ip to ip daddr . meta l4proto . th dport map @published
    dnat ip to meta l4proto . th dport map @published_any
  }
  chain early {
    type filter hook prerouting priority raw; policy accept;
    # route_localnet is on for bridges; a container must not reach the host's loopback by it.
    iifname @bridges ip daddr 127.0.0.0/8 drop
  }
  chain prerouting {
    type nat hook prerouting priority dstnat; policy accept;
    fib daddr type local jump publish
  }
  chain output {
    type nat hook output priority -100; policy accept;
    fib daddr type local jump publish
  }
  chain postrouting {
    type nat hook postrouting priority srcnat; policy accept;
    oifname @bridges ip saddr 127.0.0.0/8 masquerade
    oifname . ip saddr @inside ct status dnat masquerade
    oifname . ip saddr @inside accept
    ip saddr @masqueraded masquerade
  }
  chain forward {
    type filter hook forward priority filter; policy accept;
    iifname @bridges jump ours
    oifname @bridges jump ours
  }
  chain ours {
    ct state established,related accept
    oifname @bridges ct status dnat accept
    ip saddr . ip daddr . meta l4proto . th dport @links accept
    iifname . oifname vmap @same
    oifname @bridges drop
    accept
  }
}`;
}

function portElement(table: string, { port, containerAddress }: PortRule, withTarget: boolean): string | undefined {
  if (port.hostAddress.includes(':')) return undefined;
  const target = withTarget ? ` : ${containerAddress} . ${port.containerPort}` : '';
  const service = `${port.protocol} . ${port.hostPort}`;
  return port.hostAddress === '0.0.0.0'
    ? `element ip ${table} published_any { ${service}${target} }`
    : `element ip ${table} published { ${port.hostAddress} . ${service}${target} }`;
}

function linkElement(table: string, link: LinkRule): string {
  return `element ip ${table} links { ${link.from} . ${link.to} . ${link.protocol} . ${link.port} }`;
}

interface Elements {
  readonly ports: readonly PortRule[];
  readonly links: readonly LinkRule[];
}

/** Adds what one endpoint needs; empty when that is nothing. */
export function addElements(table: string, elements: Elements): string {
  return [
    ...elements.ports.map((rule) => portElement(table, rule, true)),
    ...elements.links.map((rule) => linkElement(table, rule)),
  ]
    .flatMap((line) => (line === undefined ? [] : [`add ${line}`]))
    .join('\n');
}

/** Removes what `addElements` added. */
export function deleteElements(table: string, elements: Elements): string {
  return [
    ...elements.ports.map((rule) => portElement(table, rule, false)),
    ...elements.links.map((rule) => linkElement(table, rule)),
  ]
    .flatMap((line) => (line === undefined ? [] : [`delete ${line}`]))
    .join('\n');
}

export function deleteTable(table: string): string {
  // Adding first makes deleting an absent table no error.
  return `add table ip ${table}\ndelete table ip ${table}`;
}

/** Names of foreign base chains that drop forwarded packets by policy; ours cannot overrule them. */
export function foreignForwardDrops(listing: unknown, ownTable: string): string[] {
  const items = (listing as { nftables?: unknown[] } | undefined)?.nftables;
  if (!Array.isArray(items)) return [];
  return items.flatMap((item) => {
    const chain = (item as { chain?: Record<string, unknown> } | null)?.chain;
    if (chain?.['hook'] !== 'forward' || chain['policy'] !== 'drop' || chain['table'] === ownTable) return [];
    if (chain['family'] !== 'ip' && chain['family'] !== 'inet') return [];
    return [`${chain['family']} ${chain['table']} ${chain['name']}`];
  });
}
