/** `system df`: disk usage by kind, or of each object with `-v`. */
import { humanDuration } from '#types/human-duration.ts';
import type { Json } from '../connection/api.ts';
import { goTimeOf } from '../format/dates.ts';
import { formatList, type ListLayout } from '../format/table.ts';
import type { Session } from '../session.ts';
import { StructView } from '../template/values.ts';
import { humanSize } from '../text/go-text.ts';
import { splitReference } from './container-verbs.ts';
import { IMAGE_HEADERS, type ImageSummary, imageView } from './images.ts';
import { type ContainerSummary, containerView, layoutFor } from './ps.ts';
import { VOLUME_LAYOUT, volumeView } from './volumes.ts';

const LAYOUT: ListLayout = {
  headers: { Type: 'TYPE', TotalCount: 'TOTAL', Active: 'ACTIVE', Size: 'SIZE', Reclaimable: 'RECLAIMABLE' },
  table: '{{.Type}}\t{{.TotalCount}}\t{{.Active}}\t{{.Size}}\t{{.Reclaimable}}',
  quiet: '{{.Type}}',
  raw: 'type: {{.Type}}\ntotal: {{.TotalCount}}\nactive: {{.Active}}\nsize: {{.Size}}\nreclaimable: {{.Reclaimable}}\n',
};

const CACHE_LAYOUT: ListLayout = {
  headers: {
    ID: 'CACHE ID',
    Parent: 'PARENT',
    CacheType: 'CACHE TYPE',
    Size: 'SIZE',
    CreatedSince: 'CREATED',
    LastUsedSince: 'LAST USED',
    UsageCount: 'USAGE',
    InUse: 'IN USE',
    Shared: 'SHARED',
    Description: 'DESCRIPTION',
  },
  table: '{{.ID}}\t{{.CacheType}}\t{{.Size}}\t{{.CreatedSince}}\t{{.LastUsedSince}}\t{{.UsageCount}}\t{{.Shared}}',
  quiet: '{{.ID}}',
  raw: 'build_cache_id: {{.ID}}\nparent_id: {{.Parent}}\nbuild_cache_type: {{.CacheType}}\ndescription: {{.Description}}\ncreated_at: {{.CreatedAt}}\ncreated_since: {{.CreatedSince}}\nlast_used_at: {{.LastUsedAt}}\nlast_used_since: {{.LastUsedSince}}\nusage_count: {{.UsageCount}}\nin_use: {{.InUse}}\nshared: {{.Shared}}\n',
};

/** One record of the build cache. */
interface CacheRecord {
  readonly ID: string;
  readonly Parent?: string;
  readonly Parents?: readonly string[] | null;
  readonly Type: string;
  readonly Description: string;
  readonly InUse: boolean;
  readonly Shared: boolean;
  readonly Size: number;
  readonly CreatedAt: string;
  readonly LastUsedAt?: string | null;
  readonly UsageCount: number;
}

/** The answer of GET /system/df, each list present. */
interface Usage {
  readonly layersSize: number;
  readonly images: readonly ImageSummary[];
  readonly containers: readonly ContainerSummary[];
  readonly volumes: readonly Json[];
  readonly cache: readonly CacheRecord[];
}

interface Row {
  readonly kind: string;
  readonly type: string;
  readonly count: number;
  readonly active: number;
  readonly size: number;
  readonly reclaimable: number;
  readonly percent: boolean;
}

function rowView(row: Row): StructView {
  const percent = row.percent && row.size > 0 ? ` (${Math.trunc((row.reclaimable * 100) / row.size)}%)` : '';
  return new StructView(`*formatter.diskUsage${row.kind}Context`, {
    Type: () => row.type,
    TotalCount: () => String(row.count),
    Active: () => String(row.active),
    Size: () => humanSize(row.size),
    Reclaimable: () => humanSize(row.reclaimable) + percent,
  });
}

function list<T>(value: unknown): T[] {
  return Array.isArray(value) ? (value as T[]) : [];
}

function sum<T>(items: readonly T[], size: (item: T) => number): number {
  return items.reduce((total, item) => total + size(item), 0);
}

function readUsage(answer: Json): Usage {
  return {
    layersSize: Number(answer['LayersSize'] ?? 0),
    images: list(answer['Images']),
    containers: list(answer['Containers']),
    volumes: list(answer['Volumes']),
    cache: list(answer['BuildCache']),
  };
}

function cacheSize(cache: readonly CacheRecord[]): number {
  return sum(
    cache.filter(({ Shared }) => !Shared),
    ({ Size }) => Size,
  );
}

function imagesRow({ images, layersSize }: Usage): Row {
  const used = images.filter(
    ({ Containers, Size, SharedSize }) => Containers !== 0 && Size !== -1 && SharedSize !== -1,
  );
  return {
    kind: 'Images',
    type: 'Images',
    count: images.length,
    active: images.filter(({ Containers }) => Containers > 0).length,
    size: layersSize,
    reclaimable: layersSize - sum(used, ({ Size, SharedSize }) => Size - SharedSize),
    percent: true,
  };
}

function containersRow({ containers }: Usage): Row {
  const isActive = ({ State }: ContainerSummary): boolean => ['running', 'paused', 'restarting'].includes(State);
  const size = (container: ContainerSummary): number => container.SizeRw ?? 0;
  const idle = containers.filter((container) => !isActive(container));
  return {
    kind: 'Containers',
    type: 'Containers',
    count: containers.length,
    active: containers.length - idle.length,
    size: sum(containers, size),
    reclaimable: sum(idle, size),
    percent: true,
  };
}

function volumesRow({ volumes }: Usage): Row {
  const usage = (volume: Json): { Size: number; RefCount: number } =>
    (volume['UsageData'] as { Size: number; RefCount: number } | null | undefined) ?? { Size: -1, RefCount: 0 };
  const size = (volume: Json): number => Math.max(0, usage(volume).Size);
  return {
    kind: 'Volumes',
    type: 'Local Volumes',
    count: volumes.length,
    active: volumes.filter((volume) => usage(volume).RefCount > 0).length,
    size: sum(volumes, size),
    reclaimable: sum(
      volumes.filter((volume) => usage(volume).RefCount === 0),
      size,
    ),
    percent: true,
  };
}

function cacheRow({ cache }: Usage): Row {
  const size = cacheSize(cache);
  const busy = cache.filter(({ InUse, Shared }) => InUse && !Shared);
  return {
    kind: 'Builder',
    type: 'Build Cache',
    count: cache.length,
    active: cache.filter(({ InUse }) => InUse).length,
    size,
    reclaimable: size - sum(busy, ({ Size }) => Size),
    percent: false,
  };
}

function cacheView(record: CacheRecord, truncate: boolean): StructView {
  const short = (id: string): string => (truncate ? id.replace(/^sha256:/, '').slice(0, 12) : id);
  const since = (time: string): string => `${humanDuration(Date.now() - Date.parse(time))} ago`;
  const parents = list<string>(record.Parents);
  const lastUsed = record.LastUsedAt ?? '';
  return new StructView('*formatter.buildCacheContext', {
    ID: () => short(record.ID) + (record.InUse ? '*' : ''),
    Parent: () => short(parents.length > 0 ? parents.join(', ') : (record.Parent ?? '')),
    CacheType: () => record.Type,
    Description: () => record.Description,
    Size: () => humanSize(record.Size, 3),
    CreatedAt: () => goTimeOf(record.CreatedAt),
    CreatedSince: () => since(record.CreatedAt),
    LastUsedAt: () => (lastUsed === '' ? '' : goTimeOf(lastUsed)),
    LastUsedSince: () => (lastUsed === '' ? '' : since(lastUsed)),
    UsageCount: () => String(record.UsageCount),
    InUse: () => String(record.InUse),
    Shared: () => String(record.Shared),
  });
}

function compareCache(a: CacheRecord, b: CacheRecord): number {
  const used = (record: CacheRecord): number => (record.LastUsedAt ? Date.parse(record.LastUsedAt) : -Infinity);
  return used(a) === used(b) ? (a.ID < b.ID ? -1 : 1) : used(a) - used(b);
}

/** Rows of `-v`, one list a kind. */
interface Sections {
  readonly images: StructView[];
  readonly containers: StructView[];
  readonly volumes: StructView[];
  readonly cache: StructView[];
}

function sectionsOf(usage: Usage, truncate: boolean): Sections {
  const nowMs = Date.now();
  return {
    images: usage.images.map((image) => {
      const [name] = (image.RepoTags ?? []).filter((tag) => tag !== '<none>:<none>');
      const { repo, tag } = name === undefined ? { repo: '<none>', tag: '<none>' } : splitReference(name);
      return imageView(image, { repository: repo, tag, digest: '' }, truncate);
    }),
    containers: usage.containers.map((container) =>
      containerView({ ...container, SizeRootFs: 0 }, { truncate, nowMs }),
    ),
    volumes: usage.volumes.map(volumeView),
    cache: [...usage.cache].sort(compareCache).map((record) => cacheView(record, truncate)),
  };
}

const IMAGE_LAYOUT: ListLayout = {
  headers: IMAGE_HEADERS,
  table:
    '{{.Repository}}\t{{.Tag}}\t{{.ID}}\t{{.CreatedSince}}\t{{.Size}}\t{{.SharedSize}}\t{{.UniqueSize}}\t{{.Containers}}',
  quiet: '{{.ID}}',
  raw: 'repository: {{ .Repository }}\ntag: {{.Tag}}\ndigest: {{.Digest}}\nimage_id: {{.ID}}\ncreated_at: {{.CreatedAt}}\nvirtual_size: {{.Size}}\n',
};
const CONTAINER_LAYOUT: ListLayout = {
  ...layoutFor(true),
  table: '{{.ID}}\t{{.Image}}\t{{.Command}}\t{{.LocalVolumes}}\t{{.Size}}\t{{.RunningFor}}\t{{.Status}}\t{{.Names}}',
};
const VOLUME_TABLE: ListLayout = { ...VOLUME_LAYOUT, table: '{{.Name}}\t{{.Links}}\t{{.Size}}' };

function verboseTable(usage: Usage): string {
  const sections = sectionsOf(usage, true);
  const table = (rows: readonly StructView[], layout: ListLayout): string =>
    formatList(rows, layout, { format: 'table', quiet: false });
  return [
    `Images space usage:\n\n${table(sections.images, IMAGE_LAYOUT)}`,
    `Containers space usage:\n\n${table(sections.containers, CONTAINER_LAYOUT)}`,
    `Local Volumes space usage:\n\n${table(sections.volumes, VOLUME_TABLE)}`,
    `Build cache usage: ${humanSize(cacheSize(usage.cache))}\n\n${table(sections.cache, CACHE_LAYOUT)}`,
  ].join('\n');
}

/** `raw` of every kind, one object after the other. */
const RAW_ALL: string = [
  ['Images', 'Image', IMAGE_LAYOUT.raw],
  ['Containers', 'Container', CONTAINER_LAYOUT.raw],
  ['Volumes', 'Volume', VOLUME_LAYOUT.raw],
  ['BuildCache', 'Build Cache', CACHE_LAYOUT.raw],
]
  .map(([field, type, raw]) => `{{range .${field}}}type: ${type}\n${raw}\n{{end -}}`)
  .join('\n');

function verbose(usage: Usage, format: string): string {
  if (format === '' || format === 'table') return verboseTable(usage);
  const sections = sectionsOf(usage, format.startsWith('table'));
  const whole = new StructView(
    '*formatter.diskUsageContext',
    {
      Images: () => sections.images,
      Containers: () => sections.containers,
      Volumes: () => sections.volumes,
      BuildCache: () => sections.cache,
    },
    { ordered: true },
  );
  const text = formatList([whole], LAYOUT, { format: format === 'raw' ? RAW_ALL : format, quiet: false });
  return text.replace(/\n$/, '');
}

/** `system df`. */
export async function diskUsage(session: Session): Promise<number> {
  const format = session.flags.text('format');
  const api = await session.connect();
  const usage = readUsage(await api.json('GET', '/system/df'));
  if (session.flags.bool('verbose')) {
    session.print(verbose(usage, format));
    return 0;
  }
  const rows = [imagesRow, containersRow, volumesRow, cacheRow].map((row) => rowView(row(usage)));
  session.print(formatList(rows, LAYOUT, { format, quiet: false }));
  return 0;
}
