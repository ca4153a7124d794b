/** Counters, gauges and histograms in the Prometheus text format (exposition format 0.0.4). Label values are few and fixed. */

type Labels = Readonly<Record<string, string>>;

interface Series {
  readonly labels: Labels;
  value: number;
}

const DURATION_BUCKETS_SECONDS: readonly number[] = [0.005, 0.025, 0.1, 0.5, 2.5, 10, 60];
/** Series of one metric; more would be a label that is not fixed. */
const MAX_SERIES = 500;

function escapeLabel(text: string): string {
  return text.replaceAll('\\', '\\\\').replaceAll('\n', '\\n').replaceAll('"', '\\"');
}

function labelText(labels: Labels): string {
  const pairs = Object.entries(labels).map(([name, value]) => `${name}="${escapeLabel(value)}"`);
  return pairs.length === 0 ? '' : `{${pairs.join(',')}}`;
}

/** A number that goes up, per set of labels. */
export class Counter {
  readonly #series = new Map<string, Series>();

  add(value: number, labels: Labels = {}): void {
    const key = labelText(labels);
    const known = this.#series.get(key);
    if (known !== undefined) known.value += value;
    else if (this.#series.size < MAX_SERIES) this.#series.set(key, { labels, value });
  }

  /** The sum over all labels. */
  get total(): number {
    return [...this.#series.values()].reduce((sum, { value }) => sum + value, 0);
  }

  lines(name: string): string[] {
    return [...this.#series.values()].map(({ labels, value }) => `${name}${labelText(labels)} ${value}`);
  }
}

/** Durations by fixed buckets. */
export class Histogram {
  readonly #buckets = new Counter();
  readonly #sum = new Counter();
  readonly #count = new Counter();

  observe(seconds: number, labels: Labels): void {
    for (const bound of DURATION_BUCKETS_SECONDS)
      this.#buckets.add(seconds <= bound ? 1 : 0, { ...labels, le: String(bound) });
    this.#buckets.add(1, { ...labels, le: '+Inf' });
    this.#sum.add(seconds, labels);
    this.#count.add(1, labels);
  }

  lines(name: string): string[] {
    return [
      ...this.#buckets.lines(`${name}_bucket`),
      ...this.#sum.lines(`${name}_sum`),
      ...this.#count.lines(`${name}_count`),
    ];
  }
}

interface Entry {
  readonly kind: 'counter' | 'gauge' | 'histogram';
  readonly purpose: string;
  readonly lines: (name: string) => string[];
}

/** The metrics of one process. */
export class Metrics {
  readonly #entries = new Map<string, Entry>();

  counter(name: string, purpose: string): Counter {
    const counter = new Counter();
    this.#entries.set(name, { kind: 'counter', purpose, lines: (full) => counter.lines(full) });
    return counter;
  }

  histogram(name: string, purpose: string): Histogram {
    const histogram = new Histogram();
    this.#entries.set(name, { kind: 'histogram', purpose, lines: (full) => histogram.lines(full) });
    return histogram;
  }

  /** A value read when asked for. */
  gauge(name: string, purpose: string, read: () => number): void {
    this.#entries.set(name, { kind: 'gauge', purpose, lines: (full) => [`${full} ${read()}`] });
  }

  /** The whole text. */
  render(): string {
    const lines = [...this.#entries].flatMap(([name, { kind, purpose, lines: of }]) => [
      `# HELP ${name} ${purpose}`,
      `# TYPE ${name} ${kind}`,
      ...of(name),
    ]);
    return `${lines.join('\n')}\n`;
  }
}
