/**
 * Work that several clients want at once is done once: later ones join, are told how far it is, and get the same
 * result. It goes on while anyone waits for it; when the last one leaves it is cancelled.
 */
import { GantryError } from '#types/errors.ts';
import type { ProgressMessage, WriteProgress } from './progress.ts';

/** Messages about an ID that only tell how far a step is: the newest replaces those not sent yet. */
function isSameStep(left: ProgressMessage, right: ProgressMessage): boolean {
  return left['id'] !== undefined && left['id'] === right['id'] && left['status'] === right['status'];
}

/** One client's view; a slow one skips steps instead of holding the others back. */
class Listener {
  readonly #write: WriteProgress;
  readonly #queue: ProgressMessage[] = [];
  #pumping: Promise<void> = Promise.resolve();
  #isPumping = false;
  #hasLeft = false;

  constructor(write: WriteProgress, past: Iterable<ProgressMessage>) {
    this.#write = write;
    for (const message of past) this.tell(message);
  }

  tell(message: ProgressMessage): void {
    if (this.#hasLeft) return;
    const at = this.#queue.findIndex((waiting) => isSameStep(waiting, message));
    if (at >= 0) this.#queue[at] = message;
    else this.#queue.push(message);
    if (!this.#isPumping) this.#pumping = this.#pump();
  }

  async #pump(): Promise<void> {
    this.#isPumping = true;
    try {
      for (let message = this.#queue.shift(); message !== undefined; message = this.#queue.shift()) {
        await this.#write(message);
      }
    } catch {
      // The client is gone; its own request notices.
      this.leave();
    } finally {
      this.#isPumping = false;
    }
  }

  leave(): void {
    this.#hasLeft = true;
    this.#queue.length = 0;
  }

  /** Everything told so far has been written. */
  drained(): Promise<void> {
    return this.#pumping;
  }
}

interface Flight<T> {
  readonly listeners: Set<Listener>;
  readonly controller: AbortController;
  /** Newest message of each ID, for those who join later. */
  readonly latest: Map<unknown, ProgressMessage>;
  promise: Promise<T>;
}

/** Work under way, by key. */
export class SharedWork<T> {
  readonly #flights = new Map<string, Flight<T>>();

  /**
   * Joins the work of `key`, or begins it. The one who began it waits for its end even if it leaves, because the
   * work uses its connection; others leave at once.
   */
  async run(
    key: string,
    client: { readonly write: WriteProgress; readonly signal: AbortSignal },
    work: (write: (message: ProgressMessage) => void, signal: AbortSignal) => Promise<T>,
  ): Promise<T> {
    const running = this.#flights.get(key);
    const flight = running ?? this.#begin(key, work);
    const listener = new Listener(client.write, flight.latest.values());
    flight.listeners.add(listener);
    const { promise: left, reject } = Promise.withResolvers<never>();
    const leave = (): void => {
      listener.leave();
      flight.listeners.delete(listener);
      if (flight.listeners.size === 0) {
        this.#forget(key, flight);
        flight.controller.abort(new GantryError('cancelled', 'context canceled'));
      }
      if (running !== undefined) reject(client.signal.reason);
    };
    left.catch(() => undefined);
    if (client.signal.aborted) leave();
    else client.signal.addEventListener('abort', leave, { once: true });
    try {
      return await Promise.race([flight.promise, left]);
    } finally {
      client.signal.removeEventListener('abort', leave);
      flight.listeners.delete(listener);
      // What was told comes before the result, or before the error.
      await listener.drained();
    }
  }

  #begin(key: string, work: (write: (message: ProgressMessage) => void, signal: AbortSignal) => Promise<T>): Flight<T> {
    const controller = new AbortController();
    const flight: Flight<T> = {
      listeners: new Set(),
      controller,
      latest: new Map(),
      promise: Promise.reject(new Error('not begun')),
    };
    flight.promise.catch(() => undefined);
    const tell = (message: ProgressMessage): void => {
      if (message['id'] !== undefined) flight.latest.set(message['id'], message);
      for (const listener of flight.listeners) listener.tell(message);
    };
    this.#flights.set(key, flight);
    flight.promise = work(tell, controller.signal).finally(() => this.#forget(key, flight));
    flight.promise.catch(() => undefined);
    return flight;
  }

  #forget(key: string, flight: Flight<T>): void {
    if (this.#flights.get(key) === flight) this.#flights.delete(key);
  }
}
