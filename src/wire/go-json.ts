/**
 * A JSON reader with the grammar and error texts of Go's encoding/json.
 *
 * Numbers keep their literal (so that ranges can be judged by the wanted type), objects keep order and
 * duplicates. One value is read; what follows it is left to the caller, as a Go json.Decoder does.
 */

/** Deeper documents are refused with Go's text; Go allows ten thousand, which no API body needs. */
export const MAX_JSON_DEPTH = 1000;

/** A syntax error; `message` is Go's. */
export class JsonSyntaxError extends Error {
  override readonly name = 'JsonSyntaxError';
}

/** A number as written. */
export class JsonNumber {
  readonly literal: string;
  constructor(literal: string) {
    this.literal = literal;
  }
}

/** An object as written. */
export class JsonObject {
  readonly entries: [string, JsonValue][] = [];
}

export type JsonValue = string | boolean | null | JsonNumber | JsonObject | JsonValue[];

const ESCAPES: Readonly<Record<string, string>> = {
  '"': '"',
  '\\': '\\',
  '/': '/',
  b: '\b',
  f: '\f',
  n: '\n',
  r: '\r',
  t: '\t',
};

const SHORT_ESCAPES: Readonly<Record<string, string>> = {
  '\x07': '\\a',
  '\b': '\\b',
  '\f': '\\f',
  '\n': '\\n',
  '\r': '\\r',
  '\t': '\\t',
  '\v': '\\v',
  '\\': '\\\\',
};

/** Go reads bytes: a character outside ASCII is named by its first UTF-8 byte. */
function quoteCharacter(character: string): string {
  if (character === "'") return `'\\''`;
  const code = Buffer.from(character)[0] ?? 0;
  const shown = String.fromCharCode(code);
  const short = SHORT_ESCAPES[shown];
  if (short !== undefined) return `'${short}'`;
  if (code < 0x20 || code === 0x7f) return `'\\x${code.toString(16).padStart(2, '0')}'`;
  if ((code >= 0x80 && code <= 0xa0) || code === 0xad) return `'\\u${code.toString(16).padStart(4, '0')}'`;
  return `'${shown}'`;
}

class Reader {
  readonly text: string;
  position = 0;

  constructor(text: string) {
    this.text = text;
  }

  fail(context: string): never {
    const point = this.text.codePointAt(this.position);
    if (point === undefined) throw new JsonSyntaxError('unexpected EOF');
    throw new JsonSyntaxError(`invalid character ${quoteCharacter(String.fromCodePoint(point))} ${context}`);
  }

  skipSpace(): void {
    for (;;) {
      const code = this.text.charCodeAt(this.position);
      if (code !== 0x20 && code !== 0x0a && code !== 0x0d && code !== 0x09) return;
      this.position++;
    }
  }

  peek(): string {
    return this.text.charAt(this.position);
  }

  value(depth: number): JsonValue {
    if (depth > MAX_JSON_DEPTH) throw new JsonSyntaxError('exceeded max depth');
    this.skipSpace();
    const first = this.peek();
    if (first === '{') return this.object(depth);
    if (first === '[') return this.array(depth);
    if (first === '"') return this.string();
    if (first === '-' || (first >= '0' && first <= '9')) return this.number();
    if (first === 't') return this.literal('true', true);
    if (first === 'f') return this.literal('false', false);
    if (first === 'n') return this.literal('null', null);
    return this.fail('looking for beginning of value');
  }

  object(depth: number): JsonObject {
    const object = new JsonObject();
    this.position++;
    this.skipSpace();
    if (this.peek() === '}') {
      this.position++;
      return object;
    }
    for (;;) {
      this.skipSpace();
      if (this.peek() !== '"') this.fail('looking for beginning of object key string');
      const key = this.string();
      this.skipSpace();
      if (this.peek() !== ':') this.fail('after object key');
      this.position++;
      object.entries.push([key, this.value(depth + 1)]);
      this.skipSpace();
      const next = this.peek();
      if (next !== ',' && next !== '}') this.fail('after object key:value pair');
      this.position++;
      if (next === '}') return object;
    }
  }

  array(depth: number): JsonValue[] {
    const items: JsonValue[] = [];
    this.position++;
    this.skipSpace();
    if (this.peek() === ']') {
      this.position++;
      return items;
    }
    for (;;) {
      items.push(this.value(depth + 1));
      this.skipSpace();
      const next = this.peek();
      if (next !== ',' && next !== ']') this.fail('after array element');
      this.position++;
      if (next === ']') return items;
    }
  }

  string(): string {
    let out = '';
    let start = ++this.position;
    for (;;) {
      const code = this.text.charCodeAt(this.position);
      if (code === 0x22) {
        out += this.text.slice(start, this.position++);
        return out.toWellFormed();
      }
      if (!(code >= 0x20)) this.fail('in string literal');
      if (code === 0x5c) {
        out += this.text.slice(start, this.position++) + this.escape();
        start = this.position;
      } else this.position++;
    }
  }

  escape(): string {
    const letter = this.peek();
    const simple = ESCAPES[letter];
    if (simple !== undefined) {
      this.position++;
      return simple;
    }
    if (letter !== 'u') this.fail('in string escape code');
    const start = ++this.position;
    for (; this.position < start + 4; this.position++) {
      if (!/^[0-9a-fA-F]$/.test(this.peek())) this.fail('in \\u hexadecimal character escape');
    }
    return String.fromCharCode(Number.parseInt(this.text.slice(start, this.position), 16));
  }

  number(): JsonNumber {
    const start = this.position;
    if (this.peek() === '-') this.position++;
    if (this.peek() === '0') this.position++;
    else this.digits('in numeric literal');
    if (this.peek() === '.') {
      this.position++;
      this.digits('after decimal point in numeric literal');
    }
    if (this.peek() === 'e' || this.peek() === 'E') {
      this.position++;
      if (this.peek() === '+' || this.peek() === '-') this.position++;
      this.digits('in exponent of numeric literal');
    }
    return new JsonNumber(this.text.slice(start, this.position));
  }

  digits(context: string): void {
    const start = this.position;
    while (this.peek() >= '0' && this.peek() <= '9') this.position++;
    if (this.position === start) this.fail(context);
  }

  literal<T>(word: string, value: T): T {
    for (let index = 0; index < word.length; index++, this.position++) {
      if (this.peek() !== word[index]) this.fail(`in literal ${word} (expecting '${word[index]}')`);
    }
    return value;
  }
}

/** Reads the first value of `text`; `rest` is where it ends. Undefined when there is nothing but white space. */
export function readJson(text: string): { readonly value: JsonValue; readonly rest: number } | undefined {
  const reader = new Reader(text);
  reader.skipSpace();
  if (reader.position >= text.length) return undefined;
  const value = reader.value(1);
  return { value, rest: reader.position };
}

/** Sets a key that may be called `__proto__`. */
export function setOwn(target: Record<string, unknown>, key: string, value: unknown): void {
  if (key === '__proto__') {
    Object.defineProperty(target, key, { value, enumerable: true, configurable: true, writable: true });
  } else target[key] = value;
}

/** Plain JavaScript values. */
export function plainValue(value: JsonValue): unknown {
  if (value instanceof JsonNumber) return Number(value.literal);
  if (Array.isArray(value)) return value.map(plainValue);
  if (!(value instanceof JsonObject)) return value;
  const object: Record<string, unknown> = {};
  for (const [key, item] of value.entries) setOwn(object, key, plainValue(item));
  return object;
}
