/**
 * Reading a Dockerfile to instructions: directives, comments, continuation, here-documents, flags
 * (the Dockerfile reference). Pure: text in, data out; error texts are docker's.
 */
import { GantryError } from '#types/errors.ts';

export interface Heredoc {
  readonly name: string;
  readonly content: string;
  /** Variables are expanded unless the word was quoted. */
  readonly expand: boolean;
}

/** One instruction as written. */
export interface DockerfileInstruction {
  /** Lower case. */
  readonly name: string;
  /** As written, for messages. */
  readonly writtenName: string;
  readonly flags: readonly string[];
  /** Everything after name and flags, continuation lines joined. */
  readonly rest: string;
  /** The whole logical line as printed in `Step`. */
  readonly original: string;
  readonly line: number;
  readonly heredocs: readonly Heredoc[];
}

export interface Dockerfile {
  readonly escape: string;
  readonly instructions: readonly DockerfileInstruction[];
  readonly warnings: readonly string[];
}

/** Longest line, as docker's scanner has it. */
export const LINE_LENGTH_LIMIT = 65_535;

const NAMES = new Set(
  'add arg cmd copy entrypoint env expose from healthcheck label maintainer onbuild run shell stopsignal user volume workdir'.split(
    ' ',
  ),
);
const HEREDOC_NAMES = new Set(['add', 'copy', 'run']);
const FLAG_NAMES = new Set(['add', 'copy', 'from', 'healthcheck', 'run']);

/** A parse error with its line. */
export function parseError(line: number, text: string): GantryError {
  return new GantryError('invalid', `dockerfile parse error on line ${line}: ${text}`);
}

function readDirectives(lines: readonly string[]): { escape: string } {
  let escape = '\\';
  const seen = new Set<string>();
  for (const line of lines) {
    const match = /^#\s*([a-zA-Z][a-zA-Z0-9]*)\s*=\s*(.+?)\s*$/.exec(line);
    if (match === null) break;
    const name = (match[1] ?? '').toLowerCase();
    if (!['syntax', 'escape', 'check'].includes(name)) break;
    if (seen.has(name)) throw new GantryError('invalid', `only one ${name} parser directive can be used`);
    seen.add(name);
    if (name === 'escape') {
      escape = match[2] ?? '';
      if (escape !== '\\' && escape !== '`')
        throw new GantryError('invalid', `invalid ESCAPE '${escape}'. Must be ' or \\`);
    }
  }
  return { escape };
}

/** Parses a whole file. `commands` false checks names too. */
export function parseDockerfile(text: string): Dockerfile {
  const lines = text
    .replace(/^\uFEFF/, '')
    .split('\n')
    .map((line) => line.replace(/\r$/, ''));
  if (text.trim() === '') throw new GantryError('invalid', 'file with no instructions');
  const { escape } = readDirectives(lines);
  const continuation = new RegExp(`([\\s\\S]*?)${escape === '\\' ? '\\\\' : '`'}[ \\t]*$`);
  const instructions: DockerfileInstruction[] = [];
  const warnings: string[] = [];
  let index = 0;
  while (index < lines.length) {
    const start = index + 1;
    let logical = '';
    let open = false;
    let skippedBlank = false;
    do {
      const line = lines[index] ?? '';
      if (line.length > LINE_LENGTH_LIMIT)
        throw new GantryError('invalid', `dockerfile line greater than max allowed size of ${LINE_LENGTH_LIMIT}`);
      index += 1;
      const body: string = logical === '' && !open ? line.trimStart() : line;
      if (/^\s*#/.test(body)) continue;
      if (body.trim() === '') {
        if (open) skippedBlank = true;
        else break;
        continue;
      }
      const match: RegExpExecArray | null = continuation.exec(body);
      open = match !== null && !endsEscaped(body, escape);
      logical += open ? (match?.[1] ?? '') : body;
    } while (open && index < lines.length);
    if (logical.trim() === '') continue;
    if (skippedBlank) warnings.push(`[WARNING]: Empty continuation line found in: ${logical.trim()}`);
    const parsed = readInstruction(logical.trim(), start);
    const heredocs = HEREDOC_NAMES.has(parsed.name === 'onbuild' ? 'run' : parsed.name)
      ? readHeredocs(lines, { from: index, text: parsed.rest, line: start })
      : undefined;
    index = heredocs?.next ?? index;
    instructions.push({ ...parsed, heredocs: heredocs?.documents ?? [] });
  }
  if (instructions.length === 0) throw new GantryError('invalid', 'file with no instructions');
  if (warnings.length > 0) warnings.push('[WARNING]: Empty continuation lines will become errors in a future release.');
  return { escape, instructions, warnings };
}

/** A doubled escape at the end is a literal, not a continuation. */
function endsEscaped(line: string, escape: string): boolean {
  const trimmed = line.trimEnd();
  let count = 0;
  while (trimmed[trimmed.length - 1 - count] === escape) count += 1;
  return count % 2 === 0;
}

/** Splits one logical line into name, flags and the rest. */
export function readInstruction(text: string, line: number): Omit<DockerfileInstruction, 'heredocs'> {
  const match = /^(\S+)(?:\s+([\s\S]*))?$/.exec(text);
  const writtenName = match?.[1] ?? '';
  const name = writtenName.toLowerCase();
  let rest = (match?.[2] ?? '').trim();
  if (!NAMES.has(name)) throw parseError(line, `unknown instruction: ${writtenName}`);
  const flags: string[] = [];
  while (FLAG_NAMES.has(name) && rest.startsWith('--')) {
    const flag = /^--(?:"(?:\\.|[^"])*"|'[^']*'|\\.|[^\s"'\\])*/.exec(rest)?.[0] ?? '--';
    rest = rest.slice(flag.length).trimStart();
    if (flag === '--') break;
    flags.push(
      flag
        .slice(2)
        .replace(
          /"((?:\\.|[^"])*)"|'([^']*)'|\\(.)/g,
          (_all, double?: string, single?: string, escaped?: string) => double ?? single ?? escaped ?? '',
        ),
    );
  }
  return {
    name,
    writtenName,
    flags,
    rest,
    original: text,
    line,
  };
}

function readHeredocs(
  lines: readonly string[],
  at: { from: number; text: string; line: number },
): { documents: Heredoc[]; next: number } {
  const documents: Heredoc[] = [];
  let next = at.from;
  // A JSON array is exec form; `<<` in it is only text.
  if (at.text.startsWith('[')) return { documents, next };
  for (const match of at.text.matchAll(/(?:^|\s)\d*<<(-?)(?:(["'])([^\s"'<]+)\2|([^\s"'<]+))/g)) {
    const strip = match[1] === '-';
    const name = match[3] ?? match[4] ?? '';
    const body: string[] = [];
    for (;;) {
      const raw = lines[next];
      if (raw === undefined) throw new GantryError('invalid', 'unterminated heredoc');
      next += 1;
      const line = strip ? raw.replace(/^\t+/, '') : raw;
      if (line === name) break;
      body.push(line);
    }
    documents.push({ name, content: body.map((line) => `${line}\n`).join(''), expand: match[2] === undefined });
  }
  return { documents, next };
}

/** A JSON array of strings, or undefined when the text is shell form. */
export function parseJsonForm(rest: string): string[] | undefined {
  if (!rest.startsWith('[')) return undefined;
  let value: unknown;
  try {
    value = JSON.parse(rest);
  } catch {
    return undefined;
  }
  if (!Array.isArray(value)) return undefined;
  if (!value.every((entry) => typeof entry === 'string')) {
    throw new GantryError('invalid', 'when using JSON array syntax, arrays must be comprised of strings only');
  }
  return value as string[];
}

/** Splits on blanks outside quotes; quotes and escapes stay (expansion removes them). */
export function splitWords(rest: string, escape: string): string[] {
  const words: string[] = [];
  let word = '';
  let quote = '';
  let started = false;
  for (let index = 0; index < rest.length; index += 1) {
    const character = rest[index] as string;
    if (quote === '' && /\s/.test(character)) {
      if (started) words.push(word);
      word = '';
      started = false;
      continue;
    }
    started = true;
    if (character === escape && quote !== "'" && index + 1 < rest.length) {
      word += character + rest[index + 1];
      index += 1;
      continue;
    }
    if (quote === '' && (character === '"' || character === "'")) quote = character;
    else if (character === quote) quote = '';
    word += character;
  }
  if (started) words.push(word);
  return words;
}

/** `k=v …` or the old `k v`; values keep their quotes. */
export function parsePairs(rest: string, options: { name: string; escape: string; line: number }): [string, string][] {
  const words = splitWords(rest, options.escape);
  const first = words[0];
  if (first === undefined) throw parseError(options.line, `${options.name} requires at least one argument`);
  if (!first.includes('=')) {
    const match = /^(\S+)\s+([\s\S]+)$/.exec(rest);
    if (match === null) throw new GantryError('invalid', `${options.name} must have two arguments`);
    return [[match[1] as string, match[2] as string]];
  }
  return words.map((word) => {
    const equals = word.indexOf('=');
    if (equals < 0) {
      throw new GantryError('invalid', `Syntax error - can't find = in "${word}". Must be of the form: name=value`);
    }
    return [word.slice(0, equals), word.slice(equals + 1)];
  });
}
