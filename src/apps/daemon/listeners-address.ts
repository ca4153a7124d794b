/** Parses `-H` values as dockerd does, and finds group IDs. */
import { readFileSync } from 'node:fs';
import { GantryError } from '#types/errors.ts';

export type ListenAddress =
  | { readonly protocol: 'unix'; readonly path: string }
  | { readonly protocol: 'tcp'; readonly host: string; readonly port: number }
  | { readonly protocol: 'fd'; readonly descriptor: number | undefined };

/** Default TCP ports of dockerd: without and with TLS. */
const PORT = 2375;
const TLS_PORT = 2376;

function invalidAddress(text: string): GantryError {
  return new GantryError('invalid', `invalid bind address format: ${text}`);
}

/** Parses one host; `defaultUnix` stands for `unix://` without a path. */
export function parseListenAddress(text: string, defaultUnix: string, hasTls: boolean): ListenAddress {
  const host = text.trim();
  const [, protocol = '', rest = ''] = /^([a-z]+):\/\/(.*)$/s.exec(host) ?? [];
  if (protocol === '' && host.includes('://')) throw invalidAddress(text);
  switch (protocol) {
    case 'unix':
      if (rest.includes('://')) throw new GantryError('invalid', `invalid unix address: ${rest}`);
      return { protocol: 'unix', path: rest === '' ? defaultUnix.replace(/^unix:\/\//, '') : rest };
    case 'fd':
      return { protocol: 'fd', descriptor: /^[0-9]+$/.test(rest) ? Number(rest) : undefined };
    case 'tcp':
      return parseTcp(rest, text, hasTls);
    case '':
      return parseTcp(host, text, hasTls);
    default:
      throw invalidAddress(text);
  }
}

function parseTcp(rest: string, text: string, hasTls: boolean): ListenAddress {
  const match = /^(?:\[([0-9a-fA-F:.%]+)\]|([^:/[\]]*))(?::([0-9]*))?$/.exec(rest.replace(/\/$/, ''));
  if (match === null) throw invalidAddress(text);
  const port = match[3] === undefined || match[3] === '' ? (hasTls ? TLS_PORT : PORT) : Number(match[3]);
  if (port > 65535) throw invalidAddress(text);
  const host = match[1] ?? match[2] ?? '';
  return { protocol: 'tcp', host: host === '' ? 'localhost' : host, port };
}

/** The numeric ID of a group by name or number. */
export function groupId(name: string): number | undefined {
  if (/^[0-9]+$/.test(name)) return Number(name);
  try {
    for (const line of readFileSync('/etc/group', 'utf8').split('\n')) {
      const [group, , gid] = line.split(':');
      if (group === name && gid !== undefined) return Number(gid);
    }
  } catch {
    // A host without /etc/group has no named groups.
  }
  return undefined;
}
