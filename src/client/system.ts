/** Operations on the daemon itself: what it is, what it holds, what happens. */
import type {
  AuthConfig,
  EventMessage,
  SystemAuthResponse,
  SystemDataUsageResponse,
  SystemInfo,
  SystemVersion,
} from '#wire/engine.ts';
import { type Connection, encodeFilters, type FilterValues, type PingInfo } from './connection.ts';

export interface EventsOptions {
  readonly since?: string | number;
  readonly until?: string | number;
  readonly filters?: FilterValues;
  readonly signal?: AbortSignal;
}

/** A line of a store check. */
export interface StoreMessage {
  readonly finding?: Readonly<Record<string, unknown>>;
  readonly summary?: Readonly<Record<string, unknown>>;
  readonly error?: string;
}

export class System {
  readonly #connection: Connection;

  constructor(connection: Connection) {
    this.#connection = connection;
  }

  ping(signal?: AbortSignal): Promise<PingInfo> {
    return this.#connection.ping(signal);
  }

  info(signal?: AbortSignal): Promise<SystemInfo> {
    return this.#connection.json('GET', '/info', { signal });
  }

  version(signal?: AbortSignal): Promise<SystemVersion> {
    return this.#connection.json('GET', '/version', { signal });
  }

  dataUsage(
    types?: readonly ('container' | 'image' | 'volume' | 'build-cache')[],
    signal?: AbortSignal,
  ): Promise<SystemDataUsageResponse> {
    return this.#connection.json('GET', '/system/df', { query: { type: types }, signal });
  }

  /** Events until the loop is left, `until` is reached or the signal aborts. */
  events(options: EventsOptions = {}): AsyncGenerator<EventMessage, void, undefined> {
    const { since, until, filters, signal } = options;
    return this.#connection.lines('GET', '/events', {
      query: { since, until, filters: encodeFilters(filters) },
      signal,
    });
  }

  /** Checks credentials with their registry; an identity token may come back to be kept instead of the password. */
  authenticate(auth: AuthConfig, signal?: AbortSignal): Promise<SystemAuthResponse> {
    return this.#connection.json('POST', '/auth', { body: auth, signal });
  }

  /**
   * Gantry's own: checks the store of images. `deep` reads every byte, `repair` fetches what is broken anew, `drop` gives
   * up what cannot be repaired. Findings come as they are made, the summary last.
   */
  checkStore(
    options: { deep?: boolean; repair?: boolean; drop?: boolean; signal?: AbortSignal } = {},
  ): AsyncGenerator<StoreMessage, void, undefined> {
    const { signal, ...query } = options;
    return this.#connection.lines('POST', '/gantry/system/fsck', { query, signal });
  }
}
