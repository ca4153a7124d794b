/** The functions of text/template and those docker's CLI adds (json, split, join, title, pad, …). */
import { goQuote } from '../text/go-text.ts';
import { goJson, isTrue, printValue, StructView, typeName } from './values.ts';

/** A template function; it throws an Error whose text follows `error calling NAME: `. */
export type TemplateFunction = (...args: unknown[]) => unknown;

/** How many arguments a function takes: exactly `min`, or at least `min` when variadic. */
export interface FunctionSpec {
  readonly min: number;
  readonly variadic: boolean;
  readonly call: TemplateFunction;
}

function text(value: unknown): string {
  if (typeof value === 'string') return value;
  throw new Error(`wrong type for value; expected string; got ${typeName(value)}`);
}

function spaced(values: readonly unknown[]): string {
  let out = '';
  values.forEach((value, index) => {
    if (index > 0 && typeof value !== 'string' && typeof values[index - 1] !== 'string') out += ' ';
    out += printValue(value);
  });
  return out;
}

function indexInto(value: unknown, keys: readonly unknown[]): unknown {
  let current = value;
  for (const key of keys) {
    if (current === null || current === undefined) throw new Error('index of untyped nil');
    if (Array.isArray(current) || typeof current === 'string') {
      if (typeof key !== 'number') throw new Error(`cannot index slice/array with type ${typeName(key)}`);
      if (key < 0 || key >= current.length) throw new Error(`index out of range: ${key}`);
      current = typeof current === 'string' ? current.charCodeAt(key) : current[key];
    } else if (typeof current === 'object' && !(current instanceof StructView)) {
      if (typeof key !== 'string') throw new Error(`value has type ${typeName(key)}; should be string`);
      current = Object.hasOwn(current, key) ? (current as Record<string, unknown>)[key] : '';
    } else throw new Error(`can't index item of type ${typeName(current)}`);
  }
  return current;
}

function sliceOf(value: unknown, bounds: readonly unknown[]): unknown {
  if (typeof value !== 'string' && !Array.isArray(value))
    throw new Error(`can't slice item of type ${typeName(value)}`);
  const numbers = bounds.map((bound) => {
    if (typeof bound !== 'number') throw new Error(`cannot index slice/array with type ${typeName(bound)}`);
    if (bound < 0 || bound > value.length) throw new Error(`index out of range: ${bound}`);
    return bound;
  });
  const [from = 0, to = value.length] = numbers;
  if (from > to) throw new Error(`invalid slice index: ${from} > ${to}`);
  return value.slice(from, to);
}

function compare(a: unknown, b: unknown): number {
  if (typeof a !== typeof b) throw new Error('incompatible types for comparison');
  if (typeof a === 'number' && typeof b === 'number') return a - b;
  if (typeof a === 'string' && typeof b === 'string') return a < b ? -1 : Number(a > b);
  throw new Error('invalid type for comparison');
}

function equal(a: unknown, ...others: unknown[]): boolean {
  return others.some((b) => {
    if (a === null || a === undefined || b === null || b === undefined) return (a ?? null) === (b ?? null);
    if (typeof a === 'object' || typeof b === 'object') throw new Error('non-comparable types');
    if (typeof a !== typeof b) throw new Error('incompatible types for comparison');
    return a === b;
  });
}

function pad(value: string, width: number, options: { left: boolean; zero: boolean }): string {
  if (options.left) return value.padEnd(width);
  if (options.zero && /^[-+]/.test(value)) return value[0] + value.slice(1).padStart(width - 1, '0');
  return value.padStart(width, options.zero ? '0' : ' ');
}

function formatOne(verb: string, value: unknown, precision: number | undefined): string {
  const wrong = `%!${verb}(${typeName(value)}=${printValue(value)})`;
  const number = typeof value === 'number' ? value : undefined;
  switch (verb) {
    case 'v':
      return value === null || value === undefined ? '<nil>' : printValue(value);
    case 's':
      if (typeof value === 'number' || typeof value === 'boolean') return wrong;
      return precision === undefined ? printValue(value) : [...printValue(value)].slice(0, precision).join('');
    case 'q':
      return typeof value === 'string'
        ? goQuote(value)
        : Array.isArray(value)
          ? `[${value.map((item) => goQuote(printValue(item))).join(' ')}]`
          : wrong;
    case 'd':
      return number === undefined || !Number.isInteger(number) ? wrong : printValue(number);
    case 'x':
    case 'X': {
      const out =
        typeof value === 'string'
          ? Buffer.from(value).toString('hex')
          : number === undefined
            ? wrong
            : number.toString(16);
      return verb === 'X' ? out.toUpperCase() : out;
    }
    case 'o':
    case 'b':
      return number === undefined ? wrong : number.toString(verb === 'o' ? 8 : 2);
    case 'f':
      return number === undefined ? wrong : number.toFixed(precision ?? 6);
    case 'e':
      return number === undefined ? wrong : number.toExponential(precision ?? 6).replace(/e([+-])(\d)$/, 'e$10$2');
    case 'g':
      return number === undefined
        ? wrong
        : String(precision === undefined ? number : Number(number.toPrecision(precision)));
    case 't':
      return typeof value === 'boolean' ? String(value) : wrong;
    case 'c':
      return number === undefined ? wrong : String.fromCodePoint(number);
    case 'T':
      return typeName(value);
    default:
      return wrong;
  }
}

/** fmt.Sprintf for the values templates hold. */
export function goPrintf(format: string, values: readonly unknown[]): string {
  let used = 0;
  const out = format.replace(
    /%([-+# 0]*)(\*|\d+)?(?:\.(\*|\d*))?(.)?/gsu,
    (_, flags: string, width: string | undefined, precision: string | undefined, verb: string | undefined) => {
      if (verb === undefined) return '%!(NOVERB)';
      if (verb === '%') return '%';
      const size = width === '*' ? Number(values[used++]) : Number(width ?? 0);
      const digits =
        precision === undefined ? undefined : precision === '*' ? Number(values[used++]) : Number(precision);
      if (used >= values.length) return `%!${verb}(MISSING)`;
      const value = values[used++];
      let one = formatOne(verb, value, digits);
      if (flags.includes('+') && typeof value === 'number' && value >= 0 && 'dfeg'.includes(verb)) one = `+${one}`;
      if (flags.includes('#') && verb === 'x' && typeof value === 'number') one = `0x${one}`;
      return pad(one, size, { left: flags.includes('-'), zero: flags.includes('0') && !flags.includes('-') });
    },
  );
  if (used >= values.length) return out;
  return `${out}%!(EXTRA ${values
    .slice(used)
    .map((value) => `${typeName(value)}=${printValue(value)}`)
    .join(', ')})`;
}

const HTML: Readonly<Record<string, string>> = {
  '<': '&lt;',
  '>': '&gt;',
  '&': '&amp;',
  '"': '&#34;',
  "'": '&#39;',
  '\0': '\uFFFD',
};

function jsEscape(value: string): string {
  return value.replace(/[\\'"<>&=\p{Cc}]/gu, (char) => {
    if (char === '\\' || char === "'" || char === '"') return `\\${char}`;
    return `\\u${char.charCodeAt(0).toString(16).toUpperCase().padStart(4, '0')}`;
  });
}

function goQueryEscape(value: string): string {
  return encodeURIComponent(value)
    .replace(/[!'()*]/g, (char) => `%${char.charCodeAt(0).toString(16).toUpperCase()}`)
    .replaceAll('%20', '+');
}

function lengthOf(value: unknown): number {
  if (typeof value === 'string') return Buffer.byteLength(value);
  if (Array.isArray(value)) return value.length;
  if (value === null || value === undefined) throw new Error('len of nil pointer');
  if (typeof value === 'object' && !(value instanceof StructView)) return Object.keys(value).length;
  throw new Error(`len of type ${typeName(value)}`);
}

function joined(value: unknown, separator: unknown): string {
  if (value === null || value === undefined) return '';
  if (!Array.isArray(value)) throw new Error(`wrong type for value; expected []string; got ${typeName(value)}`);
  return value.map(printValueOnly).join(text(separator));
}

function printValueOnly(value: unknown): string {
  return printValue(value);
}

function titleCase(value: string): string {
  return value.replace(
    /(^|[^\p{L}\p{N}_'])(\p{L})/gu,
    (_, before: string, letter: string) => before + letter.toUpperCase(),
  );
}

function isRow(value: unknown): boolean {
  return value instanceof StructView || (Array.isArray(value) && value.some((item) => item instanceof StructView));
}

const exactly = (min: number, call: TemplateFunction): FunctionSpec => ({ min, variadic: false, call });
const atLeast = (min: number, call: TemplateFunction): FunctionSpec => ({ min, variadic: true, call });

/** Every function; `and` and `or` are evaluated lazily by the executor. */
export const FUNCTIONS: ReadonlyMap<string, FunctionSpec> = new Map<string, FunctionSpec>([
  ['and', atLeast(1, (...args) => args.find((arg) => !isTrue(arg)) ?? args.at(-1))],
  ['or', atLeast(1, (...args) => args.find(isTrue) ?? args.at(-1))],
  ['not', exactly(1, (value) => !isTrue(value))],
  [
    'call',
    atLeast(1, (value) => {
      throw new Error(`non-function ${printValue(value)} of type ${typeName(value)}`);
    }),
  ],
  ['html', atLeast(0, (...args) => spaced(args).replace(/[<>&"'\0]/g, (char) => HTML[char] ?? char))],
  ['js', atLeast(0, (...args) => jsEscape(spaced(args)))],
  ['urlquery', atLeast(0, (...args) => goQueryEscape(spaced(args)))],
  ['index', atLeast(1, (value, ...keys) => indexInto(value, keys))],
  ['slice', atLeast(1, (value, ...bounds) => sliceOf(value, bounds))],
  ['len', exactly(1, lengthOf)],
  ['print', atLeast(0, (...args) => spaced(args))],
  ['println', atLeast(0, (...args) => `${args.map((arg) => printValue(arg)).join(' ')}\n`)],
  ['printf', atLeast(1, (format, ...args) => goPrintf(text(format), args))],
  ['eq', atLeast(1, equal)],
  ['ne', exactly(2, (a, b) => !equal(a, b))],
  ['lt', exactly(2, (a, b) => compare(a, b) < 0)],
  ['le', exactly(2, (a, b) => compare(a, b) <= 0)],
  ['gt', exactly(2, (a, b) => compare(a, b) > 0)],
  ['ge', exactly(2, (a, b) => compare(a, b) >= 0)],
  // Compat: rows are escaped by their own encoder, other values are not.
  ['json', exactly(1, (value) => goJson(value, { escapeHtml: isRow(value) }))],
  ['split', exactly(2, (value, separator) => text(value).split(text(separator)))],
  ['join', exactly(2, joined)],
  ['title', exactly(1, (value) => titleCase(text(value)))],
  ['lower', exactly(1, (value) => text(value).toLowerCase())],
  ['upper', exactly(1, (value) => text(value).toUpperCase())],
  [
    'pad',
    exactly(3, (value, before, after) =>
      text(value) === '' ? '' : ' '.repeat(Number(before)) + text(value) + ' '.repeat(Number(after)),
    ),
  ],
  ['truncate', exactly(2, (value, length) => text(value).slice(0, Number(length)))],
]);

/** What a column's title is passed through: the functions that would change a value leave it alone. */
export const TITLE_FUNCTIONS: ReadonlyMap<string, FunctionSpec> = new Map<string, FunctionSpec>([
  ['json', exactly(1, (value) => value)],
  ['split', exactly(2, (value) => value)],
  ['join', exactly(2, (value) => value)],
  ['title', exactly(1, (value) => value)],
  ['lower', exactly(1, (value) => value)],
  ['upper', exactly(1, (value) => value)],
  ['pad', exactly(3, (value) => value)],
  ['truncate', exactly(2, (value) => value)],
]);
