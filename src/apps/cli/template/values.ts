/**
 * How Go prints, compares and tests values, for the JSON values templates run on.
 *
 * Plain objects stand for Go maps; a StructView stands for a struct with methods: a missing key of it is an
 * error of its own, and it prints as its fields in order.
 */

/** A method of a view: it takes arguments. */
export type ViewMethod = (...args: readonly unknown[]) => unknown;

/** What a view has besides its fields. */
export interface ViewOptions {
  readonly methods?: Readonly<Record<string, ViewMethod>>;
  /** `json` prints the fields as they are given instead of by name. */
  readonly ordered?: boolean;
  /** What `json` prints instead of the fields. */
  readonly json?: Record<string, unknown>;
  /** A field that does not exist has no value, as in a map. */
  readonly open?: boolean;
}

/** A value with named fields that are computed when asked for, like docker's formatter contexts. */
export class StructView {
  readonly typeName: string;
  readonly #fields: ReadonlyMap<string, () => unknown>;
  readonly #options: ViewOptions;

  constructor(typeName: string, fields: Readonly<Record<string, () => unknown>>, options: ViewOptions = {}) {
    this.typeName = typeName;
    this.#fields = new Map(Object.entries(fields));
    this.#options = options;
  }

  /** Whether the field exists. */
  has(name: string): boolean {
    return this.#fields.has(name);
  }

  /** The field's value. */
  get(name: string): unknown {
    return this.#fields.get(name)?.();
  }

  /** Whether any field may be asked for. */
  get isOpen(): boolean {
    return this.#options.open === true;
  }

  /** The method, if there is one. */
  method(name: string): ViewMethod | undefined {
    return this.#options.methods?.[name];
  }

  /** Every field, as `json` prints it. */
  toJSON(): Record<string, unknown> {
    if (this.#options.json !== undefined) return this.#options.json;
    const names = [...this.#fields.keys()];
    if (this.#options.ordered !== true) names.sort();
    return Object.fromEntries(names.map((name) => [name, this.get(name)]));
  }
}

/** Keys whose objects are Go maps in the Engine's types; every other object is a struct when it is printed. */
const MAP_KEYS = new Set(
  'Labels Options Networks Ports ExposedPorts Volumes PortBindings Sysctls Tmpfs StorageOpt Annotations Data Config DriverOpts Runtimes Attributes Containers NetworkIDToPeers'.split(
    ' ',
  ),
);
const MAPS = new WeakSet<object>();

/** Marks an object as a Go map, for printing. */
export function markMap<T extends object>(value: T): T {
  MAPS.add(value);
  return value;
}

/** Whether an object is printed as a map. */
function isMap(value: object, key: string): boolean {
  return MAPS.has(value) || MAP_KEYS.has(key);
}

/** Go's fmt.Sprint of one value. */
export function printValue(value: unknown, key = ''): string {
  if (value === undefined) return '<no value>';
  if (value === null) return '<nil>';
  if (typeof value === 'string' || typeof value === 'boolean') return String(value);
  if (typeof value === 'number') return printNumber(value);
  if (typeof value === 'bigint') return String(value);
  if (Array.isArray(value)) return `[${value.map((item) => printValue(item)).join(' ')}]`;
  if (value instanceof StructView)
    return `{${Object.values(value.toJSON())
      .map((item) => printValue(item))
      .join(' ')}}`;
  if (typeof value === 'object') {
    const entries = Object.entries(value);
    if (!isMap(value, key) && key !== '') return `{${entries.map(([name, item]) => printValue(item, name)).join(' ')}}`;
    return `map[${entries
      .sort(([a], [b]) => (a < b ? -1 : 1))
      .map(([name, item]) => `${name}:${printValue(item, isMap(value, key) ? '' : name)}`)
      .join(' ')}]`;
  }
  return String(value);
}

function printNumber(value: number): string {
  if (Number.isInteger(value))
    return Math.abs(value) < 1e21 ? BigInt(value).toString() : value.toExponential().replace(/e([+-])(\d)$/, 'e$10$2');
  return String(value);
}

/** text/template's truth: false for zero, nil and empty values. */
export function isTrue(value: unknown): boolean {
  if (value === undefined || value === null || value === false || value === 0 || value === '') return false;
  if (Array.isArray(value)) return value.length > 0;
  if (value instanceof StructView) return true;
  if (typeof value === 'object') return Object.keys(value).length > 0;
  return true;
}

/** The Go type name, for error texts. */
export function typeName(value: unknown): string {
  if (value === null || value === undefined) return 'nil';
  if (typeof value === 'string') return 'string';
  if (typeof value === 'boolean') return 'bool';
  if (typeof value === 'number') return Number.isInteger(value) ? 'int' : 'float64';
  if (Array.isArray(value)) return '[]interface {}';
  if (value instanceof StructView) return value.typeName;
  return 'map[string]interface {}';
}

/** Writes bigints as JSON numbers. */
function exactIntegers(_key: string, value: unknown): unknown {
  return typeof value === 'bigint'
    ? (JSON as unknown as { rawJSON(text: string): unknown }).rawJSON(String(value))
    : value;
}

/** encoding/json's text: keys as they are, HTML characters escaped unless told otherwise. */
export function goJson(value: unknown, options: { escapeHtml?: boolean; indent?: string } = {}): string {
  const text = JSON.stringify(value ?? null, exactIntegers, options.indent) ?? 'null';
  const escaped =
    options.escapeHtml === false ? text : text.replace(/[<>&]/g, (char) => `\\u00${char.charCodeAt(0).toString(16)}`);
  return escaped.replace(/[\u2028\u2029]/g, (char) => `\\u${char.charCodeAt(0).toString(16)}`);
}
