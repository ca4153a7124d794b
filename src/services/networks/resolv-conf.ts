/**
 * resolv.conf(5) for containers, made from the host's as docker does: a container on a bridge cannot reach
 * resolvers on the host's loopback, so those are left out, and public ones stand in when none is left. Pure.
 */
import { isIP } from 'node:net';
import { RESOLVER_ADDRESS, RESOLVER_OPTIONS } from '../dns/contract.ts';
import type { ResolvConfOptions, ResolverSettings } from './contract.ts';

/** Docker's fallback when the host names no usable resolver. */
const FALLBACK_SERVERS: readonly string[] = ['8.8.8.8', '8.8.4.4'];
export const RESOLVED_STUB = '127.0.0.53';

interface Parsed {
  readonly servers: readonly string[];
  readonly search: readonly string[];
  readonly options: readonly string[];
}

/** Reads nameservers, the last search list and all options. */
export function parseResolvConf(content: string): Parsed {
  const servers: string[] = [];
  let search: string[] = [];
  const options: string[] = [];
  for (const line of content.split('\n')) {
    const [keyword, ...values] = line
      .replace(/[#;].*$/, '')
      .trim()
      .split(/\s+/);
    if (keyword === 'nameserver' && values[0] !== undefined) servers.push(values[0]);
    if (keyword === 'search' || keyword === 'domain') search = values;
    if (keyword === 'options') options.push(...values);
  }
  return { servers, search, options };
}

function isLoopback(server: string): boolean {
  return server.startsWith('127.') || server === '::1';
}

/** Content for a container. `ipv6` tells whether the network has it. */
export function containerResolvConf(host: string, wanted: ResolvConfOptions, ipv6 = false): string {
  const parsed = parseResolvConf(host);
  const overridden = wanted.servers.length + wanted.search.length + wanted.options.length > 0;
  if (wanted.mode === 'host' && !overridden) return host;
  let servers: readonly string[] = wanted.mode === 'resolver' ? [RESOLVER_ADDRESS] : wanted.servers;
  if (servers.length === 0) {
    servers = parsed.servers;
    if (wanted.mode === 'bridge') {
      servers = servers.filter((server) => !isLoopback(server) && (ipv6 || isIP(server.replace(/%.*$/, '')) === 4));
      if (servers.length === 0) servers = FALLBACK_SERVERS;
    }
  }
  // Compat: a search of "." means none, overriding the host's.
  const search = wanted.search.length === 0 ? parsed.search : wanted.search.filter((domain) => domain !== '.');
  const options = [...(wanted.options.length === 0 ? parsed.options : wanted.options)];
  if (wanted.mode === 'resolver') {
    for (const option of RESOLVER_OPTIONS) if (!names(options).includes(names([option])[0])) options.push(option);
  }
  const lines = servers.map((server) => `nameserver ${server}`);
  if (search.length > 0) lines.push(`search ${search.join(' ')}`);
  if (options.length > 0) lines.push(`options ${options.join(' ')}`);
  return `${lines.join('\n')}\n`;
}

function names(options: readonly string[]): (string | undefined)[] {
  return options.map((option) => option.split(':')[0]);
}

/** Where the embedded resolver forwards to: the servers named for the container, else the host's own. */
export function resolverSettings(host: string, wanted: Omit<ResolvConfOptions, 'mode'>): ResolverSettings {
  const parsed = parseResolvConf(host);
  const isNamed = wanted.servers.length > 0;
  const options = wanted.options.length === 0 ? parsed.options : wanted.options;
  return {
    upstreams: (isNamed ? wanted.servers : parsed.servers).map((address) => ({ address, fromHost: !isNamed })),
    ndotsSet: names(options).includes('ndots'),
  };
}
