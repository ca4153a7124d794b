/** `.dockerignore`: Go patterns plus `**`, anchored at the context root; the last matching line wins. */
import { GantryError } from '#types/errors.ts';
import { escapeForRegExp, PATTERN_LENGTH_LIMIT, readClass } from './go-match.ts';

interface Rule {
  readonly exclude: boolean;
  readonly expression: RegExp;
}

/** Patterns read from a file. */
export interface IgnoreRules {
  /** Whether the path (or a directory above it) is left out of the build context. */
  ignores(path: string): boolean;
}

function clean(pattern: string): string {
  const parts: string[] = [];
  for (const part of pattern.split('/')) {
    if (part === '' || part === '.') continue;
    if (part === '..' && parts.length > 0 && parts.at(-1) !== '..') parts.pop();
    else parts.push(part);
  }
  return parts.join('/');
}

function compile(pattern: string): RegExp {
  if (pattern.length > PATTERN_LENGTH_LIMIT) throw new GantryError('invalid', 'syntax error in pattern');
  const characters = [...pattern];
  let source = '';
  for (let index = 0; index < characters.length; ) {
    const character = characters[index] as string;
    if (character === '*' && characters[index + 1] === '*') {
      index += 2;
      if (characters[index] === '/') index += 1;
      source += index >= characters.length ? '.*' : '(?:.*/)?';
    } else if (character === '*') {
      source += '[^/]*';
      index += 1;
    } else if (character === '?') {
      source += '[^/]';
      index += 1;
    } else if (character === '[') {
      const read = readClass(characters, index);
      source += read.source;
      index = read.next;
    } else if (character === '\\') {
      const next = characters[index + 1];
      if (next === undefined) throw new GantryError('invalid', 'syntax error in pattern');
      source += escapeForRegExp(next);
      index += 2;
    } else {
      source += escapeForRegExp(character);
      index += 1;
    }
  }
  return new RegExp(`^${source}(?:/.*)?$`, 'su');
}

/** Parses the file's text. */
export function parseIgnore(text: string): IgnoreRules {
  const rules: Rule[] = [];
  for (const raw of text.replace(/^\uFEFF/, '').split('\n')) {
    if (raw.startsWith('#')) continue;
    let line = raw.trim();
    if (line === '') continue;
    const exclude = line.startsWith('!');
    if (exclude) line = line.slice(1).trim();
    if (exclude && line === '') throw new GantryError('invalid', 'illegal exclusion pattern: "!"');
    const pattern = clean(line);
    if (pattern !== '') rules.push({ exclude, expression: compile(pattern) });
  }
  return {
    ignores: (path) => {
      let ignored = false;
      for (const rule of rules) if (rule.exclude === ignored && rule.expression.test(path)) ignored = !rule.exclude;
      return ignored;
    },
  };
}
