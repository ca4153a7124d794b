/** Build arguments: values from the command line, defaults from ARG, and which of them were used. */

/** Proxy settings need no ARG and never enter the history. */
const BUILT_IN = [
  'HTTP_PROXY',
  'http_proxy',
  'HTTPS_PROXY',
  'https_proxy',
  'FTP_PROXY',
  'ftp_proxy',
  'NO_PROXY',
  'no_proxy',
  'ALL_PROXY',
  'all_proxy',
];

/** The arguments of one build or stage. */
export class BuildArguments {
  readonly #given: Readonly<Record<string, string | null>>;
  readonly #meta: Map<string, string | undefined>;
  readonly #allowed = new Map<string, string | undefined>();
  readonly #referenced = new Set<string>();

  constructor(given: Readonly<Record<string, string | null>>, meta: Map<string, string | undefined> = new Map()) {
    this.#given = given;
    this.#meta = meta;
  }

  /** A stage starts with no ARG of its own, but sees the global ones as defaults. */
  forStage(): BuildArguments {
    return new BuildArguments(this.#given, this.#meta);
  }

  addMeta(name: string, value: string | undefined): void {
    this.#meta.set(name, value);
    this.#referenced.add(name);
  }

  add(name: string, value: string | undefined): void {
    this.#allowed.set(name, value);
    this.#referenced.add(name);
  }

  merge(stage: BuildArguments): void {
    for (const name of stage.#referenced) this.#referenced.add(name);
  }

  #value(name: string, source: ReadonlyMap<string, string | undefined>): string | undefined {
    if (Object.hasOwn(this.#given, name) && this.#given[name] !== null) return this.#given[name] ?? undefined;
    return source.get(name) ?? this.#meta.get(name);
  }

  #all(source: ReadonlyMap<string, string | undefined>): Map<string, string> {
    const values = new Map<string, string>();
    for (const name of new Set([...source.keys(), ...BUILT_IN])) {
      const value = this.#value(name, source);
      if (value !== undefined) values.set(name, value);
    }
    return values;
  }

  /** What FROM may use. */
  meta(): Map<string, string> {
    return this.#all(this.#meta);
  }

  /** What the stage's instructions may use. */
  allowed(): Map<string, string> {
    return this.#all(this.#allowed);
  }

  /** Whether a value shows in the history and in the cache key. */
  isRecorded(name: string): boolean {
    return this.#allowed.has(name) || !BUILT_IN.includes(name);
  }

  /** Given on the command line but never declared, sorted. */
  unused(): string[] {
    return Object.keys(this.#given)
      .filter((name) => !this.#referenced.has(name) && !BUILT_IN.includes(name))
      .sort();
  }
}
