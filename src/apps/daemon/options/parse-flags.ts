/** Command line of gantryd, read as pflag reads dockerd's. */
import { GantryError } from '#types/errors.ts';
import { type FlagSpec, flagNamed, flagShort, type OptionValue } from './flag-table.ts';
import { applyText, ValueError } from './flag-values.ts';

/** Flags that were given: name → value. */
export type GivenFlags = ReadonlyMap<string, OptionValue>;

const SEE_HELP = "\nSee 'gantryd --help'.";

function usageError(text: string): GantryError {
  return new GantryError('invalid', `${text}${SEE_HELP}`);
}

class Parser {
  readonly given = new Map<string, OptionValue>();
  readonly #rest: string[];

  constructor(argv: readonly string[]) {
    this.#rest = [...argv];
  }

  run(): void {
    for (let arg = this.#rest.shift(); arg !== undefined; arg = this.#rest.shift()) {
      if (arg === '--') {
        this.#refuseArguments(this.#rest);
        return;
      }
      if (arg.startsWith('--')) this.#long(arg.slice(2));
      else if (arg.startsWith('-') && arg.length > 1) this.#shorts(arg.slice(1));
      else this.#refuseArguments([arg]);
    }
  }

  #refuseArguments(rest: readonly string[]): void {
    if (rest.length > 0) throw new GantryError('invalid', `"gantryd" accepts no arguments.${SEE_HELP}`);
  }

  #long(text: string): void {
    const at = text.indexOf('=');
    const name = at < 0 ? text : text.slice(0, at);
    if (name === '' || name.startsWith('-')) throw usageError(`bad flag syntax: --${text}`);
    const spec = flagNamed(name);
    if (spec === undefined) throw usageError(`unknown flag: --${name}`);
    const label = spec.short === undefined ? `--${name}` : `-${spec.short}, --${name}`;
    if (at >= 0) this.#set(spec, text.slice(at + 1), label);
    else if (spec.type === 'bool') this.#set(spec, 'true', label);
    else {
      const value = this.#rest.shift();
      if (value === undefined) throw usageError(`flag needs an argument: --${name}`);
      this.#set(spec, value, label);
    }
  }

  #shorts(letters: string): void {
    for (let index = 0; index < letters.length; index++) {
      const letter = letters.charAt(index);
      const spec = flagShort(letter);
      if (spec === undefined) throw usageError(`unknown shorthand flag: '${letter}' in -${letters}`);
      const label = `-${letter}, --${spec.name}`;
      const tail = letters.slice(index + 1);
      if (tail.startsWith('=')) {
        this.#set(spec, tail.slice(1), label);
        return;
      }
      if (spec.type === 'bool') {
        this.#set(spec, 'true', label);
        continue;
      }
      const value = tail === '' ? this.#rest.shift() : tail;
      if (value === undefined) throw usageError(`flag needs an argument: '${letter}' in -${letters}`);
      this.#set(spec, value, label);
      return;
    }
  }

  #set(spec: FlagSpec, text: string, label: string): void {
    try {
      this.given.set(spec.name, applyText(spec, this.given.get(spec.name), text));
    } catch (error) {
      if (!(error instanceof ValueError)) throw error;
      throw usageError(`invalid argument ${JSON.stringify(text)} for ${JSON.stringify(label)} flag: ${error.message}`);
    }
  }
}

/** Parses the command line; throws `invalid` with pflag's texts. */
export function parseFlags(argv: readonly string[]): GivenFlags {
  const parser = new Parser(argv);
  parser.run();
  return parser.given;
}
