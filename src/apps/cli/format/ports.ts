/** The PORTS column: published and exposed ports with consecutive numbers joined into ranges. */

/** A port of a container summary. */
export interface PortSummary {
  readonly IP?: string;
  readonly PrivatePort: number;
  readonly PublicPort?: number;
  readonly Type: string;
}

interface Group {
  first: number;
  last: number;
}

function compareIp(a: string, b: string): number {
  const isV6 = (ip: string): number => Number(ip.includes(':'));
  return isV6(a) - isV6(b) || (a < b ? -1 : Number(a > b));
}

function show(key: string, group: Group): string {
  const slash = key.indexOf('/');
  const ip = slash === -1 ? '' : key.slice(0, slash);
  const protocol = slash === -1 ? key : key.slice(slash + 1);
  const range = group.first === group.last ? String(group.first) : `${group.first}-${group.last}`;
  const address = ip === '' ? '' : `${ip.includes(':') ? `[${ip}]` : ip}:${range}->`;
  return `${address}${range}/${protocol}`;
}

/** The text docker prints. */
export function formatPorts(ports: readonly PortSummary[]): string {
  const sorted = [...ports].sort(
    (a, b) =>
      a.PrivatePort - b.PrivatePort ||
      compareIp(a.IP ?? '', b.IP ?? '') ||
      (a.PublicPort ?? 0) - (b.PublicPort ?? 0) ||
      (a.Type < b.Type ? -1 : Number(a.Type > b.Type)),
  );
  const groups = new Map<string, Group>();
  const result: string[] = [];
  const mappings: string[] = [];
  for (const port of sorted) {
    const ip = port.IP ?? '';
    let key = port.Type;
    if (ip !== '') {
      if (port.PublicPort !== port.PrivatePort) {
        mappings.push(`${ip.includes(':') ? `[${ip}]` : ip}:${port.PublicPort ?? 0}->${port.PrivatePort}/${port.Type}`);
        continue;
      }
      key = `${ip}/${port.Type}`;
    }
    const group = groups.get(key);
    if (group === undefined) groups.set(key, { first: port.PrivatePort, last: port.PrivatePort });
    else if (port.PrivatePort === group.last + 1) group.last = port.PrivatePort;
    else if (port.PrivatePort !== group.last) {
      result.push(show(key, group));
      groups.set(key, { first: port.PrivatePort, last: port.PrivatePort });
    }
  }
  for (const [key, group] of groups) result.push(show(key, group));
  return [...result, ...mappings].join(', ');
}
