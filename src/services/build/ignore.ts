/** `.dockerignore`: Go patterns plus `**`, anchored at the context root; the last matching line wins. */
import { GantryError } from '#types/errors.ts';
import { ANYTHING, DIRECTORIES, type GlobStep, matchSteps, patternCharacters, readStep } from './go-match.ts';

interface Rule {
  readonly exclude: boolean;
  readonly steps: readonly GlobStep[];
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

function compile(pattern: string): readonly GlobStep[] {
  const characters = patternCharacters(pattern);
  const steps: GlobStep[] = [];
  for (let index = 0; index < characters.length; ) {
    if (characters[index] === '*' && characters[index + 1] === '*') {
      index += 2;
      if (characters[index] === '/') index += 1;
      steps.push(index >= characters.length ? ANYTHING : DIRECTORIES);
      continue;
    }
    const read = readStep(characters, index);
    steps.push(read.step);
    index = read.next;
  }
  return steps;
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
    if (pattern !== '') rules.push({ exclude, steps: compile(pattern) });
  }
  return {
    ignores: (path) => {
      let ignored = false;
      for (const rule of rules)
        if (rule.exclude === ignored && matchSteps(rule.steps, path, true)) ignored = !rule.exclude;
      return ignored;
    },
  };
}
