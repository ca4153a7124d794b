/**
 * All published ports of this daemon: picks host ports, notices conflicts with other containers before asking
 * the kernel, and holds a socket for each. Texts are docker's. One endpoint's ports are taken all or none.
 */
import { readFileSync } from 'node:fs';
import { hasCode } from '#system/kernel/errno.ts';
import { errorMessage, GantryError } from '#types/errors.ts';
import type { PublishedPort, PublishRequest } from './contract.ts';
import { type HostPort, openHostPort } from './host-port.ts';

export interface HostPortsOptions {
  /** --ip: the address used when a request names none; empty means all of IPv4 and IPv6. */
  readonly defaultAddress: string;
  /** Whether packets to IPv4 host addresses are translated by the firewall. */
  readonly translated: boolean;
  /** --userland-proxy. */
  readonly proxy: boolean;
}

const WILDCARDS: readonly string[] = ['0.0.0.0', '::'];

/** Addresses of a container that ports lead to; a family left out is not published. */
export interface PublishTargets {
  readonly ipv4: string | undefined;
  readonly ipv6: string | undefined;
  /** A port on an IPv6 host address may be forwarded to the IPv4 address where there is no other. */
  readonly forwardsIpv6: boolean;
  /** The network's own default host address; undefined: the daemon's. */
  readonly hostBinding: string | undefined;
}

/** Allocates and holds host ports. */
export class HostPorts {
  readonly #options: HostPortsOptions;
  readonly #held = new Map<string, HostPort>();
  /** `tcp/8080` → addresses in use by our containers. */
  readonly #taken = new Map<string, Set<string>>();
  #nextEphemeral = 0;
  #ipv6: boolean;

  constructor(options: HostPortsOptions) {
    this.#options = options;
    this.#ipv6 = hasIpv6();
  }

  /** Takes every requested port for a container; on failure none is kept. */
  async publish(requests: readonly PublishRequest[], targets: PublishTargets): Promise<PublishedPort[]> {
    const published: PublishedPort[] = [];
    try {
      for (const request of requests) published.push(...(await this.#publishOne(request, targets)));
      return published;
    } catch (error) {
      await this.release(published);
      throw error;
    }
  }

  /** Takes back ports of a container that went on running; returns those somebody else has now. */
  async adopt(
    ports: readonly PublishedPort[],
    targets: Pick<PublishTargets, 'ipv4' | 'ipv6'>,
  ): Promise<PublishedPort[]> {
    const lost: PublishedPort[] = [];
    for (const port of ports) {
      if (port.hostPort === 0) continue;
      this.#take(port);
      try {
        await this.#hold(port, targets);
      } catch {
        lost.push(port);
      }
    }
    return lost;
  }

  async release(ports: readonly PublishedPort[]): Promise<void> {
    await Promise.all(
      ports.map(async (port) => {
        const taken = this.#taken.get(portKey(port));
        taken?.delete(port.hostAddress);
        if (taken?.size === 0) this.#taken.delete(portKey(port));
        const key = socketKey(port);
        const held = this.#held.get(key);
        this.#held.delete(key);
        await held?.close();
      }),
    );
  }

  async #publishOne(request: PublishRequest, targets: PublishTargets): Promise<PublishedPort[]> {
    const addresses = this.#addressesOf(request.hostAddress, targets);
    if (addresses.length === 0) return [];
    const fixed = request.hostPortFirst !== 0 && request.hostPortFirst === request.hostPortLast;
    let failure: unknown;
    for (const hostPort of this.#candidates(request)) {
      const { protocol, containerPort } = request;
      const ports = addresses.map((hostAddress) => ({ protocol, containerPort, hostAddress, hostPort }));
      const clash = ports.find((port) => this.#clashes(port));
      if (clash !== undefined) {
        if (!fixed) continue;
        throw new GantryError(
          'system',
          `Bind for ${clash.hostAddress}:${clash.hostPort} failed: port is already allocated`,
        );
      }
      try {
        await this.#bindAll(ports, targets);
        return ports;
      } catch (error) {
        if (fixed || !hasCode(bindCause(error), 'EADDRINUSE')) throw error;
        failure = error;
      }
    }
    throw failure ?? new GantryError('system', 'all ports are allocated');
  }

  async #bindAll(ports: readonly PublishedPort[], targets: Pick<PublishTargets, 'ipv4' | 'ipv6'>): Promise<void> {
    const done: PublishedPort[] = [];
    try {
      for (const port of ports) {
        // Taken before the first wait, so that two starts at once never meet on a port.
        this.#take(port);
        done.push(port);
      }
      for (const port of ports) await this.#hold(port, targets);
    } catch (error) {
      await this.release(done);
      throw error;
    }
  }

  async #hold(port: PublishedPort, targets: Pick<PublishTargets, 'ipv4' | 'ipv6'>): Promise<void> {
    const containerAddress = (port.hostAddress.includes(':') ? targets.ipv6 : undefined) ?? targets.ipv4 ?? '';
    const forwards = this.#options.proxy || !this.#options.translated;
    const target = forwards ? { address: containerAddress, port: port.containerPort } : undefined;
    try {
      this.#held.set(socketKey(port), await openHostPort(port, target));
    } catch (cause) {
      const { hostAddress, hostPort, containerPort, protocol } = port;
      const where = `${bracketed(hostAddress)}:${hostPort}:${bracketed(containerAddress)}:${containerPort}/${protocol}`;
      throw new GantryError('system', `failed to bind host port for ${where}: ${bindText(cause)}`, { cause });
    }
  }

  #take(port: PublishedPort): void {
    const taken = this.#taken.get(portKey(port)) ?? new Set();
    taken.add(port.hostAddress);
    this.#taken.set(portKey(port), taken);
  }

  #clashes(port: PublishedPort): boolean {
    const taken = this.#taken.get(portKey(port));
    if (taken === undefined) return false;
    const sameFamily = [...taken].filter((address) => address.includes(':') === port.hostAddress.includes(':'));
    if (WILDCARDS.includes(port.hostAddress)) return sameFamily.length > 0;
    return sameFamily.some((address) => address === port.hostAddress || WILDCARDS.includes(address));
  }

  /** Host addresses of a request: those of families that lead somewhere. */
  #addressesOf(requested: string, targets: PublishTargets): string[] {
    const forwards = this.#options.proxy || !this.#options.translated;
    const leadsFromIpv6 =
      this.#ipv6 && (targets.ipv6 !== undefined || (targets.ipv4 !== undefined && targets.forwardsIpv6 && forwards));
    const leads = (address: string): boolean => (address.includes(':') ? leadsFromIpv6 : targets.ipv4 !== undefined);
    const wanted = requested || targets.hostBinding || this.#options.defaultAddress;
    const addresses = wanted === '' || (requested === '' && wanted === '0.0.0.0') ? WILDCARDS : [wanted];
    return addresses.filter(leads);
  }

  *#candidates(request: PublishRequest): Generator<number> {
    if (request.hostPortFirst !== 0) {
      for (let port = request.hostPortFirst; port <= request.hostPortLast; port += 1) yield port;
      return;
    }
    const { first, last } = ephemeralRange();
    const count = last - first + 1;
    if (this.#nextEphemeral < first || this.#nextEphemeral > last) this.#nextEphemeral = first;
    for (let tried = 0; tried < count; tried += 1) {
      const port = this.#nextEphemeral;
      this.#nextEphemeral = port === last ? first : port + 1;
      yield port;
    }
  }
}

function portKey(port: PublishedPort): string {
  return `${port.protocol}/${port.hostPort}`;
}

function socketKey(port: PublishedPort): string {
  return `${portKey(port)}/${port.hostAddress}`;
}

function bracketed(address: string): string {
  return address.includes(':') ? `[${address}]` : address;
}

function bindCause(error: unknown): unknown {
  return error instanceof Error && error.cause !== undefined ? error.cause : error;
}

/** Go's words for a failed bind. */
function bindText(error: unknown): string {
  if (hasCode(error, 'EADDRINUSE')) return 'address already in use';
  if (hasCode(error, 'EADDRNOTAVAIL')) return 'cannot assign requested address';
  if (hasCode(error, 'EACCES')) return 'permission denied';
  return errorMessage(error);
}

const DEFAULT_EPHEMERAL_RANGE = { first: 49153, last: 65535 };

/** The kernel's local port range, docker's own where it cannot be read. */
function ephemeralRange(): { first: number; last: number } {
  try {
    const [first, last] = readFileSync('/proc/sys/net/ipv4/ip_local_port_range', 'utf8')
      .trim()
      .split(/\s+/)
      .map(Number);
    if (first !== undefined && last !== undefined && first > 0 && last >= first) return { first, last };
  } catch {
    // Unreadable: use the default.
  }
  return DEFAULT_EPHEMERAL_RANGE;
}

/** Whether this host (namespace) has IPv6 loopback at all. */
function hasIpv6(): boolean {
  try {
    return readFileSync('/proc/thread-self/net/if_inet6', 'utf8') !== '';
  } catch {
    return false;
  }
}
