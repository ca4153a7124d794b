/**
 * The rule set of one daemon as text: one table of the `inet` family with fixed chains; bridges, published ports
 * and link exceptions are elements of sets and maps, so the cost of a packet does not grow with their number.
 * Pure: the texts are what nftables/ runs, each one transaction.
 */
import { isIPv6 } from 'node:net';
import type { PublishedPort } from './contract.ts';

/** How a family of a network is reached from outside: docker's gateway modes. */
export type GatewayMode = 'nat' | 'nat-unprotected' | 'routed' | 'isolated';

/** A bridge as the rules see it. */
export interface BridgeRules {
  readonly name: string;
  /** Containers may talk to each other. */
  readonly icc: boolean;
  /** Nothing goes in or out. */
  readonly internal: boolean;
  /** Host interfaces that reach containers directly. */
  readonly trusted: readonly string[];
  readonly subnets: readonly {
    readonly subnet: string;
    readonly mode: GatewayMode;
    readonly masquerade: boolean;
    /** Source address of outgoing connections; '' for the outgoing interface's. */
    readonly source: string;
  }[];
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

interface Elements {
  readonly ports: readonly PortRule[];
  readonly links: readonly LinkRule[];
}

/** Table name of an instance (a short hash). */
export function tableName(instance: string): string {
  return `gantry-${instance}`;
}

function quoted(name: string): string {
  return `"${name}"`;
}

/** Replaces the whole table by one holding exactly these rules. */
export function replaceTable(table: string, bridges: readonly BridgeRules[], elements: Elements): string {
  return [
    // Daemons before this one had a table of the ip family.
    `add table ip ${table}`,
    `delete table ip ${table}`,
    deleteTable(table),
    skeleton(table),
    ...bridges.map((bridge) => addBridge(table, bridge)),
    addElements(table, elements),
  ].join('\n');
}

function skeleton(table: string): string {
  return `table inet ${table} {
  map published_any { type inet_proto . inet_service : ipv4_addr . inet_service; }
  map published { type ipv4_addr . inet_proto . inet_service : ipv4_addr . inet_service; }
  map published6_any { type inet_proto . inet_service : ipv6_addr . inet_service; }
  map published6 { type ipv6_addr . inet_proto . inet_service : ipv6_addr . inet_service; }
  set bridges { type ifname; }
  set internal { type ifname; }
  set trusted { type ifname . ifname; }
  set unprotected { type ifname . nf_proto; }
  set routed { type ifname . nf_proto; }
  set opened { type ipv4_addr . inet_proto . inet_service; }
  set opened6 { type ipv6_addr . inet_proto . inet_service; }
  set inside { type ifname . ipv4_addr; flags interval; }
  set inside6 { type ifname . ipv6_addr; flags interval; }
  set masqueraded { type ipv4_addr; flags interval; }
  set masqueraded6 { type ipv6_addr; flags interval; }
  map source { type ipv4_addr : ipv4_addr; flags interval; }
  map source6 { type ipv6_addr : ipv6_addr; flags interval; }
  map same { type ifname . ifname : verdict; }
  set links { type ipv4_addr . ipv4_addr . inet_proto . inet_service; }
  chain publish {
    meta nfproto ipv4 dnat ip to ip daddr . meta l4proto . th dport map @published
    meta nfproto ipv4 dnat ip to meta l4proto . th dport map @published_any
    # ::1 cannot leave the host: the held sockets serve it.
    ip6 daddr != ::1 dnat ip6 to ip6 daddr . meta l4proto . th dport map @published6
    ip6 daddr != ::1 dnat ip6 to meta l4proto . th dport map @published6_any
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
    oifname . ip6 saddr @inside6 ct status dnat masquerade
    # Between our networks the asking container is shown as it is.
    oifname @bridges accept
    snat ip to ip saddr map @source
    snat ip6 to ip6 saddr map @source6
    ip saddr @masqueraded masquerade
    ip6 saddr @masqueraded6 masquerade
  }
  chain forward {
    type filter hook forward priority filter; policy accept;
    iifname @bridges jump ours
    oifname @bridges jump ours
  }
  chain within {
    iifname . oifname vmap @same
    drop
  }
  chain ours {
    iifname @internal jump within
    oifname @internal jump within
    ct state established,related accept
    oifname @bridges ct status dnat accept
    ip saddr . ip daddr . meta l4proto . th dport @links accept
    iifname . oifname vmap @same
    iifname . oifname @trusted accept
    oifname . meta nfproto @unprotected accept
    ip daddr . meta l4proto . th dport @opened accept
    ip6 daddr . meta l4proto . th dport @opened6 accept
    oifname . meta nfproto @routed meta l4proto { icmp, ipv6-icmp } accept
    oifname @bridges drop
    accept
  }
}`;
}

/** Elements of one bridge: set, element, and what a map gives for it. */
function bridgeElements(bridge: BridgeRules): { set: string; key: string; value?: string }[] {
  const name = quoted(bridge.name);
  const elements: { set: string; key: string; value?: string }[] = [
    { set: 'bridges', key: name },
    { set: 'same', key: `${name} . ${name}`, value: bridge.icc ? 'accept' : 'drop' },
  ];
  if (bridge.internal) elements.push({ set: 'internal', key: name });
  for (const trusted of bridge.trusted) elements.push({ set: 'trusted', key: `${quoted(trusted)} . ${name}` });
  for (const { subnet, mode, masquerade, source } of bridge.subnets) {
    const ipv6 = isIPv6(subnet.split('/')[0] ?? '');
    const family = ipv6 ? '6' : '';
    elements.push({ set: `inside${family}`, key: `${name} . ${subnet}` });
    if (bridge.internal) continue;
    const protocol = ipv6 ? 'ipv6' : 'ipv4';
    if (mode === 'nat-unprotected') elements.push({ set: 'unprotected', key: `${name} . ${protocol}` });
    if (mode === 'routed') elements.push({ set: 'routed', key: `${name} . ${protocol}` });
    if (!masquerade || mode === 'routed') continue;
    if (source === '') elements.push({ set: `masqueraded${family}`, key: subnet });
    else elements.push({ set: `source${family}`, key: subnet, value: source });
  }
  return elements;
}

/** Adds a bridge. */
export function addBridge(table: string, bridge: BridgeRules): string {
  return bridgeElements(bridge)
    .map(
      ({ set, key, value }) => `add element inet ${table} ${set} { ${key}${value === undefined ? '' : ` : ${value}`} }`,
    )
    .join('\n');
}

/** Removes what `addBridge` added. */
export function deleteBridge(table: string, bridge: BridgeRules): string {
  return bridgeElements(bridge)
    .map(({ set, key }) => `delete element inet ${table} ${set} { ${key} }`)
    .join('\n');
}

function portElement(table: string, { port, containerAddress }: PortRule, withTarget: boolean): string | undefined {
  const { protocol, containerPort, hostAddress, hostPort } = port;
  const family = isIPv6(containerAddress) ? '6' : '';
  // A port of a routed network: nothing is translated, the container's own address is opened.
  if (hostPort === 0)
    return `element inet ${table} opened${family} { ${containerAddress} . ${protocol} . ${containerPort} }`;
  if (isIPv6(hostAddress) !== isIPv6(containerAddress)) return undefined;
  const target = withTarget ? ` : ${containerAddress} . ${containerPort}` : '';
  const service = `${protocol} . ${hostPort}`;
  return hostAddress === '0.0.0.0' || hostAddress === '::'
    ? `element inet ${table} published${family}_any { ${service}${target} }`
    : `element inet ${table} published${family} { ${hostAddress} . ${service}${target} }`;
}

function linkElement(table: string, link: LinkRule): string {
  return `element inet ${table} links { ${link.from} . ${link.to} . ${link.protocol} . ${link.port} }`;
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
  return `add table inet ${table}\ndelete table inet ${table}`;
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
