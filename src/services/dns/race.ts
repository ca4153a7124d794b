/**
 * Asking several servers one question: in order, but a silent server is joined by the next after a short
 * while, and one that fails hands over at once. The first usable response wins; the others are dropped.
 */
import { randomInt } from 'node:crypto';
import type { DnsTransport, Protocol, Server } from '#system/dns/contract.ts';
import { type Query, RCODE, type Response, readResponse, withId } from './message.ts';

/** Compat: docker's patience with one server; clients give up after five seconds. */
const SERVER_TIMEOUT_MS = 4000;
/** A server silent for so long is joined by the next. Answers from far away take less. */
const HEDGE_MS = 400;
/** A server that was silent is asked together with the next for so long. */
const SUSPICION_MS = 30_000;
/** Servers remembered as silent; when more are, all are given another chance. */
const SUSPECTS_MAX = 256;
const ID_COUNT = 65_536;

export interface Race {
  readonly query: Query;
  readonly protocol: Protocol;
  /** In order, at least one. */
  readonly servers: readonly Server[];
}

/** Holds races, and remembers which servers were silent lately. */
export class Races {
  readonly #transport: DnsTransport;
  readonly #now: () => number;
  /** Server → until when it is suspected. */
  readonly #suspects = new Map<string, number>();

  /** `now` gives monotonic milliseconds. */
  constructor(transport: DnsTransport, now: () => number) {
    this.#transport = transport;
    this.#now = now;
  }

  /** The first usable response; undefined when no server had one. */
  hold(race: Race, signal: AbortSignal): Promise<Response | undefined> {
    const ended = new AbortController();
    return new Promise((resolve) => {
      const running = new Map<Server, number>();
      let next = 0;
      let timer: NodeJS.Timeout | undefined;
      const finish = (response: Response | undefined): void => {
        clearTimeout(timer);
        signal.removeEventListener('abort', abandon);
        for (const [server, sinceMs] of running) if (this.#now() - sinceMs >= HEDGE_MS) this.#suspect(server);
        ended.abort();
        resolve(response);
      };
      const abandon = (): void => {
        running.clear();
        finish(undefined);
      };
      const startNext = (): void => {
        clearTimeout(timer);
        const server = race.servers[next];
        if (server === undefined) {
          if (running.size === 0) finish(undefined);
          return;
        }
        next += 1;
        running.set(server, this.#now());
        void this.#ask(race, server, ended.signal).then((response) => {
          running.delete(server);
          if (ended.signal.aborted) return;
          if (response === undefined) startNext();
          else finish(response);
        });
        if (next < race.servers.length) timer = setTimeout(startNext, this.#isSuspect(server) ? 0 : HEDGE_MS);
      };
      if (signal.aborted) return abandon();
      signal.addEventListener('abort', abandon);
      startNext();
    });
  }

  /** One server's usable response; undefined for silence, nonsense, and refusals that another server may not share. */
  async #ask(race: Race, server: Server, signal: AbortSignal): Promise<Response | undefined> {
    const { query, protocol } = race;
    const id = randomInt(ID_COUNT);
    let response: Response | undefined;
    const startedMs = this.#now();
    try {
      await this.#transport.ask(
        {
          server,
          protocol,
          message: withId(query, id),
          accept: (bytes) => {
            response = readResponse(query, id, bytes);
            return response !== undefined;
          },
          timeoutMs: SERVER_TIMEOUT_MS,
        },
        signal,
      );
    } catch {
      if (!signal.aborted && this.#now() - startedMs >= HEDGE_MS) this.#suspect(server);
      return undefined;
    }
    this.#suspects.delete(keyOf(server));
    return response?.code === RCODE.serverFailure || response?.code === RCODE.refused ? undefined : response;
  }

  #suspect(server: Server): void {
    if (this.#suspects.size >= SUSPECTS_MAX) this.#suspects.clear();
    this.#suspects.set(keyOf(server), this.#now() + SUSPICION_MS);
  }

  #isSuspect(server: Server): boolean {
    const untilMs = this.#suspects.get(keyOf(server));
    if (untilMs === undefined) return false;
    if (untilMs > this.#now()) return true;
    this.#suspects.delete(keyOf(server));
    return false;
  }
}

function keyOf({ address, port, namespacePath = '' }: Server): string {
  return `${address} ${port} ${namespacePath}`;
}
