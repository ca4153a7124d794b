/** Query strings read as Go's net/url and dockerd's form helpers read them. */
import { errorMessage, GantryError } from '#types/errors.ts';
import { DecodeError, decodeValue } from '#wire/decode.ts';
import { JsonSyntaxError, type JsonValue, readJson } from '#wire/go-json.ts';
import type { Filters, Query } from './route.ts';

const INT64_MIN = -(2n ** 63n);
const INT64_MAX = 2n ** 63n - 1n;
const FALSE_WORDS: ReadonlySet<string> = new Set(['', '0', 'no', 'false', 'none']);

/** Decodes one component; throws `invalid` with Go's text for a broken escape. */
export function unescapeComponent(text: string): string {
  const broken = /%(?![0-9a-fA-F]{2}).{0,2}/s.exec(text);
  if (broken !== null) throw new GantryError('invalid', `invalid URL escape "${broken[0]}"`);
  if (!text.includes('%')) return text;
  const bytes: number[] = [];
  const encoded = Buffer.from(text);
  for (let index = 0; index < encoded.length; index++) {
    const byte = encoded[index] ?? 0;
    if (byte !== 0x25) bytes.push(byte);
    else {
      bytes.push(Number.parseInt(encoded.toString('latin1', index + 1, index + 3), 16));
      index += 2;
    }
  }
  return Buffer.from(bytes).toString('utf8');
}

/** Parses a query string; throws `invalid` with Go's text when it is malformed. */
export function parseQuery(text: string): Query {
  const values = new Map<string, string[]>();
  for (const pair of text.split('&')) {
    if (pair === '') continue;
    if (pair.includes(';')) throw new GantryError('invalid', 'invalid semicolon separator in query');
    const at = pair.indexOf('=');
    const key = unescapeComponent((at < 0 ? pair : pair.slice(0, at)).replaceAll('+', ' '));
    const value = at < 0 ? '' : unescapeComponent(pair.slice(at + 1).replaceAll('+', ' '));
    const known = values.get(key);
    if (known === undefined) values.set(key, [value]);
    else known.push(value);
  }
  return new ParsedQuery(values);
}

class ParsedQuery implements Query {
  readonly #values: ReadonlyMap<string, readonly string[]>;

  constructor(values: ReadonlyMap<string, readonly string[]>) {
    this.#values = values;
  }

  has(name: string): boolean {
    return this.#values.has(name);
  }

  text(name: string): string {
    return this.#values.get(name)?.[0] ?? '';
  }

  all(name: string): string[] {
    return [...(this.#values.get(name) ?? [])];
  }

  flag(name: string, absent = false): boolean {
    if (!this.has(name)) return absent;
    return !FALSE_WORDS.has(this.text(name).trim().toLowerCase());
  }

  integer(name: string): number {
    const text = this.text(name);
    if (text === '') return 0;
    if (!/^[+-]?[0-9]+$/.test(text)) throw parseIntError(text, 'invalid syntax');
    // Longer literals cannot fit; BigInt never sees them.
    const value = text.length > 32 ? INT64_MAX + 1n : BigInt(text.replace(/^\+/, ''));
    if (value < INT64_MIN || value > INT64_MAX) throw parseIntError(text, 'value out of range');
    return Number(value);
  }

  plainInteger(name: string): number {
    try {
      return this.integer(name);
    } catch (error) {
      const text = errorMessage(error).replace('strconv.ParseInt', 'strconv.Atoi');
      throw new GantryError('system', text, { cause: error });
    }
  }

  filters(accepted?: readonly string[]): Filters {
    const filters = parseFilters(this.text('filters'));
    if (accepted === undefined) return filters;
    for (const name of filters.keys()) {
      if (!accepted.includes(name)) throw new GantryError('invalid', `invalid filter '${name}'`);
    }
    return filters;
  }
}

function parseIntError(text: string, problem: string): GantryError {
  return new GantryError('invalid', `strconv.ParseInt: parsing ${JSON.stringify(text)}: ${problem}`);
}

/** Parses the `filters` parameter: `{"key":{"value":true}}`, or the legacy `{"key":["value"]}`. */
export function parseFilters(text: string): Filters {
  if (text === '') return new Map();
  const value = readFilters(text);
  try {
    const current = decodeValue<Record<string, Record<string, boolean>>>(value, '{}{}bool');
    return new Map(Object.entries(current).map(([key, values]) => [key, Object.keys(values)]));
  } catch (error) {
    if (!(error instanceof DecodeError)) throw error;
  }
  try {
    return new Map(Object.entries(decodeValue<Record<string, string[]>>(value, '{}[]string')));
  } catch (error) {
    if (error instanceof DecodeError) throw new GantryError('invalid', 'invalid filter');
    throw error;
  }
}

function readFilters(text: string): JsonValue {
  try {
    const read = readJson(text);
    if (read !== undefined && text.slice(read.rest).trim() === '') return read.value;
  } catch (error) {
    if (!(error instanceof JsonSyntaxError)) throw error;
  }
  throw new GantryError('invalid', 'invalid filter');
}
