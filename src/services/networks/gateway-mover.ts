/** Moves a container's default routes and published ports between its endpoints, as they join and leave. */
import { hasCode } from '#system/kernel/errno.ts';
import { AF_INET, AF_INET6, deleteDefaultRoute, setDefaultRoute } from '#system/netlink/route.ts';
import { errorMessage, GantryError } from '#types/errors.ts';
import type { Sandbox } from './contract.ts';
import type { EndpointRecord, NetworkDriver, NetworkRecord } from './driver.ts';
import type { Gateways } from './gateway.ts';
import type { Sandboxes } from './sandboxes.ts';
import type { NetworkStore } from './store.ts';

export interface GatewayMoverOptions {
  readonly store: NetworkStore;
  readonly sandboxes: Sandboxes;
  readonly driverOf: (network: NetworkRecord) => NetworkDriver;
  readonly warn: (message: string) => void;
}

/** The mover of one daemon. */
export class GatewayMover {
  readonly #options: GatewayMoverOptions;

  constructor(options: GatewayMoverOptions) {
    this.#options = options;
  }

  /** The record as it is stored now. */
  current(record: EndpointRecord): EndpointRecord {
    const { endpointId } = record.endpoint;
    return (
      this.#options.store.endpointsOf(record.containerId).find(({ endpoint }) => endpoint.endpointId === endpointId) ??
      record
    );
  }

  /** Moves ports and default routes from the endpoints that had them to those that are to have them. */
  async settle(sandbox: Sandbox, before: Gateways, after: Gateways): Promise<void> {
    const idOf = (record: EndpointRecord | undefined): string | undefined => record?.endpoint.endpointId;
    const isSame = {
      ipv4: idOf(before.ipv4) === idOf(after.ipv4),
      ipv6: idOf(before.ipv6) === idOf(after.ipv6),
    };
    if (!isSame.ipv4 || !isSame.ipv6) {
      await this.#unpublish(before);
      try {
        await this.#publish(after);
      } catch (error) {
        await this.#publish(before).catch((again: unknown) =>
          this.#options.warn(`ports cannot be published again: ${errorMessage(again)}`),
        );
        throw error;
      }
    }
    if (!isSame.ipv4) this.#route(sandbox, AF_INET, after.ipv4);
    if (!isSame.ipv6) this.#route(sandbox, AF_INET6, after.ipv6);
  }

  async #unpublish(gateways: Gateways): Promise<void> {
    for (const record of new Set([gateways.ipv4, gateways.ipv6])) {
      if (record === undefined) continue;
      const current = this.current(record);
      const network = this.#options.store.network(record.endpoint.networkId);
      // It may have left in between.
      const isStored = this.#options.store.endpointsOf(record.containerId).includes(current);
      if (network === undefined || !isStored || current.endpoint.ports.length === 0) continue;
      await this.#options.driverOf(network).unpublish(network, current);
      this.#options.store.save({ ...current, endpoint: { ...current.endpoint, ports: [] } });
    }
  }

  async #publish({ ipv4, ipv6 }: Gateways): Promise<void> {
    for (const record of new Set([ipv4, ipv6])) {
      if (record === undefined) continue;
      const current = this.current(record);
      const network = this.#options.store.network(record.endpoint.networkId);
      if (network === undefined || (current.publish ?? []).length === 0) continue;
      const families = { ipv4: record === ipv4, ipv6: record === ipv6 || ipv6 === undefined };
      const ports = await this.#options.driverOf(network).publish(network, current, families);
      if (ports.length > 0) this.#options.store.save({ ...current, endpoint: { ...current.endpoint, ports } });
    }
  }

  #route(sandbox: Sandbox, family: number, record: EndpointRecord | undefined): void {
    const { netlink } = this.#options.sandboxes.open(sandbox);
    if (record === undefined) {
      try {
        netlink.request(deleteDefaultRoute(family));
      } catch (error) {
        if (!hasCode(error, 'ESRCH', 'ENOENT', 'EAFNOSUPPORT', 'ENOTSUP')) throw error;
      }
      return;
    }
    const link = netlink.link(record.endpoint.interfaceName);
    if (link === undefined) throw new GantryError('system', `interface ${record.endpoint.interfaceName} vanished`);
    const { gateway, ipv6Gateway } = record.endpoint;
    netlink.request(setDefaultRoute(family, link.index, (family === AF_INET ? gateway : ipv6Gateway) || undefined));
  }
}
