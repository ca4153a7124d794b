/**
 * Docker's port notation (go-connections `nat`): parsing of `80/tcp` and ranges, HostConfig.PortBindings to
 * publish requests, and the two ways ports are shown (inspect's map, list's array). Pure; messages are docker's.
 */
import { isIP } from 'node:net';
import { GantryError } from '#types/errors.ts';
import type { HostConfig, Port, PortMap } from '#wire/engine.ts';
import type { PublishedPort, PublishRequest } from './contract.ts';

export type PortProtocol = PublishRequest['protocol'];

/** A parsed port or range with its protocol. */
export interface NatPort {
  readonly first: number;
  readonly last: number;
  readonly protocol: PortProtocol;
}

const PORT_MAX = 65535;

/** Parses `80`, `80/udp` or `8000-8010/tcp`. */
export function parseNatPort(text: string): NatPort {
  const [range = '', protocolText = 'tcp', extra] = text.split('/');
  const protocol = (protocolText === '' ? 'tcp' : protocolText).toLowerCase();
  if (extra !== undefined || range === '') throw new GantryError('invalid', `invalid port specification: "${text}"`);
  if (protocol !== 'tcp' && protocol !== 'udp' && protocol !== 'sctp') {
    throw new GantryError('invalid', `invalid proto: ${protocolText}`);
  }
  const parsed = parseRange(range);
  if (parsed === undefined) throw new GantryError('invalid', `invalid port specification: "${text}"`);
  return { ...parsed, protocol };
}

/** `80` or `80-90`; undefined when it is neither. */
function parseRange(text: string): { first: number; last: number } | undefined {
  const match = /^(\d{1,5})(?:-(\d{1,5}))?$/.exec(text);
  if (match === null) return undefined;
  const first = Number(match[1]);
  const last = match[2] === undefined ? first : Number(match[2]);
  return first > PORT_MAX || last > PORT_MAX || last < first ? undefined : { first, last };
}

type Exposed = Readonly<Record<string, unknown>>;

/** What to publish: explicit bindings, and with PublishAllPorts every exposed port at a free host port. */
export function parsePublishRequests(
  exposed: Exposed,
  hostConfig: Pick<HostConfig, 'PortBindings' | 'PublishAllPorts'>,
): PublishRequest[] {
  const bindings = hostConfig.PortBindings ?? {};
  const requests: PublishRequest[] = [];
  const bound = new Set<string>();
  for (const [key, list] of Object.entries(bindings)) {
    const port = parseNatPort(key);
    for (let containerPort = port.first; containerPort <= port.last; containerPort += 1) {
      const base = { protocol: port.protocol, containerPort };
      if ((list?.length ?? 0) > 0) bound.add(`${containerPort}/${port.protocol}`);
      for (const binding of list ?? []) requests.push({ ...base, ...parseHostSide(binding.HostIp, binding.HostPort) });
    }
  }
  if (hostConfig.PublishAllPorts !== true) return sortRequests(requests);
  for (const key of [...Object.keys(exposed), ...Object.keys(bindings)]) {
    const port = parseNatPort(key);
    for (let containerPort = port.first; containerPort <= port.last; containerPort += 1) {
      if (bound.has(`${containerPort}/${port.protocol}`)) continue;
      bound.add(`${containerPort}/${port.protocol}`);
      requests.push({ protocol: port.protocol, containerPort, hostAddress: '', hostPortFirst: 0, hostPortLast: 0 });
    }
  }
  return sortRequests(requests);
}

/** Fixed host ports first, so that a range never takes a port somebody asked for by number. */
function sortRequests(requests: PublishRequest[]): PublishRequest[] {
  const rank = (request: PublishRequest): number =>
    request.hostPortFirst === 0 ? 2 : request.hostPortFirst === request.hostPortLast ? 0 : 1;
  return requests.sort((a, b) => rank(a) - rank(b) || a.containerPort - b.containerPort);
}

function parseHostSide(
  address: string | undefined,
  port: string | undefined,
): Pick<PublishRequest, 'hostAddress' | 'hostPortFirst' | 'hostPortLast'> {
  const hostAddress = (address ?? '').replace(/^\[(.*)\]$/, '$1');
  if (hostAddress !== '' && isIP(hostAddress) === 0) {
    throw new GantryError('invalid', `invalid IP address: ${address}`);
  }
  if (port === undefined || port === '') return { hostAddress, hostPortFirst: 0, hostPortLast: 0 };
  const range = parseRange(port);
  if (range === undefined) throw new GantryError('invalid', `invalid port specification: "${port}"`);
  return { hostAddress, hostPortFirst: range.first, hostPortLast: range.last };
}

/** inspect's NetworkSettings.Ports: every exposed port, null where it is not published. */
export function portMap(exposed: Exposed, published: readonly PublishedPort[], active: boolean): PortMap {
  const map: PortMap = {};
  if (!active) return map;
  for (const key of Object.keys(exposed)) map[key.includes('/') ? key : `${key}/tcp`] = null;
  for (const port of published) {
    const key = `${port.containerPort}/${port.protocol}`;
    const list = map[key] ?? [];
    list.push({ HostIp: port.hostAddress, HostPort: port.hostPort === 0 ? '' : String(port.hostPort) });
    map[key] = list;
  }
  return map;
}

/** The `Ports` array of the container list. */
export function listedPorts(exposed: Exposed, published: readonly PublishedPort[], active: boolean): Port[] {
  const listed: Port[] = [];
  if (!active) return listed;
  for (const [key, list] of Object.entries(portMap(exposed, published, true))) {
    const { first, protocol } = parseNatPort(key);
    if (list === null) {
      listed.push({ PrivatePort: first, Type: protocol });
      continue;
    }
    for (const binding of list) {
      listed.push({
        IP: binding.HostIp ?? '',
        PrivatePort: first,
        PublicPort: Number(binding.HostPort),
        Type: protocol,
      });
    }
  }
  return listed;
}
