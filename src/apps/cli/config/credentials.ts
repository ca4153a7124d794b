/**
 * Registry credentials: in config.json (`auths`), in an external program (`credsStore`, `credHelpers`, the
 * docker-credential-helpers protocol), or given by DOCKER_AUTH_CONFIG. Secrets go to the store and to the daemon,
 * never into messages.
 */
import { encodeCredentials } from '#client/images.ts';
import { ExitError } from '../args/usage-error.ts';
import type { ConfigFile } from './endpoint.ts';
import { updateConfig } from './write-config.ts';

/** The key of Docker Hub's credentials. */
export const HUB_KEY = 'https://index.docker.io/v1/';

const HELPER_PREFIX = 'docker-credential-';
/** What a helper names as user of an identity token. */
const TOKEN_USER = '<token>';
/** A helper may ask its user something, but not hang a script for ever. */
const HELPER_TIMEOUT_MS = 10 * 60_000;
/** Tokens are a few kilobytes, lists of servers not much more. */
const MAX_HELPER_OUTPUT_BYTES = 1024 * 1024;

/** What the API calls an AuthConfig; empty fields are left out when it is sent. */
export interface Credentials {
  readonly username?: string;
  readonly password?: string;
  readonly auth?: string;
  readonly serveraddress?: string;
  readonly identitytoken?: string;
  readonly registrytoken?: string;
}

/** Where the CLI keeps its settings. */
export interface CredentialContext {
  readonly config: ConfigFile;
  readonly configDirectory: string;
  warn(text: string): void;
}

/** `host:port` of a URL or a name with a path. */
export function hostOf(address: string): string {
  if (address.includes('://') && URL.canParse(address)) {
    // The port is cut from the text, because URL drops a scheme's default one.
    const authority = address.slice(address.indexOf('://') + 3).split('/')[0] ?? '';
    const bare = authority.slice(authority.lastIndexOf('@') + 1);
    if (bare !== '') return bare;
  }
  return address.split('/')[0] ?? '';
}

/** The X-Registry-Auth header's value. */
export function credentialsHeader(credentials: Credentials): string {
  const fields = Object.entries(credentials).filter(([, value]) => value !== undefined && value !== '');
  return encodeCredentials(Object.fromEntries(fields));
}

function decodeAuth(auth: string): { username: string; password: string } {
  const [username = '', password] = Buffer.from(auth, 'base64').toString().split(/:(.*)/s);
  if (password === undefined || username === '') throw new Error('Invalid auth configuration file');
  return { username, password: password.replace(/^\0+|\0+$/g, '') };
}

function fromFile(entry: Readonly<Record<string, string>>, server: string): Credentials {
  const decoded = entry['auth'] ? decodeAuth(entry['auth']) : {};
  return {
    ...decoded,
    serveraddress: server,
    ...(entry['identitytoken'] ? { identitytoken: entry['identitytoken'] } : {}),
    ...(entry['registrytoken'] ? { registrytoken: entry['registrytoken'] } : {}),
  };
}

function findInFile(config: ConfigFile, server: string): Credentials {
  const auths = config.auths ?? {};
  const exact = auths[server];
  if (exact !== undefined) return fromFile(exact, server);
  // Compat: old files have whole URLs as keys.
  const legacy = Object.entries(auths).find(([key]) => hostOf(key) === server);
  return legacy === undefined ? {} : fromFile(legacy[1], legacy[0]);
}

/** Credentials in DOCKER_AUTH_CONFIG, which holds `auths` with nothing but `auth`. */
function fromEnvironment(context: CredentialContext): ReadonlyMap<string, Credentials> {
  const text = process.env['DOCKER_AUTH_CONFIG'];
  if (!text) return new Map();
  try {
    const { auths = {}, ...more } = JSON.parse(text) as { auths?: Record<string, Record<string, string>> };
    const [unknown] = Object.keys(more);
    if (unknown !== undefined) throw new Error(`json: unknown field "${unknown}"`);
    return new Map(
      Object.entries(auths).map(([server, entry]) => {
        const strange = Object.keys(entry).find((key) => key !== 'auth');
        if (strange !== undefined) throw new Error(`json: unknown field "${strange}"`);
        if (!entry['auth'])
          throw new Error(`DOCKER_AUTH_CONFIG environment variable is missing key \`auth\` for ${server}`);
        return [server, { ...decodeAuth(entry['auth']), serveraddress: server }];
      }),
    );
  } catch (error) {
    const why = error instanceof SyntaxError ? 'it is not JSON' : (error as Error).message;
    context.warn(`Failed to create credential store from DOCKER_AUTH_CONFIG:  ${why}`);
    return new Map();
  }
}

/** The helper in charge of a server; empty when the file is. */
function helperOf(config: ConfigFile, server: string): string {
  return (server === '' ? undefined : config.credHelpers?.[server]) ?? config.credsStore ?? '';
}

interface HelperAnswer {
  readonly output: string;
  /** Why it failed; undefined when it did not. */
  readonly failure: string | undefined;
}

async function callHelper(helper: string, action: string, input: string): Promise<HelperAnswer> {
  const { spawn } = process.getBuiltinModule('node:child_process');
  const program = HELPER_PREFIX + helper;
  const child = spawn(program, [action], { stdio: ['pipe', 'pipe', 'inherit'], timeout: HELPER_TIMEOUT_MS });
  const { promise, resolve } = Promise.withResolvers<string | undefined>();
  child.once('error', (error: NodeJS.ErrnoException) =>
    resolve(
      error.code === 'ENOENT'
        ? `exec: "${program}": executable file not found in $PATH`
        : `${program}: ${error.message}`,
    ),
  );
  child.once('close', (code, signal) =>
    resolve(code === 0 ? undefined : signal === null ? `exit status ${code}` : `signal: ${signal}`),
  );
  // A helper that ends before it reads its input tells why by its code.
  child.stdin.on('error', () => undefined);
  child.stdin.end(input);
  let output = '';
  child.stdout.setEncoding('utf8').on('data', (chunk: string) => {
    output += chunk;
    if (output.length > MAX_HELPER_OUTPUT_BYTES) child.kill('SIGKILL');
  });
  return { failure: await promise, output };
}

function helperError(verb: string, answer: HelperAnswer): Error {
  return new Error(`error ${verb} credentials - err: ${answer.failure ?? ''}, out: \`${answer.output.trim()}\``);
}

async function fromHelper(helper: string, server: string): Promise<Credentials> {
  const answer = await callHelper(helper, 'get', server);
  if (answer.failure !== undefined) {
    if (answer.output.trim() === 'credentials not found in native keychain') return {};
    throw helperError('getting', answer);
  }
  const { Username: username = '', Secret: secret = '' } = JSON.parse(answer.output) as Record<string, string>;
  return username === TOKEN_USER
    ? { identitytoken: secret, serveraddress: server }
    : { username, password: secret, serveraddress: server };
}

/** The credentials for a server (a registry's host, or HUB_KEY); empty ones when there are none. */
export async function findCredentials(context: CredentialContext, server: string): Promise<Credentials> {
  const given = fromEnvironment(context).get(server);
  if (given !== undefined) return given;
  const helper = helperOf(context.config, server);
  return helper === '' ? findInFile(context.config, server) : await fromHelper(helper, server);
}

/** Every credential there is, for X-Registry-Config. */
export async function allCredentials(context: CredentialContext): Promise<Record<string, Credentials>> {
  const found: Record<string, Credentials> = {};
  const { config } = context;
  if (config.credsStore) {
    const answer = await callHelper(config.credsStore, 'list', 'unused');
    if (answer.failure !== undefined) throw helperError('listing', answer);
    for (const server of Object.keys(JSON.parse(answer.output) as Record<string, string>))
      found[server] = await fromHelper(config.credsStore, server);
  } else for (const server of Object.keys(config.auths ?? {})) found[server] = findInFile(config, server);
  for (const [server, helper] of Object.entries(config.credHelpers ?? {})) {
    try {
      found[server] = await fromHelper(helper, server);
    } catch (error) {
      context.warn(`Failed to get credentials for registry: ${server}: ${(error as Error).message}`);
    }
  }
  for (const [server, credentials] of fromEnvironment(context)) found[server] = credentials;
  return found;
}

function auths(config: Record<string, unknown>): Record<string, unknown> {
  const present = config['auths'];
  const table = typeof present === 'object' && present !== null ? (present as Record<string, unknown>) : {};
  config['auths'] = table;
  return table;
}

function unencryptedWarning(directory: string): string {
  return [
    '',
    `WARNING! Your credentials are stored unencrypted in '${directory}/config.json'.`,
    'Configure a credential helper to remove this warning. See',
    'https://docs.docker.com/go/credential-store/',
    '',
  ].join('\n');
}

async function storeWithHelper(context: CredentialContext, helper: string, credentials: Credentials): Promise<void> {
  const server = credentials.serveraddress ?? '';
  const token = credentials.identitytoken ?? '';
  const secret =
    token === ''
      ? { ServerURL: server, Username: credentials.username ?? '', Secret: credentials.password ?? '' }
      : { ServerURL: server, Username: TOKEN_USER, Secret: token };
  const answer = await callHelper(helper, 'store', `${JSON.stringify(secret)}\n`);
  if (answer.failure !== undefined) throw helperError('storing', answer);
  // Compat: an empty entry in the file tells which servers the helper knows.
  updateConfig(context.configDirectory, (config) => {
    auths(config)[server] = {};
  });
}

/** Keeps credentials; warns when a password goes to the file. */
export async function storeCredentials(context: CredentialContext, credentials: Credentials): Promise<void> {
  const server = credentials.serveraddress ?? '';
  const helper = helperOf(context.config, server);
  try {
    if (helper !== '') {
      await storeWithHelper(context, helper, credentials);
      return;
    }
    const { username = '', password = '', identitytoken, registrytoken } = credentials;
    const entry = {
      ...(username === '' && password === ''
        ? {}
        : { auth: Buffer.from(`${username}:${password}`).toString('base64') }),
      ...(identitytoken ? { identitytoken } : {}),
      ...(registrytoken ? { registrytoken } : {}),
    };
    const old = context.config.auths?.[server];
    if (old !== undefined && JSON.stringify(old) === JSON.stringify(entry)) return;
    updateConfig(context.configDirectory, (config) => {
      auths(config)[server] = entry;
    });
    if (password !== '') context.warn(unencryptedWarning(context.configDirectory));
  } catch (error) {
    throw new ExitError(1, `Error saving credentials: ${(error as Error).message}\n`);
  }
}

/** Forgets the credentials of a server. */
export async function eraseCredentials(context: CredentialContext, server: string): Promise<void> {
  const helper = helperOf(context.config, server);
  if (helper !== '') {
    const answer = await callHelper(helper, 'erase', server);
    if (answer.failure !== undefined) throw helperError('erasing', answer);
  }
  if (context.config.auths?.[server] === undefined) return;
  updateConfig(context.configDirectory, (config) => {
    delete auths(config)[server];
  });
}
