/** `network ls|create|rm|connect|disconnect` as plain API calls. */
import { keyValues } from '../args/container-options.ts';
import type { Json } from '../connection/api.ts';
import { formatList, type ListLayout } from '../format/table.ts';
import { filtersOf, forEachName, type Session, segment } from '../session.ts';
import { StructView } from '../template/values.ts';

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
      return new StructView('*network.networkContext', {
        ID: () => (flags.bool('no-trunc') ? id : id.slice(0, 12)),
        Name: () => network['Name'],
        Driver: () => network['Driver'],
        Scope: () => network['Scope'],
        IPv4: () => String(network['EnableIPv4'] ?? true),
        IPv6: () => String(network['EnableIPv6'] ?? false),
        Internal: () => String(network['Internal'] ?? false),
        Labels: () =>
          Object.entries(labels)
            .map(([key, value]) => `${key}=${value}`)
            .join(','),
        CreatedAt: () => String(network['Created']),
      });
    });
  session.print(
    formatList(rows, LAYOUT, {
      format: flags.text('format') || (session.config.networksFormat ?? ''),
      quiet: flags.bool('quiet'),
    }),
  );
  return 0;
}

/** `network create`. */
export async function createNetwork(session: Session): Promise<number> {
  const { flags, args } = session;
  const subnets = flags.list('subnet');
  const ranges = flags.list('ip-range');
  const gateways = flags.list('gateway');
  const pools = subnets.map((subnet, index) => ({
    Subnet: subnet,
    ...(ranges[index] ? { IPRange: ranges[index] } : {}),
    ...(gateways[index] ? { Gateway: gateways[index] } : {}),
  }));
  const api = await session.connect();
  const answer = await api.json('POST', '/networks/create', {
    body: {
      Name: args[0],
      Driver: flags.text('driver', 'bridge'),
      Options: keyValues(flags.list('opt')),
      IPAM: { Driver: flags.text('ipam-driver', 'default'), Options: keyValues(flags.list('ipam-opt')), Config: pools },
      Internal: flags.bool('internal'),
      Attachable: flags.bool('attachable'),
      Ingress: flags.bool('ingress'),
      Scope: flags.text('scope'),
      ...(flags.has('ipv6') ? { EnableIPv6: flags.bool('ipv6') } : {}),
      ...(flags.has('ipv4') ? { EnableIPv4: flags.bool('ipv4') } : {}),
      Labels: keyValues(flags.list('label')),
    },
  });
  session.print(`${String(answer['Id'])}\n`);
  return 0;
}

/** `network rm`. */
export async function removeNetworks(session: Session): Promise<number> {
  const api = await session.connect();
  return forEachName(session, session.args, async (name) => {
    await api.json('DELETE', `/networks/${segment(name)}`);
    return name;
  });
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
