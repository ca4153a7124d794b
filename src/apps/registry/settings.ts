/**
 * What a registry is told: defaults, then the JSON file, then flags. The file has the flags' names in camelCase, and
 * `quotas` and `webhooks` beside them. Everything is checked here; the rest of the program gets typed settings.
 */
import { readFileSync } from 'node:fs';
import type { FlagSpec } from '#apps/cli/args/command-table.ts';
import { findCommand } from '#apps/cli/args/command-table.ts';
import { parseValue } from '#apps/cli/args/flag-values.ts';
import { type ParsedFlags, parseFlags } from '#apps/cli/args/parse-flags.ts';
import type { WebhookEndpoint } from '#services/registry/notifications.ts';
import type { QuotaRule } from '#services/registry/quotas.ts';
import { errorMessage, GantryError } from '#types/errors.ts';
import { quotaRules, webhookEndpoints } from './structured-settings.ts';

const NS_PER_MS = 1e6;
const MAX_CONFIG_BYTES = 16 * 1024 * 1024;

export type AuthKind = 'none' | 'basic' | 'token' | 'external';

export interface RegistrySettings {
  readonly root: string;
  readonly host: string;
  readonly port: number;
  readonly logLevel: 'debug' | 'info' | 'warn' | 'error';
  readonly externalUrl: string;
  readonly tls: { readonly certFile: string; readonly keyFile: string } | undefined;
  readonly auth: AuthKind;
  readonly htpasswdFile: string;
  readonly rightsFile: string;
  readonly realm: string;
  readonly token: {
    readonly realm: string;
    readonly issuer: string;
    readonly service: string;
    readonly keysFile: string;
  };
  readonly isReadOnly: boolean;
  readonly totalQuotaBytes: number | undefined;
  readonly quotas: readonly QuotaRule[];
  readonly webhooks: readonly WebhookEndpoint[];
  readonly maxBlobBytes: number;
  readonly uploadExpiryMs: number;
  readonly gc: { readonly intervalMs: number; readonly graceMs: number; readonly untaggedAfterMs: number | undefined };
  readonly proxy:
    | { readonly url: string; readonly user: string; readonly passwordFile: string; readonly ttlMs: number | undefined }
    | undefined;
}

/** Words of a command line of `registry <verb>`; throws the CLI's errors. */
export function parseWords(verb: string, words: readonly string[]): ParsedFlags {
  const command = findCommand(`registry ${verb}`);
  if (command === undefined) throw new GantryError('invalid', `unknown command: gantry registry ${verb}`);
  return parseFlags(command, words);
}

/** Merged values by flag name. */
class Values {
  readonly #flags: ParsedFlags;
  readonly #file: Readonly<Record<string, unknown>>;
  readonly #specs: ReadonlyMap<string, FlagSpec>;

  constructor(flags: ParsedFlags, file: Readonly<Record<string, unknown>>, specs: readonly FlagSpec[]) {
    this.#flags = flags;
    this.#file = file;
    this.#specs = new Map(specs.map((spec) => [spec.name, spec]));
  }

  #raw(name: string): string {
    if (this.#flags.has(name)) return this.#flags.text(name);
    const value = this.#file[camelCase(name)];
    const spec = this.#specs.get(name);
    if (value === undefined) return spec?.initial ?? '';
    if (typeof value !== 'string' && typeof value !== 'number' && typeof value !== 'boolean') {
      throw new GantryError('invalid', `${camelCase(name)} is not a value`);
    }
    return String(value);
  }

  text(name: string): string {
    return this.#raw(name);
  }

  parsed(name: string): string | number | boolean | readonly string[] {
    const spec = this.#specs.get(name);
    const raw = this.#raw(name);
    if (spec === undefined || (spec.type === 'bool' && raw === '')) return false;
    try {
      return parseValue(spec, raw);
    } catch (error) {
      throw new GantryError('invalid', `${camelCase(name)}: ${errorMessage(error)}`, { cause: error });
    }
  }

  milliseconds(name: string): number {
    const nanoseconds = Number(this.parsed(name));
    if (nanoseconds < 0) throw new GantryError('invalid', `--${name} is negative`);
    return nanoseconds / NS_PER_MS;
  }

  /** Undefined for 0. */
  positive(value: number): number | undefined {
    return value === 0 ? undefined : value;
  }
}

function camelCase(name: string): string {
  return name.replace(/-([a-z])/g, (_whole, letter: string) => letter.toUpperCase());
}

function readConfig(file: string, specs: readonly FlagSpec[]): Readonly<Record<string, unknown>> {
  if (file === '') return {};
  let fields: unknown;
  try {
    const text = readFileSync(file, 'utf8');
    if (text.length > MAX_CONFIG_BYTES) throw new Error('it is too large');
    fields = JSON.parse(text);
  } catch (error) {
    throw new GantryError('invalid', `configuration ${file}: ${errorMessage(error)}`, { cause: error });
  }
  if (typeof fields !== 'object' || fields === null || Array.isArray(fields))
    throw new GantryError('invalid', `configuration ${file}: it is not an object`);
  const known = new Set([
    ...specs.filter(({ name }) => name !== 'config').map(({ name }) => camelCase(name)),
    'quotas',
    'webhooks',
  ]);
  const stranger = Object.keys(fields).find((name) => !known.has(name));
  if (stranger !== undefined)
    throw new GantryError('invalid', `configuration ${file}: there is no option ${JSON.stringify(stranger)}`);
  return fields as Readonly<Record<string, unknown>>;
}

/** The settings of `registry serve`. Throws `invalid` naming the option. */
export function readSettings(flags: ParsedFlags): RegistrySettings {
  const specs = findCommand('registry serve')?.flags ?? [];
  const file = readConfig(flags.text('config'), specs);
  const values = new Values(flags, file, specs);
  const settings: RegistrySettings = {
    root: values.text('root'),
    ...listenAddress(values.text('listen')),
    logLevel: logLevel(values.text('log-level')),
    externalUrl: values.text('external-url'),
    tls: tlsFiles(values.text('tls-cert'), values.text('tls-key')),
    auth: authKind(values.text('auth'), values.text('htpasswd')),
    htpasswdFile: values.text('htpasswd'),
    rightsFile: values.text('rights'),
    realm: values.text('realm'),
    token: {
      realm: values.text('token-realm'),
      issuer: values.text('token-issuer'),
      service: values.text('token-service'),
      keysFile: values.text('token-keys'),
    },
    isReadOnly: values.parsed('read-only') === true,
    totalQuotaBytes: values.positive(Number(values.parsed('quota'))),
    quotas: quotaRules(file['quotas']),
    webhooks: webhookEndpoints(file['webhooks']),
    maxBlobBytes: Number(values.parsed('max-blob-size')),
    uploadExpiryMs: values.milliseconds('upload-expiry'),
    gc: {
      intervalMs: values.milliseconds('gc-interval'),
      graceMs: values.milliseconds('gc-grace'),
      untaggedAfterMs: values.positive(values.milliseconds('delete-untagged-after')),
    },
    proxy:
      values.text('proxy-remote-url') === ''
        ? undefined
        : {
            url: values.text('proxy-remote-url'),
            user: values.text('proxy-username'),
            passwordFile: values.text('proxy-password-file'),
            ttlMs: values.positive(values.milliseconds('proxy-ttl')),
          },
  };
  checkSettings(settings);
  return settings;
}

function checkSettings({ auth, htpasswdFile, token, realm, rightsFile, externalUrl, proxy }: RegistrySettings): void {
  const need = (isThere: boolean, what: string): void => {
    if (!isThere) throw new GantryError('invalid', what);
  };
  need(auth !== 'basic' || htpasswdFile !== '', '--auth basic needs --htpasswd');
  need(auth !== 'token' || htpasswdFile !== '', '--auth token needs --htpasswd');
  need(auth !== 'external' || token.realm !== '', '--auth external needs --token-realm');
  need(auth !== 'external' || token.issuer !== '', '--auth external needs --token-issuer');
  need(auth !== 'external' || token.keysFile !== '', '--auth external needs --token-keys');
  need(auth === 'external' || token.keysFile === '', '--token-keys is for --auth external');
  need(htpasswdFile === '' || auth === 'basic' || auth === 'token', '--htpasswd is for --auth basic and token');
  need(rightsFile === '' || auth === 'basic' || auth === 'token', '--rights is for --auth basic and token');
  for (const text of [realm, token.service, token.realm])
    need(/^[\x20\x21\x23-\x5b\x5d-\x7e]*$/.test(text), `${JSON.stringify(text)} cannot be sent in a challenge`);
  for (const url of [externalUrl, proxy?.url ?? ''])
    need(
      url === '' || /^https?:\/\/[^/?#@\s]+\/?$/.test(url),
      `${JSON.stringify(url)} is not the http or https URL of a host`,
    );
  need(
    proxy === undefined || (proxy.user === '') === (proxy.passwordFile === ''),
    '--proxy-username and --proxy-password-file go together',
  );
}

function listenAddress(text: string): { host: string; port: number } {
  const match = /^(?:\[([0-9A-Fa-f:.]*)\]|([^:]*)):(\d{1,5})$/.exec(text);
  const port = Number(match?.[3]);
  if (match === null || port > 65_535) throw new GantryError('invalid', `--listen ${text}: want host:port`);
  const host = match[1] ?? match[2] ?? '';
  return { host: host === '' ? '::' : host, port };
}

function tlsFiles(certFile: string, keyFile: string): RegistrySettings['tls'] {
  if ((certFile === '') !== (keyFile === '')) throw new GantryError('invalid', '--tls-cert and --tls-key go together');
  return certFile === '' ? undefined : { certFile, keyFile };
}

function authKind(text: string, htpasswdFile: string): AuthKind {
  if (text === '') return htpasswdFile === '' ? 'none' : 'basic';
  if (text !== 'none' && text !== 'basic' && text !== 'token' && text !== 'external') {
    throw new GantryError('invalid', `--auth ${text}: want none, basic, token or external`);
  }
  return text;
}

function logLevel(text: string): RegistrySettings['logLevel'] {
  if (text !== 'debug' && text !== 'info' && text !== 'warn' && text !== 'error')
    throw new GantryError('invalid', `--log-level ${text}: want debug, info, warn or error`);
  return text;
}
