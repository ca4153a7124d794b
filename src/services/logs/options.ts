/** Values of log options as docker reads them: sizes (go-units), whole numbers and booleans (strconv). */
import { GantryError } from '#types/errors.ts';

const SIZE = /^(\d+(?:\.\d+)*) ?([kmgtp])?(i)?b?$/i;
const POWERS = 'kmgtp';

/** A size in bytes; `unit` 1000 for files, 1024 for memory. */
export function parseSize(text: string, unit: 1000 | 1024): number {
  const match = SIZE.exec(text);
  const value = match === null ? Number.NaN : Number(match[1]);
  if (match === null || !Number.isFinite(value)) throw new GantryError('invalid', `invalid size: '${text}'`);
  const power = match[2] === undefined ? 0 : POWERS.indexOf(match[2].toLowerCase()) + 1;
  return Math.floor(value * unit ** power);
}

/** Go's strconv.Atoi. */
export function parseWhole(text: string): number {
  if (/^[+-]?\d{1,15}$/.test(text)) return Number(text);
  throw new GantryError('invalid', `strconv.Atoi: parsing ${JSON.stringify(text)}: invalid syntax`);
}

/** Go's strconv.ParseBool. */
export function parseBoolean(text: string): boolean {
  if (['1', 't', 'T', 'TRUE', 'true', 'True'].includes(text)) return true;
  if (['0', 'f', 'F', 'FALSE', 'false', 'False'].includes(text)) return false;
  throw new GantryError('invalid', `strconv.ParseBool: parsing ${JSON.stringify(text)}: invalid syntax`);
}

/** How one log's files are kept. */
export interface Retention {
  readonly maxSizeBytes: number;
  readonly maxFiles: number;
  readonly compress: boolean;
}

/** json-file without options; docker keeps one file without limit (docs/decisions/0021-bounded-default-logs.md). */
const JSON_DEFAULT_SIZE_BYTES = 100 * 1000 * 1000;
const JSON_DEFAULT_FILES = 2;
/** Docker's own defaults of the local driver. */
const LOCAL_DEFAULT_SIZE_BYTES = 20 * 1024 * 1024;
const LOCAL_DEFAULT_FILES = 5;

type Options = Readonly<Record<string, string>>;

/** Reads the json-file driver's options. */
export function jsonRetention(options: Options): Retention {
  const { 'max-size': size, 'max-file': files, compress } = options;
  const maxSizeBytes = size === undefined ? JSON_DEFAULT_SIZE_BYTES : parseSize(size, 1000);
  if (maxSizeBytes <= 0) throw new GantryError('invalid', 'max-size must be a positive number');
  const fileCount = files === undefined ? (size === undefined ? JSON_DEFAULT_FILES : 1) : parseWhole(files);
  if (fileCount < 1) throw new GantryError('invalid', 'max-file cannot be less than 1');
  const isCompressed = compress !== undefined && parseBoolean(compress);
  if (isCompressed && (size === undefined || files === undefined || fileCount < 2)) {
    throw new GantryError('invalid', 'compress cannot be true when max-file is less than 2 or max-size is not set');
  }
  return { maxSizeBytes, maxFiles: fileCount, compress: isCompressed };
}

/** Reads the local driver's options. */
export function localRetention(options: Options): Retention {
  const maxSizeBytes = named('max-size', options, (text) => parseSize(text, 1000)) ?? LOCAL_DEFAULT_SIZE_BYTES;
  const maxFiles = named('max-file', options, parseWhole) ?? LOCAL_DEFAULT_FILES;
  if (maxFiles < 0) throw new GantryError('invalid', 'max-file must not be negative');
  const text = options['compress'];
  let compress = true;
  try {
    if (text !== undefined) compress = parseBoolean(text);
  } catch (error) {
    throw new GantryError('invalid', `error reading compress log option: ${(error as Error).message}`);
  }
  if (compress && maxFiles <= 1) {
    throw new GantryError('invalid', 'compression cannot be enabled when max file count is 1');
  }
  // A size of 0 would rotate before every entry; docker does just that, we take it as one entry a file.
  return { maxSizeBytes: Math.max(1, maxSizeBytes), maxFiles: Math.max(1, maxFiles), compress };
}

function named(key: string, options: Options, parse: (text: string) => number): number | undefined {
  const text = options[key];
  if (text === undefined) return undefined;
  try {
    return parse(text);
  } catch (error) {
    throw new GantryError('invalid', `invalid value for ${key}: ${text}: ${(error as Error).message}`);
  }
}
