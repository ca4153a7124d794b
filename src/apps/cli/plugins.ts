/**
 * CLI plugins: programs `docker-NAME` in the cli-plugins directories, which describe themselves when they are called
 * with `docker-cli-plugin-metadata` and are run with the whole command line. Follows docker's plugin protocol 0.1.0.
 */

import type { ParsedFlags } from './args/parse-flags.ts';
import { type ConfigFile, type Endpoint, resolveEndpoint } from './config/endpoint.ts';
import { launcherPath } from './connection/launcher.ts';

const fs = process.getBuiltinModule('node:fs');

const PREFIX = 'docker-';
const METADATA_COMMAND = 'docker-cli-plugin-metadata';
const NAME = /^[a-z][a-z0-9]*$/;
/** Describing itself is all a plugin does then. */
const METADATA_TIMEOUT_MS = 30_000;
const MAX_METADATA_BYTES = 1024 * 1024;
const SYSTEM_DIRECTORIES: readonly string[] = [
  '/usr/local/lib/docker/cli-plugins',
  '/usr/local/libexec/docker/cli-plugins',
  '/usr/lib/docker/cli-plugins',
  '/usr/libexec/docker/cli-plugins',
];
const FORWARDED_SIGNALS: readonly NodeJS.Signals[] = ['SIGINT', 'SIGTERM', 'SIGHUP'];
const SIGNAL_CODE_BASE = 128;

/** What a plugin tells about itself. */
export interface Plugin {
  readonly Name: string;
  readonly Path: string;
  readonly SchemaVersion: string;
  readonly Vendor: string;
  readonly Version?: string;
  readonly ShortDescription?: string;
  readonly URL?: string;
}

function directories(config: ConfigFile, configDirectory: string): string[] {
  return [...(config.cliPluginsExtraDirs ?? []), `${configDirectory}/cli-plugins`, ...SYSTEM_DIRECTORIES];
}

async function describe(name: string, path: string): Promise<Plugin | undefined> {
  const { execFile } = process.getBuiltinModule('node:child_process');
  const { promise, resolve } = Promise.withResolvers<string>();
  execFile(path, [METADATA_COMMAND], { timeout: METADATA_TIMEOUT_MS, maxBuffer: MAX_METADATA_BYTES }, (error, stdout) =>
    resolve(error === null ? stdout : ''),
  );
  try {
    const metadata = JSON.parse(await promise) as Partial<Plugin>;
    const { SchemaVersion = '', Vendor = '' } = metadata;
    // Compat: any version below 2.0.0 of the schema is understood.
    if (!/^[01]\.\d+\.\d+/.test(SchemaVersion) || Vendor === '') return undefined;
    return { ...metadata, SchemaVersion, Vendor, Name: name, Path: path };
  } catch {
    return undefined;
  }
}

/** The plugin of that name, or undefined when there is none that works. */
export async function findPlugin(
  name: string,
  config: ConfigFile,
  configDirectory: string,
): Promise<Plugin | undefined> {
  if (!NAME.test(name)) return undefined;
  const path = directories(config, configDirectory)
    .map((directory) => `${directory}/${PREFIX}${name}`)
    .find((candidate) => fs.existsSync(candidate));
  return path === undefined ? undefined : describe(name, path);
}

/** Every plugin that works, by name. */
export async function listPlugins(config: ConfigFile, configDirectory: string): Promise<Plugin[]> {
  const paths = new Map<string, string>();
  for (const directory of directories(config, configDirectory)) {
    const entries = fs.existsSync(directory) ? fs.readdirSync(directory) : [];
    for (const entry of entries) {
      const name = entry.startsWith(PREFIX) ? entry.slice(PREFIX.length) : '';
      if (NAME.test(name) && !paths.has(name)) paths.set(name, `${directory}/${entry}`);
    }
  }
  const found = await Promise.all([...paths].map(([name, path]) => describe(name, path)));
  return found.filter((plugin) => plugin !== undefined).sort((a, b) => (a.Name < b.Name ? -1 : 1));
}

/** What a plugin needs to know besides its command line. */
export interface PluginContext {
  readonly globals: ParsedFlags;
  readonly config: ConfigFile;
  readonly configDirectory: string;
}

/** Plugins resolve the endpoint themselves, but know only docker's default socket. */
async function endpointVariables(context: PluginContext): Promise<Record<string, string>> {
  const endpoint: Endpoint = resolveEndpoint(context.globals, context.config, context.configDirectory);
  if (!endpoint.isDefaultSocket) return {};
  const { Api } = await import('./connection/api.ts');
  const { ensureDaemon } = await import('./connection/ensure-daemon.ts');
  await ensureDaemon(new Api(endpoint));
  return { DOCKER_HOST: endpoint.host };
}

/** Runs a plugin with the whole command line; its exit code. */
export async function runPlugin(plugin: Plugin, words: readonly string[], context: PluginContext): Promise<number> {
  const { spawn } = process.getBuiltinModule('node:child_process');
  const child = spawn(plugin.Path, words, {
    stdio: 'inherit',
    env: {
      ...process.env,
      ...(await endpointVariables(context)),
      DOCKER_CLI_PLUGIN_ORIGINAL_CLI_COMMAND: launcherPath('gantry') ?? 'gantry',
    },
  });
  const forward = (signal: NodeJS.Signals): void => {
    // A terminal sends its signals to the plugin by itself.
    if (!process.stdout.isTTY) child.kill(signal);
  };
  for (const signal of FORWARDED_SIGNALS) process.on(signal, forward);
  const { promise, resolve, reject } = Promise.withResolvers<number>();
  child.once('error', reject);
  child.once('close', (code, signal) => {
    const number = signal === null ? 1 : process.getBuiltinModule('node:os').constants.signals[signal];
    resolve(code ?? SIGNAL_CODE_BASE + number);
  });
  try {
    return await promise;
  } finally {
    for (const signal of FORWARDED_SIGNALS) process.off(signal, forward);
  }
}
