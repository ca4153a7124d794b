/**
 * Variable expansion of Dockerfile words: `$v`, `${v:-w}` and friends, quotes and escapes, as docker's own
 * shell-word lexer does (not a shell). Pure.
 */
import { GantryError } from '#types/errors.ts';
import { compileGoPattern } from './go-match.ts';

export type Variables = ReadonlyMap<string, string>;

function fail(text: string): GantryError {
  return new GantryError('invalid', text);
}

class Lexer {
  readonly #text: string;
  readonly #escape: string;
  readonly #variables: Variables;
  #at = 0;

  constructor(text: string, escape: string, variables: Variables) {
    this.#text = text;
    this.#escape = escape;
    this.#variables = variables;
  }

  /** Reads until `stop` (or the end); returns the words found by splitting at unquoted blanks. */
  read(stop: string): { word: string; words: string[] } {
    let word = '';
    const words: string[] = [];
    let current = '';
    let inWord = false;
    const push = (text: string, literal: boolean): void => {
      word += text;
      for (const character of text) {
        if (!literal && /\s/.test(character)) {
          if (inWord) words.push(current);
          current = '';
          inWord = false;
        } else {
          current += character;
          inWord = true;
        }
      }
      if (literal) inWord = true;
    };
    while (this.#at < this.#text.length) {
      const character = this.#text[this.#at] as string;
      if (stop !== '' && stop.includes(character)) break;
      if (character === "'") push(this.#single(), true);
      else if (character === '"') push(this.#double(), true);
      else if (character === '$') push(this.#dollar(), false);
      else if (character === this.#escape && this.#at + 1 < this.#text.length) {
        push(this.#text[this.#at + 1] as string, true);
        this.#at += 2;
      } else {
        this.#at += 1;
        // A trailing lone escape vanishes.
        if (character !== this.#escape) push(character, false);
      }
    }
    if (inWord) words.push(current);
    return { word, words };
  }

  #single(): string {
    const end = this.#text.indexOf("'", this.#at + 1);
    if (end < 0) throw fail('unexpected end of statement while looking for matching single-quote');
    const inner = this.#text.slice(this.#at + 1, end);
    this.#at = end + 1;
    return inner;
  }

  #double(): string {
    this.#at += 1;
    let result = '';
    for (;;) {
      const character = this.#text[this.#at];
      if (character === undefined) throw fail('unexpected end of statement while looking for matching double-quote');
      if (character === '"') {
        this.#at += 1;
        return result;
      }
      if (character === '$') {
        result += this.#dollar();
        continue;
      }
      const next = this.#text[this.#at + 1];
      if (character === this.#escape && next !== undefined) {
        result += next === '"' || next === '$' || next === this.#escape ? next : character + next;
        this.#at += 2;
        continue;
      }
      result += character;
      this.#at += 1;
    }
  }

  #name(): string {
    const rest = this.#text.slice(this.#at);
    const name = /^(?:[0-9]+|[A-Za-z_][A-Za-z0-9_]*|[@*#?\-$!])/.exec(rest)?.[0] ?? '';
    this.#at += name.length;
    return name;
  }

  #dollar(): string {
    this.#at += 1;
    if (this.#text[this.#at] !== '{') {
      const name = this.#name();
      return name === '' ? '$' : (this.#variables.get(name) ?? '');
    }
    this.#at += 1;
    if (this.#at >= this.#text.length) throw fail("syntax error: missing '}'");
    if (this.#text[this.#at] === '}' || this.#text[this.#at] === ':') throw fail('syntax error: bad substitution');
    const name = this.#name();
    const operator = this.#text[this.#at];
    if (operator === '}') {
      this.#at += 1;
      return this.#variables.get(name) ?? '';
    }
    if (operator === undefined) throw fail("syntax error: missing '}'");
    return this.#modified(name, operator);
  }

  #operand(stop: string): string {
    const { word } = this.read(stop);
    const end = this.#text[this.#at];
    if (end === undefined) throw fail("syntax error: missing '}'");
    this.#at += 1;
    return word;
  }

  #modified(name: string, first: string): string {
    let operator = first;
    this.#at += 1;
    const value = this.#variables.get(name);
    const colon = operator === ':';
    if (colon) {
      operator = this.#text[this.#at] ?? '';
      this.#at += 1;
    }
    const missing = value === undefined || (colon && value === '');
    if (operator === '-' || operator === '+' || operator === '?') {
      const word = this.#operand('}');
      if (operator === '-') return missing ? word : value;
      if (operator === '+') return missing ? '' : word;
      if (!missing) return value;
      throw fail(
        `${name}: ${word === '' ? (value === undefined ? 'is not allowed to be unset' : 'is not allowed to be empty') : word}`,
      );
    }
    if (!colon && (operator === '#' || operator === '%')) return this.#trim(value ?? '', operator);
    if (!colon && operator === '/') return this.#replace(value ?? '');
    throw fail(`unsupported modifier (${operator}) in substitution`);
  }

  #trim(value: string, operator: string): string {
    const greedy = this.#text[this.#at] === operator;
    if (greedy) this.#at += 1;
    const match = glob(this.#operand('}'));
    const lengths = Array.from({ length: value.length + 1 }, (_unused, index) => index);
    for (const length of greedy ? lengths.reverse() : lengths) {
      const part = operator === '#' ? value.slice(0, length) : value.slice(value.length - length);
      if (match(part)) return operator === '#' ? value.slice(length) : value.slice(0, value.length - length);
    }
    return value;
  }

  #replace(value: string): string {
    const all = this.#text[this.#at] === '/';
    if (all) this.#at += 1;
    const match = glob(this.#operand('/'));
    const replacement = this.#operand('}');
    let result = '';
    for (let start = 0; start < value.length; ) {
      let end = value.length;
      while (end > start && !match(value.slice(start, end))) end -= 1;
      if (end === start) {
        result += value[start];
        start += 1;
        continue;
      }
      result += replacement;
      start = end;
      if (!all) return result + value.slice(start);
    }
    return result;
  }
}

/** Only `*` and `?` are special here, and both cross slashes. */
function glob(pattern: string): (text: string) => boolean {
  const neutral = (text: string): string => text.replaceAll('/', '\u0001');
  const match = compileGoPattern(neutral(pattern).replaceAll('[', '\\['));
  return (text) => match(neutral(text));
}

/** Expands to one word. */
export function expandWord(text: string, escape: string, variables: Variables): string {
  return new Lexer(text, escape, variables).read('').word;
}

/** Expands and splits at blanks that came from outside quotes. */
export function expandWords(text: string, escape: string, variables: Variables): string[] {
  return new Lexer(text, escape, variables).read('').words;
}
