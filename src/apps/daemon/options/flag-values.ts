/** Parses flag texts into values of daemon.json's shape, with dockerd's error texts. */
import { isIP } from 'node:net';
import type { FlagSpec, OptionValue } from './flag-table.ts';

const TRUE_WORDS: ReadonlySet<string> = new Set(['1', 't', 'T', 'true', 'TRUE', 'True']);
const FALSE_WORDS: ReadonlySet<string> = new Set(['0', 'f', 'F', 'false', 'FALSE', 'False']);

const ULIMIT_NAMES: ReadonlySet<string> = new Set([
  'core',
  'cpu',
  'data',
  'fsize',
  'locks',
  'memlock',
  'msgqueue',
  'nice',
  'nofile',
  'nproc',
  'rss',
  'rtprio',
  'rttime',
  'sigpending',
  'stack',
]); // prettier-ignore

export interface UlimitValue {
  readonly Name: string;
  readonly Soft: number;
  readonly Hard: number;
}

/** A malformed value; the parser adds which flag it was for. */
export class ValueError extends Error {}

/** Go's strconv.ParseBool. */
export function parseBool(text: string): boolean {
  if (TRUE_WORDS.has(text)) return true;
  if (FALSE_WORDS.has(text)) return false;
  throw new ValueError(`strconv.ParseBool: parsing ${JSON.stringify(text)}: invalid syntax`);
}

/** Go's strconv.ParseInt. */
export function parseInteger(text: string): number {
  if (!/^[+-]?[0-9]+$/.test(text))
    throw new ValueError(`strconv.ParseInt: parsing ${JSON.stringify(text)}: invalid syntax`);
  const value = Number(text);
  if (Math.abs(value) > 2 ** 63)
    throw new ValueError(`strconv.ParseInt: parsing ${JSON.stringify(text)}: value out of range`);
  return value;
}

/** go-units RAMInBytes: binary units, any of k, kb, kib … */
export function parseBytes(text: string): number {
  const match = /^(\d+(?:\.\d+)?) ?([kmgtp])?i?b?$/i.exec(text.trim());
  if (match === null) throw new ValueError(`invalid size: '${text}'`);
  const power = ' kmgtp'.indexOf((match[2] ?? ' ').toLowerCase());
  return Math.trunc(Number(match[1]) * 1024 ** power);
}

/** One `name=soft[:hard]`. */
export function parseUlimit(text: string): UlimitValue {
  const at = text.indexOf('=');
  if (at < 0) throw new ValueError(`invalid ulimit argument: ${text}`);
  const name = text.slice(0, at);
  if (!ULIMIT_NAMES.has(name)) throw new ValueError(`invalid ulimit type: ${name}`);
  const limits = text.slice(at + 1).split(':');
  if (limits.length > 2) {
    throw new ValueError(
      `too many limit value arguments - ${text.slice(at + 1)}, can only have up to two, \`soft[:hard]\``,
    );
  }
  const hard = limits[1] === undefined ? undefined : parseInteger(limits[1]);
  const soft = parseInteger(limits[0] ?? '');
  const limit = { Name: name, Soft: soft, Hard: hard ?? soft };
  if (limit.Hard !== -1 && (soft === -1 || soft > limit.Hard)) {
    const relation = soft === -1 ? `soft: -1 (unlimited), hard: ${limit.Hard}` : `${soft} > ${limit.Hard}`;
    throw new ValueError(`ulimit soft limit must be less than or equal to hard limit: ${relation}`);
  }
  return limit;
}

function addRuntime(known: Record<string, unknown>, text: string): Record<string, unknown> {
  const at = text.indexOf('=');
  const name = text.slice(0, Math.max(at, 0)).trim().toLowerCase();
  const path = text.slice(at + 1).trim();
  if (at < 0 || name === '' || path === '') throw new ValueError(`invalid runtime argument: ${text}`);
  if (name === 'runc') throw new ValueError("runtime name 'runc' is reserved");
  if (Object.hasOwn(known, name)) throw new ValueError(`runtime '${name}' was already defined`);
  return { ...known, [name]: { path } };
}

function parsePool(text: string): { base: string; size: number } {
  const pool = { base: '', size: 0 };
  for (const field of text.split(',')) {
    const at = field.indexOf('=');
    if (at < 0) throw new ValueError(`invalid field '${field}' must be a key=value pair`);
    const key = field.slice(0, at).toLowerCase();
    const value = field.slice(at + 1).toLowerCase();
    if (key === 'base') pool.base = checkPrefix(value);
    else if (key === 'size') {
      if (!/^-?[0-9]+$/.test(value)) {
        throw new ValueError(
          `invalid size value: ${JSON.stringify(text)} (must be integer): strconv.Atoi: parsing ${JSON.stringify(value)}: invalid syntax`,
        );
      }
      pool.size = Number(value);
    } else throw new ValueError(`unexpected key '${key}' in '${field}'`);
  }
  return pool;
}

function checkPrefix(text: string): string {
  const [address = '', bits = ''] = text.split('/');
  const family = isIP(address);
  const isValid = /^[0-9]+$/.test(bits) && family !== 0 && Number(bits) <= (family === 4 ? 32 : 128);
  if (!isValid)
    throw new ValueError(
      `invalid base prefix ${JSON.stringify(text)}: netip.ParsePrefix(${JSON.stringify(text)}): no '/'`,
    );
  return text;
}

function addSwitch(known: Record<string, unknown>, text: string): Record<string, unknown> {
  const at = text.indexOf('=');
  const name = at < 0 ? text : text.slice(0, at);
  return { ...known, [name]: at < 0 ? true : parseBool(text.slice(at + 1)) };
}

function addMapOfMaps(known: Record<string, unknown>, text: string): Record<string, unknown> {
  const [root, key, ...value] = text.split('=');
  if (root === undefined || key === undefined || value.length === 0) {
    throw new ValueError(`invalid value ${JSON.stringify(text)} for map option, should be root-key=key=value`);
  }
  return { ...known, [root]: { ...(known[root] as object | undefined), [key]: value.join('=') } };
}

/** Refuses labels without `=` and those of Docker's own name spaces. */
export function checkLabel(text: string): string {
  if (!text.includes('=')) throw new ValueError(`bad attribute format: ${text}`);
  if (/^(com\.docker|io\.docker|org\.dockerproject)\./i.test(text)) {
    throw new ValueError(
      `label ${text} is not allowed: the namespaces com.docker.*, io.docker.*, and org.dockerproject.* are reserved for internal use`,
    );
  }
  return text;
}

/** Refuses what cannot be a search domain. */
export function checkSearchDomain(text: string): string {
  const domain = text.replace(/^ +| +$/g, '');
  if (domain === '.') return domain;
  const isDomain =
    /[a-zA-Z]/.test(domain) &&
    /^(:?(:?[a-zA-Z0-9]|(:?[a-zA-Z0-9][a-zA-Z0-9-]*[a-zA-Z0-9]))(:?\.(:?[a-zA-Z0-9]|(:?[a-zA-Z0-9][a-zA-Z0-9-]*[a-zA-Z0-9])))*)\.?\s*$/.test(
      domain,
    );
  if (!isDomain || domain.length >= 255) throw new ValueError(`${domain} is not a valid domain`);
  return domain;
}

/** One registry mirror: a URL without path, query, fragment or credentials. */
export function checkMirror(text: string): string {
  const url = URL.canParse(text) ? new URL(text) : undefined;
  if (url === undefined)
    throw new ValueError(
      `invalid mirror: ${JSON.stringify(text)} is not a valid URI: parse ${JSON.stringify(text)}: invalid URI for request`,
    );
  if (url.protocol !== 'http:' && url.protocol !== 'https:') {
    throw new ValueError(
      `invalid mirror: unsupported scheme ${JSON.stringify(url.protocol.slice(0, -1))} in ${JSON.stringify(text)}: must use either 'https://' or 'http://'`,
    );
  }
  if (url.search !== '' || url.hash !== '')
    throw new ValueError(`invalid mirror: query or fragment at end of the URI ${JSON.stringify(text)}`);
  if (url.username !== '' || url.password !== '')
    throw new ValueError(`invalid mirror: username/password not allowed in URI ${JSON.stringify(text)}`);
  return text.endsWith('/') ? text : `${text}/`;
}

function checkListItem(spec: FlagSpec, text: string): string {
  switch (spec.name) {
    case 'label':
      return checkLabel(text);
    case 'dns-search':
      return checkSearchDomain(text);
    case 'registry-mirror':
      return checkMirror(text);
    case 'dns':
    case 'host-gateway-ip':
      if (isIP(text.trim()) === 0)
        throw new ValueError(
          spec.name === 'dns'
            ? `invalid string being converted to IP address: ${text}`
            : `${text} is not an ip address`,
        );
      return text.trim();
    default:
      return text;
  }
}

/** Values are lists for Go's IPSlice, which splits at commas. */
function listItems(spec: FlagSpec, text: string): string[] {
  const items = spec.name === 'dns' ? text.split(',') : [text];
  return items.map((item) => checkListItem(spec, item));
}

/** The value after one more occurrence of a flag with `text`. */
export function applyText(spec: FlagSpec, previous: OptionValue, text: string): OptionValue {
  const map = (previous ?? {}) as Record<string, unknown>;
  const list = (previous ?? []) as unknown[];
  switch (spec.type) {
    case 'string':
      return checkText(spec, text);
    case 'bool':
      return parseBool(text);
    case 'int':
      return parseInteger(text);
    case 'bytes':
      return parseBytes(text);
    case 'list':
      return [...list, ...listItems(spec, text)];
    case 'map': {
      const at = text.indexOf('=');
      return { ...map, [at < 0 ? text : text.slice(0, at)]: at < 0 ? '' : text.slice(at + 1) };
    }
    case 'mapOfMaps':
      return addMapOfMaps(map, text);
    case 'ulimits': {
      const limit = parseUlimit(text);
      return { ...map, [limit.Name]: limit };
    }
    case 'runtimes':
      return addRuntime(map, text);
    case 'pools':
      return [...list, parsePool(text)];
    case 'switches':
      return addSwitch(map, text);
  }
}

/** Flags of pflag's IP type. */
const ADDRESS_FLAGS: ReadonlySet<string> = new Set(['ip', 'default-gateway', 'default-gateway-v6']);

function checkText(spec: FlagSpec, text: string): string {
  if (ADDRESS_FLAGS.has(spec.name) && isIP(text.trim()) === 0) {
    throw new ValueError(`failed to parse IP: ${JSON.stringify(text)}`);
  }
  return text;
}
