/** `plugin ls`: the engine's managed plugins. */
import type { Json } from '../connection/api.ts';
import { ellipsis, formatList, type ListLayout } from '../format/table.ts';
import { filtersOf, type Session } from '../session.ts';
import { StructView } from '../template/values.ts';

const LAYOUT: ListLayout = {
  headers: {
    ID: 'ID',
    Name: 'NAME',
    Description: 'DESCRIPTION',
    Enabled: 'ENABLED',
    PluginReference: 'PLUGIN REFERENCE',
  },
  table: '{{.ID}}\t{{.Name}}\t{{.Description}}\t{{.Enabled}}',
  quiet: '{{.ID}}',
  raw: 'plugin_id: {{.ID}}\nname: {{.Name}}\ndescription: {{.Description}}\nenabled: {{.Enabled}}\n',
};
const DESCRIPTION_WIDTH = 45;

/** `plugin ls`. */
export async function listEnginePlugins(session: Session): Promise<number> {
  const { flags } = session;
  const truncate = !flags.bool('no-trunc');
  const api = await session.connect();
  const plugins = await api.json<Json[] | null>('GET', '/plugins', {
    query: { filters: filtersOf(flags.list('filter')) },
  });
  const rows = [...(plugins ?? [])]
    .sort((a, b) => (String(a['Name']) < String(b['Name']) ? -1 : 1))
    .map((plugin) => {
      const id = String(plugin['Id']);
      const description = String((plugin['Config'] as Json | null)?.['Description'] ?? '').replace(/[\n\r]/g, ' ');
      return new StructView('*plugin.pluginContext', {
        ID: () => (truncate ? id.slice(0, 12) : id),
        Name: () => plugin['Name'],
        Description: () => (truncate ? ellipsis(description, DESCRIPTION_WIDTH) : description),
        Enabled: () => plugin['Enabled'],
        PluginReference: () => plugin['PluginReference'],
      });
    });
  session.print(formatList(rows, LAYOUT, { format: flags.text('format'), quiet: flags.bool('quiet') }));
  return 0;
}
