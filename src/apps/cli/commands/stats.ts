/** `stats`: live resource usage. One sample a second and container; on a terminal the table is redrawn. */
import { type Api, ApiError, type Json, jsonLines } from '../connection/api.ts';
import { formatList, type ListLayout } from '../format/table.ts';
import { type Session, segment } from '../session.ts';
import { StructView } from '../template/values.ts';
import { bytesSize, humanSize } from '../text/go-text.ts';
import type { ContainerSummary } from './ps.ts';

const LAYOUT: ListLayout = {
  headers: {
    Container: 'CONTAINER',
    ID: 'CONTAINER ID',
    Name: 'NAME',
    CPUPerc: 'CPU %',
    MemUsage: 'MEM USAGE / LIMIT',
    MemPerc: 'MEM %',
    NetIO: 'NET I/O',
    BlockIO: 'BLOCK I/O',
    PIDs: 'PIDS',
  },
  table: '{{.ID}}\t{{.Name}}\t{{.CPUPerc}}\t{{.MemUsage}}\t{{.MemPerc}}\t{{.NetIO}}\t{{.BlockIO}}\t{{.PIDs}}',
  quiet: '{{.ID}}',
};
const REDRAW_MS = 500;

/** Numbers of one sample. */
export interface Usage {
  readonly cpu: number;
  readonly memory: number;
  readonly limit: number;
  readonly received: number;
  readonly sent: number;
  readonly read: number;
  readonly written: number;
  readonly pids: number;
}

function numberAt(value: unknown, ...path: readonly string[]): number {
  let current = value;
  for (const key of path) current = (current as Json | null | undefined)?.[key];
  return typeof current === 'number' ? current : 0;
}

/** Docker's arithmetic on a stats answer. */
export function usageOf(sample: Json): Usage {
  const cpuDelta =
    numberAt(sample, 'cpu_stats', 'cpu_usage', 'total_usage') -
    numberAt(sample, 'precpu_stats', 'cpu_usage', 'total_usage');
  const systemDelta =
    numberAt(sample, 'cpu_stats', 'system_cpu_usage') - numberAt(sample, 'precpu_stats', 'system_cpu_usage');
  const perCpu = ((sample['cpu_stats'] as Json | undefined)?.['cpu_usage'] as Json | undefined)?.['percpu_usage'];
  const cpus = numberAt(sample, 'cpu_stats', 'online_cpus') || (Array.isArray(perCpu) ? perCpu.length : 0);
  const used = numberAt(sample, 'memory_stats', 'usage');
  const stats = ['memory_stats', 'stats'] as const;
  const inactive = numberAt(sample, ...stats, 'total_inactive_file') || numberAt(sample, ...stats, 'inactive_file');
  const networks = Object.values((sample['networks'] as Json | undefined) ?? {});
  const sum = (key: string): number => networks.reduce<number>((total, network) => total + numberAt(network, key), 0);
  const io =
    ((sample['blkio_stats'] as Json | undefined)?.['io_service_bytes_recursive'] as
      | { op: string; value: number }[]
      | null
      | undefined) ?? [];
  const bytes = (operation: string): number =>
    io.filter(({ op }) => op.toLowerCase() === operation).reduce((total, { value }) => total + value, 0);
  return {
    cpu: cpuDelta > 0 && systemDelta > 0 ? (cpuDelta / systemDelta) * cpus * 100 : 0,
    memory: inactive < used ? used - inactive : used,
    limit: numberAt(sample, 'memory_stats', 'limit'),
    received: sum('rx_bytes'),
    sent: sum('tx_bytes'),
    read: bytes('read'),
    written: bytes('write'),
    pids: numberAt(sample, 'pids_stats', 'current'),
  };
}

interface Row {
  readonly asked: string;
  id: string;
  name: string;
  usage: Usage | undefined;
}

function view(row: Row, truncate: boolean): StructView {
  const { usage } = row;
  const or = (text: (usage: Usage) => string): string => (usage === undefined ? '--' : text(usage));
  const pair = (text: (usage: Usage) => string): string => (usage === undefined ? '-- / --' : text(usage));
  return new StructView('*container.statsContext', {
    Container: () => row.asked,
    ID: () => (truncate ? row.id.slice(0, 12) : row.id) || '--',
    Name: () => row.name || '--',
    CPUPerc: () => or(({ cpu }) => `${cpu.toFixed(2)}%`),
    MemUsage: () => pair(({ memory, limit }) => `${bytesSize(memory)} / ${bytesSize(limit)}`),
    MemPerc: () => or(({ memory, limit }) => `${(limit === 0 ? 0 : (memory / limit) * 100).toFixed(2)}%`),
    NetIO: () => or(({ received, sent }) => `${humanSize(received, 3)} / ${humanSize(sent, 3)}`),
    BlockIO: () => or(({ read, written }) => `${humanSize(read, 3)} / ${humanSize(written, 3)}`),
    PIDs: () => or(({ pids }) => String(pids)),
  });
}

async function sample(api: Api, row: Row, stream: boolean): Promise<void> {
  const response = await api.open('GET', `/containers/${segment(row.asked)}/stats`, { query: { stream } });
  for await (const answer of jsonLines(response)) {
    row.id = String(answer['id'] ?? row.id);
    row.name = String(answer['name'] ?? row.name).replace(/^\//, '');
    row.usage = usageOf(answer);
  }
}

async function follow(session: Session, api: Api, rows: Row[], render: () => string): Promise<void> {
  const ended = Promise.allSettled(rows.map((row) => sample(api, row, true)));
  let running = true;
  ended.then(() => {
    running = false;
  });
  while (running) {
    await Promise.race([ended, new Promise((resolve) => setTimeout(resolve, REDRAW_MS))]);
    session.print(`\x1b[H${render().replaceAll('\n', '\x1b[K\n')}\x1b[J`);
  }
}

/** `stats`. */
export async function statsCommand(session: Session): Promise<number> {
  const { flags, args } = session;
  const api = await session.connect();
  let names: readonly string[] = args;
  if (names.length === 0) {
    const all = await api.json<ContainerSummary[] | null>('GET', '/containers/json', {
      query: { all: flags.bool('all') || undefined },
    });
    names = (all ?? []).map(({ Id }) => Id.slice(0, 12));
  }
  const rows: Row[] = names.map((asked) => ({ asked, id: '', name: '', usage: undefined }));
  const format = flags.text('format') || (session.config.statsFormat ?? '');
  const render = (): string =>
    formatList(
      rows.map((row) => view(row, !flags.bool('no-trunc'))),
      LAYOUT,
      { format, quiet: false },
    );
  if (!flags.bool('no-stream')) {
    await follow(session, api, rows, render);
    return 0;
  }
  const results = await Promise.allSettled(rows.map((row) => sample(api, row, false)));
  for (const result of results)
    if (result.status === 'rejected')
      throw result.reason instanceof ApiError ? result.reason : new Error(String(result.reason));
  session.print(render());
  return 0;
}
