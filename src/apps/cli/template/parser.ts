/**
 * Parses Go templates into a tree: actions, pipelines, if/else/range/with/define/template/block,
 * break and continue. Node texts are rebuilt as text/template prints them in errors.
 */
import { lexTemplate, lineAt, type Piece, TemplateError, type Token } from './lexer.ts';

/** An operand. `text` is its printed form, `offset` its place in the source. */
export type Expression =
  | { readonly kind: 'dot'; readonly text: string; readonly offset: number }
  | { readonly kind: 'literal'; readonly value: unknown; readonly text: string; readonly offset: number }
  | { readonly kind: 'field'; readonly names: readonly string[]; readonly text: string; readonly offset: number }
  | {
      readonly kind: 'variable';
      readonly name: string;
      readonly names: readonly string[];
      readonly text: string;
      readonly offset: number;
    }
  | {
      readonly kind: 'chain';
      readonly base: Expression;
      readonly names: readonly string[];
      readonly text: string;
      readonly offset: number;
    }
  | { readonly kind: 'call'; readonly name: string; readonly text: string; readonly offset: number }
  | { readonly kind: 'pipeline'; readonly pipe: Pipeline; readonly text: string; readonly offset: number };

/** A command: its first operand and its arguments. */
export interface Command {
  readonly operands: readonly Expression[];
  readonly text: string;
  readonly offset: number;
}

/** Commands joined by `|`, with variables that receive the result. */
export interface Pipeline {
  readonly commands: readonly Command[];
  readonly variables: readonly string[];
  readonly assigns: boolean;
  readonly text: string;
  readonly offset: number;
}

/** A node of the tree. */
export type Node =
  | { readonly kind: 'text'; readonly text: string }
  | { readonly kind: 'action'; readonly pipe: Pipeline }
  | {
      readonly kind: 'if' | 'range' | 'with';
      readonly pipe: Pipeline;
      readonly body: readonly Node[];
      readonly otherwise: readonly Node[];
    }
  | { readonly kind: 'template'; readonly name: string; readonly pipe: Pipeline | undefined; readonly offset: number }
  | { readonly kind: 'break' | 'continue' };

/** A parsed template with the templates it defines. */
export interface ParsedTemplate {
  readonly name: string;
  readonly source: string;
  readonly nodes: readonly Node[];
  readonly defined: ReadonlyMap<string, readonly Node[]>;
}

const KEYWORDS = new Set(['if', 'else', 'end', 'range', 'with', 'define', 'template', 'block', 'break', 'continue']);

const ESCAPES: Readonly<Record<string, string>> = { n: '\n', t: '\t', r: '\r', a: '\x07', b: '\b', f: '\f', v: '\v' };

function unquote(text: string): string {
  if (text.startsWith('`')) return text.slice(1, -1);
  return text
    .slice(1, -1)
    .replace(/\\(x[0-9a-fA-F]{2}|u[0-9a-fA-F]{4}|U[0-9a-fA-F]{8}|[0-7]{3}|.)/gu, (_, sequence: string) => {
      if (/^[xuU]./.test(sequence)) return String.fromCodePoint(Number.parseInt(sequence.slice(1), 16));
      if (/^[0-7]{3}$/.test(sequence)) return String.fromCodePoint(Number.parseInt(sequence, 8));
      return ESCAPES[sequence] ?? sequence;
    });
}

/** A list of nodes and the word that ended it. */
interface Block {
  readonly nodes: Node[];
  readonly ending: 'eof' | 'end' | 'else';
  readonly rest: TokenReader | undefined;
}

class TokenReader {
  readonly tokens: readonly Token[];
  index = 0;

  constructor(tokens: readonly Token[]) {
    this.tokens = tokens;
  }

  peek(ahead = 0): Token | undefined {
    return this.tokens[this.index + ahead];
  }

  next(): Token | undefined {
    return this.tokens[this.index++];
  }
}

class Parser {
  readonly #name: string;
  readonly #source: string;
  readonly #pieces: readonly Piece[];
  readonly #functions: ReadonlySet<string>;
  readonly defined = new Map<string, readonly Node[]>();
  #index = 0;
  #line = 1;
  #variables = new Set(['$']);

  constructor(source: string, options: { name: string; functions: ReadonlySet<string> }) {
    this.#name = options.name;
    this.#source = source;
    this.#functions = options.functions;
    this.#pieces = lexTemplate(source, options.name);
  }

  parseAll(): Node[] {
    const block = this.#parseBlock();
    if (block.ending === 'end') throw this.#fail('unexpected {{end}}');
    if (block.ending === 'else') throw this.#fail('unexpected {{else}}');
    return block.nodes;
  }

  #fail(message: string): TemplateError {
    return new TemplateError(`template: ${this.#name}:${this.#line}: ${message}`);
  }

  #parseBlock(): Block {
    const nodes: Node[] = [];
    for (;;) {
      const piece = this.#pieces[this.#index++];
      if (piece === undefined) return { nodes, ending: 'eof', rest: undefined };
      if (piece.kind === 'text') {
        nodes.push(piece);
        continue;
      }
      this.#line = lineAt(this.#source, piece.offset);
      const reader = new TokenReader(piece.tokens);
      const word = reader.peek();
      if (word?.kind === 'word' && KEYWORDS.has(word.text)) {
        reader.next();
        if (word.text === 'end') {
          this.#expectEnd(reader, 'end');
          return { nodes, ending: 'end', rest: undefined };
        }
        if (word.text === 'else') return { nodes, ending: 'else', rest: reader };
        this.#parseKeyword(word, reader, nodes);
      } else nodes.push({ kind: 'action', pipe: this.#parsePipeline(reader, 'command') });
    }
  }

  #expectEnd(reader: TokenReader, context: string): void {
    const extra = reader.peek();
    if (extra !== undefined) throw this.#fail(`unexpected <${extra.text}> in ${context}`);
  }

  #parseKeyword(word: Token, reader: TokenReader, nodes: Node[]): void {
    switch (word.text) {
      case 'if':
      case 'range':
      case 'with':
        nodes.push(this.#parseControl(word.text, reader));
        return;
      case 'break':
      case 'continue':
        this.#expectEnd(reader, word.text);
        nodes.push({ kind: word.text });
        return;
      case 'define':
      case 'block':
      case 'template':
        this.#parseNamed(word.text, reader, nodes);
        return;
      default:
        throw this.#fail(`unexpected {{${word.text}}}`);
    }
  }

  #parseNamed(keyword: 'define' | 'block' | 'template', reader: TokenReader, nodes: Node[]): void {
    const token = reader.next();
    if (token?.kind !== 'string')
      throw this.#fail(`unexpected ${token === undefined ? '"}}"' : `"${token.text}"`} in ${keyword} clause`);
    const name = unquote(token.text);
    const pipe =
      keyword === 'define' || reader.peek() === undefined
        ? undefined
        : this.#parsePipeline(reader, `${keyword} clause`);
    if (keyword !== 'template') {
      const saved = this.#variables;
      this.#variables = new Set(['$']);
      const block = this.#parseBlock();
      this.#variables = saved;
      if (block.ending !== 'end') throw this.#fail(`unexpected ${block.ending === 'eof' ? 'EOF' : '{{else}}'}`);
      this.defined.set(name, block.nodes);
    }
    if (keyword !== 'define') nodes.push({ kind: 'template', name, pipe, offset: token.offset });
  }

  #parseControl(kind: 'if' | 'range' | 'with', reader: TokenReader): Node {
    const saved = new Set(this.#variables);
    const pipe = this.#parsePipeline(reader, kind);
    const body = this.#parseBlock();
    let otherwise: readonly Node[] = [];
    if (body.ending === 'eof') throw this.#fail('unexpected EOF');
    if (body.ending === 'else' && body.rest !== undefined) {
      const next = body.rest.peek();
      if (next?.kind === 'word' && (next.text === 'if' || next.text === 'with') && next.text === kind) {
        body.rest.next();
        otherwise = [this.#parseControl(kind, body.rest)];
      } else {
        this.#expectEnd(body.rest, 'else');
        const last = this.#parseBlock();
        if (last.ending !== 'end')
          throw this.#fail(last.ending === 'eof' ? 'unexpected EOF' : 'expected end; found {{else}}');
        otherwise = last.nodes;
      }
    }
    this.#variables = saved;
    return { kind, pipe, body: body.nodes, otherwise };
  }

  #parsePipeline(reader: TokenReader, context: string): Pipeline {
    const start = reader.peek()?.offset ?? 0;
    const { variables, assigns } = this.#parseDeclarations(reader, context);
    const commands: Command[] = [];
    for (;;) {
      commands.push(this.#parseCommand(reader, context));
      const token = reader.peek();
      if (token?.text === '|') {
        reader.next();
        if (reader.peek() === undefined) throw this.#fail(`missing value for ${context}`);
        continue;
      }
      if (token === undefined || token.text === ')') break;
      throw this.#fail(`unexpected <${token.text}> in ${context}`);
    }
    for (const name of variables) this.#variables.add(name);
    const text = `${variables.length > 0 ? `${variables.join(', ')} ${assigns ? '=' : ':='} ` : ''}${commands.map((command) => command.text).join(' | ')}`;
    return { commands, variables, assigns, text, offset: start };
  }

  #parseDeclarations(reader: TokenReader, context: string): { variables: string[]; assigns: boolean } {
    const variables: string[] = [];
    const begin = reader.index;
    for (;;) {
      const token = reader.peek();
      const after = reader.peek(1);
      if (token?.kind !== 'variable') break;
      if (after?.text === ':=' || after?.text === '=') {
        variables.push(token.text);
        reader.index += 2;
        return { variables, assigns: after.text === '=' };
      }
      if (after?.text !== ',' || context !== 'range') break;
      variables.push(token.text);
      reader.index += 2;
    }
    reader.index = begin;
    return { variables: [], assigns: false };
  }

  #parseCommand(reader: TokenReader, context: string): Command {
    const operands: Expression[] = [];
    for (;;) {
      const token = reader.peek();
      if (token === undefined || token.text === '|' || token.text === ')') break;
      operands.push(this.#parseOperand(reader, context));
    }
    const first = operands[0];
    if (first === undefined) throw this.#fail(`missing value for ${context}`);
    return { operands, text: operands.map((operand) => operand.text).join(' '), offset: first.offset };
  }

  #parseOperand(reader: TokenReader, context: string): Expression {
    const base = this.#parseTerm(reader, context);
    const names: string[] = [];
    let { offset } = base;
    for (let token = reader.peek(); token?.kind === 'field' && !token.space; token = reader.peek()) {
      // Compat: errors point at the first field that follows the operand.
      if (names.length === 0) offset = token.offset;
      names.push(token.text.slice(1));
      reader.next();
    }
    if (names.length === 0) return base;
    const suffix = names.map((name) => `.${name}`).join('');
    if (base.kind === 'field' || base.kind === 'variable')
      return { ...base, names: [...base.names, ...names], text: base.text + suffix, offset };
    return { kind: 'chain', base, names, text: base.text + suffix, offset };
  }

  #parseTerm(reader: TokenReader, context: string): Expression {
    const token = reader.next();
    if (token === undefined) throw this.#fail(`missing value for ${context}`);
    const { text, offset } = token;
    switch (token.kind) {
      case 'field':
        return { kind: 'field', names: [text.slice(1)], text, offset };
      case 'variable':
        if (!this.#variables.has(text)) throw this.#fail(`undefined variable "${text}"`);
        return { kind: 'variable', name: text, names: [], text, offset };
      case 'string':
        return { kind: 'literal', value: unquote(text), text, offset };
      case 'char':
        return { kind: 'literal', value: unquote(text).codePointAt(0) ?? 0, text, offset };
      case 'number':
        return { kind: 'literal', value: Number(text.replaceAll('_', '')), text, offset };
      case 'word':
        if (text === 'true' || text === 'false') return { kind: 'literal', value: text === 'true', text, offset };
        if (text === 'nil') return { kind: 'literal', value: null, text, offset };
        if (!this.#functions.has(text)) throw this.#fail(`function "${text}" not defined`);
        return { kind: 'call', name: text, text, offset };
      case 'symbol':
        if (text === '.') return { kind: 'dot', text, offset };
        if (text === '(') {
          const pipe = this.#parsePipeline(reader, 'parenthesized pipeline');
          if (reader.next()?.text !== ')') throw this.#fail('unclosed left paren');
          return { kind: 'pipeline', pipe, text: `(${pipe.text})`, offset };
        }
        throw this.#fail(`unexpected "${text}" in ${context}`);
      default:
        return token.kind satisfies never;
    }
  }
}

/** Parses a template; throws TemplateError with text/template's texts. */
export function parseTemplate(
  source: string,
  options: { name: string; functions: ReadonlySet<string> },
): ParsedTemplate {
  const parser = new Parser(source, options);
  const nodes = parser.parseAll();
  return { name: options.name, source, nodes, defined: parser.defined };
}
