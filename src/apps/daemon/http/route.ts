/**
 * A route: one operation of the Engine API, from decoded request to encoded answer.
 *
 * Handlers decode input, call one use-case and encode its result. They throw GantryErrors; the server
 * turns those into statuses (errors.ts). Paths carry no version: the server strips `/v1.NN`.
 */
import type { IncomingMessage, ServerResponse } from 'node:http';
import type { Duplex } from 'node:stream';

/** Requested API version, comparable. */
export interface ApiVersion {
  readonly major: number;
  readonly minor: number;
  /** Whether this version is at least 1.`minor`. */
  atLeast(minor: number): boolean;
  toString(): string;
}

/** Query parameters with Go's reading of them. */
export interface Query {
  has(name: string): boolean;
  /** First value; empty string when absent. */
  text(name: string): string;
  all(name: string): string[];
  /** Docker's boolean: "", 0, no, false, none are false (any case), all else true. `absent` when the key is missing (default false). */
  flag(name: string, absent?: boolean): boolean;
  /** Go's Int64ValueOrZero: 0 when absent; throws `invalid` with Go's strconv text otherwise. */
  integer(name: string): number;
  /** The same where docker uses Go's Atoi and answers 500. */
  plainInteger(name: string): number;
  /** The `filters` parameter, in the current and the legacy form; `accepted` keys only, others are `invalid filter '{name}'`. */
  filters(accepted?: readonly string[]): Filters;
}

/** Parsed filters: key → values. */
export type Filters = ReadonlyMap<string, readonly string[]>;

export interface HijackOptions {
  readonly contentType: string;
}

export interface RouteContext {
  readonly request: IncomingMessage;
  readonly response: ServerResponse;
  /** Decoded path parameters; `{name:.*}` captures slashes. */
  readonly params: Readonly<Record<string, string>>;
  readonly query: Query;
  readonly version: ApiVersion;
  /** Aborted when the client goes away or the daemon stops. */
  readonly signal: AbortSignal;
  /** The JSON body decoded by the definition `schema` of the OpenAPI (Go-tolerant); throws `invalid`. `optional` gives undefined for an empty body. */
  body<T>(schema: string): Promise<T>;
  optionalBody<T>(schema: string): Promise<T | undefined>;
  /** Sends JSON. */
  json(value: unknown, status?: number): void;
  text(value: string, status?: number): void;
  empty(status: number): void;
  /** Starts a chunked JSON-lines answer, headers flushed at once. `write` waits for back-pressure. */
  jsonLines(): { write(value: unknown): Promise<void>; end(): void };
  /** Sends a byte stream (tar, logs); ends the response; aborts it when the source fails. */
  bytes(contentType: string, source: AsyncIterable<Buffer>): Promise<void>;
  /** Takes over the connection: 101 UPGRADED when asked by header, else 200; returns the raw duplex. */
  hijack(options: HijackOptions): Promise<Duplex>;
  /** Like hijack for `GET …/attach/ws`: WebSocket handshake, returns a duplex of unframed bytes. */
  websocket(): Promise<Duplex>;
}

export type Handler = (context: RouteContext) => Promise<void> | void;

export interface Route {
  readonly method: 'GET' | 'HEAD' | 'POST' | 'PUT' | 'DELETE' | 'OPTIONS';
  /** e.g. `/containers/{id}/json`, `/images/{name:.*}/json`. */
  readonly path: string;
  readonly handler: Handler;
  /** Lowest API minor version that has this route. */
  readonly since?: number;
}
