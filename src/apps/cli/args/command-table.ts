/**
 * Unpacks commands-data.ts: which command a list of words names, and what flags and arguments it takes.
 *
 * Only the command that was asked for is unpacked, so the table does not slow down the start.
 */
import { ALIASES, COMMANDS } from '../commands-data.ts';
import { REGISTRY_COMMANDS } from './registry-commands.ts';

/** One flag of a command. */
export interface FlagSpec {
  readonly name: string;
  readonly short: string;
  readonly type: string;
  readonly initial: string;
  readonly status: string;
  readonly purpose: string;
  /** The API version that brought it; empty when every daemon has it. */
  readonly minApi: string;
}

/** How many arguments a command takes. */
export interface Arity {
  readonly min: number;
  readonly max: number;
}

/** One command. `path` is as typed (`run` or `container run`), `name` the canonical spelling. */
export interface CommandSpec {
  readonly name: string;
  readonly path: string;
  readonly usage: string;
  readonly aliases: readonly string[];
  readonly purpose: string;
  readonly status: string;
  readonly isGroup: boolean;
  readonly arity: Arity;
  readonly flags: readonly FlagSpec[];
}

/** Options must come before the first argument; what follows belongs to the container. */
const STOPS_AT_FIRST_ARGUMENT = new Set([
  'container run',
  'container create',
  'container exec',
  'container top',
  'service create',
  'plugin install',
]);

/** Usage lines that the table cannot express. */
const USAGES: Readonly<Record<string, string>> = {
  'container cp':
    'container cp [OPTIONS] CONTAINER:SRC_PATH DEST_PATH|-\n\tgantry container cp [OPTIONS] SRC_PATH|- CONTAINER:DEST_PATH',
};

/** Arities that the usage line does not tell. */
const ARITIES: Readonly<Record<string, Arity>> = {
  'container top': { min: 1, max: Infinity },
  'image import': { min: 1, max: Infinity },
  'image build': { min: 1, max: 1 },
  'image save': { min: 1, max: Infinity },
  'system info': { min: 0, max: 0 },
  'context import': { min: 2, max: 2 },
  'swarm join-token': { min: 1, max: 1 },
  'secret create': { min: 1, max: 2 },
  'image bootstrap': { min: 1, max: 1 },
};

/** Commands of this project that docker does not have. */
const OWN_COMMANDS: Readonly<Record<string, string>> = {
  'image bootstrap':
    'image bootstrap NAME\t\t\t\tmake a base image on this host without a registry\nquiet\tq\tbool\t\t\tsuppress the progress output',
  ...REGISTRY_COMMANDS,
  'system fsck':
    'system fsck [OPTIONS]\t\t\t\tcheck the store for missing, corrupt and orphaned content\ndeep\t\tbool\t\t\tcompare every extracted layer with its archive, byte by byte\ndrop\t\tbool\t\t\tremove images that cannot be repaired (needs --repair)\nformat\t\tstring\t\t\tprint as json: one object a finding, then a summary\nrepair\t\tbool\t\t\trepair what can be repaired',
};

/** Flags of docker 28.2 that the table's newer sources dropped or renamed, hidden in the help. */
const EXTRA_FLAGS: Readonly<Record<string, readonly string[]>> = {
  'container stop': ['time\t\tint\t0\thidden\tsame as --timeout'],
  'container restart': ['time\t\tint\t0\thidden\tsame as --timeout'],
};

/** Whether options after the first argument are left alone. */
export function stopsAtFirstArgument(name: string): boolean {
  return name === '' || STOPS_AT_FIRST_ARGUMENT.has(name);
}

function lookUp(path: string): string | undefined {
  if (COMMANDS[path] !== undefined || OWN_COMMANDS[path] !== undefined) return path;
  return ALIASES[path];
}

function parseFlag(line: string): FlagSpec {
  const [name = '', short = '', type = '', initial = '', status = '', purpose = '', minApi = ''] = line.split('\t');
  return { name, short, type, initial, status, purpose, minApi };
}

function arityOf(name: string, usage: string): Arity {
  const known = ARITIES[name];
  if (known !== undefined) return known;
  const words =
    usage.slice(name.length).trim().replace('[OPTIONS]', '').trim().split('\n')[0]?.replaceAll(' | ', '|').split(' ') ??
    [];
  let min = 0;
  let max = 0;
  for (const word of words) {
    if (word === '') continue;
    if (word.includes('...')) max = Infinity;
    else if (word.startsWith('[')) max++;
    else {
      min++;
      max++;
    }
  }
  return { min, max };
}

/** The spelling that appears in usage lines: the alias typed at top level, else the canonical name. */
function displayPath(typed: string, name: string): string {
  if (typed === name) return typed;
  const parent = typed.includes(' ') ? typed.slice(0, typed.lastIndexOf(' ')) : '';
  const canonicalParent = name.includes(' ') ? name.slice(0, name.lastIndexOf(' ')) : '';
  return parent === canonicalParent ? name : typed;
}

/** The command named `path`, or undefined. */
export function findCommand(path: string): CommandSpec | undefined {
  const name = lookUp(path);
  if (name === undefined) return undefined;
  const packed = COMMANDS[name] ?? OWN_COMMANDS[name] ?? '';
  const [header = '', ...flagLines] = packed.split('\n');
  const [tableUsage = '', aliases = '', , status = '', purpose = ''] = header.split('\t');
  const usage = USAGES[name] ?? tableUsage;
  const shown = displayPath(path, name);
  const isGroup = purpose.startsWith('group:') || name === '';
  return {
    name,
    path: shown,
    usage: name === '' ? usage : usage.replaceAll(name, shown),
    aliases: aliases === '' ? [] : aliases.split(';'),
    purpose,
    status,
    isGroup,
    arity: isGroup ? { min: 0, max: 0 } : arityOf(name, usage),
    flags: [...flagLines, ...(EXTRA_FLAGS[name] ?? [])].map(parseFlag),
  };
}

/** Canonical commands directly below `group` (empty for the top level) with their purpose. */
export function childCommands(group: string): { name: string; purpose: string; status: string }[] {
  const prefix = group === '' ? '' : `${group} `;
  const found: { name: string; purpose: string; status: string }[] = [];
  const add = (path: string, name: string): void => {
    if (!path.startsWith(prefix) || path === group || path.slice(prefix.length).includes(' ')) return;
    const [, , , status = '', purpose = ''] =
      (COMMANDS[name] ?? OWN_COMMANDS[name] ?? '').split('\n', 1)[0]?.split('\t') ?? [];
    found.push({ name: path.slice(prefix.length), purpose, status });
  };
  for (const name of [...Object.keys(COMMANDS), ...Object.keys(OWN_COMMANDS)]) add(name, name);
  if (group === '') for (const [alias, name] of Object.entries(ALIASES)) add(alias, name);
  return found.sort((a, b) => (a.name < b.name ? -1 : 1));
}
