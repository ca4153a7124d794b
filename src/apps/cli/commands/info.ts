/** `info`: the daemon's description in docker's layout. */

import { ExitError } from '../args/usage-error.ts';
import { ApiError, CLIENT_API_VERSION, type Json } from '../connection/api.ts';
import type { Plugin } from '../plugins.ts';
import type { Session } from '../session.ts';
import { bytesSize } from '../text/go-text.ts';
import { CLI_VERSION } from '../version.ts';

type Lines = string[];

function texts(value: unknown): string[] {
  return Array.isArray(value) ? value.map(String) : [];
}

function field(lines: Lines, label: string, value: unknown): void {
  if (value !== undefined && value !== null && value !== '') lines.push(` ${label}: ${String(value)}`);
}

function securityLines(options: readonly string[]): Lines {
  if (options.length === 0) return [];
  const lines = [' Security Options:'];
  for (const option of options) {
    const pairs = option.split(',').map((pair) => pair.split('=') as [string, string]);
    const name = pairs.find(([key]) => key === 'name')?.[1] ?? option;
    lines.push(`  ${name}`);
    for (const [key, value] of pairs) if (key === 'profile') lines.push(`   Profile: ${value}`);
  }
  return lines;
}

function pluginLines(plugins: Json): Lines {
  const lines = [
    ' Plugins:',
    `  Volume: ${texts(plugins['Volume']).join(' ')}`,
    `  Network: ${texts(plugins['Network']).join(' ')}`,
  ];
  const authorization = texts(plugins['Authorization']);
  if (authorization.length > 0) lines.push(`  Authorization: ${authorization.join(' ')}`);
  lines.push(`  Log: ${texts(plugins['Log']).join(' ')}`);
  return lines;
}

function runtimeLines(info: Json): Lines {
  const commit = (key: string): string => String((info[key] as Json | undefined)?.['ID'] ?? '');
  const lines: Lines = [];
  const runtimes = Object.keys((info['Runtimes'] as Json | null) ?? {}).sort();
  if (runtimes.length > 0)
    lines.push(` Runtimes: ${runtimes.join(' ')}`, ` Default Runtime: ${String(info['DefaultRuntime'])}`);
  lines.push(` Init Binary: ${String(info['InitBinary'])}`);
  for (const [label, key] of [
    ['containerd', 'ContainerdCommit'],
    ['runc', 'RuncCommit'],
    ['init', 'InitCommit'],
  ] as const)
    lines.push(` ${label} version: ${commit(key)}`);
  return lines;
}

function registryLines(info: Json): Lines {
  const registry = (info['RegistryConfig'] as Json | null) ?? {};
  const indexes = Object.values((registry['IndexConfigs'] as Json | null) ?? {}) as Json[];
  const insecure = [
    ...indexes.filter((index) => index['Secure'] === false).map((index) => String(index['Name'])),
    ...texts(registry['InsecureRegistryCIDRs']),
  ];
  const lines: Lines = [];
  if (insecure.length > 0) lines.push(' Insecure Registries:', ...insecure.map((name) => `  ${name}`));
  const mirrors = texts(registry['Mirrors']);
  if (mirrors.length > 0) lines.push(' Registry Mirrors:', ...mirrors.map((name) => `  ${name}`));
  return lines;
}

/** The text below `Server:`. */
export function serverText(info: Json): string {
  const lines: Lines = [
    ` Containers: ${String(info['Containers'])}`,
    `  Running: ${String(info['ContainersRunning'])}`,
    `  Paused: ${String(info['ContainersPaused'])}`,
    `  Stopped: ${String(info['ContainersStopped'])}`,
    ` Images: ${String(info['Images'])}`,
  ];
  field(lines, 'Server Version', info['ServerVersion']);
  field(lines, 'Storage Driver', info['Driver']);
  for (const [key = '', value = ''] of (info['DriverStatus'] as [string, string][] | null) ?? [])
    lines.push(`  ${key}: ${value}`);
  field(lines, 'Logging Driver', info['LoggingDriver']);
  field(lines, 'Cgroup Driver', info['CgroupDriver']);
  field(lines, 'Cgroup Version', info['CgroupVersion']);
  lines.push(...pluginLines((info['Plugins'] as Json | null) ?? {}));
  lines.push(` Swarm: ${String((info['Swarm'] as Json | undefined)?.['LocalNodeState'] ?? 'inactive')}`);
  lines.push(...runtimeLines(info), ...securityLines(texts(info['SecurityOptions'])));
  field(lines, 'Kernel Version', info['KernelVersion']);
  field(lines, 'Operating System', info['OperatingSystem']);
  field(lines, 'OSType', info['OSType']);
  field(lines, 'Architecture', info['Architecture']);
  lines.push(` CPUs: ${String(info['NCPU'])}`, ` Total Memory: ${bytesSize(Number(info['MemTotal'] ?? 0))}`);
  field(lines, 'Name', info['Name']);
  field(lines, 'ID', info['ID']);
  field(lines, 'Docker Root Dir', info['DockerRootDir']);
  lines.push(` Debug Mode: ${String(info['Debug'])}`);
  if (info['Debug'] === true) {
    field(lines, ' File Descriptors', info['NFd']);
    field(lines, ' Goroutines', info['NGoroutines']);
    field(lines, ' System Time', info['SystemTime']);
    field(lines, ' EventsListeners', info['NEventsListener']);
  }
  field(lines, 'HTTP Proxy', info['HttpProxy']);
  field(lines, 'HTTPS Proxy', info['HttpsProxy']);
  field(lines, 'No Proxy', info['NoProxy']);
  const labels = texts(info['Labels']);
  if (labels.length > 0) lines.push(' Labels:', ...labels.map((label) => `  ${label}`));
  lines.push(` Experimental: ${String(info['ExperimentalBuild'])}`, ...registryLines(info));
  lines.push(` Live Restore Enabled: ${String(info['LiveRestoreEnabled'])}`);
  field(lines, 'Product License', info['ProductLicense']);
  return `${lines.join('\n')}\n`;
}

function pluginsText(plugins: readonly Plugin[]): string {
  const lines = plugins.map(
    ({ Name, ShortDescription = '', Vendor, Version = '', Path }) =>
      `  ${Name}: ${ShortDescription} (${Vendor})\n${Version === '' ? '' : `    Version:  ${Version}\n`}    Path:     ${Path}\n`,
  );
  return lines.length === 0 ? '' : ` Plugins:\n${lines.join('')}`;
}

/** `info`. */
export async function infoCommand(session: Session): Promise<number> {
  const api = await session.connect();
  const format = session.flags.text('format');
  let info: Json | undefined;
  let failure: ApiError | undefined;
  try {
    info = await api.json('GET', '/info');
  } catch (error) {
    if (!(error instanceof ApiError)) throw error;
    failure = error;
  }
  const { listPlugins } = await import('../plugins.ts');
  const plugins = await listPlugins(session.config, session.configDirectory);
  const client = {
    Debug: session.globals.bool('debug'),
    Version: CLI_VERSION,
    DefaultAPIVersion: CLIENT_API_VERSION,
    GitCommit: 'gantry',
    GoVersion: `node${process.versions.node}`,
    Os: process.platform,
    Arch: process.arch === 'x64' ? 'amd64' : process.arch,
    Context: api.endpoint.context,
    Plugins: plugins,
    Warnings: null,
  };
  if (format !== '') {
    const { printFormatted } = await import('../format/document.ts');
    const { StructView } = await import('../template/values.ts');
    const fields = {
      ...info,
      ...(failure === undefined ? {} : { ServerErrors: [failure.message] }),
      ClientInfo: client,
    };
    const data = new StructView(
      'system.dockerInfo',
      Object.fromEntries(Object.entries(fields).map(([name, value]) => [name, () => value])),
      { ordered: true },
    );
    printFormatted(session, format, { data, name: '' });
    return 0;
  }
  session.print(
    `Client:\n Version:    ${client.Version}\n Context:    ${client.Context}\n Debug Mode: ${String(client.Debug)}\n${pluginsText(plugins)}\nServer:\n`,
  );
  if (info === undefined) throw new ExitError(1, `${failure?.message ?? ''}\n`);
  session.print(`${serverText(info)}\n`);
  for (const warning of texts(info['Warnings'])) session.warn(warning);
  return 0;
}
