/** The `host` and `null` drivers: nothing is made; an endpoint only says that the container is there. */
import { GantryError } from '#types/errors.ts';
import type { Endpoint, NetworkSpec } from './contract.ts';
import type { EndpointRecord, JoinContext, NetworkDriver, NetworkPlan } from './driver.ts';

/** A driver without interfaces. */
export class StaticDriver implements NetworkDriver {
  readonly name: string;
  readonly hasAddresses = false;

  constructor(name: 'host' | 'null') {
    this.name = name;
  }

  plan(_spec: NetworkSpec): NetworkPlan {
    throw new GantryError('forbidden', `only one instance of "${this.name}" network is allowed`);
  }

  create(): void {}

  remove(): void {}

  async join(context: JoinContext): Promise<EndpointRecord> {
    const { network, request, endpointId, save } = context;
    const record: EndpointRecord = {
      endpoint: {
        endpointId,
        networkId: network.id,
        networkName: network.name,
        interfaceName: '',
        ipAddress: '',
        prefixLength: 0,
        gateway: '',
        macAddress: '',
        ipv6Address: '',
        ipv6PrefixLength: 0,
        ipv6Gateway: '',
        ports: [],
      },
      containerId: request.containerId,
      containerName: request.containerName,
      hostInterface: '',
      links: [],
      exposed: [],
    };
    save(record);
    return record;
  }

  async leave(): Promise<void> {}

  async publish(): Promise<Endpoint['ports']> {
    return [];
  }

  async unpublish(): Promise<void> {}

  async recover(): Promise<void> {}

  hostAddress(): undefined {
    return undefined;
  }

  async [Symbol.asyncDispose](): Promise<void> {}
}
