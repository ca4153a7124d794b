/**
 * A parser with pflag's rules: `--x=v`, `--x v`, `-x v`, `-xv`, `-x=v`, grouped shorthands, `--` and
 * interspersed arguments. Values are checked while parsing, so the first wrong one is what is reported.
 */
import { type CommandSpec, type FlagSpec, stopsAtFirstArgument } from './command-table.ts';
import { parseValue } from './flag-values.ts';
import { type ExitError, flagError } from './usage-error.ts';

/** How `-h`, which docker deprecated, is recorded. */
export const HELP_SHORTHAND = '-h';

/** What a flag may hold after parsing. */
export type FlagValue = string | number | boolean | readonly string[];

/** The parsed command line of one command. */
export class ParsedFlags {
  readonly args: string[] = [];
  readonly #values = new Map<string, FlagValue>();
  readonly #lists = new Map<string, string[]>();

  /** Records one occurrence. */
  record(flag: string, value: FlagValue, raw: string): void {
    this.#values.set(flag, value);
    const list = this.#lists.get(flag);
    if (list === undefined) this.#lists.set(flag, [raw]);
    else list.push(raw);
  }

  /** Whether the flag was given. */
  has(flag: string): boolean {
    return this.#values.has(flag);
  }

  /** The last text given, or the fallback. */
  text(flag: string, fallback = ''): string {
    return this.#lists.get(flag)?.at(-1) ?? fallback;
  }

  /** The flag as a truth value. */
  bool(flag: string, fallback = false): boolean {
    const value = this.#values.get(flag);
    return typeof value === 'boolean' ? value : fallback;
  }

  /** The flag as a number. */
  number(flag: string, fallback = 0): number {
    const value = this.#values.get(flag);
    return typeof value === 'number' ? value : fallback;
  }

  /** Every value given, in order. */
  list(...flags: readonly string[]): string[] {
    return flags.flatMap((flag) => this.#lists.get(flag) ?? []);
  }
}

function isBool(flag: FlagSpec): boolean {
  return flag.type === 'bool';
}

/** The flag that every command has. */
export const HELP: FlagSpec = {
  name: 'help',
  short: '',
  type: 'bool',
  initial: '',
  status: '',
  purpose: 'Print usage',
  minApi: '',
};

class FlagReader {
  readonly #command: CommandSpec;
  readonly #long = new Map<string, FlagSpec>();
  readonly #short = new Map<string, FlagSpec>();
  readonly #result = new ParsedFlags();

  constructor(command: CommandSpec) {
    this.#command = command;
    for (const flag of [...command.flags, HELP]) {
      if (!this.#long.has(flag.name)) this.#long.set(flag.name, flag);
      if (flag.short !== '') this.#short.set(flag.short, flag);
    }
  }

  read(words: readonly string[]): ParsedFlags {
    const stop = stopsAtFirstArgument(this.#command.name);
    const rest = [...words];
    for (let word = rest.shift(); word !== undefined; word = rest.shift()) {
      if (word === '--') {
        this.#result.args.push(...rest);
        break;
      }
      if (word.length < 2 || !word.startsWith('-')) {
        this.#result.args.push(word);
        if (stop) {
          this.#result.args.push(...rest);
          break;
        }
      } else if (word.startsWith('--')) this.#readLong(word, rest);
      else this.#readShorts(word, rest);
    }
    return this.#result;
  }

  #readLong(word: string, rest: string[]): void {
    const body = word.slice(2);
    if (body === '' || body.startsWith('-') || body.startsWith('=')) throw this.#fail(`bad flag syntax: ${word}`);
    const equals = body.indexOf('=');
    const name = equals === -1 ? body : body.slice(0, equals);
    const flag = this.#long.get(name);
    if (flag === undefined) throw this.#fail(`unknown flag: --${name}`);
    if (equals !== -1) this.#set(flag, body.slice(equals + 1));
    else if (isBool(flag)) this.#set(flag, 'true');
    else {
      const value = rest.shift();
      if (value === undefined) throw this.#fail(`flag needs an argument: --${name}`);
      this.#set(flag, value);
    }
  }

  #readShorts(word: string, rest: string[]): void {
    let group = word.slice(1);
    while (group !== '') {
      const char = group[0] ?? '';
      const flag = this.#short.get(char);
      if (flag === undefined) {
        if (char === 'h') {
          this.#result.record('help', true, HELP_SHORTHAND);
          return;
        }
        throw this.#fail(`unknown shorthand flag: '${char}' in -${group}`);
      }
      if (group.length > 2 && group[1] === '=') {
        this.#set(flag, group.slice(2));
        return;
      }
      if (isBool(flag)) {
        this.#set(flag, 'true');
        group = group.slice(1);
        continue;
      }
      if (group.length > 1) {
        this.#set(flag, group.slice(1));
        return;
      }
      const value = rest.shift();
      if (value === undefined) throw this.#fail(`flag needs an argument: '${char}' in -${group}`);
      this.#set(flag, value);
      return;
    }
  }

  #set(flag: FlagSpec, raw: string): void {
    const shown = flag.short === '' ? `--${flag.name}` : `-${flag.short}, --${flag.name}`;
    try {
      this.#result.record(flag.name, parseValue(flag, raw), raw);
    } catch (error) {
      if (!(error instanceof Error)) throw error;
      throw this.#fail(`invalid argument "${raw}" for "${shown}" flag: ${error.message}`);
    }
  }

  #fail(message: string): ExitError {
    return flagError(this.#command, message);
  }
}

/** Parses the words after the command's name. */
export function parseFlags(command: CommandSpec, words: readonly string[]): ParsedFlags {
  return new FlagReader(command).read(words);
}
