/** Registry credentials in requests: `X-Registry-Auth`, `X-Registry-Config` and the body of `POST /auth`. */
import type { IncomingMessage } from 'node:http';
import type { RegistryCredentials } from '#system/registry-http/contract.ts';

const FIELDS: Readonly<Record<string, keyof RegistryCredentials>> = {
  username: 'username',
  password: 'password',
  identitytoken: 'identityToken',
  registrytoken: 'registryToken',
  serveraddress: 'serverAddress',
};

/** Reads docker's AuthConfig, keys in any case as Go's decoder takes them; undefined when it is none. */
export function credentialsOf(value: unknown): RegistryCredentials | undefined {
  if (typeof value !== 'object' || value === null || Array.isArray(value)) return undefined;
  const credentials: Partial<Record<keyof RegistryCredentials, string>> = {};
  for (const [key, text] of Object.entries(value)) {
    const field = FIELDS[key.toLowerCase()];
    if (field === undefined || text === null) continue;
    if (typeof text !== 'string') return undefined;
    credentials[field] = text;
  }
  return credentials;
}

function headerJson(request: IncomingMessage, name: string): unknown {
  const header = request.headers[name];
  if (typeof header !== 'string' || header === '') return undefined;
  try {
    return JSON.parse(Buffer.from(header, 'base64url').toString('utf8'));
  } catch {
    // Compat: what cannot be decoded counts as no credentials.
    return undefined;
  }
}

/** The credentials of one registry, `X-Registry-Auth`. */
export function registryAuth(request: IncomingMessage): RegistryCredentials {
  return credentialsOf(headerJson(request, 'x-registry-auth')) ?? {};
}

/** Headers that docker's daemon passes on to registries. */
export function metaHeaders(request: IncomingMessage): Record<string, string> {
  const found: Record<string, string> = {};
  for (const [name, value] of Object.entries(request.headers)) {
    if (name.startsWith('x-meta-') && typeof value === 'string') found[name] = value;
  }
  return found;
}

const HUB_KEY = 'https://index.docker.io/v1/';

/** Finds the credentials for a registry among those of a build, `X-Registry-Config`. */
export function registryConfig(request: IncomingMessage): (domain: string) => RegistryCredentials {
  const value = headerJson(request, 'x-registry-config');
  const all = new Map<string, RegistryCredentials>();
  if (typeof value === 'object' && value !== null && !Array.isArray(value)) {
    for (const [host, entry] of Object.entries(value)) all.set(host, credentialsOf(entry) ?? {});
  }
  return (domain) => {
    const key = domain === 'docker.io' ? HUB_KEY : domain;
    const exact = all.get(key);
    if (exact !== undefined || domain === 'docker.io') return exact ?? {};
    // Compat: old configurations have URLs as keys.
    for (const [name, credentials] of all) {
      if (name.replace(/^https?:\/\//, '').replace(/\/.*$/, '') === domain) return credentials;
    }
    return {};
  };
}
