/** `system df`: disk usage by kind. */
import type { Json } from '../connection/api.ts';
import { formatList, type ListLayout } from '../format/table.ts';
import type { Session } from '../session.ts';
import { StructView } from '../template/values.ts';
import { humanSize } from '../text/go-text.ts';

const LAYOUT: ListLayout = {
  headers: { Type: 'TYPE', TotalCount: 'TOTAL', Active: 'ACTIVE', Size: 'SIZE', Reclaimable: 'RECLAIMABLE' },
  table: '{{.Type}}\t{{.TotalCount}}\t{{.Active}}\t{{.Size}}\t{{.Reclaimable}}',
  quiet: '{{.Type}}',
};

interface Row {
  readonly type: string;
  readonly count: number;
  readonly active: number;
  readonly size: number;
  readonly reclaimable: number;
}

function view(row: Row): StructView {
  const percent = row.size > 0 ? ` (${Math.trunc((row.reclaimable * 100) / row.size)}%)` : '';
  return new StructView('*formatter.diskUsageContext', {
    Type: () => row.type,
    TotalCount: () => String(row.count),
    Active: () => String(row.active),
    Size: () => humanSize(row.size),
    Reclaimable: () => `${humanSize(row.reclaimable)}${row.type === 'Build Cache' ? '' : percent}`,
  });
}

function list(value: unknown): Json[] {
  return Array.isArray(value) ? (value as Json[]) : [];
}

function total(items: readonly Json[], key: string): number {
  return items.reduce((sum, item) => sum + Math.max(0, Number(item[key] ?? 0)), 0);
}

function rowsOf(usage: Json): Row[] {
  const images = list(usage['Images']);
  const usedImages = images.filter((image) => Number(image['Containers']) > 0);
  const layers = Number(usage['LayersSize'] ?? 0);
  const usedSize = usedImages.reduce(
    (sum, image) => sum + Number(image['Size']) - Math.max(0, Number(image['SharedSize'])),
    0,
  );
  const containers = list(usage['Containers']);
  const active = containers.filter((container) =>
    ['running', 'paused', 'restarting'].includes(String(container['State'])),
  );
  const volumes = list(usage['Volumes']);
  const data = (volume: Json): Json => (volume['UsageData'] as Json | null) ?? {};
  const volumeSize = (volume: Json): number => Math.max(0, Number(data(volume)['Size'] ?? 0));
  const usedVolumes = volumes.filter((volume) => Number(data(volume)['RefCount']) > 0);
  const cache = list(usage['BuildCache']);
  const idle = cache.filter((entry) => entry['InUse'] !== true);
  const sumVolumes = (some: readonly Json[]): number => some.reduce((sum, volume) => sum + volumeSize(volume), 0);
  return [
    { type: 'Images', count: images.length, active: usedImages.length, size: layers, reclaimable: layers - usedSize },
    {
      type: 'Containers',
      count: containers.length,
      active: active.length,
      size: total(containers, 'SizeRw'),
      reclaimable: total(containers, 'SizeRw') - total(active, 'SizeRw'),
    },
    {
      type: 'Local Volumes',
      count: volumes.length,
      active: usedVolumes.length,
      size: sumVolumes(volumes),
      reclaimable: sumVolumes(volumes) - sumVolumes(usedVolumes),
    },
    {
      type: 'Build Cache',
      count: cache.length,
      active: cache.length - idle.length,
      size: total(cache, 'Size'),
      reclaimable: total(
        idle.filter((entry) => entry['Shared'] !== true),
        'Size',
      ),
    },
  ];
}

/** `system df`. */
export async function diskUsage(session: Session): Promise<number> {
  const api = await session.connect();
  const usage = await api.json('GET', '/system/df');
  session.print(formatList(rowsOf(usage).map(view), LAYOUT, { format: session.flags.text('format'), quiet: false }));
  return 0;
}
