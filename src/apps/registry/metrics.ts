/** What /metrics tells: requests by route, bytes, durations, what is stored, collections, webhooks, the cache. */
import type { RegistryServices } from '#engine/registry/services.ts';
import type { Collected } from '#services/registry/collector.ts';
import { Metrics } from '#services/registry/metrics.ts';

const METHODS: ReadonlySet<string> = new Set(['GET', 'HEAD', 'POST', 'PUT', 'PATCH', 'DELETE']);

export interface RequestRecord {
  readonly route: string;
  readonly method: string;
  readonly status: number;
  readonly seconds: number;
  readonly bytesIn: number;
  readonly bytesOut: number;
}

/** The metrics of a serving process. */
export class RegistryMetrics {
  readonly #metrics = new Metrics();
  readonly #requests = this.#metrics.counter('gantry_registry_requests_total', 'Requests answered.');
  readonly #seconds = this.#metrics.histogram(
    'gantry_registry_request_duration_seconds',
    'Time from a request to the end of its answer.',
  );
  readonly #received = this.#metrics.counter('gantry_registry_received_bytes_total', 'Bytes of request bodies.');
  readonly #sent = this.#metrics.counter('gantry_registry_sent_bytes_total', 'Bytes of answers.');
  readonly #collections = this.#metrics.counter('gantry_registry_collections_total', 'Garbage collections.');
  readonly #collected = this.#metrics.counter(
    'gantry_registry_collected_total',
    'Objects removed by garbage collections.',
  );
  readonly #freed = this.#metrics.counter('gantry_registry_freed_bytes_total', 'Bytes freed by garbage collections.');

  /** Reads from `services` when asked. */
  constructor(services: RegistryServices) {
    const { store, uploads, notifier, upstream } = services;
    const gauge = (name: string, purpose: string, read: () => number): void =>
      this.#metrics.gauge(`gantry_registry_${name}`, purpose, read);
    gauge('blob_bytes', 'Bytes of stored blobs, each counted once.', () => store.totals().blobBytes);
    gauge('blobs', 'Stored blobs.', () => store.totals().blobCount);
    gauge('repositories', 'Repositories.', () => store.totals().repositories);
    gauge('uploads', 'Uploads in progress.', () => uploads.count);
    gauge('upload_bytes', 'Bytes of uploads in progress.', () => uploads.pendingBytes(() => true));
    gauge('notifications_pending', 'Events waiting for webhooks.', () => notifier.pending);
    gauge('notifications_delivered', 'Events webhooks have taken.', () => notifier.counts.delivered);
    gauge('notifications_failed', 'Requests to webhooks that failed.', () => notifier.counts.failed);
    gauge('notifications_dropped', 'Events lost because a queue was full.', () => notifier.counts.dropped);
    gauge('resident_memory_bytes', 'Memory of the process.', () => process.memoryUsage.rss());
    if (upstream === undefined) return;
    gauge('cache_hits', 'Answers given from the cache.', () => upstream.counts.hits);
    gauge('cache_misses', 'Answers fetched from the upstream.', () => upstream.counts.misses);
    gauge('cache_stale', 'Answers given from the cache because the upstream failed.', () => upstream.counts.stale);
  }

  /** Counts an answered request. */
  record(request: RequestRecord): void {
    const { route } = request;
    // Anyone can invent methods; labels are few.
    const method = METHODS.has(request.method) ? request.method : 'other';
    this.#requests.add(1, { route, method, code: String(request.status) });
    this.#seconds.observe(request.seconds, { route });
    this.#received.add(request.bytesIn, { route });
    this.#sent.add(request.bytesOut, { route });
  }

  /** Counts a collection. */
  recordCollection(collected: Collected): void {
    this.#collections.add(1);
    for (const kind of ['blobs', 'links', 'manifests', 'repositories'] as const)
      this.#collected.add(collected[kind], { kind });
    this.#freed.add(collected.freedBytes);
  }

  render(): string {
    return this.#metrics.render();
  }
}
