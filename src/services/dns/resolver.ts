/**
 * The resolvers of all containers: one listener a container, which asks the container's view at each query,
 * and one forwarder for all. Whatever goes wrong with one query ends in a failure reply for that query.
 */
import type { DnsTransport, Listener, Protocol, Reply } from '#system/dns/contract.ts';
import { type Id, shortId } from '#types/ids.ts';
import type { Resolver, ResolverView } from './contract.ts';
import { decide } from './decide.ts';
import { Forwarder } from './forwarder.ts';
import { buildReply, type Query, RCODE, receiveQuery } from './message.ts';

/** One warning in so long for all containers; a flood of queries must not become a flood of log lines. */
const WARNING_INTERVAL_MS = 10_000;

export interface ResolverOptions {
  readonly transport: DnsTransport;
  /** Monotonic milliseconds; the process's by default. */
  readonly now?: () => number;
  readonly warn: (message: string) => void;
}

/** Opens the service; nothing listens before the first `attach`. */
export function openResolver(options: ResolverOptions): Resolver {
  return new EmbeddedResolver(options);
}

interface Attached {
  readonly sandboxPath: string;
  readonly listener: Listener;
  readonly ended: AbortController;
  view: () => ResolverView;
}

class EmbeddedResolver implements Resolver {
  readonly #options: ResolverOptions;
  readonly #now: () => number;
  readonly #forwarder: Forwarder;
  readonly #attached = new Map<Id, Attached>();
  #warnedMs = Number.NEGATIVE_INFINITY;

  constructor(options: ResolverOptions) {
    this.#options = options;
    this.#now = options.now ?? (() => performance.now());
    this.#forwarder = new Forwarder({
      transport: options.transport,
      now: this.#now,
      limited: (client) => this.#warn(`resolver: too many queries at a time by container ${shortId(client)}`),
    });
  }

  async attach(sandboxPath: string, containerId: Id, view: () => ResolverView): Promise<void> {
    const present = this.#attached.get(containerId);
    if (present?.sandboxPath === sandboxPath) {
      present.view = view;
      return;
    }
    await this.detach(containerId);
    const ended = new AbortController();
    const listener = await this.#options.transport.listen(sandboxPath, (message, protocol, reply) => {
      const attached = this.#attached.get(containerId);
      if (attached !== undefined && !ended.signal.aborted)
        this.#receive(containerId, attached, message, protocol, reply);
    });
    // Another attach of this container may have come first; the last one counts.
    await this.detach(containerId);
    this.#attached.set(containerId, { sandboxPath, listener, ended, view });
  }

  async detach(containerId: Id): Promise<void> {
    const attached = this.#attached.get(containerId);
    if (attached === undefined) return;
    this.#attached.delete(containerId);
    attached.ended.abort();
    this.#forwarder.forget(containerId);
    await attached.listener[Symbol.asyncDispose]();
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await Promise.all([...this.#attached.keys()].map((containerId) => this.detach(containerId)));
  }

  #receive(containerId: Id, attached: Attached, message: Buffer, protocol: Protocol, reply: Reply): void {
    const received = receiveQuery(message);
    if (received.kind === 'rejected') reply(received.reply);
    if (received.kind !== 'query') return;
    const { query } = received;
    const fail = (error: unknown): void => {
      // The text must not hold what was asked: names are the container's business.
      const name = error instanceof Error ? error.name : 'unknown error';
      this.#warn(`resolver: a query of container ${shortId(containerId)} failed: ${name}`);
      reply(buildReply(query, { code: RCODE.serverFailure }));
    };
    this.#answer(containerId, attached, { query, protocol, reply }).catch(fail);
  }

  async #answer(
    containerId: Id,
    { view, sandboxPath, ended }: Attached,
    { query, protocol, reply }: { query: Query; protocol: Protocol; reply: Reply },
  ): Promise<void> {
    const decision = decide(query, view(), protocol);
    if (decision.kind === 'reply') return reply(decision.reply);
    const { upstreams } = decision;
    const answer = await this.#forwarder.forward(
      { query, protocol, upstreams, client: containerId, namespacePath: sandboxPath },
      ended.signal,
    );
    if (answer !== undefined) reply(answer);
  }

  #warn(message: string): void {
    const now = this.#now();
    if (now - this.#warnedMs < WARNING_INTERVAL_MS) return;
    this.#warnedMs = now;
    this.#options.warn(message);
  }
}
