/** Operations on networks. */
import type {
  EndpointSettings,
  Network,
  NetworkCreateRequest,
  NetworkCreateResponse,
  NetworkPruneResponse,
} from '#wire/engine.ts';
import { type Connection, encodeFilters, type FilterValues, segment } from './connection.ts';

export class Networks {
  readonly #connection: Connection;

  constructor(connection: Connection) {
    this.#connection = connection;
  }

  list(options: { filters?: FilterValues; signal?: AbortSignal } = {}): Promise<Network[]> {
    const query = { filters: encodeFilters(options.filters) };
    return this.#connection.json('GET', '/networks', { query, signal: options.signal });
  }

  create(options: NetworkCreateRequest, signal?: AbortSignal): Promise<NetworkCreateResponse> {
    return this.#connection.json('POST', '/networks/create', { body: options, signal });
  }

  /** A network by name or ID; `verbose` adds services, `scope` tells namesakes apart. */
  inspect(name: string, options: { verbose?: boolean; scope?: string; signal?: AbortSignal } = {}): Promise<Network> {
    const { signal, ...query } = options;
    return this.#connection.json('GET', `/networks/${segment(name)}`, { query, signal });
  }

  remove(name: string, signal?: AbortSignal): Promise<void> {
    return this.#connection.done('DELETE', `/networks/${segment(name)}`, { signal });
  }

  /** Attaches a container. */
  connect(
    name: string,
    container: string,
    options: { endpoint?: EndpointSettings; signal?: AbortSignal } = {},
  ): Promise<void> {
    const body = { Container: container, EndpointConfig: options.endpoint ?? null };
    return this.#connection.done('POST', `/networks/${segment(name)}/connect`, { body, signal: options.signal });
  }

  /** Detaches a container; `force` also when it is gone. */
  disconnect(name: string, container: string, options: { force?: boolean; signal?: AbortSignal } = {}): Promise<void> {
    const body = { Container: container, Force: options.force ?? false };
    return this.#connection.done('POST', `/networks/${segment(name)}/disconnect`, { body, signal: options.signal });
  }

  /** Removes networks nothing is attached to. */
  prune(filters?: FilterValues, signal?: AbortSignal): Promise<NetworkPruneResponse> {
    return this.#connection.json('POST', '/networks/prune', { query: { filters: encodeFilters(filters) }, signal });
  }
}
