/** Checks of merged options, with dockerd's texts. Values from daemon.json pass the same checks as flags. */
import { isIP } from 'node:net';
import { GantryError } from '#types/errors.ts';
import { parseListenAddress } from '../listeners-address.ts';
import type { RawOptions } from './daemon-options.ts';
import { checkLabel, checkMirror, checkSearchDomain, parseUlimit, ValueError } from './flag-values.ts';

const LOG_LEVELS: ReadonlySet<string> = new Set(['panic', 'fatal', 'error', 'warn', 'info', 'debug', 'trace']);

function invalid(text: string): GantryError {
  return new GantryError('invalid', text);
}

/** Throws `invalid` for the first wrong value. */
export function validate(raw: RawOptions): void {
  try {
    checkTexts(raw);
    checkNumbers(raw);
    checkLists(raw);
    checkModes(raw);
    checkStructures(raw);
  } catch (error) {
    if (error instanceof ValueError) throw invalid(error.message);
    throw error;
  }
}

function checkTexts(raw: RawOptions): void {
  const level = raw.text('log-level');
  if (!LOG_LEVELS.has(level.toLowerCase())) throw invalid(`invalid logging level: ${level}`);
  const format = raw.text('log-format');
  if (format !== 'text' && format !== 'json') throw invalid(`invalid log format: ${format}`);
  const bip = raw.text('bip');
  if (bip !== '' && !isCidr(bip)) throw invalid(`invalid CIDR address: ${bip}`);
  const fixed = raw.text('fixed-cidr');
  if (fixed !== '' && !isCidr(fixed)) throw invalid(`invalid CIDR address: ${fixed}`);
  // Compat: dockerd refuses -b with --bip because -b must exist there; here -b names the bridge to make.
  if (!raw.flag('iptables') && !raw.flag('icc')) {
    throw invalid(
      'You specified --iptables=false with --icc=false. ICC=false uses iptables to function. Please set --icc or --iptables to true',
    );
  }
}

function isCidr(text: string): boolean {
  const [address = '', bits = '', ...rest] = text.split('/');
  return rest.length === 0 && isIP(address) === 4 && /^[0-9]+$/.test(bits) && Number(bits) <= 32;
}

function checkNumbers(raw: RawOptions): void {
  const names: readonly (readonly [string, string])[] = [
    ['mtu', 'default MTU'],
    ['max-concurrent-downloads', 'max concurrent downloads'],
    ['max-concurrent-uploads', 'max concurrent uploads'],
    ['max-download-attempts', 'max download attempts'],
  ];
  for (const [name, what] of names) {
    if (raw.number(name) < 0) throw invalid(`invalid ${what}: ${raw.number(name)}`);
  }
}

function checkLists(raw: RawOptions): void {
  raw.list('dns-search').forEach(checkSearchDomain);
  raw.list('label').forEach(checkLabel);
  raw.list('registry-mirror').forEach(checkMirror);
  checkLabelConflicts(raw.list('label'));
  for (const host of raw.list('host')) parseListenAddress(host, '/run/gantry.sock', false);
  for (const address of raw.list('dns')) {
    if (isIP(address) === 0) throw invalid(`invalid string being converted to IP address: ${address}`);
  }
  for (const option of raw.list('exec-opt')) checkExecOption(option);
}

function checkLabelConflicts(labels: readonly string[]): void {
  const seen = new Map<string, string>();
  for (const label of labels) {
    const at = label.indexOf('=');
    const [key, value] = [label.slice(0, at), label.slice(at + 1)];
    const other = seen.get(key);
    if (other !== undefined && other !== value)
      throw invalid(`conflict labels for ${key}=${value} and ${key}=${other}`);
    seen.set(key, value);
  }
}

function checkExecOption(text: string): void {
  const at = text.indexOf('=');
  const key = (at < 0 ? text : text.slice(0, at)).trim().toLowerCase();
  const value = at < 0 ? '' : text.slice(at + 1).trim();
  if (at < 0 || value === '') throw invalid(`invalid exec-opt (${text}): must be formatted 'opt=value'`);
  if (key === 'isolation') throw invalid(`invalid exec-opt (${text}): option '${key}' is only supported on windows`);
  if (key !== 'native.cgroupdriver') throw invalid(`invalid exec-opt (${text}): unknown option: '${key}'`);
  if (value !== 'cgroupfs' && value !== 'systemd') {
    throw invalid(`native.cgroupdriver option ${value} not supported`);
  }
}

function checkModes(raw: RawOptions): void {
  const ipc = raw.text('default-ipc-mode');
  const hint = 'use "shareable" or "private"';
  if (ipc === 'none' || ipc === 'host' || ipc.startsWith('container:')) {
    throw invalid(`IPC mode "${ipc}" is not supported as default value; ${hint}`);
  }
  if (!['', 'private', 'shareable'].includes(ipc))
    throw invalid(`default IPC mode setting (${ipc}) is invalid; ${hint}`);
  const cgroup = raw.text('default-cgroupns-mode');
  if (!['', 'host', 'private'].includes(cgroup)) {
    throw invalid(`invalid default cgroup namespace (${cgroup}): use "host" or "private"`);
  }
  const runtimes = raw.map<unknown>('add-runtime');
  const runtime = raw.text('default-runtime');
  const isKnown = runtime === 'runc' || runtime.startsWith('io.containerd.') || Object.hasOwn(runtimes, runtime);
  if (!isKnown) throw invalid(`specified default runtime '${runtime}' does not exist`);
}

function isPlainObject(value: unknown): value is Record<string, unknown> {
  return typeof value === 'object' && value !== null && !Array.isArray(value);
}

/** Objects of daemon.json, whose inner types the reader leaves open. */
function checkStructures(raw: RawOptions): void {
  for (const [name, limit] of Object.entries(raw.map<unknown>('default-ulimit'))) {
    const isNumbers = isPlainObject(limit) && Number.isInteger(limit['Soft']) && Number.isInteger(limit['Hard']);
    if (!isNumbers) throw invalid(`invalid default ulimit: ${name}`);
    parseUlimit(`${String(limit['Name'] ?? name)}=${limit['Soft']}:${limit['Hard']}`);
  }
  for (const [name, runtime] of Object.entries(raw.map<unknown>('add-runtime'))) checkRuntime(name, runtime);
  for (const pool of raw.value('default-address-pool') as unknown[]) {
    if (!isPlainObject(pool) || typeof pool['base'] !== 'string' || !Number.isInteger(pool['size'])) {
      throw invalid('invalid default-address-pools: base and size are needed');
    }
  }
}

function checkRuntime(name: string, runtime: unknown): void {
  // Compat: the stock runtime's name is reserved wherever it comes from.
  if (name === 'runc') throw invalid(`runtime name 'runc' is reserved`);
  if (!isPlainObject(runtime)) throw invalid(`invalid runtime: ${name}`);
  const path = runtime['path'] ?? '';
  const type = runtime['runtimeType'] ?? '';
  const args = runtime['runtimeArgs'] ?? [];
  const isTyped =
    typeof path === 'string' &&
    typeof type === 'string' &&
    Array.isArray(args) &&
    args.every((arg) => typeof arg === 'string');
  if (!isTyped) throw invalid(`invalid runtime: ${name}`);
  if (path === '' && type === '') throw invalid(`runtime ${name}: either a runtimeType or a path must be configured`);
  if (path !== '' && type !== '')
    throw invalid(`runtime ${name}: cannot configure both path and runtimeType for the same runtime`);
}
