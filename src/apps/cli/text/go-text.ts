/**
 * Go's text conventions that docker's output shows: quoted strings (%q), sizes of docker/go-units,
 * and number parsing with strconv's error texts. Pure functions.
 */

/** Go's `%q` of a string. */
export function goQuote(text: string): string {
  let out = '"';
  for (const char of text) {
    const code = char.codePointAt(0) ?? 0;
    if (char === '"' || char === '\\') out += `\\${char}`;
    else if (char === '\n') out += '\\n';
    else if (char === '\t') out += '\\t';
    else if (char === '\r') out += '\\r';
    else if (code === 7) out += '\\a';
    else if (code === 8) out += '\\b';
    else if (code === 11) out += '\\v';
    else if (code === 12) out += '\\f';
    else if (code < 32 || code === 127) out += `\\x${code.toString(16).padStart(2, '0')}`;
    else out += char;
  }
  return `${out}"`;
}

/** strconv.ParseBool; undefined when the text is none of its spellings. */
export function parseGoBool(text: string): boolean | undefined {
  if (['1', 't', 'T', 'true', 'TRUE', 'True'].includes(text)) return true;
  if (['0', 'f', 'F', 'false', 'FALSE', 'False'].includes(text)) return false;
  return undefined;
}

/** The limits of an integer type. */
export interface IntegerRange {
  readonly func: 'ParseInt' | 'ParseUint';
  readonly min: bigint;
  readonly max: bigint;
}

/** strconv.ParseInt / ParseUint with base 0; throws an Error with strconv's text. */
export function parseGoInteger(text: string, range: IntegerRange): number {
  const failure = (why: string): Error => new Error(`strconv.${range.func}: parsing ${goQuote(text)}: ${why}`);
  const match = /^([+-]?)(0[xX][0-9a-fA-F]+|0[bB][01]+|0[oO]?[0-7]*|[1-9][0-9_]*)$/.exec(text);
  if (match === null || (range.func === 'ParseUint' && match[1] !== '')) throw failure('invalid syntax');
  let digits = (match[2] ?? '').replaceAll('_', '');
  if (/^0[0-7]+$/.test(digits)) digits = `0o${digits.slice(1)}`;
  let value = BigInt(digits);
  if (match[1] === '-') value = -value;
  if (value < range.min || value > range.max) throw failure('value out of range');
  return Number(value);
}

const SUFFIXES = /^([kmgtp])(i?b)?$|^b$|^$/;

/** docker/go-units RAMInBytes: `64m`, `1.5GiB`, `10b`; throws an Error with its text. */
export function ramInBytes(text: string): number {
  const cut = Math.max(...'0123456789. '.split('').map((char) => text.lastIndexOf(char)));
  if (cut === -1) throw new Error(`invalid size: '${text}'`);
  const split =
    text[cut] === ' '
      ? { number: text.slice(0, cut), suffix: text.slice(cut + 1) }
      : { number: text.slice(0, cut + 1), suffix: text.slice(cut + 1) };
  if (!/^[+-]?(\d+\.?\d*|\.\d+)$/.test(split.number)) {
    throw new Error(`strconv.ParseFloat: parsing ${goQuote(split.number)}: invalid syntax`);
  }
  const size = Number(split.number);
  if (size < 0) throw new Error(`invalid size: '${text}'`);
  const suffix = split.suffix.toLowerCase();
  const match = SUFFIXES.exec(suffix);
  if (match === null) throw new Error(`invalid suffix: '${suffix}'`);
  const power = match[1] === undefined ? 0 : 'kmgtp'.indexOf(match[1]) + 1;
  return Math.trunc(size * 1024 ** power);
}

/** docker/go-units RAMInBytes for FromHumanSize (powers of 1000). */
export function fromHumanSize(text: string): number {
  const match = /^(\d+(?:\.\d+)?) ?([kKmMgGtTpP]?)[iI]?[bB]?$/.exec(text);
  if (match === null) throw new Error(`invalid size: '${text}'`);
  return Math.trunc(Number(match[1]) * 1000 ** ' kmgtp'.indexOf((match[2] ?? '').toLowerCase() || ' '));
}

/** Go's `%.Ng` of a positive number. */
export function formatGeneral(value: number, precision: number): string {
  if (value === 0) return '0';
  const exponent = Number(value.toExponential(precision - 1).split('e')[1]);
  if (exponent < -4 || exponent >= precision) {
    const [mantissa = '', power = ''] = value.toExponential(precision - 1).split('e');
    const short = mantissa.includes('.') ? mantissa.replace(/\.?0+$/, '') : mantissa;
    return `${short}e${power[0]}${power.slice(1).padStart(2, '0')}`;
  }
  const fixed = value.toFixed(Math.max(0, precision - 1 - exponent));
  return fixed.includes('.') ? fixed.replace(/\.?0+$/, '') : fixed;
}

function scaled(size: number, base: number, units: readonly string[], precision: number): string {
  let index = 0;
  let value = size;
  while (value >= base && index < units.length - 1) {
    value /= base;
    index++;
  }
  return `${formatGeneral(value, precision)}${units[index]}`;
}

const DECIMAL = ['B', 'kB', 'MB', 'GB', 'TB', 'PB', 'EB', 'ZB', 'YB'];
const BINARY = ['B', 'KiB', 'MiB', 'GiB', 'TiB', 'PiB', 'EiB', 'ZiB', 'YiB'];

/** `1.23MB` with `precision` digits (docker/go-units HumanSizeWithPrecision; 4 is HumanSize). */
export function humanSize(bytes: number, precision = 4): string {
  return scaled(bytes, 1000, DECIMAL, precision);
}

/** `1.234MiB` (docker/go-units BytesSize). */
export function bytesSize(bytes: number): string {
  return scaled(bytes, 1024, BINARY, 4);
}

const DURATION_UNITS_NS: Readonly<Record<string, number>> = {
  ns: 1,
  us: 1e3,
  µs: 1e3,
  μs: 1e3,
  ms: 1e6,
  s: 1e9,
  m: 60e9,
  h: 3600e9,
};

/** time.ParseDuration in nanoseconds; throws an Error with its text. */
export function parseGoDuration(text: string): number {
  const invalid = new Error(`time: invalid duration ${goQuote(text)}`);
  let rest = text;
  let sign = 1;
  if (/^[+-]/.test(rest)) {
    if (rest.startsWith('-')) sign = -1;
    rest = rest.slice(1);
  }
  if (rest === '0') return 0;
  if (rest === '') throw invalid;
  let total = 0;
  while (rest !== '') {
    const match = /^(\d+\.?\d*|\.\d+)([^\d.]*)/.exec(rest);
    if (match === null) throw invalid;
    const unit = match[2] ?? '';
    if (unit === '') throw new Error(`time: missing unit in duration ${goQuote(text)}`);
    const factor = DURATION_UNITS_NS[unit];
    if (factor === undefined) throw new Error(`time: unknown unit ${goQuote(unit)} in duration ${goQuote(text)}`);
    total += Number(match[1]) * factor;
    rest = rest.slice(match[0].length);
  }
  return sign * Math.trunc(total);
}

/** time.Duration's String of nanoseconds: `1m30s`, `1.5ms`. */
export function formatGoDuration(nanoseconds: number): string {
  if (nanoseconds === 0) return '0s';
  const sign = nanoseconds < 0 ? '-' : '';
  const total = Math.abs(nanoseconds);
  const decimal = (value: number): string => String(Number(value.toFixed(9)));
  if (total < 1e3) return `${sign}${total}ns`;
  if (total < 1e6) return `${sign}${decimal(total / 1e3)}µs`;
  if (total < 1e9) return `${sign}${decimal(total / 1e6)}ms`;
  const hours = Math.trunc(total / 3600e9);
  const minutes = Math.trunc((total % 3600e9) / 60e9);
  const seconds = `${decimal((total % 60e9) / 1e9)}s`;
  if (hours > 0) return `${sign}${hours}h${minutes}m${seconds}`;
  return minutes > 0 ? `${sign}${minutes}m${seconds}` : `${sign}${seconds}`;
}
