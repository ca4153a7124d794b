/**
 * The entry of the CLI: global options, the command's words, help, then the one command's module.
 * Everything but the parser is imported when it is needed, because start-up time is part of the interface.
 */
import { type CommandSpec, findCommand } from './args/command-table.ts';
import { HELP_SHORTHAND, type ParsedFlags, parseFlags } from './args/parse-flags.ts';
import { arityError, ExitError } from './args/usage-error.ts';
import type { ConfigFile } from './config/endpoint.ts';
import type { Api } from './connection/api.ts';
import type { Session } from './session.ts';

function print(text: string): void {
  process.stdout.write(text);
}

async function help(command: CommandSpec, stream: NodeJS.WriteStream = process.stdout): Promise<number> {
  const { commandHelp } = await import('./args/help.ts');
  stream.write(commandHelp(command, stream.columns || 80));
  return 0;
}

function unknownCommand(group: CommandSpec, word: string): ExitError {
  const path = group.path === '' ? 'gantry' : `gantry ${group.path}`;
  const usage = group.path === '' ? '' : `Usage:  ${path}\n\n`;
  return new ExitError(
    1,
    `gantry: unknown command: ${path} ${word}\n\n${usage}Run '${path} --help' for more information\n`,
  );
}

/** The command the words name; `stray` is a word that names nothing in its group. */
interface Resolved {
  readonly command: CommandSpec;
  readonly rest: readonly string[];
  readonly stray?: string;
}

/** Descends from the root to the command the words name. */
function resolveCommand(root: CommandSpec, words: readonly string[]): Resolved {
  let command = root;
  let rest = words;
  while (command.isGroup) {
    const [word] = rest;
    if (word === undefined || word.startsWith('-')) return { command, rest };
    const next = findCommand(command.path === '' ? word : `${command.path} ${word}`);
    if (next === undefined) return { command, rest, stray: word };
    command = next;
    rest = rest.slice(1);
  }
  return { command, rest };
}

/** Refuses flags that the daemon's API does not have yet; daemons are asked only for such flags. */
async function checkApiVersions(command: CommandSpec, flags: ParsedFlags, session: Session): Promise<void> {
  for (const { name, minApi } of command.flags)
    if (minApi !== '' && flags.has(name)) await (await session.connect()).requireVersion(minApi, name);
}

/** Connects to the daemon the flags, the environment or the configuration names; starts ours when none runs. */
async function connect(globals: ParsedFlags, config: ConfigFile, directory: string): Promise<Api> {
  const { resolveEndpoint } = await import('./config/endpoint.ts');
  const endpoint = resolveEndpoint(globals, config, directory);
  const { Api } = await import('./connection/api.ts');
  const address = endpoint.host.startsWith('ssh://')
    ? await (await import('./connection/ssh.ts')).openSshTunnel(endpoint.host)
    : endpoint.host;
  const api = new Api(endpoint, { address, headers: config.HttpHeaders ?? {} });
  if (endpoint.isDefaultSocket) {
    const { ensureDaemon } = await import('./connection/ensure-daemon.ts');
    await ensureDaemon(api);
  }
  return api;
}

async function makeSession(command: CommandSpec, flags: ParsedFlags, globals: ParsedFlags): Promise<Session> {
  const { configDirectory, readConfig } = await import('./config/endpoint.ts');
  const directory = configDirectory(globals);
  const config = readConfig(directory);
  let connection: ReturnType<Session['connect']> | undefined;
  return {
    command,
    flags,
    args: flags.args,
    globals,
    config,
    configDirectory: directory,
    connect: () => {
      connection ??= connect(globals, config, directory);
      return connection;
    },
    print,
    warn: (text) => process.stderr.write(`${text}\n`),
  };
}

/** Runs a plugin of that name with the whole command line; undefined when there is none. */
async function tryPlugin(name: string, words: readonly string[], globals: ParsedFlags): Promise<number | undefined> {
  const { configDirectory, readConfig } = await import('./config/endpoint.ts');
  const directory = configDirectory(globals);
  const config = readConfig(directory);
  const { findPlugin, runPlugin } = await import('./plugins.ts');
  const plugin = await findPlugin(name, config, directory);
  if (plugin === undefined) return undefined;
  // `help NAME` is the plugin's own help.
  const asked = globals.args[0] === 'help' ? [...globals.args.slice(1), '--help'] : words;
  return runPlugin(plugin, asked, { globals, config, configDirectory: directory });
}

function checkLogLevel(globals: ParsedFlags): void {
  const level = globals.text('log-level', 'info');
  if (!['debug', 'info', 'warn', 'warning', 'error', 'fatal', 'panic', 'trace'].includes(level)) {
    throw new ExitError(1, `Unable to parse logging level: ${level}\n`);
  }
}

async function run(words: readonly string[]): Promise<number> {
  const root = findCommand('');
  if (root === undefined) throw new Error('the command table is empty');
  const globals = parseFlags(root, words);
  if (globals.bool('version')) {
    const { CLI_VERSION } = await import('./version.ts');
    print(`Gantry version ${CLI_VERSION}\n`);
    return 0;
  }
  checkLogLevel(globals);
  let commandWords: readonly string[] = globals.args;
  if (commandWords[0] === 'help') {
    commandWords = [...commandWords.slice(1), '--help'];
  }
  if (globals.bool('help') || commandWords.length === 0) return help(root);
  const { command, rest, stray } = resolveCommand(root, commandWords);
  if (stray !== undefined) {
    const code = command === root ? await tryPlugin(stray, words, globals) : undefined;
    if (code !== undefined) return code;
    if (globals.args[0] === 'help') throw new ExitError(1, `unknown help topic: ${globals.args.slice(1).join(' ')}\n`);
    throw unknownCommand(command, stray);
  }
  const flags = parseFlags(command, rest);
  if (flags.bool('help')) {
    if (flags.text('help') === HELP_SHORTHAND) print('Flag shorthand -h has been deprecated, use --help\n');
    return help(command);
  }
  // Compat: a group alone is an error that explains itself, with code 0.
  if (command.isGroup) return help(command, process.stderr);
  const wrong = arityError(command, flags.args.length);
  if (wrong !== undefined) throw wrong;
  const { loadCommand } = await import('./commands/registry.ts');
  const handler = await loadCommand(command.name);
  if (handler === undefined) throw new ExitError(1, `gantry: ${command.path} is not built yet\n`);
  const session = await makeSession(command, flags, globals);
  await checkApiVersions(command, flags, session);
  return handler(session);
}

/** Runs the command line and turns errors into docker's exit codes. */
export async function main(words: readonly string[]): Promise<number> {
  try {
    return await run(words);
  } catch (error) {
    if (error instanceof ExitError) {
      if (error.message !== '')
        process.stderr.write(error.message.endsWith('\n') ? error.message : `${error.message}\n`);
      return error.code;
    }
    const text = error instanceof Error ? error.message : String(error);
    process.stderr.write(`${text}\n`);
    return 1;
  }
}

process.stdout.on('error', (error: Error & { code?: string }) => {
  if (error.code === 'EPIPE') process.exit(0);
  throw error;
});
// Not awaited here: the bundle is CommonJS, where a module cannot wait.
void main(process.argv.slice(2)).then((code) => {
  process.exitCode = code;
});
