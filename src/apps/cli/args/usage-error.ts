/** Errors of the command line, in cobra's and docker's words, with docker's exit codes. */
import type { CommandSpec } from './command-table.ts';

/** Ends the program with a code; `message` goes to stderr as it is (empty: nothing is printed). */
export class ExitError extends Error {
  override readonly name = 'ExitError';
  readonly code: number;

  constructor(code: number, message = '') {
    super(message);
    this.code = code;
  }
}

/** The exit code of a wrong flag. */
export const FLAG_ERROR_CODE = 125;

/** A wrong flag: message, usage line, hint. */
export function flagError(command: CommandSpec, message: string): ExitError {
  const program = command.path === '' ? 'gantry' : `gantry ${command.path}`;
  return new ExitError(
    FLAG_ERROR_CODE,
    `${message}\n\nUsage:  gantry ${command.usage}\n\nRun '${program} --help' for more information\n`,
  );
}

/** A wrong number of arguments, or undefined when the number is right. */
export function arityError(command: CommandSpec, count: number): ExitError | undefined {
  const { min, max } = command.arity;
  if (count >= min && count <= max) return undefined;
  const plural = (n: number): string => (n === 1 ? 'argument' : 'arguments');
  let text: string;
  let verb = 'Run';
  if (max === 0) text = 'accepts no arguments';
  else if (min === max) text = `requires ${min} ${plural(min)}`;
  else if (max === Infinity) {
    text = `requires at least ${min} ${plural(min)}`;
    verb = 'See';
  } else if (min === 0) text = `requires at most ${max} ${plural(max)}`;
  else text = `requires at least ${min} and at most ${max} ${plural(max)}`;
  const name = `gantry ${command.path}`;
  return new ExitError(
    1,
    `gantry: '${name}' ${text}\n\nUsage:  gantry ${command.usage}\n\n${verb} '${name} --help' for more information\n`,
  );
}

/** A failure of `run`/`create` before the container runs: prefix and hint. */
export function runError(command: CommandSpec, message: string, code: number = FLAG_ERROR_CODE): ExitError {
  return new ExitError(code, `gantry: ${message}\n\nRun 'gantry ${command.path} --help' for more information\n`);
}
