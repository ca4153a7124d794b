/** `volume ls|create|rm` as plain API calls. */
import { keyValues } from '../args/container-options.ts';
import type { Json } from '../connection/api.ts';
import { formatList, type ListLayout } from '../format/table.ts';
import { filtersOf, forEachName, type Session, segment } from '../session.ts';
import { StructView } from '../template/values.ts';

const LAYOUT: ListLayout = {
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

/** `volume ls`. */
export async function listVolumes(session: Session): Promise<number> {
  const { flags } = session;
  const api = await session.connect();
  const answer = await api.json('GET', '/volumes', { query: { filters: filtersOf(flags.list('filter')) } });
  const volumes = ((answer['Volumes'] as Json[] | null) ?? []).sort((a, b) =>
    String(a['Name']) < String(b['Name']) ? -1 : 1,
  );
  const rows = volumes.map((volume) => {
    const labels = (volume['Labels'] as Record<string, string> | null) ?? {};
    return new StructView('*formatter.volumeContext', {
      Name: () => volume['Name'],
      Driver: () => volume['Driver'],
      Scope: () => volume['Scope'],
      Mountpoint: () => volume['Mountpoint'],
      Labels: () =>
        Object.entries(labels)
          .map(([key, value]) => `${key}=${value}`)
          .join(','),
      Links: () => 'N/A',
      Size: () => 'N/A',
      Availability: () => 'N/A',
      Group: () => 'N/A',
      Status: () => 'N/A',
    });
  });
  session.print(
    formatList(rows, LAYOUT, {
      format: flags.text('format') || (session.config.volumesFormat ?? ''),
      quiet: flags.bool('quiet'),
    }),
  );
  return 0;
}

/** `volume create`. */
export async function createVolume(session: Session): Promise<number> {
  const { flags, args } = session;
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
