/**
 * daemon.json: reading, unknown keys, conflicts with flags, and the types of its values, with dockerd's texts.
 */
import { readFileSync } from 'node:fs';
import { errorMessage, GantryError } from '#types/errors.ts';
import { DecodeError, decodeValue } from '#wire/decode.ts';
import { JsonNumber, JsonObject, JsonSyntaxError, type JsonValue, plainValue, readJson } from '#wire/go-json.ts';
import { FILE_ONLY_KEYS, type FlagSpec, type FlagType, flagOfKey, type OptionValue } from './flag-table.ts';
import { parseBytes, ValueError } from './flag-values.ts';
import type { GivenFlags } from './parse-flags.ts';

/** Larger files are not configuration. */
const MAX_FILE_BYTES = 1024 * 1024;

/** Objects that are values; the keys of any other object count as options themselves. */
const OBJECT_KEYS: ReadonlySet<string> = new Set([
  'cluster-store-opts',
  'default-network-opts',
  'log-opts',
  'runtimes',
  'default-ulimits',
  'features',
  'builder',
  'registry-hosts',
]);

const KINDS: Readonly<Record<FlagType, string>> = {
  string: 'string',
  bool: 'bool',
  int: 'int',
  bytes: 'any',
  list: '[]string',
  map: '{}string',
  mapOfMaps: '{}{}string',
  ulimits: '{}any',
  runtimes: '{}any',
  pools: '[]any',
  switches: '{}bool',
};

/** Values set in the file: key → value. */
export type FileValues = ReadonlyMap<string, OptionValue>;

/** Reads a configuration file; undefined when it does not exist. */
export function readConfigFile(path: string): string | undefined {
  try {
    const bytes = readFileSync(path);
    if (bytes.length > MAX_FILE_BYTES)
      throw new GantryError('invalid', `${path} is larger than ${MAX_FILE_BYTES} bytes`);
    const isUtf16 = bytes[0] === 0xff && bytes[1] === 0xfe;
    return bytes.toString(isUtf16 ? 'utf16le' : 'utf8').replace(/^\ufeff/, '');
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === 'ENOENT') return undefined;
    if (error instanceof GantryError) throw error;
    throw new GantryError('invalid', `open ${path}: ${errorMessage(error)}`, { cause: error });
  }
}

/** Parses the text of a configuration file and checks it against the flags given. */
export function parseConfigFile(text: string, given: GivenFlags): FileValues {
  if (text.trim() === '') return new Map();
  const flat = flatten(parseObject(text));
  refuseUnknown(flat);
  refuseConflicts(flat, given);
  const values = new Map<string, OptionValue>();
  for (const [key, value] of flat) {
    const spec = flagOfKey(key);
    if (value === null) continue;
    values.set(key, spec === undefined ? plainValue(value) : typedValue(spec, key, value));
  }
  return values;
}

function parseObject(text: string): JsonObject {
  try {
    const read = readJson(text);
    if (read === undefined) throw new JsonSyntaxError('unexpected end of JSON input');
    const rest = text.slice(read.rest).trimStart();
    if (rest !== '') throw new JsonSyntaxError(`invalid character '${rest.charAt(0)}' after top-level value`);
    if (read.value instanceof JsonObject) return read.value;
  } catch (error) {
    if (!(error instanceof JsonSyntaxError)) throw error;
    // Compat: Go's Unmarshal and Decoder name the early end differently.
    throw new GantryError('invalid', error.message.replace(/^unexpected EOF$/, 'unexpected end of JSON input'));
  }
  throw new GantryError('invalid', 'json: cannot unmarshal value into Go value of type map[string]interface {}');
}

function flatten(object: JsonObject): Map<string, JsonValue> {
  const flat = new Map<string, JsonValue>();
  for (const [key, value] of object.entries) {
    if (value instanceof JsonObject && !OBJECT_KEYS.has(key)) {
      for (const [inner, item] of value.entries) flat.set(inner, item);
    } else flat.set(key, value);
  }
  return flat;
}

function refuseUnknown(flat: ReadonlyMap<string, JsonValue>): void {
  const unknown = [...flat.keys()].filter((key) => flagOfKey(key) === undefined && !Object.hasOwn(FILE_ONLY_KEYS, key));
  if (unknown.length > 0) {
    throw new GantryError(
      'invalid',
      `the following directives don't match any configuration option: ${unknown.join(', ')}`,
    );
  }
}

/** Go's %v. */
function goText(value: OptionValue): string {
  if (Array.isArray(value)) return `[${value.map(goText).join(' ')}]`;
  if (value !== null && typeof value === 'object') {
    const pairs = Object.entries(value).sort(([a], [b]) => (a < b ? -1 : 1));
    return `map[${pairs.map(([key, item]) => `${key}:${goText(item)}`).join(' ')}]`;
  }
  return String(value);
}

function maskCredentials(key: string, text: string): string {
  return /^https?-proxy$/.test(key) ? text.replace(/\/\/[^/@]*@/, '//xxxxx:xxxxx@') : text;
}

function refuseConflicts(flat: ReadonlyMap<string, JsonValue>, given: GivenFlags): void {
  const conflicts: string[] = [];
  for (const [key, value] of flat) {
    const spec = flagOfKey(key);
    // Compat: runtimes of both places are merged.
    if (spec === undefined || key === 'runtimes' || !given.has(spec.name)) continue;
    const fromFlag = maskCredentials(key, goText(given.get(spec.name)));
    const fromFile = maskCredentials(key, goText(plainValue(value)));
    conflicts.push(`${key}: (from flag: ${fromFlag}, from file: ${fromFile})`);
  }
  if (conflicts.length > 0) {
    const list = conflicts.join(', ');
    throw new GantryError(
      'invalid',
      `the following directives are specified both as a flag and in the configuration file: ${list}`,
    );
  }
}

function typedValue(spec: FlagSpec, key: string, value: JsonValue): OptionValue {
  if (spec.type === 'bytes') return bytesValue(value);
  try {
    return decodeValue(value, KINDS[spec.type]);
  } catch (error) {
    if (!(error instanceof DecodeError)) throw error;
    throw new GantryError('invalid', error.message.replace('into Go value', `into Go struct field Config.${key}`));
  }
}

function bytesValue(value: JsonValue): number {
  const text = value instanceof JsonNumber ? value.literal : String(value);
  try {
    return parseBytes(text);
  } catch (error) {
    if (error instanceof ValueError) throw new GantryError('invalid', error.message);
    throw error;
  }
}
