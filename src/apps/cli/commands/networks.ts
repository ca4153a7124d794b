/** `network ls|create|rm|connect|disconnect` as plain API calls. */
import { keyValues } from '../args/container-options.ts';
import { ExitError } from '../args/usage-error.ts';
import { ApiError, type Json } from '../connection/api.ts';
import { goTimeOf } from '../format/dates.ts';
import { formatList, type ListLayout, labelMethod, labelsText } from '../format/table.ts';
import { filtersOf, type Session, segment } from '../session.ts';
import { StructView } from '../template/values.ts';
import { confirm } from '../terminal/prompt.ts';

const LAYOUT: ListLayout = {
  headers: {
    ID: 'NETWORK ID',
    Name: 'NAME',
    Driver: 'DRIVER',
    Scope: 'SCOPE',
    IPv4: 'IPV4',
    IPv6: 'IPV6',
    Internal: 'INTERNAL',
    Labels: 'LABELS',
    CreatedAt: 'CREATED AT',
  },
  table: '{{.ID}}\t{{.Name}}\t{{.Driver}}\t{{.Scope}}',
  quiet: '{{.ID}}',
  raw: 'network_id: {{.ID}}\nname: {{.Name}}\ndriver: {{.Driver}}\nscope: {{.Scope}}\n',
};

/** `network ls`. */
export async function listNetworks(session: Session): Promise<number> {
  const { flags } = session;
  const api = await session.connect();
  const networks = await api.json<Json[] | null>('GET', '/networks', {
    query: { filters: filtersOf(flags.list('filter')) },
  });
  const rows = [...(networks ?? [])]
    .sort((a, b) => (String(a['Name']) < String(b['Name']) ? -1 : 1))
    .map((network) => {
      const id = String(network['Id']);
      const labels = (network['Labels'] as Record<string, string> | null) ?? {};
      const fields = {
        ID: () => (flags.bool('no-trunc') ? id : id.slice(0, 12)),
        Name: () => network['Name'],
        Driver: () => network['Driver'],
        Scope: () => network['Scope'],
        IPv4: () => String(network['EnableIPv4'] ?? true),
        IPv6: () => String(network['EnableIPv6'] ?? false),
        Internal: () => String(network['Internal'] ?? false),
        Labels: () => labelsText(labels),
        CreatedAt: () => goTimeOf(String(network['Created'])),
      };
      return new StructView('*network.networkContext', fields, { methods: labelMethod(labels) });
    });
  session.print(
    formatList(rows, LAYOUT, {
      format: flags.text('format') || (session.config.networksFormat ?? ''),
      quiet: flags.bool('quiet'),
    }),
  );
  return 0;
}

interface Pool {
  readonly Subnet: string;
  IPRange?: string;
  Gateway?: string;
  readonly AuxiliaryAddresses?: Record<string, string>;
}

/** Whether an address or the start of a range lies in a subnet; throws Go's texts. */
function contains(subnet: string, address: string): boolean {
  const { BlockList, isIP } = process.getBuiltinModule('node:net');
  const parse = (text: string): { ip: string; bits: number } => {
    const [ip = '', bits = ''] = text.split('/');
    const family = isIP(ip);
    if (family === 0 || !/^\d+$/.test(bits) || Number(bits) > (family === 4 ? 32 : 128))
      throw new Error(`invalid CIDR address: ${text}`);
    return { ip, bits: Number(bits) };
  };
  let network: { ip: string; bits: number };
  try {
    network = parse(subnet);
  } catch (error) {
    throw new Error(`invalid subnet: ${(error as Error).message}`);
  }
  const ip = address.includes('/') ? parse(address).ip : address;
  const family = (text: string): 'ipv4' | 'ipv6' => (isIP(text) === 6 ? 'ipv6' : 'ipv4');
  if (isIP(ip) === 0 || family(ip) !== family(network.ip)) return false;
  const list = new BlockList();
  list.addSubnet(network.ip, network.bits, family(network.ip));
  return list.check(ip, family(ip));
}

/** Joins `--subnet`, `--ip-range`, `--gateway` and `--aux-address` to pools; throws docker's texts. */
export function planPools(given: {
  readonly subnets: readonly string[];
  readonly ranges: readonly string[];
  readonly gateways: readonly string[];
  readonly auxiliary: Readonly<Record<string, string>>;
}): Pool[] {
  const { subnets, ranges, gateways, auxiliary } = given;
  if (subnets.length < ranges.length || subnets.length < gateways.length)
    throw new Error('every ip-range or gateway must have a corresponding subnet');
  const pools: Pool[] = [];
  for (const subnet of subnets) {
    if (pools.some((pool) => contains(subnet, pool.Subnet) || contains(pool.Subnet, subnet)))
      throw new Error('multiple overlapping subnet configuration is not supported');
    pools.push({ Subnet: subnet, AuxiliaryAddresses: {} });
  }
  const poolsOf = (address: string, what: string): Pool[] => {
    const found = pools.filter(({ Subnet }) => contains(Subnet, address));
    if (found.length === 0) throw new Error(`no matching subnet for ${what} ${address}`);
    return found;
  };
  for (const range of ranges)
    for (const pool of poolsOf(range, 'range')) {
      if (pool.IPRange !== undefined)
        throw new Error(
          `cannot configure multiple ranges (${range}, ${pool.IPRange}) on the same subnet (${pool.Subnet})`,
        );
      pool.IPRange = range;
    }
  for (const gateway of gateways)
    for (const pool of poolsOf(gateway, 'gateway')) {
      if (pool.Gateway !== undefined)
        throw new Error(
          `cannot configure multiple gateways (${gateway}, ${pool.Gateway}) for the same subnet (${pool.Subnet})`,
        );
      pool.Gateway = gateway;
    }
  for (const [name, address] of Object.entries(auxiliary))
    for (const pool of poolsOf(address, 'aux-address'))
      if (pool.AuxiliaryAddresses !== undefined) pool.AuxiliaryAddresses[name] = address;
  return pools;
}

/** Values of a flag that may be joined by commas. */
function commaList(values: readonly string[]): string[] {
  return values.flatMap((value) => value.split(','));
}

/** `network create`. */
export async function createNetwork(session: Session): Promise<number> {
  const { flags, args } = session;
  const pools = planPools({
    subnets: commaList(flags.list('subnet')),
    ranges: commaList(flags.list('ip-range')),
    gateways: commaList(flags.list('gateway')),
    auxiliary: keyValues(flags.list('aux-address')),
  });
  const from = flags.text('config-from');
  const api = await session.connect();
  const answer = await api.json('POST', '/networks/create', {
    body: {
      Name: args[0],
      Driver: flags.text('driver', 'bridge'),
      Scope: flags.text('scope'),
      ...(flags.has('ipv4') ? { EnableIPv4: flags.bool('ipv4') } : {}),
      ...(flags.has('ipv6') ? { EnableIPv6: flags.bool('ipv6') } : {}),
      IPAM: { Driver: flags.text('ipam-driver', 'default'), Options: keyValues(flags.list('ipam-opt')), Config: pools },
      Internal: flags.bool('internal'),
      Attachable: flags.bool('attachable'),
      Ingress: flags.bool('ingress'),
      ConfigOnly: flags.bool('config-only'),
      ConfigFrom: from === '' ? null : { Network: from },
      Options: keyValues(flags.list('opt')),
      Labels: keyValues(flags.list('label')),
    },
  });
  session.print(`${String(answer['Id'])}\n`);
  if (answer['Warning']) session.warn(`WARNING: ${String(answer['Warning'])}`);
  return 0;
}

const INGRESS_WARNING =
  'WARNING! Before removing the routing-mesh network, make sure all the nodes in your swarm run the same docker engine version. Otherwise, removal may not be effective and functionality of newly create ingress networks will be impaired.\nAre you sure you want to continue?';

/** `network rm`. */
export async function removeNetworks(session: Session): Promise<number> {
  const { flags, args } = session;
  const api = await session.connect();
  let failed = false;
  for (const name of args) {
    try {
      const network = await api.json('GET', `/networks/${segment(name)}`).catch((): Json => ({}));
      if (network['Ingress'] === true && !(await confirm(INGRESS_WARNING))) continue;
      await api.json('DELETE', `/networks/${segment(name)}`);
      session.print(`${name}\n`);
    } catch (error) {
      if (!(error instanceof ApiError)) throw error;
      if (flags.bool('force') && error.status === 404) continue;
      session.warn(error.message);
      failed = true;
    }
  }
  if (failed) throw new ExitError(1, 'exit status 1\n');
  return 0;
}

/** `network connect`. */
export async function connectNetwork(session: Session): Promise<number> {
  const { flags, args } = session;
  const api = await session.connect();
  const hasAddress = flags.has('ip') || flags.has('ip6') || flags.has('link-local-ip');
  const endpoint = {
    IPAMConfig: hasAddress
      ? { IPv4Address: flags.text('ip'), IPv6Address: flags.text('ip6'), LinkLocalIPs: flags.list('link-local-ip') }
      : null,
    Links: flags.list('link'),
    Aliases: flags.list('alias'),
    DriverOpts: keyValues(flags.list('driver-opt')),
    GwPriority: flags.number('gw-priority'),
  };
  await api.json('POST', `/networks/${segment(args[0] ?? '')}/connect`, {
    body: { Container: args[1], EndpointConfig: endpoint },
  });
  return 0;
}

/** `network disconnect`. */
export async function disconnectNetwork(session: Session): Promise<number> {
  const { flags, args } = session;
  const api = await session.connect();
  await api.json('POST', `/networks/${segment(args[0] ?? '')}/disconnect`, {
    body: { Container: args[1], Force: flags.bool('force') },
  });
  return 0;
}
