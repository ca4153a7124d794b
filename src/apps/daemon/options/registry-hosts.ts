/**
 * `registry-hosts` of daemon.json: mirrors with their own credentials for any registry, and registries whose TLS is
 * verified in any case. (docs/decisions/0050)
 */
import { readFileSync } from 'node:fs';
import { isAbsolute } from 'node:path';
import type { RegistryHostOptions, RegistryMirror } from '#system/registry-http/endpoints.ts';
import { errorMessage, GantryError } from '#types/errors.ts';
import { checkMirror, ValueError } from './flag-values.ts';

const HOST_KEYS: ReadonlySet<string> = new Set(['mirrors', 'verify']);
const MIRROR_KEYS: ReadonlySet<string> = new Set(['url', 'prefix', 'username', 'password', 'password-file']);
const HOST = /^(\[[a-fA-F0-9:]+\]|[a-zA-Z0-9.-]+)(:[0-9]+)?$/;
const PREFIX = /^[a-z0-9]+([._/-]+[a-z0-9]+)*$/;

function fail(text: string): GantryError {
  return new GantryError('invalid', `invalid registry-hosts: ${text}`);
}

function fieldsOf(value: unknown, what: string, known: ReadonlySet<string>): Record<string, unknown> {
  if (typeof value !== 'object' || value === null || Array.isArray(value)) throw fail(`${what} must be an object`);
  const unknown = Object.keys(value).filter((key) => !known.has(key));
  if (unknown.length > 0) throw fail(`${what} has unknown keys: ${unknown.join(', ')}`);
  return value as Record<string, unknown>;
}

function textOf(fields: Record<string, unknown>, key: string, what: string): string {
  const value = fields[key] ?? '';
  if (typeof value !== 'string') throw fail(`${key} of ${what} must be a string`);
  return value;
}

/** Checks and reads the value. Throws `invalid`. */
export function registryHosts(value: unknown): Record<string, RegistryHostOptions> {
  const hosts: Record<string, RegistryHostOptions> = {};
  if (value === undefined || value === null) return hosts;
  if (typeof value !== 'object' || Array.isArray(value)) throw fail('it must be an object');
  for (const [host, entry] of Object.entries(value)) {
    if (!HOST.test(host)) throw fail(`"${host}" is no registry host`);
    const fields = fieldsOf(entry, host, HOST_KEYS);
    const mirrors = fields['mirrors'] ?? [];
    const verify = fields['verify'] ?? false;
    if (!Array.isArray(mirrors)) throw fail(`mirrors of ${host} must be a list`);
    if (typeof verify !== 'boolean') throw fail(`verify of ${host} must be true or false`);
    hosts[host] = { mirrors: mirrors.map((mirror) => mirrorOf(mirror, host)), verify };
  }
  return hosts;
}

function mirrorOf(value: unknown, host: string): RegistryMirror {
  const what = `a mirror of ${host}`;
  const fields: Record<string, unknown> =
    typeof value === 'string' ? { url: value } : fieldsOf(value, what, MIRROR_KEYS);
  const url = textOf(fields, 'url', what);
  try {
    checkMirror(url);
  } catch (error) {
    // Its text quotes the URL, which may hold the password it complains of.
    if (error instanceof ValueError) throw fail(error.message.replace(/\/\/[^/@]*@/, '//xxxxx:xxxxx@'));
    throw error;
  }
  const prefix = textOf(fields, 'prefix', what);
  if (prefix !== '' && !PREFIX.test(prefix)) throw fail(`prefix "${prefix}" of ${what} is no repository name`);
  const username = textOf(fields, 'username', what);
  const password = passwordOf(fields, what);
  return { url, prefix, credentials: username === '' ? {} : { username, password } };
}

function passwordOf(fields: Record<string, unknown>, what: string): string {
  const file = textOf(fields, 'password-file', what);
  if (file === '') return textOf(fields, 'password', what);
  if (fields['password'] !== undefined) throw fail(`${what} has both password and password-file`);
  if (!isAbsolute(file)) throw fail(`password-file of ${what} must be an absolute path`);
  try {
    return readFileSync(file, 'utf8').replace(/\r?\n$/, '');
  } catch (error) {
    throw new GantryError('invalid', `invalid registry-hosts: password-file of ${what}: ${errorMessage(error)}`, {
      cause: error,
    });
  }
}
