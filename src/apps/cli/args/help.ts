/**
 * Help texts in the layout of cobra with docker's templates and pflag's wrapping. The sentences come from
 * the command table; the layout (columns, order, sections) is docker's.
 */
import { type CommandSpec, childCommands, type FlagSpec } from './command-table.ts';
import { HELP } from './parse-flags.ts';

const COMMON = ['run', 'exec', 'ps', 'build', 'pull', 'push', 'images', 'login', 'logout', 'search', 'version', 'info'];
const MANAGEMENT = [
  'builder',
  'checkpoint',
  'container',
  'context',
  'image',
  'manifest',
  'network',
  'plugin',
  'registry',
  'system',
  'trust',
  'volume',
];
const SWARM = ['config', 'node', 'secret', 'service', 'stack', 'swarm'];
const NAME_PADDING = 11;
const WRAP_SLOP = 5;
const DEFAULT_WIDTH = 80;

function capitalised(text: string): string {
  const plain = text.replace(/^group: (\(?)/, 'manage $1');
  return plain.charAt(0).toUpperCase() + plain.slice(1);
}

function lastIndexOfBlank(text: string): number {
  return Math.max(text.lastIndexOf(' '), text.lastIndexOf('\t'), text.lastIndexOf('\n'));
}

function wrapOnce(limit: number, text: string): [string, string] {
  if (limit + WRAP_SLOP > text.length) return [text, ''];
  const head = text.slice(0, limit);
  const blank = lastIndexOfBlank(head);
  if (blank <= 0) return [text, ''];
  const newline = head.lastIndexOf('\n');
  const cut = newline > 0 && newline < blank ? newline : blank;
  return [text.slice(0, cut), text.slice(cut + 1)];
}

/** pflag's wrap: the first line starts at column `indent`, the following are indented to it. */
export function wrapText(indent: number, width: number, text: string): string {
  let column = indent;
  let limit = width - column;
  let out = '';
  if (limit < 24) {
    column = 16;
    limit = width - column;
    out = `\n${' '.repeat(column)}`;
  }
  const pad = `\n${' '.repeat(column)}`;
  if (limit < 24) return text.replaceAll('\n', pad);
  let [line, rest] = wrapOnce(limit - WRAP_SLOP, text);
  out += line.replaceAll('\n', pad);
  while (rest !== '') {
    [line, rest] = wrapOnce(limit - WRAP_SLOP, rest);
    out += pad + line.replaceAll('\n', pad);
  }
  return out;
}

const TYPE_NAMES: Readonly<Record<string, string>> = {
  int64: 'int',
  uint64: 'uint',
  stringSlice: 'strings',
  bool: '',
  stringArray: 'stringArray',
};

function defaultText(flag: FlagSpec): string {
  if (['', '0', '0s', 'false', '<nil>'].includes(flag.initial)) return '';
  return flag.type === 'string' ? ` (default "${flag.initial}")` : ` (default ${flag.initial})`;
}

/** The flag list, wrapped to the terminal's width. */
export function flagUsages(flags: readonly FlagSpec[], width: number = DEFAULT_WIDTH): string {
  const shown = flags
    .filter((flag) => !/hidden|deprecated|windows/.test(flag.status))
    .sort((a, b) => (a.name < b.name ? -1 : 1));
  const lines = shown.map((flag) => {
    const type = TYPE_NAMES[flag.type] ?? flag.type;
    const head = flag.short === '' ? `      --${flag.name}` : `  -${flag.short}, --${flag.name}`;
    return { head: type === '' ? head : `${head} ${type}`, text: capitalised(flag.purpose) + defaultText(flag) };
  });
  const longest = Math.max(0, ...lines.map((line) => line.head.length + 1));
  return lines
    .map(({ head, text }) => `${head}${' '.repeat(longest - head.length + 2)}${wrapText(longest + 2, width - 1, text)}`)
    .join('\n');
}

function commandList(names: readonly { name: string; purpose: string }[]): string {
  const width = Math.max(NAME_PADDING, ...names.map(({ name }) => name.length));
  return names.map(({ name, purpose }) => `  ${name.padEnd(width)} ${capitalised(purpose)}`).join('\n');
}

/** The help of a command. */
export function commandHelp(command: CommandSpec, width: number = DEFAULT_WIDTH): string {
  if (command.name === '') return rootHelp(command, width);
  const usage = command.isGroup ? `${command.path} COMMAND` : command.usage;
  const parts = [`Usage:  gantry ${usage}`, capitalised(command.purpose)];
  const topLevel = command.aliases.some((alias) => !alias.includes(' ')) || command.aliases.length > 0;
  if (topLevel && !command.isGroup) {
    parts.push(`Aliases:\n  ${[command.name, ...command.aliases].map((alias) => `gantry ${alias}`).join(', ')}`);
  }
  // Compat: the two commands whose -h is the host name list --help, the others do not.
  const own = command.flags.filter((flag) => flag.name !== 'help');
  const flags = flagUsages(
    command.name === 'container run' || command.name === 'container create' ? [...own, HELP] : own,
    width,
  );
  if (flags !== '') parts.push(`Options:\n${flags}`);
  if (command.isGroup) {
    parts.push(
      `Commands:\n${commandList(childCommands(command.name).filter(({ status }) => !status.includes('hidden')))}`,
    );
    parts.push(`Run 'gantry ${command.path} COMMAND --help' for more information on a command.`);
  }
  return `${parts.join('\n\n')}\n`;
}

function rootHelp(command: CommandSpec, width: number): string {
  const all = childCommands('').filter(({ status }) => !/hidden|alias/.test(status));
  const pick = (names: readonly string[]): { name: string; purpose: string }[] =>
    names.flatMap((name) => all.filter((entry) => entry.name === name));
  const known = new Set([...COMMON, ...MANAGEMENT, ...SWARM]);
  return [
    'Usage:  gantry [OPTIONS] COMMAND',
    'Containers, images and networks with the Docker Engine API',
    `Common Commands:\n${commandList(pick(COMMON))}`,
    `Management Commands:\n${commandList(pick(MANAGEMENT))}`,
    `Swarm Commands:\n${commandList(pick(SWARM))}`,
    `Commands:\n${commandList(all.filter(({ name }) => !known.has(name) && name !== 'bake'))}`,
    `Global Options:\n${flagUsages(
      command.flags.filter((flag) => flag.name !== 'help'),
      width,
    )}`,
    "Run 'gantry COMMAND --help' for more information on a command.\n",
  ].join('\n\n');
}
