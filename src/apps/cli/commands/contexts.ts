/** The `context` commands on docker's context store. */
import { ExitError } from '../args/usage-error.ts';
import { type Context, ContextStore, type TlsFiles } from '../config/context-store.ts';
import { updateConfig } from '../config/write-config.ts';
import { ApiError, type Json } from '../connection/api.ts';
import { formatList, type ListLayout } from '../format/table.ts';
import type { Session } from '../session.ts';
import { StructView } from '../template/values.ts';
import { goQuote, parseGoBool } from '../text/go-text.ts';
import { inspectObjects } from './inspect.ts';

const fs = process.getBuiltinModule('node:fs');

const LAYOUT: ListLayout = {
  headers: { Name: 'NAME', Description: 'DESCRIPTION', DockerEndpoint: 'DOCKER ENDPOINT', Error: 'ERROR' },
  table: '{{.Name}}{{if .Current}} *{{end}}\t{{.Description}}\t{{.DockerEndpoint}}\t{{.Error}}',
  quiet: '{{.Name}}',
};

const NAME_PATTERN = '^[a-zA-Z0-9][a-zA-Z0-9_.+-]+$';
const ENDPOINT_KEYS: readonly string[] = ['from', 'host', 'ca', 'cert', 'key', 'skip-tls-verify'];
const TLS_FILES: readonly string[] = ['ca', 'cert', 'key'];

function fail(text: string): ExitError {
  return new ExitError(1, `${text}\n`);
}

function storeOf(session: Session): ContextStore {
  return new ContextStore(session.configDirectory);
}

function current(session: Session): string {
  if (session.globals.has('context')) return session.globals.text('context');
  if (session.globals.has('host') || process.env['DOCKER_HOST']) return 'default';
  return process.env['DOCKER_CONTEXT'] || session.config.currentContext || 'default';
}

function checkName(name: string): void {
  if (name === '') throw fail('context name cannot be empty');
  if (name === 'default') throw fail('"default" is a reserved context name');
  if (!new RegExp(NAME_PATTERN).test(name))
    throw fail(`context name ${goQuote(name)} is invalid, names are validated against regexp ${goQuote(NAME_PATTERN)}`);
}

function checkNewName(store: ContextStore, name: string): void {
  checkName(name);
  if (store.exists(name)) throw fail(`context "${name}" already exists`);
}

interface Entry {
  readonly name: string;
  readonly description: string;
  readonly host: string;
  readonly error: string;
}

function entries(session: Session): Entry[] {
  const store = storeOf(session);
  const name = current(session);
  const found = store.list().map((context) => ({
    name: context.Name,
    description:
      context.Name === 'default'
        ? 'Current DOCKER_HOST based configuration'
        : String(context.Metadata['Description'] ?? ''),
    host: context.Endpoints['docker']?.Host ?? '',
    error: '',
  }));
  if (found.some((entry) => entry.name === name)) return found;
  // The current one is shown even when it is gone, with what is wrong.
  try {
    store.read(name);
  } catch (error) {
    found.push({ name, description: '', host: '', error: (error as Error).message.trimEnd() });
  }
  return found.sort((a, b) => (a.name < b.name ? -1 : 1));
}

/** `context ls`. */
export async function listContexts(session: Session): Promise<number> {
  const { flags } = session;
  const name = current(session);
  const rows = entries(session).map(
    (entry) =>
      new StructView('*formatter.clientContextContext', {
        Current: () => entry.name === name,
        Name: () => entry.name,
        Description: () => entry.description,
        DockerEndpoint: () => entry.host,
        // Compat: a long error would spoil the table.
        Error: () => (entry.error.length > 45 ? `${entry.error.slice(0, 44)}…` : entry.error),
      }),
  );
  session.print(formatList(rows, LAYOUT, { format: flags.text('format'), quiet: flags.bool('quiet') }));
  if (process.env['DOCKER_HOST'])
    session.warn(
      'Warning: DOCKER_HOST environment variable overrides the active context. To use a context, either set the global --context flag, or unset DOCKER_HOST environment variable.',
    );
  return 0;
}

/** `context show`. */
export async function showContext(session: Session): Promise<number> {
  session.print(`${current(session)}\n`);
  return 0;
}

/** `context inspect`. */
export async function inspectContexts(session: Session): Promise<number> {
  const names = session.args.length > 0 ? session.args : [current(session)];
  const store = storeOf(session);
  const find = async (name: string): Promise<Json> => {
    const isStored = name !== 'default';
    let context: Context;
    try {
      context = store.read(name);
    } catch (error) {
      throw new ApiError(404, (error as Error).message.trimEnd());
    }
    return {
      ...context,
      TLSMaterial: store.tlsNames(name),
      Storage: {
        MetadataPath: isStored ? store.metadataPath(name) : '<IN MEMORY>',
        TLSPath: isStored ? store.tlsPath(name) : '<IN MEMORY>',
      },
    };
  };
  return inspectObjects(session, names, find, { escapeHtml: true });
}

function makeCurrent(session: Session, name: string): void {
  updateConfig(session.configDirectory, (config) => {
    if (name === 'default') delete config['currentContext'];
    else config['currentContext'] = name;
  });
}

/** `context use`. */
export async function useContext(session: Session): Promise<number> {
  const name = session.args[0] ?? '';
  if (name !== 'default') {
    checkName(name);
    storeOf(session).read(name);
  }
  if ((session.config.currentContext ?? '') !== (name === 'default' ? '' : name)) makeCurrent(session, name);
  session.print(`${name}\n`);
  session.warn(`Current context is now "${name}"`);
  if (name !== 'default' && process.env['DOCKER_HOST'])
    session.warn(
      `Warning: DOCKER_HOST environment variable overrides the active context. To use "${name}", either set the global --context flag, or unset DOCKER_HOST environment variable.`,
    );
  return 0;
}

interface EndpointChoice {
  readonly endpoint: { readonly Host?: string; readonly SkipTLSVerify?: boolean };
  readonly files: ReadonlyMap<string, Buffer>;
}

/** `--docker key=value,…`; undefined when the flag is not given. */
function endpointOf(session: Session, store: ContextStore): EndpointChoice | undefined {
  const { flags } = session;
  if (!flags.has('docker')) return undefined;
  const settings = new Map<string, string>();
  for (const part of flags.list('docker').flatMap((value) => value.split(','))) {
    const [key = '', value] = part.split(/=(.*)/s);
    if (value === undefined)
      throw new ExitError(
        125,
        `invalid argument "${flags.text('docker')}" for "--docker" flag: ${part} must be formatted as key=value\n`,
      );
    settings.set(key, value);
  }
  const refuse = (why: string): ExitError => fail(`unable to create docker endpoint config: ${why}`);
  const strange = [...settings.keys()].filter((key) => !ENDPOINT_KEYS.includes(key));
  if (strange.length > 0) throw refuse(strange.map((key) => `unrecognized config key: ${key}`).join('\n'));
  const from = settings.get('from');
  if (from !== undefined) return { endpoint: store.read(from).Endpoints['docker'] ?? {}, files: new Map() };
  const skip = settings.get('skip-tls-verify');
  const skips = skip === undefined ? false : parseGoBool(skip);
  if (skips === undefined) throw refuse(`skip-tls-verify: parsing ${goQuote(skip ?? '')}: invalid syntax`);
  const files = new Map<string, Buffer>();
  for (const key of TLS_FILES) {
    const path = settings.get(key) ?? '';
    if (path === '') continue;
    try {
      files.set(`${key}.pem`, fs.readFileSync(path));
    } catch {
      throw refuse(`open ${path}: no such file or directory`);
    }
  }
  const host = settings.get('host') ?? '';
  if (host !== '' && !/^[a-z]+:\/\//.test(host)) throw refuse(`unable to parse docker host \`${host}\``);
  return { endpoint: { ...(host === '' ? {} : { Host: host }), SkipTLSVerify: skips }, files };
}

function tlsOf(files: ReadonlyMap<string, Buffer>): TlsFiles {
  return files.size === 0 ? new Map() : new Map([['docker', files]]);
}

function described(metadata: Readonly<Record<string, unknown>>, description: string): Record<string, unknown> {
  return { ...metadata, ...(description === '' ? {} : { Description: description }) };
}

/** `context create`. */
export async function createContext(session: Session): Promise<number> {
  const { flags } = session;
  const name = session.args[0] ?? '';
  const store = storeOf(session);
  checkNewName(store, name);
  const description = flags.text('description');
  const choice = endpointOf(session, store);
  const from = flags.text('from');
  if (from !== '' && choice !== undefined) throw fail('cannot use --docker flag when --from is set');
  if (choice === undefined) {
    const source = from || current(session);
    const context = store.read(source);
    store.write({ ...context, Name: name, Metadata: described(context.Metadata, description) });
    store.writeTls(name, store.readTls(source));
  } else {
    store.write({ Name: name, Metadata: described({}, description), Endpoints: { docker: choice.endpoint } });
    store.writeTls(name, tlsOf(choice.files));
  }
  session.print(`${name}\n`);
  session.warn(`Successfully created context "${name}"`);
  return 0;
}

/** `context update`. */
export async function updateContext(session: Session): Promise<number> {
  const name = session.args[0] ?? '';
  checkName(name);
  const store = storeOf(session);
  const context = store.read(name);
  const choice = endpointOf(session, store);
  store.write({
    ...context,
    Metadata: described(context.Metadata, session.flags.text('description')),
    Endpoints: { ...context.Endpoints, ...(choice === undefined ? {} : { docker: choice.endpoint }) },
  });
  if (choice !== undefined) store.writeTls(name, tlsOf(choice.files));
  session.print(`${name}\n`);
  session.warn(`Successfully updated context "${name}"`);
  return 0;
}

/** `context export`. */
export async function exportContext(session: Session): Promise<number> {
  const [name = '', target = `${name}.dockercontext`] = session.args;
  if (name !== 'default') checkName(name);
  const store = storeOf(session);
  const context = store.read(name);
  const { packContext } = await import('../archive/context-archive.ts');
  const { pipeline } = process.getBuiltinModule('node:stream/promises');
  const archive = packContext(context, store.readTls(name));
  if (target === '-') {
    if (process.stdout.isTTY) throw fail('cowardly refusing to export to a terminal, specify a file path');
    await pipeline(archive, process.stdout, { end: false });
    return 0;
  }
  try {
    await pipeline(archive, fs.createWriteStream(target, { flags: 'wx', mode: 0o600 }));
  } catch (error) {
    const { code } = error as NodeJS.ErrnoException;
    if (code === 'EEXIST') throw fail(`open ${target}: file exists`);
    if (code === 'ENOENT') throw fail(`open ${target}: no such file or directory`);
    throw error;
  }
  session.warn(`Written file "${target}"`);
  return 0;
}

/** `context import`. */
export async function importContext(session: Session): Promise<number> {
  const [name = '', source = ''] = session.args;
  const store = storeOf(session);
  checkNewName(store, name);
  if (source !== '-' && !fs.existsSync(source)) throw fail(`open ${source}: no such file or directory`);
  const input = source === '-' ? process.stdin : fs.createReadStream(source);
  const { unpackContext } = await import('../archive/context-archive.ts');
  const { context, tls } = await unpackContext(input as AsyncIterable<Buffer>);
  store.write({ ...context, Name: name });
  store.writeTls(name, tls);
  session.print(`${name}\n`);
  session.warn(`Successfully imported context "${name}"`);
  return 0;
}

/** `context rm`. */
export async function removeContexts(session: Session): Promise<number> {
  const force = session.flags.bool('force');
  const store = storeOf(session);
  const failures: string[] = [];
  for (const name of session.args) {
    const isCurrent = name === current(session);
    if (name === 'default') failures.push('context "default" cannot be removed');
    else if (isCurrent && !force) failures.push(`context "${name}" is in use, set -f flag to force remove`);
    else if (!force && !store.exists(name)) failures.push(`context "${name}" does not exist`);
    else {
      if (isCurrent) makeCurrent(session, 'default');
      store.remove(name);
      session.print(`${name}\n`);
    }
  }
  if (failures.length > 0) throw fail(failures.join('\n'));
  return 0;
}
