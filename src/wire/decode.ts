/**
 * Decodes JSON bodies by the tables of engine-schema.ts as Go's encoding/json (1.24) does: exact key, else any
 * case; unknown fields ignored; null leaves a field absent; integers range-checked; the first type error is
 * reported with Go's text after the whole body was read.
 *
 * Integers beyond 2^53 stay numbers and lose their last digits; no Docker field needs them exactly.
 */
import { DEFINITIONS, type DefinitionSchema, type StructSchema } from './engine-schema.ts';
import { JsonNumber, JsonObject, JsonSyntaxError, type JsonValue, plainValue, readJson, setOwn } from './go-json.ts';

/** Larger JSON bodies are refused; the largest real ones (service specs with configs) stay under a megabyte. */
export const MAX_JSON_BODY_BYTES: number = 16 * 1024 * 1024;

/** Why a body was refused; `message` is what Docker answers after "invalid JSON: ". */
export class DecodeError extends Error {
  override readonly name = 'DecodeError';
}

const INTEGER_RANGES: Readonly<Record<string, readonly [bigint, bigint]>> = {
  int: [-(2n ** 63n), 2n ** 63n - 1n],
  int64: [-(2n ** 63n), 2n ** 63n - 1n],
  int32: [-(2n ** 31n), 2n ** 31n - 1n],
  uint: [0n, 2n ** 64n - 1n],
  uint64: [0n, 2n ** 64n - 1n],
  uint32: [0n, 2n ** 32n - 1n],
  uint16: [0n, 2n ** 16n - 1n],
  uint8: [0n, 255n],
};

/** What a JSON value is called in Go's errors. */
function kindName(value: JsonValue): string {
  if (value === null) return 'null';
  if (typeof value === 'string') return 'string';
  if (typeof value === 'boolean') return 'bool';
  if (value instanceof JsonNumber) return 'number';
  return Array.isArray(value) ? 'array' : 'object';
}

interface Target {
  readonly struct: StructSchema;
  readonly field: string;
  /** Embedded Go types passed on the way to the field. */
  readonly through: readonly string[];
  readonly kind: string;
}

const targetTables = new Map<string, ReadonlyMap<string, Target>>();

function goTypeName(definition: DefinitionSchema | undefined, name: string): string {
  return definition !== undefined && 'go' in definition ? definition.go : name;
}

function bareName(goType: string): string {
  return goType.slice(goType.lastIndexOf('.') + 1);
}

/** All fields of a struct, embedded ones included: exact names and, behind a NUL, folded ones. */
function targetsOf(name: string, struct: StructSchema): ReadonlyMap<string, Target> {
  const known = targetTables.get(name);
  if (known !== undefined) return known;
  const table = new Map<string, Target>();
  const add = (target: Target): void => {
    if (!table.has(target.field)) table.set(target.field, target);
    const folded = `\0${target.field.toLowerCase()}`;
    if (!table.has(folded)) table.set(folded, target);
  };
  for (const [field, kind] of Object.entries(struct.fields)) add({ struct, field, through: [], kind });
  for (const embedded of struct.embeds) {
    const inner = DEFINITIONS[embedded];
    if (inner === undefined || 'kind' in inner) continue;
    for (const target of targetsOf(embedded, inner).values()) {
      add({ ...target, struct, through: [bareName(inner.go), ...target.through] });
    }
  }
  targetTables.set(name, table);
  return table;
}

/** One decoding run: remembers where it is and the first type error. */
class Decoder {
  #path: string[] = [];
  #struct = '';
  firstError: string | undefined;

  mismatch(what: string, goType: string): void {
    this.firstError ??= `json: cannot unmarshal ${what} into Go ${this.#place()} of type ${goType}`;
  }

  #place(): string {
    return this.#struct === '' ? 'value' : `struct field ${this.#struct}.${this.#path.join('.')}`;
  }

  /** The decoded value, or the zero value of the kind after a mismatch or null. */
  decode(value: JsonValue, kind: string, previous?: unknown): unknown {
    const at = kind.indexOf('@');
    if (at >= 0) return this.#scalar(value, kind.slice(0, at), kind.slice(at + 1));
    if (kind === 'any') return plainValue(value);
    if (value === null) return zeroOf(kind);
    if (kind.startsWith('[]')) return this.#list(value, kind);
    if (kind.startsWith('{}')) return this.#map(value, kind, previous);
    if (kind === 'strslice') return this.#stringOrList(value);
    if (kind === 'struct') return this.#emptyStruct(value);
    if (!kind.startsWith('$')) return this.#scalar(value, kind, kind);
    const name = kind.slice(1);
    const definition = DEFINITIONS[name];
    if (definition === undefined) return plainValue(value);
    if ('kind' in definition) return this.decode(value, definition.kind, previous);
    return this.#structure(value, { name, struct: definition, previous });
  }

  #structure(value: JsonValue, target: { name: string; struct: StructSchema; previous: unknown }): unknown {
    const result = (target.previous ?? {}) as Record<string, unknown>;
    if (!(value instanceof JsonObject)) {
      this.mismatch(kindName(value), goTypeOf(`$${target.name}`));
      return result;
    }
    const targets = targetsOf(target.name, target.struct);
    const outer = { struct: this.#struct, length: this.#path.length };
    for (const [key, item] of value.entries) {
      const field = targets.get(key) ?? targets.get(`\0${key.toLowerCase()}`);
      if (field === undefined || item === null) continue;
      this.#struct = bareName(target.struct.go);
      this.#path.push(...field.through, field.field);
      result[field.field] = this.decode(item, field.kind, result[field.field]);
      this.#path.length = outer.length;
      this.#struct = outer.struct;
    }
    return result;
  }

  #list(value: JsonValue, kind: string): unknown {
    if (!Array.isArray(value)) {
      this.mismatch(kindName(value), goTypeOf(kind));
      return [];
    }
    const itemKind = kind.slice(2);
    return value.map((item) => this.decode(item, itemKind));
  }

  #map(value: JsonValue, kind: string, previous: unknown): unknown {
    const result = (previous ?? {}) as Record<string, unknown>;
    if (!(value instanceof JsonObject)) {
      this.mismatch(kindName(value), goTypeOf(kind));
      return result;
    }
    const itemKind = kind.slice(2);
    for (const [key, item] of value.entries) setOwn(result, key, this.decode(item, itemKind));
    return result;
  }

  /** Compat: commands and capability lists may be one string. */
  #stringOrList(value: JsonValue): unknown {
    if (typeof value === 'string') return [value];
    if (Array.isArray(value) && value.every((item) => typeof item === 'string' || item === null)) {
      return value.map((item) => item ?? '');
    }
    // Compat: this type decodes itself in Go, and such an error wins over any seen before.
    throw new DecodeError(`json: cannot unmarshal ${kindName(value)} into Go ${this.#place()} of type string`);
  }

  #emptyStruct(value: JsonValue): unknown {
    if (!(value instanceof JsonObject)) this.mismatch(kindName(value), 'struct {}');
    return {};
  }

  #scalar(value: JsonValue, kind: string, goType: string): unknown {
    if (value === null) return zeroOf(kind);
    if (kind === 'string' && typeof value === 'string') return value;
    if (kind === 'bool' && typeof value === 'boolean') return value;
    const range = INTEGER_RANGES[kind];
    if (value instanceof JsonNumber && (range !== undefined || kind === 'float64')) {
      const number = numberOf(value.literal, range);
      if (number !== undefined) return number;
      this.mismatch(`number ${value.literal}`, goType);
    } else this.mismatch(kindName(value), INTEGER_RANGES[kind] || SCALARS.has(kind) ? goType : 'string');
    return zeroOf(kind);
  }
}

const SCALARS: ReadonlySet<string> = new Set(['string', 'bool', 'float64']);

function numberOf(literal: string, range: readonly [bigint, bigint] | undefined): number | undefined {
  if (range === undefined) {
    const number = Number(literal);
    return Number.isFinite(number) ? number : undefined;
  }
  // No integer of any width has more digits than this; keeps BigInt cheap on hostile literals.
  if (!/^-?[0-9]{1,20}$/.test(literal)) return undefined;
  const integer = BigInt(literal);
  return integer >= range[0] && integer <= range[1] ? Number(integer) : undefined;
}

function zeroOf(kind: string): unknown {
  if (kind.startsWith('[]') || kind === 'strslice') return [];
  if (kind.startsWith('{}') || kind === 'struct') return {};
  if (kind.startsWith('$')) {
    const definition = DEFINITIONS[kind.slice(1)];
    return definition !== undefined && 'kind' in definition ? zeroOf(definition.kind) : {};
  }
  if (kind.startsWith('string')) return '';
  if (kind === 'bool') return false;
  return kind === 'any' ? null : 0;
}

/** The Go type that errors mention. */
function goTypeOf(kind: string): string {
  const at = kind.indexOf('@');
  if (at >= 0) return kind.slice(at + 1);
  if (kind.startsWith('[]')) return `[]${goTypeOf(kind.slice(2))}`;
  if (kind.startsWith('{}')) return `map[string]${goTypeOf(kind.slice(2))}`;
  if (kind === 'struct') return 'struct {}';
  if (kind === 'any') return 'interface {}';
  if (!kind.startsWith('$')) return kind;
  const name = kind.slice(1);
  const definition = DEFINITIONS[name];
  if (definition !== undefined && 'kind' in definition) return goTypeOf(definition.kind);
  const go = goTypeName(definition, name);
  return go.includes('.') ? go : `container.${go}`;
}

/** Decodes an already read value; throws DecodeError with Go's text. */
export function decodeValue<T>(value: JsonValue, kind: string): T {
  const decoder = new Decoder();
  const result = decoder.decode(value, kind);
  if (decoder.firstError !== undefined) throw new DecodeError(decoder.firstError);
  return result as T;
}

/** How a document may end: `decoder` leaves a stray `]` or `}` unread as json.Decoder does, `whole` allows nothing. */
export type Ending = 'decoder' | 'whole';

/**
 * Decodes a JSON text by a definition name or kind (`HostConfig`, `[]string`). Throws DecodeError with the whole
 * text of Docker's answer; undefined for a text without a value.
 */
export function decodeJson<T>(text: string, schema: string, ending: Ending = 'decoder'): T | undefined {
  const kind = Object.hasOwn(DEFINITIONS, schema) ? `$${schema}` : schema;
  let read: ReturnType<typeof readJson>;
  try {
    read = readJson(text);
  } catch (error) {
    if (error instanceof JsonSyntaxError) throw new DecodeError(`invalid JSON: ${error.message}`);
    throw error;
  }
  if (read === undefined) return undefined;
  let result: T;
  try {
    result = decodeValue<T>(read.value, kind);
  } catch (error) {
    if (error instanceof DecodeError) throw new DecodeError(`invalid JSON: ${error.message}`);
    throw error;
  }
  const rest = text.slice(read.rest).trimStart();
  if (rest !== '' && (ending === 'whole' || !/^[\]}]/.test(rest))) {
    throw new DecodeError('unexpected content after JSON');
  }
  return result;
}
