/**
 * Where a registry is reached: its mirrors in order, then itself over HTTPS, then, only where it may be insecure, over
 * plain HTTP. Docker's rules for docker.io and insecure registries; mirrors of other registries are ours.
 */
import { lookup } from 'node:dns/promises';
import { BlockList, isIP } from 'node:net';
import { GantryError } from '#types/errors.ts';
import type { RegistryCredentials } from './contract.ts';

/** How one host is to be treated (`registry-hosts` in daemon.json). */
export interface RegistryHostOptions {
  readonly mirrors: readonly RegistryMirror[];
  /** TLS verified and no plain HTTP, even on loopback or in an insecure range. */
  readonly verify: boolean;
}

/** A mirror or pull-through cache of one registry. */
export interface RegistryMirror {
  /** `https://host[:port][/path]`; a path goes in front of `/v2/`. */
  readonly url: string;
  /** Put in front of the repository's name, as pull-through projects want it. */
  readonly prefix: string;
  readonly credentials: RegistryCredentials;
}

/** The daemon's options about registries. */
export interface RegistryOptions {
  /** `--registry-mirror`: mirrors of docker.io. */
  readonly mirrors: readonly string[];
  /** `--insecure-registry`: `host[:port]` or CIDR. */
  readonly insecure: readonly string[];
  readonly hosts: Readonly<Record<string, RegistryHostOptions>>;
  /** Holds `<host>/*.crt`, `*.cert` and `*.key`. */
  readonly certificatesDirectory: string;
  readonly proxies: { readonly http: string; readonly https: string; readonly no: string };
}

export interface Endpoint {
  /** Scheme, host and perhaps a path; no slash at the end. */
  readonly url: URL;
  /** Host whose certificates apply. */
  readonly host: string;
  readonly isMirror: boolean;
  readonly verifyTls: boolean;
  /** Credentials of a mirror; undefined: the caller's. */
  readonly credentials: RegistryCredentials | undefined;
  readonly prefix: string;
  /** Sent as `ns`, so that one cache can serve several registries. */
  readonly namespace: string | undefined;
}

const DOCKER_HUB: ReadonlySet<string> = new Set(['docker.io', 'index.docker.io']);
const HUB_REGISTRY = 'https://registry-1.docker.io';
/** Looking up a name only to see whether it lies in an insecure range. */
const LOOKUP_TIMEOUT_MS = 10_000;

function hostOf(name: string): string {
  try {
    return new URL(`https://${name}`).hostname.replace(/^\[|\]$/g, '');
  } catch {
    return name;
  }
}

/** The ranges that are insecure: loopback, and those of the options. */
function insecureRanges(entries: readonly string[]): BlockList {
  const ranges = new BlockList();
  ranges.addSubnet('127.0.0.0', 8, 'ipv4');
  ranges.addSubnet('::1', 128, 'ipv6');
  for (const entry of entries) {
    const [address = '', bits = ''] = entry.split('/');
    const family = isIP(address);
    if (family !== 0 && /^\d{1,3}$/.test(bits)) ranges.addSubnet(address, Number(bits), family === 4 ? 'ipv4' : 'ipv6');
  }
  return ranges;
}

/** Whether TLS to a registry need not be verified, and plain HTTP may be used. */
export async function isInsecure(name: string, entries: readonly string[]): Promise<boolean> {
  if (
    entries.some(
      (entry) => !/\/\d+$/.test(entry) && entry.replace(/^https?:\/\//, '').toLowerCase() === name.toLowerCase(),
    )
  )
    return true;
  const ranges = insecureRanges(entries);
  const host = hostOf(name);
  const addresses = isIP(host) === 0 ? await addressesOf(host) : [host];
  return addresses.some((address) => ranges.check(address, isIP(address) === 6 ? 'ipv6' : 'ipv4'));
}

async function addressesOf(host: string): Promise<string[]> {
  const { promise, resolve } = Promise.withResolvers<string[]>();
  const timer = setTimeout(() => resolve([]), LOOKUP_TIMEOUT_MS);
  const found = lookup(host, { all: true }).then(
    (all) => all.map(({ address }) => address),
    // A name that cannot be resolved counts as secure; the request itself will tell what is wrong.
    () => [],
  );
  const addresses = await Promise.race([found, promise]);
  clearTimeout(timer);
  return addresses;
}

async function mustVerify(host: string, options: RegistryOptions): Promise<boolean> {
  return options.hosts[host]?.verify === true || !(await isInsecure(host, options.insecure));
}

function mirrorUrl(text: string): URL {
  const url = /^https?:\/\//.test(text) ? text : `https://${text}`;
  if (!URL.canParse(url)) throw new GantryError('invalid', `invalid mirror: "${text}" is not a valid URI`);
  return new URL(url.replace(/\/+$/, ''));
}

async function mirrorEndpoint(
  mirror: RegistryMirror,
  namespace: string | undefined,
  options: RegistryOptions,
): Promise<Endpoint> {
  const url = mirrorUrl(mirror.url);
  return {
    url,
    host: url.host,
    isMirror: true,
    verifyTls: await mustVerify(url.host, options),
    // The upstream's credentials are never shown to a mirror.
    credentials: mirror.credentials,
    prefix: mirror.prefix,
    namespace,
  };
}

/** The endpoints of a registry, best first. */
export async function resolveEndpoints(
  domain: string,
  options: RegistryOptions,
  withMirrors: boolean,
): Promise<Endpoint[]> {
  const isHub = DOCKER_HUB.has(domain);
  const endpoints: Endpoint[] = [];
  if (withMirrors) {
    const own = options.hosts[isHub ? 'docker.io' : domain]?.mirrors ?? [];
    for (const mirror of own) endpoints.push(await mirrorEndpoint(mirror, domain, options));
    if (isHub) {
      for (const url of options.mirrors)
        endpoints.push(await mirrorEndpoint({ url, prefix: '', credentials: {} }, undefined, options));
    }
  }
  const plain = { isMirror: false, credentials: undefined, prefix: '', namespace: undefined };
  if (isHub) {
    const url = new URL(HUB_REGISTRY);
    return [...endpoints, { ...plain, url, host: url.host, verifyTls: true }];
  }
  const verifyTls = await mustVerify(domain, options);
  if (!URL.canParse(`https://${domain}`)) throw new GantryError('invalid', `invalid registry host: ${domain}`);
  endpoints.push({ ...plain, url: new URL(`https://${domain}`), host: domain, verifyTls });
  if (!verifyTls) endpoints.push({ ...plain, url: new URL(`http://${domain}`), host: domain, verifyTls });
  return endpoints;
}
