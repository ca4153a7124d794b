/**
 * Go's filepath.Match: `*` and `?` never cross a slash, `[…]` classes with `^`, backslash escapes.
 * A malformed pattern is docker's `syntax error in pattern`.
 */
import { GantryError } from '#types/errors.ts';

/** Longest pattern compiled; guards against absurd regular expressions. */
export const PATTERN_LENGTH_LIMIT = 4096;

const BAD_PATTERN = 'syntax error in pattern';

/** Escapes one character for a regular expression in `u` mode. */
export function escapeForRegExp(character: string): string {
  return /[\\^$.*+?()[\]{}|/]/.test(character) ? `\\${character}` : character;
}

/** Reads a class starting at `[`; returns its source and the index after `]`. */
export function readClass(characters: readonly string[], start: number): { source: string; next: number } {
  let index = start + 1;
  const negated = characters[index] === '^';
  if (negated) index += 1;
  let source = '';
  const one = (): string => {
    let character = characters[index];
    if (character === undefined || character === '-' || character === ']')
      throw new GantryError('invalid', BAD_PATTERN);
    if (character === '\\') {
      index += 1;
      character = characters[index];
      if (character === undefined) throw new GantryError('invalid', BAD_PATTERN);
    }
    index += 1;
    return `\\u{${(character.codePointAt(0) ?? 0).toString(16)}}`;
  };
  for (let count = 0; count === 0 || characters[index] !== ']'; count += 1) {
    const low = one();
    if (characters[index] === '-') {
      index += 1;
      const high = one();
      if (Number.parseInt(high.slice(3), 16) >= Number.parseInt(low.slice(3), 16)) source += `${low}-${high}`;
    } else source += low;
  }
  const body = source === '' ? (negated ? '[^]' : '(?!)') : negated ? `[^${source}]` : `[${source}]`;
  return { source: body, next: index + 1 };
}

/** Compiles to a predicate over whole names. */
export function compileGoPattern(pattern: string): (name: string) => boolean {
  if (pattern.length > PATTERN_LENGTH_LIMIT) throw new GantryError('invalid', BAD_PATTERN);
  const characters = [...pattern];
  let source = '';
  for (let index = 0; index < characters.length; ) {
    const character = characters[index] as string;
    if (character === '*') {
      while (characters[index] === '*') index += 1;
      source += '[^/]*';
    } else if (character === '?') {
      source += '[^/]';
      index += 1;
    } else if (character === '[') {
      const read = readClass(characters, index);
      source += read.source;
      index = read.next;
    } else if (character === '\\') {
      const next = characters[index + 1];
      if (next === undefined) throw new GantryError('invalid', BAD_PATTERN);
      source += escapeForRegExp(next);
      index += 2;
    } else {
      source += escapeForRegExp(character);
      index += 1;
    }
  }
  const expression = new RegExp(`^${source}$`, 'su');
  return (name) => expression.test(name);
}
