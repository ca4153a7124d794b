/** The parts of a registry's JSON configuration that are no flags: quotas and webhooks. */
import { readFileSync } from 'node:fs';
import { ramInBytes } from '#apps/cli/text/go-text.ts';
import type { WebhookEndpoint } from '#services/registry/notifications.ts';
import type { QuotaRule } from '#services/registry/quotas.ts';
import { errorMessage, GantryError } from '#types/errors.ts';

const MAX_RULES = 1000;
const MAX_ENDPOINTS = 50;
const DEFAULT_TIMEOUT_MS = 5000;
const MAX_TIMEOUT_MS = 60_000;

type Fields = Readonly<Record<string, unknown>>;

function listOf(value: unknown, where: string, limit: number): readonly Fields[] {
  if (value === undefined) return [];
  if (!Array.isArray(value) || value.length > limit)
    throw new GantryError('invalid', `${where} is not a list of at most ${limit} objects`);
  for (const [index, item] of value.entries()) {
    if (typeof item !== 'object' || item === null || Array.isArray(item))
      throw new GantryError('invalid', `${where}[${index}] is not an object`);
  }
  return value as readonly Fields[];
}

function checkNames(fields: Fields, where: string, known: readonly string[]): void {
  const stranger = Object.keys(fields).find((name) => !known.includes(name));
  if (stranger !== undefined)
    throw new GantryError('invalid', `${where} has an unknown field ${JSON.stringify(stranger)}`);
}

function textOf(fields: Fields, name: string, where: string, missing?: string): string {
  const value = fields[name] ?? missing;
  if (typeof value !== 'string' || (value === '' && missing === undefined))
    throw new GantryError('invalid', `${where}.${name} is not a text`);
  return value;
}

function textsOf(fields: Fields, name: string, where: string): string[] {
  const value = fields[name] ?? [];
  if (!Array.isArray(value) || value.some((item) => typeof item !== 'string'))
    throw new GantryError('invalid', `${where}.${name} is not a list of texts`);
  return value as string[];
}

/** `quotas`: [{"repositories": "team/**", "limit": "10g", "scope": "each" | "together"}]. */
export function quotaRules(value: unknown): QuotaRule[] {
  return listOf(value, 'quotas', MAX_RULES).map((fields, index) => {
    const where = `quotas[${index}]`;
    checkNames(fields, where, ['repositories', 'limit', 'scope']);
    const scope = textOf(fields, 'scope', where, 'each');
    if (scope !== 'each' && scope !== 'together')
      throw new GantryError('invalid', `${where}.scope is neither "each" nor "together"`);
    try {
      return {
        repositories: textOf(fields, 'repositories', where),
        limitBytes: ramInBytes(String(fields['limit'])),
        scope,
      };
    } catch (error) {
      throw new GantryError('invalid', `${where}: ${errorMessage(error)}`, { cause: error });
    }
  });
}

function headersOf(fields: Fields, where: string): Readonly<Record<string, string>> {
  const value = fields['headers'] ?? {};
  if (typeof value !== 'object' || value === null || Object.values(value).some((text) => typeof text !== 'string')) {
    throw new GantryError('invalid', `${where}.headers is not a map of texts`);
  }
  return value as Readonly<Record<string, string>>;
}

/** `webhooks`: [{"name", "url", "headers", "secretFile", "timeoutMs", "ignoreActions", "ignoreMediaTypes"}]. */
export function webhookEndpoints(value: unknown): WebhookEndpoint[] {
  return listOf(value, 'webhooks', MAX_ENDPOINTS).map((fields, index) => {
    const where = `webhooks[${index}]`;
    checkNames(fields, where, [
      'name',
      'url',
      'headers',
      'secretFile',
      'timeoutMs',
      'ignoreActions',
      'ignoreMediaTypes',
    ]);
    const url = textOf(fields, 'url', where);
    if (!/^https?:\/\//.test(url) || !URL.canParse(url))
      throw new GantryError('invalid', `${where}.url is no http or https URL`);
    const timeoutMs = fields['timeoutMs'] ?? DEFAULT_TIMEOUT_MS;
    if (typeof timeoutMs !== 'number' || !(timeoutMs > 0 && timeoutMs <= MAX_TIMEOUT_MS))
      throw new GantryError('invalid', `${where}.timeoutMs is not between 1 and ${MAX_TIMEOUT_MS}`);
    const secretFile = textOf(fields, 'secretFile', where, '');
    return {
      name: textOf(fields, 'name', where, new URL(url).host),
      url,
      headers: headersOf(fields, where),
      secret: secretFile === '' ? undefined : readSecret(secretFile),
      timeoutMs,
      ignoreActions: textsOf(fields, 'ignoreActions', where),
      ignoreMediaTypes: textsOf(fields, 'ignoreMediaTypes', where),
    };
  });
}

/** The first line of a file that holds a secret. */
export function readSecret(file: string): string {
  try {
    return (readFileSync(file, 'utf8').split('\n')[0] ?? '').trimEnd();
  } catch (error) {
    throw new GantryError('invalid', `secret file: ${errorMessage(error)}`, { cause: error });
  }
}
