/** `ps`: containers as a table, JSON or a template. */
import { humanDuration } from '#types/human-duration.ts';
import { ExitError } from '../args/usage-error.ts';
import type { Json } from '../connection/api.ts';
import { goTime } from '../format/dates.ts';
import { formatPorts, type PortSummary } from '../format/ports.ts';
import { ellipsis, formatList, type ListLayout, labelMethod, labelsText } from '../format/table.ts';
import { filtersOf, type Session } from '../session.ts';
import { Template } from '../template/execute.ts';
import { TemplateError } from '../template/lexer.ts';
import { StructView } from '../template/values.ts';
import { goQuote, humanSize } from '../text/go-text.ts';

interface Mount {
  readonly Name?: string;
  readonly Source?: string;
}

/** A container of GET /containers/json. */
export interface ContainerSummary {
  readonly Id: string;
  readonly Names: readonly string[] | null;
  readonly Image: string;
  readonly ImageID: string;
  readonly Command: string;
  readonly Created: number;
  readonly Ports: readonly PortSummary[] | null;
  readonly SizeRw?: number;
  readonly SizeRootFs?: number;
  readonly Labels: Readonly<Record<string, string>> | null;
  readonly State: string;
  readonly Status: string;
  readonly NetworkSettings?: { readonly Networks?: Readonly<Record<string, Json>> };
  readonly Mounts?: readonly Mount[] | null;
}

const HEADERS = {
  ID: 'CONTAINER ID',
  Names: 'NAMES',
  Image: 'IMAGE',
  Command: 'COMMAND',
  CreatedAt: 'CREATED AT',
  RunningFor: 'CREATED',
  Ports: 'PORTS',
  State: 'STATE',
  Status: 'STATUS',
  Size: 'SIZE',
  Labels: 'LABELS',
  Mounts: 'MOUNTS',
  LocalVolumes: 'LOCAL VOLUMES',
  Networks: 'NETWORKS',
  Platform: 'PLATFORM',
};

/** The layout of `ps`. */
export function layoutFor(size: boolean): ListLayout {
  return {
    headers: HEADERS,
    table: `{{.ID}}\t{{.Image}}\t{{.Command}}\t{{.RunningFor}}\t{{.Status}}\t{{.Ports}}\t{{.Names}}${size ? '\t{{.Size}}' : ''}`,
    quiet: '{{.ID}}',
    raw: `container_id: {{.ID}}\nimage: {{.Image}}\ncommand: {{.Command}}\ncreated_at: {{.CreatedAt}}\nstate: {{- pad .State 1 0}}\nstatus: {{- pad .Status 1 0}}\nnames: {{.Names}}\nlabels: {{- pad .Labels 1 0}}\nports: {{- pad .Ports 1 0}}\n${size ? 'size: {{.Size}}\n' : ''}`,
  };
}

/** Names without the leading slash; links (`/a/b`) are left out of the short form. */
export function containerNames(names: readonly string[] | null, truncate: boolean): string {
  const plain = (names ?? []).map((name) => name.replace(/^\//, ''));
  return (truncate ? plain.filter((name) => !name.includes('/')) : plain).join(',');
}

function imageColumn(container: ContainerSummary, truncate: boolean): string {
  if (container.Image === '') return '<no image>';
  if (!truncate) return container.Image;
  const short = (text: string): string => text.replace(/^sha256:/, '').slice(0, 12);
  if (short(container.ImageID) === short(container.Image)) return short(container.Image);
  // Compat: a digest is dropped from the short form.
  return container.Image.replace(/@sha256:[0-9a-f]+$/, '');
}

function sizeColumn(container: ContainerSummary): string {
  const own = humanSize(container.SizeRw ?? 0, 3);
  return (container.SizeRootFs ?? 0) > 0 ? `${own} (virtual ${humanSize(container.SizeRootFs ?? 0, 3)})` : own;
}

/** How a row is shown. */
export interface RowOptions {
  readonly truncate: boolean;
  readonly nowMs: number;
  /** Called when the size is asked for. */
  readonly onSize?: () => void;
}

/** A container as templates see it. */
export function containerView(container: ContainerSummary, options: RowOptions): StructView {
  const { truncate, nowMs } = options;
  const mounts = (container.Mounts ?? []).map((mount) => mount.Name || mount.Source || '');
  const fields = {
    ID: () => (truncate ? container.Id.slice(0, 12) : container.Id),
    Names: () => containerNames(container.Names, truncate),
    Image: () => imageColumn(container, truncate),
    Command: () => goQuote(truncate ? ellipsis(container.Command, 20) : container.Command),
    CreatedAt: () => goTime(container.Created * 1000),
    RunningFor: () => `${humanDuration(nowMs - container.Created * 1000)} ago`,
    Ports: () => formatPorts(container.Ports ?? []),
    State: () => container.State,
    Status: () => container.Status,
    Size: () => {
      options.onSize?.();
      return sizeColumn(container);
    },
    Labels: () => labelsText(container.Labels),
    Mounts: () => mounts.map((mount) => (truncate ? ellipsis(mount, 15) : mount)).join(','),
    LocalVolumes: () =>
      String((container.Mounts ?? []).filter((mount) => (mount as Json)['Driver'] === 'local').length),
    Networks: () =>
      Object.keys(container.NetworkSettings?.Networks ?? {})
        .sort()
        .join(','),
    Platform: () => null,
  };
  return new StructView('*formatter.ContainerContext', fields, { methods: labelMethod(container.Labels) });
}

/** Whether a template uses a field; a wrong one is refused before the daemon is asked. */
function usesSize(format: string): boolean {
  if (format === '' || format === 'table' || format === 'raw' || format === 'json') return false;
  let used = false;
  const empty: ContainerSummary = {
    Id: '',
    Names: null,
    Image: '',
    ImageID: '',
    Command: '',
    Created: 0,
    Ports: null,
    Labels: null,
    State: '',
    Status: '',
  };
  const probe = containerView(empty, { truncate: true, nowMs: Date.now(), onSize: () => (used = true) });
  let template: Template;
  try {
    template = new Template(
      format
        .replace(/^table/, '')
        .replaceAll('\\t', '\t')
        .replaceAll('\\n', '\n'),
    );
  } catch (error) {
    throw templateFailure('failed to parse template', error);
  }
  try {
    template.execute(probe);
  } catch (error) {
    throw templateFailure('failed to execute template', error);
  }
  return used;
}

function templateFailure(what: string, error: unknown): unknown {
  return error instanceof TemplateError ? new ExitError(1, `${what}: ${error.message}\n`) : error;
}

/** `ps`. */
export async function listContainers(session: Session): Promise<number> {
  const { flags } = session;
  const format = flags.text('format') || (flags.bool('quiet') ? '' : (session.config.psFormat ?? ''));
  const latest = flags.bool('latest') && !flags.has('last');
  const size = usesSize(format) || flags.bool('size');
  const limit = latest ? 1 : flags.number('last', -1);
  const api = await session.connect();
  const containers = await api.json<ContainerSummary[] | null>('GET', '/containers/json', {
    query: {
      all: flags.bool('all') || limit > 0 || undefined,
      limit: limit > 0 ? limit : undefined,
      size: size || undefined,
      filters: filtersOf(flags.list('filter')),
    },
  });
  const options = { truncate: !flags.bool('no-trunc'), nowMs: Date.now() };
  const rows = (containers ?? []).map((container) => containerView(container, options));
  session.print(formatList(rows, layoutFor(flags.bool('size')), { format, quiet: flags.bool('quiet') }));
  return 0;
}
