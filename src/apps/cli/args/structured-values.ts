/**
 * Option values with an inner structure: `--ulimit`, `--mount`, `--gpus`, `--network`, comma-separated
 * `key=value` records quoted as in CSV. The results are Engine API JSON.
 */
import { goQuote, parseGoBool, ramInBytes } from '../text/go-text.ts';

/** A JSON object for the API. */
export type Json = Record<string, unknown>;

/** One CSV record (encoding/csv: quoted fields double their quotes). */
export function csvFields(text: string): string[] {
  const fields: string[] = [];
  let index = 0;
  for (;;) {
    if (text[index] === '"') {
      let value = '';
      index++;
      for (;;) {
        if (index >= text.length)
          throw new Error(`parse error on line 1, column ${index + 1}: extraneous or missing " in quoted-field`);
        if (text[index] === '"' && text[index + 1] === '"') {
          value += '"';
          index += 2;
        } else if (text[index] === '"') break;
        else value += text[index++];
      }
      index++;
      if (index < text.length && text[index] !== ',')
        throw new Error(`parse error on line 1, column ${index}: extraneous or missing " in quoted-field`);
      fields.push(value);
    } else {
      const comma = text.indexOf(',', index);
      const end = comma === -1 ? text.length : comma;
      const value = text.slice(index, end);
      const quote = value.indexOf('"');
      if (quote !== -1)
        throw new Error(`parse error on line 1, column ${index + quote + 1}: bare " in non-quoted-field`);
      fields.push(value);
      index = end;
    }
    if (index >= text.length) return fields;
    index++;
  }
}

const ULIMITS = new Set(
  'core cpu data fsize locks memlock msgqueue nice nofile nproc rss rtprio rttime sigpending stack'.split(' '),
);

/** `nofile=1024:2048`. */
export function parseUlimit(text: string): { Name: string; Soft: number; Hard: number } {
  const at = text.indexOf('=');
  if (at === -1) throw new Error(`invalid ulimit argument: ${text}`);
  const name = text.slice(0, at);
  if (!ULIMITS.has(name)) throw new Error(`invalid ulimit type: ${name}`);
  const [soft = '', hard] = text.slice(at + 1).split(/:(.*)/s);
  const parse = (value: string): number => {
    if (!/^[+-]?\d+$/.test(value)) throw new Error(`strconv.ParseInt: parsing ${goQuote(value)}: invalid syntax`);
    return Number(value);
  };
  const softLimit = parse(soft);
  const hardLimit = hard === undefined ? softLimit : parse(hard);
  if (hardLimit !== -1 && (softLimit > hardLimit || softLimit === -1)) {
    throw new Error(`ulimit soft limit must be less than or equal to hard limit: ${softLimit} > ${hardLimit}`);
  }
  return { Name: name, Soft: softLimit, Hard: hardLimit };
}

function child(object: Json, key: string): Json {
  const existing = object[key];
  if (typeof existing === 'object' && existing !== null) return existing as Json;
  const created: Json = {};
  object[key] = created;
  return created;
}

function setLabel(options: Json, value: string): void {
  const [name = '', text = ''] = value.split(/=(.*)/s);
  child(options, 'Labels')[name] = text;
}

const BARE_KEYS = new Set(['readonly', 'ro', 'volume-nocopy', 'bind-nonrecursive', 'bind-create-src']);

function setMountField(mount: Json, key: string, value: string): void {
  const truth = (): boolean => {
    const parsed = parseGoBool(value);
    if (parsed === undefined) throw new Error(`invalid value for ${key}: ${value}`);
    return parsed;
  };
  const section = (name: string): Json => child(mount, name);
  switch (key) {
    case 'type':
      mount['Type'] = value.toLowerCase();
      return;
    case 'source':
    case 'src':
      mount['Source'] = value;
      return;
    case 'target':
    case 'dst':
    case 'destination':
      mount['Target'] = value;
      return;
    case 'readonly':
    case 'ro':
      mount['ReadOnly'] = truth();
      return;
    case 'consistency':
      mount['Consistency'] = value.toLowerCase();
      return;
    case 'bind-propagation':
      section('BindOptions')['Propagation'] = value.toLowerCase();
      return;
    case 'bind-nonrecursive':
      section('BindOptions')['NonRecursive'] = truth();
      return;
    case 'bind-create-src':
      section('BindOptions')['CreateMountpoint'] = truth();
      return;
    case 'bind-recursive':
      setBindRecursive(mount, value);
      return;
    case 'volume-subpath':
      section('VolumeOptions')['Subpath'] = value;
      return;
    case 'volume-nocopy':
      section('VolumeOptions')['NoCopy'] = truth();
      return;
    case 'volume-label':
      setLabel(section('VolumeOptions'), value);
      return;
    case 'volume-driver':
      child(section('VolumeOptions'), 'DriverConfig')['Name'] = value;
      return;
    case 'volume-opt': {
      const [name = '', text = ''] = value.split(/=(.*)/s);
      child(child(section('VolumeOptions'), 'DriverConfig'), 'Options')[name] = text;
      return;
    }
    case 'image-subpath':
      section('ImageOptions')['Subpath'] = value;
      return;
    case 'tmpfs-size':
      section('TmpfsOptions')['SizeBytes'] = sizeOrFail(key, value);
      return;
    case 'tmpfs-mode':
      if (!/^[0-7]+$/.test(value)) throw new Error(`invalid value for ${key}: ${value}`);
      section('TmpfsOptions')['Mode'] = Number.parseInt(value, 8);
      return;
    default:
      throw new Error(`unknown option '${key}' in '${key}=${value}'`);
  }
}

function sizeOrFail(key: string, value: string): number {
  try {
    return ramInBytes(value);
  } catch {
    throw new Error(`invalid value for ${key}: ${value}`);
  }
}

function setBindRecursive(mount: Json, value: string): void {
  const options = child(mount, 'BindOptions');
  if (value === 'enabled') return;
  if (value === 'disabled') options['NonRecursive'] = true;
  else if (value === 'writable') options['ReadOnlyNonRecursive'] = true;
  else if (value === 'readonly') options['ReadOnlyForceRecursive'] = true;
  else
    throw new Error(
      `invalid value for bind-recursive: ${value} (must be "enabled", "disabled", "writable", or "readonly")`,
    );
}

/** `type=bind,source=/a,target=/b,readonly` as an API Mount. */
export function parseMount(text: string): Json {
  const mount: Json = {};
  for (const field of csvFields(text.trim() === '' ? '' : text)) {
    const at = field.indexOf('=');
    const key = (at === -1 ? field : field.slice(0, at)).toLowerCase();
    if (at === -1 && !BARE_KEYS.has(key)) throw new Error(`invalid field '${field}' must be a key=value pair`);
    setMountField(mount, key, at === -1 ? 'true' : field.slice(at + 1));
  }
  mount['Type'] ??= 'volume';
  if (mount['Target'] === undefined || mount['Target'] === '') throw new Error('target is required');
  const type = mount['Type'];
  const rules: readonly [string, string, string][] = [
    ['VolumeOptions', 'volume', 'volume'],
    ['ImageOptions', 'image', 'image'],
    ['BindOptions', 'bind', 'bind'],
    ['TmpfsOptions', 'tmpfs', 'tmpfs'],
  ];
  for (const [section, wanted, prefix] of rules) {
    if (mount[section] !== undefined && type !== wanted)
      throw new Error(`cannot mix '${prefix}-*' options with mount type '${String(type)}'`);
  }
  return mount;
}

/** `all`, `2`, `device=0,capabilities="gpu,utility"` as an API DeviceRequest. */
export function parseGpuRequest(text: string): Json {
  const request: Json = { Driver: '', Count: 0, DeviceIDs: null, Capabilities: null, Options: {} };
  const capabilities = new Set(['gpu']);
  const seen = new Set<string>();
  for (const field of csvFields(text)) {
    const at = field.indexOf('=');
    const key = at === -1 ? 'count' : field.slice(0, at);
    const value = at === -1 ? field : field.slice(at + 1);
    if (seen.has(key)) throw new Error(`gpu request key '${key}' can be specified only once`);
    seen.add(key);
    if (key === 'driver') request['Driver'] = value;
    else if (key === 'count') request['Count'] = gpuCount(value);
    else if (key === 'device') request['DeviceIDs'] = value.split(',');
    else if (key === 'capabilities') for (const name of value.split(',')) capabilities.add(name);
    else if (key === 'options') {
      for (const option of csvFields(value)) {
        const [name = '', setting = ''] = option.split(/=(.*)/s);
        child(request, 'Options')[name] = setting;
      }
    } else throw new Error(`unexpected key '${key}' in '${field}'`);
  }
  if (!seen.has('count') && !seen.has('device')) request['Count'] = 1;
  request['Capabilities'] = [[...capabilities]];
  return request;
}

function gpuCount(value: string): number {
  if (value === 'all') return -1;
  if (!/^[+-]?\d+$/.test(value))
    throw new Error(`invalid count (${value}): value must be either "all" or an integer: invalid syntax`);
  return Number(value);
}

/** `--network` in its short or its long form. */
export interface NetworkOption {
  target: string;
  aliases: string[];
  links: string[];
  linkLocalIps: string[];
  driverOptions: Record<string, string>;
  ipv4: string;
  ipv6: string;
  mac: string;
  gatewayPriority: number;
}

/** Parses one `--network` value. */
export function parseNetwork(text: string): NetworkOption {
  const option: NetworkOption = {
    target: '',
    aliases: [],
    links: [],
    linkLocalIps: [],
    driverOptions: {},
    ipv4: '',
    ipv6: '',
    mac: '',
    gatewayPriority: 0,
  };
  if (!text.includes('=')) return { ...option, target: text };
  for (const field of csvFields(text)) {
    const at = field.indexOf('=');
    const key = field
      .slice(0, at === -1 ? undefined : at)
      .trim()
      .toLowerCase();
    const value = at === -1 ? '' : field.slice(at + 1).trim();
    if (at === -1 || key === '') throw new Error(`invalid field ${field} must be a key=value pair`);
    if (key === 'name') option.target = value;
    else if (key === 'alias') option.aliases.push(value);
    else if (key === 'link') option.links.push(value);
    else if (key === 'link-local-ip') option.linkLocalIps.push(value);
    else if (key === 'ip') option.ipv4 = value;
    else if (key === 'ip6') option.ipv6 = value;
    else if (key === 'mac-address') option.mac = value;
    else if (key === 'gw-priority') option.gatewayPriority = Number(value);
    else if (key === 'driver-opt') {
      const [name = '', setting] = value.split(/=(.*)/s);
      if (setting === undefined) throw new Error('invalid key value pair format in driver options');
      option.driverOptions[name.toLowerCase()] = setting.toLowerCase();
    } else throw new Error(`invalid field key ${key}`);
  }
  if (option.target === '') throw new Error('network name/id is not specified');
  return option;
}
