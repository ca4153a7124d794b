/** `-p` and `--expose` values as the API's exposed ports and bindings; pure. Follows docker's nat package. */
import { isIp } from './flag-values.ts';

/** Exposed ports and their bindings. */
export interface PortPlan {
  readonly exposed: Record<string, object>;
  readonly bindings: Record<string, { HostIp: string; HostPort: string }[]>;
}

function parseRange(text: string, what: string): [number, number] {
  const match = /^(\d+)(?:-(\d+))?$/.exec(text);
  const start = Number(match?.[1]);
  const end = Number(match?.[2] ?? match?.[1]);
  if (match === null || start > 65535 || end > 65535) throw new Error(`invalid ${what}: ${text}`);
  if (end < start) throw new Error(`invalid ${what}: ${text}`);
  return [start, end];
}

function splitAddress(raw: string): { ip: string; hostPort: string; containerPort: string } {
  const parts = raw.split(':');
  const containerPort = parts.pop() ?? '';
  const hostPort = parts.pop() ?? '';
  const ip = parts.join(':');
  return { ip: ip.replace(/^\[|\]$/g, ''), hostPort, containerPort };
}

/** Adds one `-p` value to the plan. */
export function addPublished(plan: PortPlan, raw: string): void {
  const slash = raw.indexOf('/');
  const protocol = slash === -1 ? 'tcp' : raw.slice(slash + 1).toLowerCase();
  const { ip, hostPort, containerPort } = splitAddress(slash === -1 ? raw : raw.slice(0, slash));
  if (ip !== '' && !isIp(ip)) throw new Error(`invalid IP address: ${ip}`);
  if (containerPort === '') throw new Error(`no port specified: ${raw}<empty>`);
  const [start, end] = parseRange(containerPort, 'containerPort');
  const host = hostPort === '' ? undefined : parseRange(hostPort, 'hostPort');
  if (!['tcp', 'udp', 'sctp'].includes(protocol)) throw new Error(`invalid proto: ${protocol}`);
  if (host !== undefined && host[1] - host[0] !== end - start && end !== start)
    throw new Error(`invalid ranges specified for container and host Ports: ${containerPort} and ${hostPort}`);
  for (let port = start; port <= end; port++) {
    const key = `${port}/${protocol}`;
    plan.exposed[key] = {};
    let hostText = '';
    if (host !== undefined)
      hostText = end === start && host[1] !== host[0] ? `${host[0]}-${host[1]}` : String(host[0] + port - start);
    const bindings = plan.bindings[key];
    const binding = { HostIp: ip, HostPort: hostText };
    if (bindings === undefined) plan.bindings[key] = [binding];
    else bindings.push(binding);
  }
}

/** The long form: `target=80,published=8080,protocol=tcp`. */
function expandLongForm(raw: string): string {
  const fields = new Map(raw.split(',').map((field) => field.split('=') as [string, string]));
  const target = fields.get('target') ?? '';
  const published = fields.get('published') ?? '';
  return `${published === '' ? '' : `${published}:`}${target}/${fields.get('protocol') ?? 'tcp'}`;
}

/** The plan for all `-p` and `--expose` values. */
export function planPorts(published: readonly string[], exposed: readonly string[]): PortPlan {
  const plan: PortPlan = { exposed: {}, bindings: {} };
  for (const raw of published) addPublished(plan, raw.includes('=') ? expandLongForm(raw) : raw);
  for (const raw of exposed) {
    if (raw.includes(':')) throw new Error(`invalid port format for --expose: ${raw}`);
    const [range = '', protocol = 'tcp'] = raw.split('/');
    let limits: [number, number];
    try {
      limits = parseRange(range, 'start port');
    } catch {
      throw new Error(`invalid range format for --expose: ${raw}, error: invalid start port '${range}'`);
    }
    for (let port = limits[0]; port <= limits[1]; port++) plan.exposed[`${port}/${protocol.toLowerCase()}`] = {};
  }
  return plan;
}
