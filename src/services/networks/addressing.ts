/** Gives endpoints their addresses: from the pools of their network, lowest free first, or the one asked for. */
import type { Id } from '#types/ids.ts';
import { type Family, formatIp, parseCidr, parseIp } from './address.ts';
import type { EndpointRequest } from './contract.ts';
import type { EndpointAddresses, EndpointRecord, NetworkRecord } from './driver.ts';
import { AddressBook } from './ipam.ts';

/** The addresses of all networks. Taken ones are remembered until released. */
export class EndpointAddressing {
  readonly #book = new AddressBook();
  readonly #poolsOf: (network: NetworkRecord) => NetworkRecord['pools'];
  readonly #reserved = new Set<Id>();

  constructor(poolsOf: (network: NetworkRecord) => NetworkRecord['pools']) {
    this.#poolsOf = poolsOf;
  }

  /** Start of the daemon: what containers that go on running have. */
  load(records: readonly EndpointRecord[]): void {
    for (const { endpoint } of records) {
      for (const text of [endpoint.ipAddress, endpoint.ipv6Address]) {
        if (text === '') continue;
        const address = parseIp(text);
        this.#book.used(endpoint.networkId, address.family).add(address.value);
      }
    }
  }

  /** Takes addresses of both families of a network; all or none. */
  take(network: NetworkRecord, request: EndpointRequest, hasAddresses: boolean): EndpointAddresses {
    if (!hasAddresses) return { ipv4: undefined, ipv6: undefined };
    this.#reserve(network);
    const ipv4 = this.#takeOne(network, 4, request.ipv4Address);
    try {
      return { ipv4, ipv6: this.#takeOne(network, 6, request.ipv6Address) };
    } catch (error) {
      this.release(network.id, { ipv4, ipv6: undefined });
      throw error;
    }
  }

  #takeOne(network: NetworkRecord, family: Family, wanted: string | undefined): EndpointAddresses['ipv4'] {
    const ranges = this.#poolsOf(network)
      .map(({ subnet, ipRange }) => ({
        subnet: parseCidr(subnet).subnet,
        range: parseCidr(ipRange === undefined || ipRange === '' ? subnet : ipRange).subnet,
      }))
      .filter(({ subnet }) => subnet.family === family);
    if (ranges.length === 0) return undefined;
    const { address, subnet } = this.#book.take(network, ranges, wanted === undefined ? undefined : parseIp(wanted));
    return { address: formatIp(address), subnet };
  }

  /** Gateways and auxiliary addresses are never given. */
  #reserve(network: NetworkRecord): void {
    if (this.#reserved.has(network.id)) return;
    this.#reserved.add(network.id);
    for (const { gateway, auxiliaryAddresses } of this.#poolsOf(network)) {
      for (const text of [...(gateway === undefined ? [] : [gateway]), ...Object.values(auxiliaryAddresses ?? {})]) {
        const address = parseIp(text);
        this.#book.used(network.id, address.family).add(address.value);
      }
    }
  }

  release(networkId: Id, { ipv4, ipv6 }: EndpointAddresses): void {
    for (const each of [ipv4, ipv6]) if (each !== undefined) this.#book.release(networkId, parseIp(each.address));
  }

  releaseRecord({ endpoint }: EndpointRecord): void {
    for (const text of [endpoint.ipAddress, endpoint.ipv6Address])
      if (text !== '') this.#book.release(endpoint.networkId, parseIp(text));
  }

  forget(networkId: Id): void {
    this.#book.forget(networkId);
    this.#reserved.delete(networkId);
  }
}
