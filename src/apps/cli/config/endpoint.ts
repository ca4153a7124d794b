/**
 * Which daemon to talk to: -H, --context, DOCKER_HOST, DOCKER_CONTEXT, the current context of config.json,
 * then the default sockets. Follows docker's order of precedence and its context store layout.
 */
import type { ParsedFlags } from '../args/parse-flags.ts';
import { ExitError } from '../args/usage-error.ts';

const fs = process.getBuiltinModule('node:fs');

/** The socket of this project's daemon. */
export const GANTRY_SOCKET = '/run/gantry.sock';

/** The parts of config.json the CLI reads. */
export interface ConfigFile {
  readonly currentContext?: string;
  readonly detachKeys?: string;
  readonly psFormat?: string;
  readonly imagesFormat?: string;
  readonly statsFormat?: string;
  readonly networksFormat?: string;
  readonly volumesFormat?: string;
  readonly proxies?: Readonly<Record<string, Readonly<Record<string, string>>>>;
  readonly auths?: Readonly<Record<string, Readonly<Record<string, string>>>>;
  readonly credsStore?: string;
  readonly credHelpers?: Readonly<Record<string, string>>;
  readonly pruneFilters?: readonly string[];
  readonly cliPluginsExtraDirs?: readonly string[];
  readonly HttpHeaders?: Readonly<Record<string, string>>;
}

/** TLS material, as paths. */
export interface TlsPaths {
  readonly ca: string;
  readonly cert: string;
  readonly key: string;
  readonly verify: boolean;
}

/** A resolved endpoint. */
export interface Endpoint {
  /** As given: `ssh://` is what the user reads, the connection goes through a tunnel. */
  readonly host: string;
  readonly context: string;
  readonly isDefaultSocket: boolean;
  readonly tls: TlsPaths | undefined;
}

/** The directory of config.json. */
export function configDirectory(flags: ParsedFlags): string {
  return flags.text('config') || process.env['DOCKER_CONFIG'] || `${process.env['HOME'] ?? '/root'}/.docker`;
}

/** Reads config.json; a missing file is an empty one. */
export function readConfig(directory: string): ConfigFile {
  const path = `${directory}/config.json`;
  let text: string;
  try {
    text = fs.readFileSync(path, 'utf8');
  } catch (error) {
    const why = { ENOTDIR: 'not a directory', EACCES: 'permission denied', EISDIR: 'is a directory' }[
      (error as NodeJS.ErrnoException).code ?? ''
    ];
    if (why !== undefined) process.stderr.write(`WARNING: Error loading config file: open ${path}: ${why}\n`);
    return {};
  }
  try {
    return JSON.parse(text) as ConfigFile;
  } catch (error) {
    process.stderr.write(`WARNING: Error loading config file: ${path}: ${(error as Error).message}\n`);
    return {};
  }
}

/** The directory name of a context. */
export function contextId(name: string): string {
  return process.getBuiltinModule('node:crypto').createHash('sha256').update(name).digest('hex');
}

interface ContextMeta {
  readonly Endpoints?: { readonly docker?: { readonly Host?: string; readonly SkipTLSVerify?: boolean } };
}

function contextEndpoint(directory: string, name: string): Endpoint {
  const id = contextId(name);
  const path = `${directory}/contexts/meta/${id}/meta.json`;
  let meta: ContextMeta;
  try {
    meta = JSON.parse(fs.readFileSync(path, 'utf8')) as ContextMeta;
  } catch {
    throw new ExitError(
      1,
      `Failed to initialize: unable to resolve docker endpoint: context "${name}": context not found: open ${path}: no such file or directory\n`,
    );
  }
  const tlsDirectory = `${directory}/contexts/tls/${id}/docker`;
  const tls = fs.existsSync(tlsDirectory)
    ? {
        ca: `${tlsDirectory}/ca.pem`,
        cert: `${tlsDirectory}/cert.pem`,
        key: `${tlsDirectory}/key.pem`,
        verify: meta.Endpoints?.docker?.SkipTLSVerify !== true,
      }
    : undefined;
  refuseUnbuilt(meta.Endpoints?.docker?.Host ?? '');
  return {
    host: meta.Endpoints?.docker?.Host ?? `unix://${GANTRY_SOCKET}`,
    context: name,
    isDefaultSocket: false,
    tls,
  };
}

/** Transports of docker's clients that need another system, or another process's descriptor. */
const NOT_BUILT = /^(npipe|fd):\/\//;

function refuseUnbuilt(host: string): void {
  const scheme = NOT_BUILT.exec(host)?.[1];
  if (scheme === undefined) return;
  throw new ExitError(
    1,
    `gantry: ${scheme}:// connections are not supported: ${host}\nUse a unix://, tcp:// or ssh:// address\n`,
  );
}

function normalisedHost(host: string): string {
  refuseUnbuilt(host);
  const match = /^(unix|tcp|http|https|ssh):\/\/(.*)$/s.exec(host);
  if (match !== null)
    return match[1] === 'tcp' && !/:\d+$/.test(match[2] ?? '') ? `tcp://${match[2] || 'localhost'}:2375` : host;
  if (!host.includes('://')) return `tcp://${host}`;
  throw new ExitError(
    1,
    `Failed to initialize: unable to resolve docker endpoint: invalid bind address format: ${host}\n`,
  );
}

function tlsFromFlags(flags: ParsedFlags, directory: string): TlsPaths | undefined {
  const verify = flags.bool('tlsverify', (process.env['DOCKER_TLS_VERIFY'] ?? '') !== '');
  if (!verify && !flags.bool('tls', (process.env['DOCKER_TLS'] ?? '') !== '')) return undefined;
  const certificates = process.env['DOCKER_CERT_PATH'] || directory;
  const file = (flag: string, name: string): string => {
    const path = flags.text(flag, `${certificates}/${name}`);
    // Compat: files that were not asked for by name may be missing, except for the one that verifies.
    if (fs.existsSync(path) || !(flags.has(flag) || (verify && name === 'ca.pem'))) return path;
    throw new ExitError(
      1,
      `Failed to initialize: unable to resolve docker endpoint: open ${path}: no such file or directory\n`,
    );
  };
  return {
    ca: file('tlscacert', 'ca.pem'),
    cert: file('tlscert', 'cert.pem'),
    key: file('tlskey', 'key.pem'),
    verify,
  };
}

/** Applies docker's rules. */
export function resolveEndpoint(flags: ParsedFlags, config: ConfigFile, directory: string): Endpoint {
  const hosts = flags.list('host');
  if (hosts.length > 1)
    throw new ExitError(1, 'Failed to initialize: unable to resolve docker endpoint: Specify only one -H\n');
  if (hosts[0] !== undefined && flags.has('context'))
    throw new ExitError(1, 'conflicting options: cannot specify both --host and --context\n');
  const tls = tlsFromFlags(flags, directory);
  if (hosts[0] !== undefined)
    return { host: normalisedHost(hosts[0]), context: 'default', isDefaultSocket: false, tls };
  const explicit = flags.text('context');
  const environment = process.env['DOCKER_HOST'] ?? '';
  const named = explicit || (environment === '' ? process.env['DOCKER_CONTEXT'] || config.currentContext || '' : '');
  if (named !== '' && named !== 'default') return contextEndpoint(directory, named);
  if (environment !== '') return { host: normalisedHost(environment), context: 'default', isDefaultSocket: false, tls };
  const docker = '/var/run/docker.sock';
  const useDocker = !fs.existsSync(GANTRY_SOCKET) && fs.existsSync(docker);
  return { host: `unix://${useDocker ? docker : GANTRY_SOCKET}`, context: 'default', isDefaultSocket: !useDocker, tls };
}
