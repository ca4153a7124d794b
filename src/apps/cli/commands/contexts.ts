/** `context ls|show|inspect|use|create|rm` on docker's context store (contexts/meta, contexts/tls). */
import { ExitError } from '../args/usage-error.ts';
import { contextId, GANTRY_SOCKET } from '../config/endpoint.ts';
import { formatList, type ListLayout } from '../format/table.ts';
import type { Session } from '../session.ts';
import { Template } from '../template/execute.ts';
import { goJson, StructView } from '../template/values.ts';

const fs = process.getBuiltinModule('node:fs');

interface Context {
  readonly Name: string;
  readonly Metadata: { readonly Description?: string };
  readonly Endpoints: { readonly docker?: { readonly Host?: string; readonly SkipTLSVerify?: boolean } };
}

const LAYOUT: ListLayout = {
  headers: { Name: 'NAME', Description: 'DESCRIPTION', DockerEndpoint: 'DOCKER ENDPOINT', Error: 'ERROR' },
  table: '{{.Name}}{{if .Current}} *{{end}}\t{{.Description}}\t{{.DockerEndpoint}}\t{{.Error}}',
  quiet: '{{.Name}}',
};

function current(session: Session): string {
  if (session.globals.has('context')) return session.globals.text('context');
  if (session.globals.has('host') || process.env['DOCKER_HOST']) return 'default';
  return process.env['DOCKER_CONTEXT'] || session.config.currentContext || 'default';
}

function defaultContext(): Context {
  return {
    Name: 'default',
    Metadata: { Description: 'Current DOCKER_HOST based configuration' },
    Endpoints: { docker: { Host: process.env['DOCKER_HOST'] || `unix://${GANTRY_SOCKET}`, SkipTLSVerify: false } },
  };
}

function metaPath(session: Session, name: string): string {
  return `${session.configDirectory}/contexts/meta/${contextId(name)}`;
}

function load(session: Session, name: string): Context {
  if (name === 'default') return defaultContext();
  const path = `${metaPath(session, name)}/meta.json`;
  try {
    return JSON.parse(fs.readFileSync(path, 'utf8')) as Context;
  } catch {
    throw new ExitError(1, `context "${name}": context not found: open ${path}: no such file or directory\n`);
  }
}

function loadAll(session: Session): Context[] {
  let ids: string[] = [];
  try {
    ids = fs.readdirSync(`${session.configDirectory}/contexts/meta`);
  } catch {
    // No store yet.
  }
  const stored = ids.map(
    (id) => JSON.parse(fs.readFileSync(`${session.configDirectory}/contexts/meta/${id}/meta.json`, 'utf8')) as Context,
  );
  return [defaultContext(), ...stored].sort((a, b) => (a.Name < b.Name ? -1 : 1));
}

/** `context ls`. */
export async function listContexts(session: Session): Promise<number> {
  const { flags } = session;
  const name = current(session);
  const rows = loadAll(session).map(
    (context) =>
      new StructView('*formatter.clientContextContext', {
        Current: () => context.Name === name,
        Name: () => context.Name,
        Description: () => context.Metadata.Description ?? '',
        DockerEndpoint: () => context.Endpoints.docker?.Host ?? '',
        Error: () => '',
      }),
  );
  session.print(formatList(rows, LAYOUT, { format: flags.text('format'), quiet: flags.bool('quiet') }));
  if (process.env['DOCKER_HOST'] && !flags.bool('quiet')) {
    session.print(
      'Warning: DOCKER_HOST environment variable overrides the active context. To use a context, either set the global --context flag, or unset DOCKER_HOST environment variable.\n',
    );
  }
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
  const found = names.map((name) => {
    const store =
      name === 'default'
        ? { MetadataPath: '<IN MEMORY>', TLSPath: '<IN MEMORY>' }
        : {
            MetadataPath: metaPath(session, name),
            TLSPath: `${session.configDirectory}/contexts/tls/${contextId(name)}`,
          };
    return { ...load(session, name), TLSMaterial: {}, Storage: store };
  });
  const format = session.flags.text('format');
  if (format === '') session.print(`${goJson(found, { indent: '    ' })}\n`);
  else
    for (const context of found)
      session.print(
        `${new Template(format === 'json' ? '{{json .}}' : format).execute(context, { missingKey: 'error' })}\n`,
      );
  return 0;
}

function writeConfig(session: Session, name: string): void {
  const path = `${session.configDirectory}/config.json`;
  const { currentContext: _, ...rest } = session.config;
  const next = name === 'default' ? rest : { ...rest, currentContext: name };
  fs.mkdirSync(session.configDirectory, { recursive: true, mode: 0o700 });
  fs.writeFileSync(`${path}.tmp`, JSON.stringify(next, undefined, '\t'), { mode: 0o600 });
  fs.renameSync(`${path}.tmp`, path);
}

/** `context use`. */
export async function useContext(session: Session): Promise<number> {
  const name = session.args[0] ?? '';
  load(session, name);
  writeConfig(session, name);
  session.print(`${name}\n`);
  session.warn(`Current context is now "${name}"`);
  if (name !== 'default' && process.env['DOCKER_HOST']) {
    session.warn(
      `Warning: DOCKER_HOST environment variable overrides the active context. To use "${name}", either set the global --context flag, or unset DOCKER_HOST environment variable.`,
    );
  }
  return 0;
}

/** `context create`. */
export async function createContext(session: Session): Promise<number> {
  const { flags } = session;
  const name = session.args[0] ?? '';
  if (name === 'default') throw new ExitError(1, '"default" is a reserved context name\n');
  if (!/^[a-zA-Z0-9][a-zA-Z0-9_.+-]+$/.test(name)) {
    throw new ExitError(
      1,
      `context name "${name}" is invalid, names are validated against regexp "^[a-zA-Z0-9][a-zA-Z0-9_.+-]+$"\n`,
    );
  }
  const directory = metaPath(session, name);
  if (fs.existsSync(directory)) throw new ExitError(1, `context "${name}" already exists\n`);
  const settings = new Map(
    flags
      .text('docker')
      .split(',')
      .filter((part) => part !== '')
      .map((part) => part.split(/=(.*)/s) as [string, string]),
  );
  const source = flags.text('from') || settings.get('from');
  const from = source === undefined ? defaultContext() : load(session, source);
  const host = settings.get('host') ?? from.Endpoints.docker?.Host ?? '';
  fs.mkdirSync(directory, { recursive: true, mode: 0o755 });
  const description = flags.text('description');
  const meta = {
    Name: name,
    Metadata: description === '' ? {} : { Description: description },
    Endpoints: { docker: { Host: host, SkipTLSVerify: settings.get('skip-tls-verify') === 'true' } },
  };
  fs.writeFileSync(`${directory}/meta.json`, JSON.stringify(meta), { mode: 0o644 });
  for (const file of ['ca', 'cert', 'key']) {
    const path = settings.get(file);
    if (path === undefined) continue;
    const tls = `${session.configDirectory}/contexts/tls/${contextId(name)}/docker`;
    fs.mkdirSync(tls, { recursive: true, mode: 0o700 });
    fs.copyFileSync(path, `${tls}/${file}.pem`);
  }
  session.print(`${name}\n`);
  session.warn(`Successfully created context "${name}"`);
  return 0;
}

/** `context rm`. */
export async function removeContexts(session: Session): Promise<number> {
  const failures: string[] = [];
  for (const name of session.args) {
    if (name === 'default') failures.push('context "default" cannot be removed');
    else if (!fs.existsSync(metaPath(session, name))) failures.push(`context "${name}" not found`);
    else if (name === current(session) && !session.flags.bool('force'))
      failures.push(`context "${name}" is in use, set -f flag to force remove`);
    else {
      if (name === session.config.currentContext) writeConfig(session, 'default');
      fs.rmSync(metaPath(session, name), { recursive: true });
      fs.rmSync(`${session.configDirectory}/contexts/tls/${contextId(name)}`, { recursive: true, force: true });
      session.print(`${name}\n`);
    }
  }
  if (failures.length > 0) throw new ExitError(1, `${failures.join('\n')}\n`);
  return 0;
}
