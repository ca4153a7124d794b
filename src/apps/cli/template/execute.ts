/**
 * Runs a parsed Go template on a JSON value with text/template's semantics and error texts:
 * `template: NAME:LINE:COLUMN: executing "NAME" at <NODE>: …`.
 */
import { FUNCTIONS, type FunctionSpec } from './functions.ts';
import { lineAt, TemplateError } from './lexer.ts';
import {
  type Command,
  type Expression,
  type Node,
  type ParsedTemplate,
  type Pipeline,
  parseTemplate,
} from './parser.ts';
import { isTrue, printValue, StructView, typeName, type ViewMethod } from './values.ts';

/** How a missing key of a map is treated. */
export interface ExecuteOptions {
  /** `error`: text/template's missingkey=error; `zero`: prints `<no value>`. */
  readonly missingKey?: 'error' | 'zero';
  /** Functions that stand in for those of the same name. */
  readonly functions?: ReadonlyMap<string, FunctionSpec>;
  /** Keys that exist in the Go type though the JSON leaves them out when empty; they read as nil. */
  readonly optionalKeys?: ReadonlySet<string>;
}

const MAX_TEMPLATE_DEPTH = 1000;

/** A compiled template. */
export class Template {
  readonly #parsed: ParsedTemplate;

  constructor(source: string, options: { name?: string } = {}) {
    this.#parsed = parseTemplate(source, { name: options.name ?? '', functions: new Set(FUNCTIONS.keys()) });
  }

  /** The output of the template for `data`. */
  execute(data: unknown, options: ExecuteOptions = {}): string {
    const run = new Execution(this.#parsed, data, options);
    try {
      run.walk(this.#parsed.nodes, data);
    } catch (error) {
      if (error instanceof TemplateError) error.partialOutput = run.output;
      throw error;
    }
    return run.output;
  }

  /** Names of the fields that stand alone at the top level, for column headers. */
  get parsed(): ParsedTemplate {
    return this.#parsed;
  }
}

interface Variable {
  readonly name: string;
  value: unknown;
}

type Flow = 'next' | 'break' | 'continue';

class Execution {
  output = '';
  readonly #template: ParsedTemplate;
  readonly #options: ExecuteOptions;
  #variables: Variable[];
  #name: string;
  #depth = 0;

  constructor(template: ParsedTemplate, data: unknown, options: ExecuteOptions) {
    this.#template = template;
    this.#options = options;
    this.#variables = [{ name: '$', value: data }];
    this.#name = template.name;
  }

  walk(nodes: readonly Node[], dot: unknown): Flow {
    for (const node of nodes) {
      const flow = this.#walkNode(node, dot);
      if (flow !== 'next') return flow;
    }
    return 'next';
  }

  #walkNode(node: Node, dot: unknown): Flow {
    switch (node.kind) {
      case 'text':
        this.output += node.text;
        return 'next';
      case 'action': {
        const value = this.#pipeline(node.pipe, dot);
        if (node.pipe.variables.length === 0) this.output += this.#print(node.pipe, value);
        return 'next';
      }
      case 'if':
      case 'with':
        return this.#scoped(() => {
          const value = this.#pipeline(node.pipe, dot);
          if (!isTrue(value)) return this.walk(node.otherwise, dot);
          return this.walk(node.body, node.kind === 'with' ? value : dot);
        });
      case 'range':
        return this.#scoped(() => this.#range(node, dot));
      case 'template':
        this.#callTemplate(node, dot);
        return 'next';
      case 'break':
      case 'continue':
        return node.kind;
      default:
        return node satisfies never;
    }
  }

  #print(pipe: Pipeline, value: unknown): string {
    const last = pipe.commands.at(-1)?.operands;
    const only = last?.length === 1 ? last[0] : undefined;
    const key =
      only?.kind === 'field' || only?.kind === 'variable' || only?.kind === 'chain' ? (only.names.at(-1) ?? '') : '';
    return printValue(value, key);
  }

  #scoped(body: () => Flow): Flow {
    const mark = this.#variables.length;
    try {
      return body();
    } finally {
      this.#variables.length = mark;
    }
  }

  #range(node: Extract<Node, { kind: 'if' | 'range' | 'with' }>, dot: unknown): Flow {
    const value = this.#pipeline(node.pipe, dot, true);
    const entries = this.#entries(node.pipe, value);
    if (entries.length === 0) return this.walk(node.otherwise, dot);
    for (const [key, item] of entries) {
      const mark = this.#variables.length;
      const [first, second] = node.pipe.variables;
      if (second !== undefined && first !== undefined) {
        this.#setVariable(first, key, node.pipe.assigns);
        this.#setVariable(second, item, node.pipe.assigns);
      } else if (first !== undefined) this.#setVariable(first, item, node.pipe.assigns);
      const flow = this.walk(node.body, item);
      this.#variables.length = mark;
      if (flow === 'break') break;
    }
    return 'next';
  }

  #entries(pipe: Pipeline, value: unknown): [unknown, unknown][] {
    if (value === null || value === undefined) return [];
    if (Array.isArray(value)) return value.map((item, index) => [index, item]);
    if (typeof value === 'number') return Array.from({ length: value }, (_, index) => [index, index]);
    if (typeof value === 'object' && !(value instanceof StructView)) {
      return Object.entries(value).sort(([a], [b]) => (a < b ? -1 : 1));
    }
    throw this.#fail(pipe, `range can't iterate over ${printValue(value)}`);
  }

  #callTemplate(node: Extract<Node, { kind: 'template' }>, dot: unknown): void {
    const nodes = this.#template.defined.get(node.name);
    if (nodes === undefined)
      throw this.#fail(
        { text: `{{template "${node.name}"}}`, offset: node.offset },
        `template "${node.name}" not defined`,
      );
    if (++this.#depth > MAX_TEMPLATE_DEPTH)
      throw this.#fail(
        { text: `{{template "${node.name}"}}`, offset: node.offset },
        `exceeded maximum template depth (${MAX_TEMPLATE_DEPTH})`,
      );
    const value = node.pipe === undefined ? null : this.#pipeline(node.pipe, dot);
    const saved = { variables: this.#variables, name: this.#name };
    this.#variables = [{ name: '$', value }];
    this.#name = node.name;
    this.walk(nodes, value);
    this.#variables = saved.variables;
    this.#name = saved.name;
    this.#depth--;
  }

  #setVariable(name: string, value: unknown, assigns: boolean): void {
    if (!assigns) {
      this.#variables.push({ name, value });
      return;
    }
    const variable = this.#variables.findLast((candidate) => candidate.name === name);
    if (variable !== undefined) variable.value = value;
  }

  #pipeline(pipe: Pipeline, dot: unknown, forRange = false): unknown {
    let value: unknown;
    pipe.commands.forEach((command, index) => {
      value = this.#command(command, dot, index === 0 ? [] : [value]);
    });
    if (!forRange) for (const name of pipe.variables) this.#setVariable(name, value, pipe.assigns);
    return value;
  }

  #command(command: Command, dot: unknown, piped: readonly unknown[]): unknown {
    const [first, ...rest] = command.operands;
    if (first === undefined) return undefined;
    if (first.kind === 'call') return this.#call(first, { args: rest, piped, dot });
    const method = this.#methodOf(first, dot);
    if (method !== undefined) {
      const args = [...rest.map((arg) => this.#operand(arg, dot)), ...piped];
      if (args.length !== method.call.length)
        throw this.#fail(
          first,
          `wrong number of args for ${method.name}: want ${method.call.length} got ${args.length}`,
        );
      return method.call(...args);
    }
    if (rest.length > 0 || piped.length > 0) {
      if (first.kind === 'field' || first.kind === 'chain' || first.kind === 'variable') {
        throw this.#fail(first, `${first.names.at(-1) ?? first.text} has arguments but cannot be invoked as function`);
      }
      throw this.#fail(first, `can't give argument to non-function ${first.text}`);
    }
    return this.#operand(first, dot);
  }

  /** The method a command calls, when its first operand names one. */
  #methodOf(node: Expression, dot: unknown): { name: string; call: ViewMethod } | undefined {
    if (node.kind !== 'field' && node.kind !== 'variable') return undefined;
    const name = node.names.at(-1);
    if (name === undefined) return undefined;
    const base = node.kind === 'field' ? dot : this.#variables.findLast((one) => one.name === node.name)?.value;
    const owner = node.names.length === 1 ? base : undefined;
    const call = owner instanceof StructView ? owner.method(name) : undefined;
    return call === undefined ? undefined : { name, call };
  }

  #operand(node: Expression, dot: unknown): unknown {
    switch (node.kind) {
      case 'dot':
        return dot;
      case 'literal':
        return node.value;
      case 'field':
        return this.#fields(node, dot, node.names);
      case 'variable':
        return this.#fields(node, this.#variables.findLast(({ name }) => name === node.name)?.value, node.names);
      case 'chain':
        return this.#fields(node, this.#operand(node.base, dot), node.names);
      case 'call':
        return this.#call(node, { args: [], piped: [], dot });
      case 'pipeline':
        return this.#pipeline(node.pipe, dot);
      default:
        return node satisfies never;
    }
  }

  #fields(node: Expression, start: unknown, names: readonly string[]): unknown {
    let value = start;
    let lastName = '';
    for (const name of names) {
      if (value === null && lastName !== '' && this.#options.optionalKeys?.has(lastName) === true) {
        throw this.#fail(node, `map has no entry for key "${lastName}"`);
      }
      value = this.#field(node, value, name);
      lastName = name;
    }
    return value;
  }

  #field(node: Expression, value: unknown, name: string): unknown {
    if (value === undefined || value === null) throw this.#fail(node, `nil data; no entry for key "${name}"`);
    if (value instanceof StructView) {
      if (value.has(name)) return value.get(name);
      if (value.isOpen) return undefined;
      throw this.#fail(node, `can't evaluate field ${name} in type ${value.typeName}`);
    }
    if (typeof value !== 'object' || Array.isArray(value)) {
      throw this.#fail(
        node,
        `can't evaluate field ${name} in type ${Array.isArray(value) ? '[]interface {}' : typeName(value)}`,
      );
    }
    if (Object.hasOwn(value, name)) return (value as Record<string, unknown>)[name];
    if (this.#options.optionalKeys?.has(name) === true) return null;
    if (this.#options.missingKey === 'error') throw this.#fail(node, `map has no entry for key "${name}"`);
    return undefined;
  }

  #call(
    node: Extract<Expression, { kind: 'call' }>,
    call: { args: readonly Expression[]; piped: readonly unknown[]; dot: unknown },
  ): unknown {
    const spec = this.#options.functions?.get(node.name) ?? FUNCTIONS.get(node.name);
    if (spec === undefined) throw this.#fail(node, `"${node.name}" is not a defined function`);
    const count = call.args.length + call.piped.length;
    if (count < spec.min || (!spec.variadic && count > spec.min)) {
      throw this.#fail(
        node,
        `wrong number of args for ${node.name}: want ${spec.variadic ? `at least ${spec.min}` : spec.min} got ${count}`,
      );
    }
    if (node.name === 'and' || node.name === 'or') return this.#shortCircuit(node.name, call);
    const args = [...call.args.map((arg) => this.#operand(arg, call.dot)), ...call.piped];
    try {
      return spec.call(...args);
    } catch (error) {
      if (error instanceof TemplateError || !(error instanceof Error)) throw error;
      throw this.#fail(node, `error calling ${node.name}: ${error.message}`);
    }
  }

  #shortCircuit(name: string, call: { args: readonly Expression[]; piped: readonly unknown[]; dot: unknown }): unknown {
    let value: unknown;
    for (const arg of call.args) {
      value = this.#operand(arg, call.dot);
      if (isTrue(value) === (name === 'or')) return value;
    }
    return call.piped.length > 0 ? call.piped[0] : value;
  }

  #fail(node: { readonly text: string; readonly offset: number }, message: string): TemplateError {
    const { source, name } = this.#template;
    const line = lineAt(source, node.offset);
    const column = Buffer.byteLength(source.slice(source.lastIndexOf('\n', node.offset - 1) + 1, node.offset));
    const shown = node.text.length > 20 ? `${node.text.slice(0, 20)}...` : node.text;
    return new TemplateError(
      `template: ${name}:${line}:${column}: executing "${this.#name}" at <${shown}>: ${message}`,
    );
  }
}
