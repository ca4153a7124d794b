/** Which proxy a request goes through: HTTP_PROXY, HTTPS_PROXY and NO_PROXY with Go's rules (httpproxy), pure. */
import { BlockList, isIP } from 'node:net';

export interface ProxySettings {
  readonly http: string;
  readonly https: string;
  /** Hosts, domains (`.example.com`), addresses and CIDRs, separated by commas; `*` for all. */
  readonly no: string;
}

function isExempt(url: URL, no: string): boolean {
  const host = url.hostname.replace(/^\[|\]$/g, '').toLowerCase();
  const family = isIP(host);
  // Go never sends loopback through a proxy.
  if (host === 'localhost' || host === '::1' || (family === 4 && host.startsWith('127.'))) return true;
  const port = url.port === '' ? (url.protocol === 'https:' ? '443' : '80') : url.port;
  return no.split(',').some((entry) => matches(entry.trim().toLowerCase(), { host, port, family }));
}

function matches(entry: string, target: { host: string; port: string; family: number }): boolean {
  if (entry === '') return false;
  if (entry === '*') return true;
  const { host, port, family } = target;
  const [network = '', bits = ''] = entry.split('/');
  if (bits !== '' && isIP(network) !== 0) {
    if (isIP(network) !== family || !/^\d{1,3}$/.test(bits)) return false;
    const range = new BlockList();
    range.addSubnet(network, Number(bits), family === 4 ? 'ipv4' : 'ipv6');
    return range.check(host, family === 4 ? 'ipv4' : 'ipv6');
  }
  if (isIP(entry) !== 0) return entry === host;
  const withPort = /^(.*):(\d+)$/.exec(entry);
  if (withPort !== null && withPort[2] !== port) return false;
  const name = (withPort?.[1] ?? entry).replace(/^\*\./, '.').replace(/^\[|\]$/g, '');
  if (name.startsWith('.')) return host.endsWith(name);
  return host === name || host.endsWith(`.${name}`);
}

/** The proxy's URL, or undefined to connect directly. */
export function proxyFor(url: URL, settings: ProxySettings): string | undefined {
  const proxy = url.protocol === 'https:' ? settings.https : settings.http;
  if (proxy === '' || isExempt(url, settings.no)) return undefined;
  return /^[a-z0-9+.-]+:\/\//i.test(proxy) ? proxy : `http://${proxy}`;
}
