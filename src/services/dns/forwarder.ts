/**
 * Forwards questions of containers to upstream servers. Equal questions of a container in flight are asked
 * once, answers are kept for their TTL, and everything that waits or holds a socket is counted against a limit.
 */
import type { DnsTransport, Protocol, Server } from '#system/dns/contract.ts';
import { ResponseCache } from './cache.ts';
import type { Upstream } from './contract.ts';
import {
  buildReply,
  type Query,
  questionKey,
  RCODE,
  type Response,
  replyFromKept,
  replyLimit,
  withIdentity,
} from './message.ts';
import { Races } from './race.ts';
import { Turns } from './turns.ts';

/** Questions being asked; each holds up to three sockets. Docker allows 1024 for each container, without a total. */
const ASKED_MAX = 512;
/** Of one container. */
const ASKED_BY_ONE_MAX = 128;
/** Of one container, waiting for their turn. */
const WAITING_OF_ONE_MAX = 1024;
/** Compat: docker refuses a query that has not got its turn by then. */
const TURN_TIMEOUT_MS = 4000;
/** Queries of one container that wait for the answer to an equal one. */
const FOLLOWERS_MAX = 1024;
const DNS_PORT = 53;

/** A question to forward. */
export interface Forward {
  readonly query: Query;
  readonly protocol: Protocol;
  readonly upstreams: readonly Upstream[];
  /** The asking container; limits count by it. */
  readonly client: string;
  readonly namespacePath: string;
}

export interface ForwarderOptions {
  readonly transport: DnsTransport;
  /** Monotonic milliseconds. */
  readonly now: () => number;
  /** Told when a container's query is refused because too many are under way. */
  readonly limited: (client: string) => void;
}

type Outcome = Response | 'failed' | 'refused';

/** Equal questions: the one being asked, and how many wait for its answer. */
interface Pending {
  readonly outcome: Promise<Outcome>;
  followers: number;
}

/** Forwards questions. */
export class Forwarder {
  readonly #options: ForwarderOptions;
  readonly #cache: ResponseCache;
  readonly #races: Races;
  readonly #pending = new Map<string, Pending>();
  readonly #turns = new Turns({
    all: ASKED_MAX,
    each: ASKED_BY_ONE_MAX,
    waiting: WAITING_OF_ONE_MAX,
    timeoutMs: TURN_TIMEOUT_MS,
  });

  constructor(options: ForwarderOptions) {
    this.#options = options;
    this.#cache = new ResponseCache(options.now);
    this.#races = new Races(options.transport, options.now);
  }

  /** The reply for the client: an upstream's, or a failure of our own. Undefined when `signal` was raised. */
  async forward(forward: Forward, signal: AbortSignal): Promise<Buffer | undefined> {
    const { query, protocol } = forward;
    const question = questionKey(query);
    const kept = question === undefined ? undefined : this.#cache.get(scopeOf(forward), question);
    if (kept !== undefined) {
      const ageSeconds = Math.floor((this.#options.now() - kept.storedMs) / 1000);
      const reply = replyFromKept(kept.bytes, query, ageSeconds);
      const fits = reply.length <= replyLimit(query, protocol);
      return fits ? reply : buildReply(query, { truncated: true });
    }
    const outcome = await (question === undefined
      ? this.#ask(forward, signal)
      : this.#askOnce(forward, question, signal));
    if (signal.aborted) return undefined;
    if (outcome === 'failed') return buildReply(query, { code: RCODE.serverFailure });
    if (outcome !== 'refused') return withIdentity(outcome.bytes, query);
    this.#options.limited(forward.client);
    return buildReply(query, { code: RCODE.refused });
  }

  /** Forgets what the servers of a container's own network said. */
  forget(client: string): void {
    this.#cache.forget(client);
  }

  async #askOnce(forward: Forward, question: string, signal: AbortSignal): Promise<Outcome> {
    const scope = scopeOf(forward);
    const key = `${forward.client}\t${forward.protocol}\t${scope}\t${question}`;
    const known = this.#pending.get(key);
    if (known !== undefined) {
      if (known.followers >= FOLLOWERS_MAX) return 'refused';
      known.followers += 1;
      return known.outcome;
    }
    const outcome = this.#ask(forward, signal);
    this.#pending.set(key, { outcome, followers: 0 });
    const response = await outcome.finally(() => this.#pending.delete(key));
    if (typeof response === 'string' || response.truncated) return response;
    // A server that sends more than was allowed would make us cut its answer for the next client.
    if (response.bytes.length > replyLimit(forward.query, forward.protocol)) return response;
    this.#cache.keep(scope, question, response);
    return response;
  }

  async #ask(forward: Forward, signal: AbortSignal): Promise<Outcome> {
    using turn = await this.#turns.take(forward.client, signal);
    if (turn === undefined) return 'refused';
    const { query, protocol, namespacePath } = forward;
    const servers = forward.upstreams.map(
      ({ address, port = DNS_PORT, fromHost }): Server => ({
        address,
        port,
        namespacePath: fromHost ? undefined : namespacePath,
      }),
    );
    return (await this.#races.hold({ query, protocol, servers }, signal)) ?? 'failed';
  }
}

/** Whose answers may be shared: all containers that ask the same servers from the host, else the container's own. */
function scopeOf({ upstreams, client }: Forward): string {
  const servers = upstreams.map(({ address, port = DNS_PORT }) => `${address} ${port}`).join(',');
  return upstreams.every(({ fromHost }) => fromHost) ? `host ${servers}` : `${client} ${servers}`;
}
