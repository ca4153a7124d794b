/** What a command gets: its flags, the connection (made on first use), config.json and the output streams. */
import type { CommandSpec } from './args/command-table.ts';
import type { ParsedFlags } from './args/parse-flags.ts';
import { ExitError } from './args/usage-error.ts';
import type { ConfigFile } from './config/endpoint.ts';
import { type Api, ApiError } from './connection/api.ts';

/** One invocation of a command. */
export interface Session {
  readonly command: CommandSpec;
  readonly flags: ParsedFlags;
  readonly args: readonly string[];
  readonly globals: ParsedFlags;
  readonly config: ConfigFile;
  readonly configDirectory: string;
  /** The connection; starts a daemon when none runs and this user may. */
  connect(): Promise<Api>;
  /** Writes to standard output. */
  print(text: string): void;
  /** Writes a line to standard error. */
  warn(text: string): void;
}

/** A command's implementation: its exit code. */
export type CommandHandler = (session: Session) => Promise<number>;

/**
 * Runs `act` on each argument as docker does: the name is printed on success when `echo`, every failure is
 * reported and the exit code is then 1.
 */
export async function forEachName(
  session: Session,
  names: readonly string[],
  act: (name: string) => Promise<string | undefined>,
): Promise<number> {
  const failures: string[] = [];
  const settled = await Promise.allSettled(names.map(act));
  for (const result of settled) {
    if (result.status === 'fulfilled') {
      if (result.value !== undefined) session.print(`${result.value}\n`);
    } else if (result.reason instanceof ApiError) failures.push(result.reason.message);
    else throw result.reason;
  }
  if (failures.length > 0) throw new ExitError(1, `${failures.join('\n')}\n`);
  return 0;
}

/** A name in a path. */
export function segment(name: string): string {
  return encodeURIComponent(name).replaceAll('%2F', '/').replaceAll('%3A', ':').replaceAll('%40', '@');
}

/** `--filter` values as the API's JSON. */
export function filtersOf(values: readonly string[]): string | undefined {
  if (values.length === 0) return undefined;
  const filters: Record<string, Record<string, boolean>> = {};
  for (const value of values) {
    const at = value.indexOf('=');
    const key = value.slice(0, at).trim().toLowerCase();
    filters[key] = { ...filters[key], [value.slice(at + 1).trim()]: true };
  }
  return JSON.stringify(filters);
}
