/** `volume ls|create|rm` as plain API calls. */
import { keyValues } from '../args/container-options.ts';
import { ExitError } from '../args/usage-error.ts';
import type { Json } from '../connection/api.ts';
import { formatList, type ListLayout, labelMethod, labelsText } from '../format/table.ts';
import { filtersOf, forEachName, type Session, segment } from '../session.ts';
import { StructView } from '../template/values.ts';
import { humanSize } from '../text/go-text.ts';

/** Columns of volumes. */
export const VOLUME_LAYOUT: ListLayout = {
  headers: {
    Name: 'VOLUME NAME',
    Driver: 'DRIVER',
    Scope: 'SCOPE',
    Mountpoint: 'MOUNTPOINT',
    Labels: 'LABELS',
    Links: 'LINKS',
    Size: 'SIZE',
  },
  table: '{{.Driver}}\t{{.Name}}',
  quiet: '{{.Name}}',
  raw: 'name: {{.Name}}\ndriver: {{.Driver}}\n',
};

/** A volume as templates see it; only disk usage knows its links and size. */
export function volumeView(volume: Json): StructView {
  const labels = volume['Labels'] as Record<string, string> | null;
  const usage = volume['UsageData'] as { RefCount: number; Size: number } | null | undefined;
  return new StructView(
    '*formatter.volumeContext',
    {
      Name: () => volume['Name'],
      Driver: () => volume['Driver'],
      Scope: () => volume['Scope'],
      Mountpoint: () => volume['Mountpoint'],
      Labels: () => labelsText(labels),
      Links: () => (usage ? String(usage.RefCount) : 'N/A'),
      Size: () => (usage ? humanSize(usage.Size) : 'N/A'),
      Availability: () => 'N/A',
      Group: () => 'N/A',
      Status: () => 'N/A',
    },
    { methods: labelMethod(labels) },
  );
}

/** `volume ls`. */
export async function listVolumes(session: Session): Promise<number> {
  const { flags } = session;
  const api = await session.connect();
  const answer = await api.json('GET', '/volumes', { query: { filters: filtersOf(flags.list('filter')) } });
  const volumes = ((answer['Volumes'] as Json[] | null) ?? []).sort((a, b) =>
    String(a['Name']) < String(b['Name']) ? -1 : 1,
  );
  const rows = volumes.map(volumeView);
  session.print(
    formatList(rows, VOLUME_LAYOUT, {
      format: flags.text('format') || (session.config.volumesFormat ?? ''),
      quiet: flags.bool('quiet'),
    }),
  );
  return 0;
}

/** `volume create`. */
export async function createVolume(session: Session): Promise<number> {
  const { flags, args } = session;
  if (args[0] !== undefined && flags.text('name') !== '')
    throw new ExitError(
      1,
      'conflicting options: cannot specify a volume-name through both --name and as a positional arg\n',
    );
  const api = await session.connect();
  const volume = await api.json('POST', '/volumes/create', {
    body: {
      Name: args[0] ?? flags.text('name'),
      Driver: flags.text('driver', 'local'),
      DriverOpts: keyValues(flags.list('opt')),
      Labels: keyValues(flags.list('label')),
    },
  });
  session.print(`${String(volume['Name'])}\n`);
  return 0;
}

/** `volume rm`. */
export async function removeVolumes(session: Session): Promise<number> {
  const api = await session.connect();
  return forEachName(session, session.args, async (name) => {
    await api.json('DELETE', `/volumes/${segment(name)}`, {
      query: { force: session.flags.bool('force') || undefined },
    });
    return name;
  });
}

/** `volume update`: only cluster volumes can be changed, and only the daemon knows which those are. */
export async function updateVolume(session: Session): Promise<number> {
  const { flags, args } = session;
  const api = await session.connect();
  const volume = await api.json('GET', `/volumes/${segment(args[0] ?? '')}`);
  const cluster = volume['ClusterVolume'] as Json | null | undefined;
  if (!cluster) throw new ExitError(1, 'can only update cluster volumes\n');
  const spec = cluster['Spec'] as Json;
  if (flags.has('availability')) spec['Availability'] = flags.text('availability');
  const version = (cluster['Version'] as { Index: number }).Index;
  await api.json('PUT', `/volumes/${segment(String(cluster['ID']))}`, { query: { version }, body: { Spec: spec } });
  return 0;
}
