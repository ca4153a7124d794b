/**
 * Checks and converts the value of one flag by its type, with the texts of docker's option types.
 * An Error thrown here becomes `invalid argument "v" for "--flag" flag: …`.
 */
import { goQuote, parseGoBool, parseGoDuration, parseGoInteger, ramInBytes } from '../text/go-text.ts';
import type { FlagSpec } from './command-table.ts';
import type { FlagValue } from './parse-flags.ts';
import { parseGpuRequest, parseMount, parseUlimit } from './structured-values.ts';

const INTEGER_BITS: Readonly<Record<string, number>> = { int: 64, int64: 64 };
const UNSIGNED_BITS: Readonly<Record<string, number>> = { uint: 64, uint64: 64, uint32: 32, uint16: 16 };

/** CPUs as billionths (docker's NanoCPUs option). */
export function parseNanoCpus(text: string): number {
  const match = /^([+-]?)(\d*)(?:\.(\d*))?(?:\/(\d+))?$/.exec(text);
  if (match === null || `${match[2]}${match[3] ?? ''}` === '')
    throw new Error(`failed to parse ${text} as a rational number`);
  const fraction = match[3] ?? '';
  if (match[4] !== undefined) {
    const nano = (Number(match[2]) * 1e9) / Number(match[4]);
    if (!Number.isInteger(nano)) throw new Error('value is too precise');
    return match[1] === '-' ? -nano : nano;
  }
  if (fraction.slice(9).replace(/0+$/, '') !== '') throw new Error('value is too precise');
  const nano = Number(
    BigInt(match[2] === '' ? 0 : (match[2] ?? 0)) * 1_000_000_000n + BigInt(fraction.slice(0, 9).padEnd(9, '0')),
  );
  return match[1] === '-' ? -nano : nano;
}

function checkAddHost(value: string): void {
  const separator = /[:=]/.exec(value);
  if (separator === null || separator.index === 0) throw new Error(`bad format for add-host: ${goQuote(value)}`);
  const address = value.slice(separator.index + 1);
  if (address === 'host-gateway') return;
  const bare = address.startsWith('[') && address.endsWith(']') ? address.slice(1, -1) : address;
  if (isIp(bare) === false) throw new Error(`invalid IP address in add-host: ${goQuote(address)}`);
}

/** Whether the text is an IPv4 or IPv6 address. */
export function isIp(text: string): boolean {
  if (/^\d{1,3}(\.\d{1,3}){3}$/.test(text))
    return text.split('.').every((part) => Number(part) < 256 && String(Number(part)) === part);
  return /^[0-9a-fA-F:]+(%.+)?$|^[0-9a-fA-F:]+:\d+\.\d+\.\d+\.\d+$/.test(text) && text.includes(':') && validV6(text);
}

function validV6(text: string): boolean {
  const bare = text.split('%')[0] ?? '';
  const halves = bare.split('::');
  if (halves.length > 2) return false;
  const groups = halves.flatMap((half) => (half === '' ? [] : half.split(':')));
  const size = groups.length + (groups.at(-1)?.includes('.') === true ? 1 : 0);
  return (
    groups.every((group) => /^[0-9a-fA-F]{1,4}$/.test(group) || group.includes('.')) &&
    (halves.length === 2 ? size < 8 : size === 8)
  );
}

function checkLink(value: string): void {
  if (value === '') throw new Error('empty string specified for links');
  if (value.split(':').length > 2) throw new Error(`bad format for links: ${value}`);
}

function checkThrottle(value: string, rate: boolean): void {
  const [path = '', amount] = splitOnce(value, ':');
  if (amount === undefined || path === '') throw new Error(`bad format: ${value}`);
  if (!path.startsWith('/dev/')) throw new Error(`bad format for device path: ${value}`);
  if (rate) {
    const problem = `invalid rate for device: ${value}. The correct format is <device-path>:<number>[<unit>]. Number must be a positive integer. Unit is optional and can be kb, mb, or gb`;
    try {
      ramInBytes(amount);
    } catch {
      throw new Error(problem);
    }
  } else if (!/^\d+$/.test(amount)) {
    throw new Error(
      `invalid rate for device: ${value}. The correct format is <device-path>:<number>. Number must be a positive integer`,
    );
  }
}

function splitOnce(text: string, separator: string): [string, string | undefined] {
  const at = text.indexOf(separator);
  return at === -1 ? [text, undefined] : [text.slice(0, at), text.slice(at + separator.length)];
}

function checkWeight(value: string): void {
  const [path = '', amount] = splitOnce(value, ':');
  if (amount === undefined || path === '') throw new Error(`bad format: ${value}`);
  if (!path.startsWith('/dev/')) throw new Error(`bad format for device path: ${value}`);
  const weight = /^\d+$/.test(amount) ? Number(amount) : -1;
  if (weight < 0 || (weight > 0 && (weight < 10 || weight > 1000)))
    throw new Error(`invalid weight for device: ${value}`);
}

const LIST_CHECKS: Readonly<Record<string, (value: string) => void>> = {
  attach: (value) => {
    if (!['stdin', 'stdout', 'stderr'].includes(value.toLowerCase()))
      throw new Error('valid streams are STDIN, STDOUT and STDERR');
  },
  env: (value) => {
    if (value === '' || value.startsWith('=')) throw new Error(`invalid environment variable: ${value}`);
  },
  label: (value) => {
    if (value === '' || value.startsWith('='))
      throw new Error(value === '' ? 'invalid label: empty name' : `invalid label '${value}': empty name`);
  },
  'add-host': checkAddHost,
  link: checkLink,
  dns: (value) => {
    if (!isIp(value.trim())) throw new Error(`IP address is not correctly formatted: ${value.trim()}`);
  },
  'blkio-weight-device': checkWeight,
  'device-read-bps': (value) => checkThrottle(value, true),
  'device-write-bps': (value) => checkThrottle(value, true),
  'device-read-iops': (value) => checkThrottle(value, false),
  'device-write-iops': (value) => checkThrottle(value, false),
  'device-cgroup-rule': (value) => {
    if (!/^[acb] ([0-9]+|\*):([0-9]+|\*) [rwm]{1,3}$/.test(value))
      throw new Error(`invalid device cgroup format '${value}'`);
  },
};

const SYSCTLS: ReadonlySet<string> = new Set(
  'msgmax msgmnb msgmni sem shmall shmmax shmmni shm_rmid_forced'.split(' ').map((name) => `kernel.${name}`),
);

/** Only settings that have a namespace may be given to a container. */
function checkSysctl(value: string): void {
  const [name, setting] = splitOnce(value, '=');
  const allowed = SYSCTLS.has(name) || name.startsWith('net.') || name.startsWith('fs.mqueue.');
  if (setting === undefined || !allowed) throw new Error(`sysctl '${value}' is not allowed`);
}

function parseFilter(value: string): string {
  if (!value.includes('=')) throw new Error('bad format of filter (expected name=value)');
  return value;
}

/** The value of one occurrence of a flag. */
export function parseValue(flag: FlagSpec, raw: string): FlagValue {
  const signed = INTEGER_BITS[flag.type];
  if (signed !== undefined) return parseGoInteger(raw, { func: 'ParseInt', min: -(2n ** 63n), max: 2n ** 63n - 1n });
  const unsigned = UNSIGNED_BITS[flag.type];
  if (unsigned !== undefined)
    return parseGoInteger(raw, { func: 'ParseUint', min: 0n, max: 2n ** BigInt(unsigned) - 1n });
  switch (flag.type) {
    case 'bool': {
      const value = parseGoBool(raw);
      if (value === undefined) throw new Error(`strconv.ParseBool: parsing ${goQuote(raw)}: invalid syntax`);
      return value;
    }
    case 'bytes':
      return flag.name === 'memory-swap' && raw === '-1' ? -1 : ramInBytes(raw);
    case 'decimal':
      return parseNanoCpus(raw);
    case 'duration':
      return parseGoDuration(raw);
    case 'float': {
      if (raw.trim() === '' || Number.isNaN(Number(raw)))
        throw new Error(`strconv.ParseFloat: parsing ${goQuote(raw)}: invalid syntax`);
      return Number(raw);
    }
    case 'filter':
      return parseFilter(raw);
    case 'ulimit':
      parseUlimit(raw);
      return raw;
    case 'mount':
      parseMount(raw);
      return raw;
    case 'gpu-request':
      parseGpuRequest(raw);
      return raw;
    case 'ip':
      if (!isIp(raw)) throw new Error(`failed to parse IP: ${goQuote(raw)}`);
      return raw;
    case 'list':
      LIST_CHECKS[flag.name]?.(raw);
      return raw;
    case 'map':
      if (flag.name === 'sysctl') checkSysctl(raw);
      return raw;
    default:
      return raw;
  }
}
