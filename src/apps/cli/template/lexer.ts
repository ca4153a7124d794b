/**
 * Splits a Go template (text/template) into text and the tokens of its actions.
 *
 * Offsets are kept because error texts carry line and column. Errors read `template: NAME:LINE: …`.
 */

/** A token inside an action. `space` marks white space before it, which ends an argument. */
export interface Token {
  readonly kind: 'field' | 'variable' | 'word' | 'number' | 'string' | 'char' | 'symbol';
  readonly text: string;
  readonly offset: number;
  readonly space: boolean;
}

/** A run of text, or one action. */
export type Piece =
  | { readonly kind: 'text'; readonly text: string }
  | { readonly kind: 'action'; readonly tokens: readonly Token[]; readonly offset: number };

/** A template that does not parse, or fails while it runs. */
export class TemplateError extends Error {
  override readonly name = 'TemplateError';
  /** What was written before the failure. */
  partialOutput = '';
}

/** The line of an offset, from 1. */
export function lineAt(source: string, offset: number): number {
  return source.slice(0, offset).split('\n').length;
}

const TOKEN =
  /(\s+)|(\.[\p{L}_][\p{L}\p{N}_]*)|(\$[\p{L}\p{N}_]*)|([\p{L}_][\p{L}\p{N}_]*)|([+-]?(?:0[xX][0-9a-fA-F]+|\d[\d_]*\.?\d*(?:[eE][+-]?\d+)?|\.\d+))|("(?:[^"\\\n]|\\.)*")|(`[^`]*`)|('(?:[^'\\\n]|\\.)+')|(:=|[=|(),.])/uy;

function tokenKind(match: RegExpExecArray): Token['kind'] {
  if (match[2] !== undefined) return 'field';
  if (match[3] !== undefined) return 'variable';
  if (match[4] !== undefined) return 'word';
  if (match[5] !== undefined) return 'number';
  if (match[6] !== undefined || match[7] !== undefined) return 'string';
  if (match[8] !== undefined) return 'char';
  return 'symbol';
}

function lexAction(source: string, name: string, start: number): { tokens: Token[]; end: number; trimAfter: boolean } {
  const tokens: Token[] = [];
  let at = start;
  let space = false;
  const fail = (message: string): TemplateError =>
    new TemplateError(`template: ${name}:${lineAt(source, at)}: ${message}`);
  for (;;) {
    if (source.startsWith('}}', at)) return { tokens, end: at + 2, trimAfter: false };
    if (/^\s-\}\}/.test(source.slice(at, at + 4))) return { tokens, end: at + 4, trimAfter: true };
    if (at >= source.length) throw fail('unclosed action');
    TOKEN.lastIndex = at;
    const match = TOKEN.exec(source);
    if (match === null) {
      if (source[at] === '"') throw fail('unterminated quoted string');
      if (source[at] === '`') throw fail('unterminated raw quoted string');
      const code = source.codePointAt(at) ?? 0;
      throw fail(`unexpected ${JSON.stringify(String.fromCodePoint(code))} in command`);
    }
    if (match[1] !== undefined) {
      // White space before "-}}" belongs to the trim marker.
      const minus = match[1].length + at;
      if (source.startsWith('-}}', minus)) return { tokens, end: minus + 3, trimAfter: true };
      space = true;
    } else {
      tokens.push({ kind: tokenKind(match), text: match[0], offset: at, space });
      space = false;
    }
    at += match[0].length;
  }
}

/** Splits a template into pieces. */
export function lexTemplate(source: string, name: string): Piece[] {
  const pieces: Piece[] = [];
  let at = 0;
  let trim = false;
  for (;;) {
    const open = source.indexOf('{{', at);
    let text = open === -1 ? source.slice(at) : source.slice(at, open);
    if (trim) text = text.trimStart();
    const trimBefore = open !== -1 && /^\{\{-\s/.test(source.slice(open, open + 4));
    if (trimBefore) text = text.trimEnd();
    if (text !== '') pieces.push({ kind: 'text', text });
    if (open === -1) return pieces;
    const start = open + (trimBefore ? 3 : 2);
    const comment = /^\s*\/\*[\s\S]*?\*\/(\s-)?\}\}/.exec(source.slice(start));
    if (comment !== null) {
      at = start + comment[0].length;
      trim = comment[1] !== undefined;
      continue;
    }
    const { tokens, end, trimAfter } = lexAction(source, name, start);
    pieces.push({ kind: 'action', tokens, offset: start });
    at = end;
    trim = trimAfter;
  }
}
