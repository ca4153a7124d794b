/**
 * Webhooks in Docker's notification format (application/vnd.docker.distribution.events.v1+json): every push, pull,
 * delete and mount becomes an event, sent to each endpoint in order, several at once. A failing endpoint is tried again
 * with growing pauses; its queue is bounded and then loses its oldest events, which is counted.
 */
import { createHmac, randomUUID } from 'node:crypto';
import { setTimeout as delay } from 'node:timers/promises';
import { errorMessage } from '#types/errors.ts';

const MEDIA_TYPE = 'application/vnd.docker.distribution.events.v1+json';
/** Events waiting for one endpoint. */
const MAX_QUEUED = 1000;
/** Events in one request. */
const MAX_BATCH = 20;
const FIRST_PAUSE_MS = 500;
const MAX_PAUSE_MS = 60_000;
const DRAIN_POLL_MS = 20;

export type EventAction = 'push' | 'pull' | 'delete' | 'mount';

/** What happened, in the words of the format. */
export interface RegistryEvent {
  readonly id: string;
  readonly timestamp: string;
  readonly action: EventAction;
  readonly target: {
    readonly mediaType?: string;
    readonly size?: number;
    readonly length?: number;
    readonly digest?: string;
    readonly repository: string;
    readonly fromRepository?: string;
    readonly url?: string;
    readonly tag?: string;
  };
  readonly request: {
    readonly id: string;
    readonly addr: string;
    readonly host: string;
    readonly method: string;
    readonly useragent: string;
  };
  readonly actor: { readonly name?: string };
  readonly source: { readonly addr: string; readonly instanceID: string };
}

/** Where events go. */
export interface WebhookEndpoint {
  readonly name: string;
  readonly url: string;
  readonly headers: Readonly<Record<string, string>>;
  /** Signs bodies: `X-Gantry-Signature-256: sha256=<hmac>`. */
  readonly secret: string | undefined;
  readonly timeoutMs: number;
  readonly ignoreActions: readonly string[];
  readonly ignoreMediaTypes: readonly string[];
}

/** Sends one request; resolves with its status. */
export type PostJson = (
  url: string,
  request: { headers: Readonly<Record<string, string>>; body: string; timeoutMs: number },
  signal: AbortSignal,
) => Promise<number>;

export interface NotifierOptions {
  readonly endpoints: readonly WebhookEndpoint[];
  readonly post: PostJson;
  readonly warn: (message: string) => void;
  readonly now: () => string;
  /** `host:port` of this registry. */
  readonly address: string;
}

class EndpointQueue {
  readonly endpoint: WebhookEndpoint;
  readonly #options: NotifierOptions;
  readonly #counts: NotifierCounts;
  readonly #stop: AbortSignal;
  readonly #queue: RegistryEvent[] = [];
  #isRunning = false;

  constructor(endpoint: WebhookEndpoint, options: NotifierOptions, counts: NotifierCounts, stop: AbortSignal) {
    this.endpoint = endpoint;
    this.#options = options;
    this.#counts = counts;
    this.#stop = stop;
  }

  get length(): number {
    return this.#queue.length;
  }

  add(event: RegistryEvent): void {
    const { ignoreActions, ignoreMediaTypes } = this.endpoint;
    if (ignoreActions.includes(event.action) || ignoreMediaTypes.includes(event.target.mediaType ?? '')) return;
    if (this.#queue.length >= MAX_QUEUED) {
      this.#queue.shift();
      this.#counts.dropped += 1;
    }
    this.#queue.push(event);
    if (this.#isRunning) return;
    this.#isRunning = true;
    void this.#run().finally(() => {
      this.#isRunning = false;
    });
  }

  async #run(): Promise<void> {
    let pauseMs = FIRST_PAUSE_MS;
    while (this.#queue.length > 0 && !this.#stop.aborted) {
      const batch = this.#queue.slice(0, MAX_BATCH);
      const problem = await this.#send(batch);
      if (problem === undefined) {
        const sent = new Set(batch);
        while (this.#queue[0] !== undefined && sent.has(this.#queue[0])) this.#queue.shift();
        this.#counts.delivered += batch.length;
        pauseMs = FIRST_PAUSE_MS;
        continue;
      }
      this.#counts.failed += 1;
      this.#options.warn(`webhook ${this.endpoint.name}: ${problem}; next try in ${pauseMs} ms`);
      await delay(pauseMs, undefined, { signal: this.#stop, ref: false }).catch(() => undefined);
      pauseMs = Math.min(pauseMs * 2, MAX_PAUSE_MS);
    }
  }

  async #send(events: readonly RegistryEvent[]): Promise<string | undefined> {
    const { url, headers, secret, timeoutMs } = this.endpoint;
    const body = JSON.stringify({ events });
    const signature =
      secret === undefined
        ? {}
        : { 'X-Gantry-Signature-256': `sha256=${createHmac('sha256', secret).update(body).digest('hex')}` };
    try {
      const status = await this.#options.post(
        url,
        { headers: { ...headers, ...signature, 'Content-Type': MEDIA_TYPE }, body, timeoutMs },
        this.#stop,
      );
      return status >= 200 && status < 400 ? undefined : `it answered ${status}`;
    } catch (error) {
      return errorMessage(error);
    }
  }
}

export interface NotifierCounts {
  delivered: number;
  failed: number;
  dropped: number;
}

/** Sends events to every endpoint. Disposing drops what has not been sent. */
export class Notifier implements Disposable {
  readonly counts: NotifierCounts = { delivered: 0, failed: 0, dropped: 0 };
  readonly #options: NotifierOptions;
  readonly #queues: readonly EndpointQueue[];
  readonly #stop = new AbortController();
  readonly #instance = randomUUID();

  constructor(options: NotifierOptions) {
    this.#options = options;
    this.#queues = options.endpoints.map(
      (endpoint) => new EndpointQueue(endpoint, options, this.counts, this.#stop.signal),
    );
  }

  /** Events that wait. */
  get pending(): number {
    return this.#queues.reduce((sum, queue) => sum + queue.length, 0);
  }

  /** Takes an event; never fails and never waits. */
  publish(event: Pick<RegistryEvent, 'action' | 'target' | 'request' | 'actor'>): void {
    if (this.#queues.length === 0) return;
    const { address, now } = this.#options;
    const whole: RegistryEvent = {
      id: randomUUID(),
      timestamp: now(),
      ...event,
      source: { addr: address, instanceID: this.#instance },
    };
    for (const queue of this.#queues) queue.add(whole);
  }

  /** Waits until every event is sent, `limitMs` at most. */
  async drain(limitMs: number): Promise<void> {
    const end = performance.now() + limitMs;
    while (this.pending > 0 && performance.now() < end) await delay(DRAIN_POLL_MS);
  }

  [Symbol.dispose](): void {
    this.#stop.abort();
  }
}
