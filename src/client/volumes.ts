/** Operations on volumes. */
import type {
  Volume,
  VolumeCreateOptions,
  VolumeListResponse,
  VolumePruneResponse,
  VolumeUpdateRequest,
} from '#wire/engine.ts';
import { type Connection, encodeFilters, type FilterValues, segment } from './connection.ts';

export class Volumes {
  readonly #connection: Connection;

  constructor(connection: Connection) {
    this.#connection = connection;
  }

  /** Every volume the filters let through, and what could not be asked. */
  list(options: { filters?: FilterValues; signal?: AbortSignal } = {}): Promise<VolumeListResponse> {
    const query = { filters: encodeFilters(options.filters) };
    return this.#connection.json('GET', '/volumes', { query, signal: options.signal });
  }

  /** Makes a volume; without a name it is anonymous. One that exists with the same driver is returned as it is. */
  create(options: VolumeCreateOptions = {}, signal?: AbortSignal): Promise<Volume> {
    return this.#connection.json('POST', '/volumes/create', { body: options, signal });
  }

  inspect(name: string, signal?: AbortSignal): Promise<Volume> {
    return this.#connection.json('GET', `/volumes/${segment(name)}`, { signal });
  }

  /** Changes a cluster volume; `version` is the one that was read. */
  update(name: string, version: number, changes: VolumeUpdateRequest, signal?: AbortSignal): Promise<void> {
    return this.#connection.done('PUT', `/volumes/${segment(name)}`, { query: { version }, body: changes, signal });
  }

  remove(name: string, options: { force?: boolean; signal?: AbortSignal } = {}): Promise<void> {
    const query = { force: options.force };
    return this.#connection.done('DELETE', `/volumes/${segment(name)}`, { query, signal: options.signal });
  }

  /** Removes unused volumes: anonymous ones, or all with the filter `all=1`. */
  prune(filters?: FilterValues, signal?: AbortSignal): Promise<VolumePruneResponse> {
    return this.#connection.json('POST', '/volumes/prune', { query: { filters: encodeFilters(filters) }, signal });
  }
}
