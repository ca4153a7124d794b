/**
 * Who may ask upstream servers now: a bounded number of questions at a time, of all containers and of each,
 * so that one container cannot take all sockets of the daemon. The rest waits its turn, for a bounded while.
 */

export interface TurnLimits {
  /** Held at a time by all clients together. */
  readonly all: number;
  /** Held at a time by one client. */
  readonly each: number;
  /** Waiting at a time of one client. */
  readonly waiting: number;
  readonly timeoutMs: number;
}

interface Client {
  held: number;
  readonly queue: Set<(granted: boolean) => void>;
}

/** Gives out turns. */
export class Turns {
  readonly #limits: TurnLimits;
  /** In order of their last turn, so that clients take turns too. */
  readonly #clients = new Map<string, Client>();
  #held = 0;

  constructor(limits: TurnLimits) {
    this.#limits = limits;
  }

  /** A turn, to be disposed of; undefined when none came in time, too many wait already, or `signal` was raised. */
  async take(name: string, signal: AbortSignal): Promise<Disposable | undefined> {
    const client = this.#clients.get(name) ?? { held: 0, queue: new Set() };
    this.#clients.set(name, client);
    if (this.#mayHold(client)) return this.#turn(name, client);
    if (client.queue.size >= this.#limits.waiting || !(await this.#wait(client, signal))) {
      this.#forgetIdle(name, client);
      return undefined;
    }
    return { [Symbol.dispose]: () => this.#release(name, client) };
  }

  #mayHold(client: Client): boolean {
    return this.#held < this.#limits.all && client.held < this.#limits.each;
  }

  #turn(name: string, client: Client): Disposable {
    this.#held += 1;
    client.held += 1;
    return { [Symbol.dispose]: () => this.#release(name, client) };
  }

  /** Whoever grants counts the turn as held at once. */
  #wait(client: Client, signal: AbortSignal): Promise<boolean> {
    return new Promise((resolve) => {
      const settle = (granted: boolean): void => {
        clearTimeout(timer);
        signal.removeEventListener('abort', giveUp);
        client.queue.delete(settle);
        resolve(granted);
      };
      const giveUp = (): void => settle(false);
      const timer = setTimeout(giveUp, this.#limits.timeoutMs);
      client.queue.add(settle);
      if (signal.aborted) giveUp();
      else signal.addEventListener('abort', giveUp);
    });
  }

  #release(name: string, client: Client): void {
    this.#held -= 1;
    client.held -= 1;
    this.#forgetIdle(name, client);
    for (const [nextName, next] of this.#clients) {
      const [grant] = next.queue;
      if (grant === undefined || !this.#mayHold(next)) continue;
      this.#clients.delete(nextName);
      this.#clients.set(nextName, next);
      this.#held += 1;
      next.held += 1;
      grant(true);
      return;
    }
  }

  #forgetIdle(name: string, client: Client): void {
    if (client.held === 0 && client.queue.size === 0 && this.#clients.get(name) === client) this.#clients.delete(name);
  }
}
