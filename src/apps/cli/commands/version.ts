/** `version`: client and server versions in docker's layout. */
import { type Api, ApiError, CLIENT_API_VERSION, type Json } from '../connection/api.ts';
import { ansiTime } from '../format/dates.ts';
import type { Session } from '../session.ts';
import { StructView } from '../template/values.ts';
import { CLI_VERSION } from '../version.ts';

interface Component {
  readonly Name: string;
  readonly Version: string;
  readonly Details?: Readonly<Record<string, string>> | null;
}

function line(indent: string, label: string, value: string, width: number): string {
  return `${indent}${`${label}:`.padEnd(width)}${value}\n`;
}

function clientText(client: Json): string {
  const used = String(client['ApiVersion']);
  const api = used === CLIENT_API_VERSION ? used : `${used} (downgraded from ${CLIENT_API_VERSION})`;
  const rows: [string, string][] = [
    ['Version', String(client['Version'])],
    ['API version', api],
    ['Go version', String(client['GoVersion'])],
    ['Git commit', String(client['GitCommit'])],
    ['Built', String(client['BuildTime'])],
    ['OS/Arch', `${String(client['Os'])}/${String(client['Arch'])}`],
    ['Context', String(client['Context'])],
  ];
  return `Client:\n${rows.map(([label, value]) => line(' ', label, value, 19)).join('')}`;
}

const ENGINE_DETAILS: readonly [string, string][] = [
  ['API version', 'ApiVersion'],
  ['Go version', 'GoVersion'],
  ['Git commit', 'GitCommit'],
  ['Built', 'BuildTime'],
  ['OS/Arch', 'OsArch'],
  ['Experimental', 'Experimental'],
];

function componentText(component: Component): string {
  const details = component.Details ?? {};
  let text = ` ${component.Name}:\n${line('  ', 'Version', component.Version, 18)}`;
  if (component.Name !== 'Engine') {
    const names = Object.keys(details).sort();
    return text + names.map((name) => line('  ', name, details[name] ?? '', 18)).join('');
  }
  for (const [label, key] of ENGINE_DETAILS) {
    let value = details[key] ?? '';
    if (key === 'ApiVersion') value = `${value} (minimum version ${details['MinAPIVersion'] ?? ''})`;
    if (key === 'OsArch') value = `${details['Os'] ?? ''}/${details['Arch'] ?? ''}`;
    text += line('  ', label, value, 18);
  }
  return text;
}

/** Compat: the engine's build time is shown in the local format, in templates too. */
function withReadableTimes(server: Json): Json {
  const components = ((server['Components'] as Component[] | null) ?? []).map((component) => {
    const time = component.Details?.['BuildTime'];
    if (component.Name !== 'Engine' || time === undefined) return component;
    return { ...component, Details: { ...component.Details, BuildTime: ansiTime(time) } };
  });
  return server['Components'] === undefined ? server : { ...server, Components: components };
}

function clientInfo(api: Api): Json {
  return {
    Version: CLI_VERSION,
    ApiVersion: api.version,
    DefaultAPIVersion: CLIENT_API_VERSION,
    GitCommit: 'gantry',
    GoVersion: `node${process.versions.node}`,
    Os: process.platform,
    Arch: process.arch === 'x64' ? 'amd64' : process.arch,
    BuildTime: '',
    Context: api.endpoint.context,
  };
}

/** `version`. */
export async function versionCommand(session: Session): Promise<number> {
  const api = await session.connect();
  let server: Json | null = null;
  let failure: ApiError | undefined;
  try {
    server = withReadableTimes(await api.serverVersion());
  } catch (error) {
    if (!(error instanceof ApiError)) throw error;
    failure = error;
  }
  const client = clientInfo(api);
  const format = session.flags.text('format');
  if (format !== '') {
    const { printFormatted } = await import('../format/document.ts');
    const data = new StructView(
      'system.versionInfo',
      { Client: () => client, Server: () => server },
      { ordered: true },
    );
    if (failure === undefined || format === 'json') printFormatted(session, format, { data, name: 'version' });
    else session.print('\n');
  } else {
    session.print(clientText(client));
    if (server !== null) {
      const name = (server['Platform'] as Json | undefined)?.['Name'];
      const components = (server['Components'] as Component[] | null) ?? [];
      session.print(
        `\nServer:${typeof name === 'string' && name !== '' ? ` ${name}` : ''}\n${components.map(componentText).join('')}`,
      );
    }
  }
  if (failure !== undefined) throw failure;
  return 0;
}
