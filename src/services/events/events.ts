/**
 * The event bus behind `docker events`: every state change is published here, in order.
 *
 * The last HISTORY_LIMIT events are kept for `since`; a listener that falls more than LISTENER_BACKLOG_LIMIT
 * events behind loses the oldest ones rather than growing the daemon (dockerd drops after 100 ms, same idea).
 */
import type { Filters } from './filter.ts';
import { matchesEvent } from './filter.ts';

/** One event as the API sends it (EventMessage), before version-dependent fields are added. */
export interface EngineEvent {
  readonly Type: string;
  readonly Action: string;
  readonly Actor: { readonly ID: string; readonly Attributes: Readonly<Record<string, string>> };
  readonly scope: 'local' | 'swarm';
  /** Seconds since the epoch. */
  readonly time: number;
  /** Nanoseconds since the epoch; exceeds 2^53, so it is encoded from a bigint. */
  readonly timeNano: bigint;
}

/** Kept for `since`, as dockerd does. */
export const HISTORY_LIMIT = 256;
/** Events waiting for one slow listener before the oldest are dropped. */
export const LISTENER_BACKLOG_LIMIT = 1024;

/** Where use-cases publish. */
export interface EventPublisher {
  publish(type: string, action: string, actorId: string, attributes: Readonly<Record<string, string>>): void;
}

type Listener = (event: EngineEvent) => void;

/** The bus of one daemon. */
export class Events implements EventPublisher {
  readonly #history: EngineEvent[] = [];
  readonly #listeners = new Set<Listener>();
  readonly #nowNs: () => bigint;

  constructor(nowNs: () => bigint) {
    this.#nowNs = nowNs;
  }

  publish(type: string, action: string, actorId: string, attributes: Readonly<Record<string, string>>): void {
    const timeNano = this.#nowNs();
    const event: EngineEvent = {
      Type: type,
      Action: action,
      Actor: { ID: actorId, Attributes: attributes },
      scope: 'local',
      time: Number(timeNano / 1_000_000_000n),
      timeNano,
    };
    this.#history.push(event);
    if (this.#history.length > HISTORY_LIMIT) this.#history.shift();
    for (const listener of this.#listeners) listener(event);
  }

  /** Calls `listener` synchronously for each later event. */
  subscribe(listener: Listener): Disposable {
    this.#listeners.add(listener);
    return { [Symbol.dispose]: () => void this.#listeners.delete(listener) };
  }

  /** How many clients listen (`NEventsListener` of /info). */
  get listenerCount(): number {
    return this.#listeners.size;
  }

  /**
   * Past events from `sinceNs` (undefined: none), then live ones until `untilNs` (undefined: for ever) or abort.
   * An `untilNs` in the past ends after the history.
   */
  async *stream(
    options: { sinceNs?: bigint | undefined; untilNs?: bigint | undefined; filters: Filters },
    signal: AbortSignal,
  ): AsyncGenerator<EngineEvent> {
    const backlog: EngineEvent[] = [];
    let wake: (() => void) | undefined;
    using _subscription = this.subscribe((event) => {
      if (!matchesEvent(event, options.filters)) return;
      if (backlog.length >= LISTENER_BACKLOG_LIMIT) backlog.shift();
      backlog.push(event);
      wake?.();
    });
    if (options.sinceNs !== undefined) yield* this.#past(options.sinceNs, options.untilNs, options.filters);
    const untilNs = options.untilNs;
    let deadline: NodeJS.Timeout | undefined;
    const onAbort = (): void => wake?.();
    signal.addEventListener('abort', onAbort);
    try {
      while (!signal.aborted) {
        for (let event = backlog.shift(); event !== undefined; event = backlog.shift()) {
          if (untilNs !== undefined && event.timeNano > untilNs) return;
          yield event;
        }
        if (untilNs !== undefined && this.#nowNs() >= untilNs) return;
        if (signal.aborted) return;
        // Armed for each wait: a timer may fire a little before our own clock reaches the end.
        const waitMs = untilNs === undefined ? undefined : millisecondsUntil(untilNs, this.#nowNs());
        await new Promise<void>((resolve) => {
          wake = resolve;
          if (waitMs !== undefined) deadline = setTimeout(resolve, waitMs);
        });
        clearTimeout(deadline);
        wake = undefined;
      }
    } finally {
      clearTimeout(deadline);
      signal.removeEventListener('abort', onAbort);
    }
  }

  #past(sinceNs: bigint, untilNs: bigint | undefined, filters: Filters): EngineEvent[] {
    return this.#history.filter(
      (event) =>
        event.timeNano >= sinceNs &&
        (untilNs === undefined || event.timeNano <= untilNs) &&
        matchesEvent(event, filters),
    );
  }
}

/** setTimeout takes at most 2^31-1 ms; later deadlines are re-checked when it fires. */
function millisecondsUntil(untilNs: bigint, nowNs: bigint): number {
  const remaining = (untilNs - nowNs) / 1_000_000n + 1n;
  if (remaining <= 0n) return 0;
  return Number(remaining > 2_147_483_647n ? 2_147_483_647n : remaining);
}
