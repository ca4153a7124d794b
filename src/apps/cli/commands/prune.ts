/** The prune commands: warning, question, API call, what was reclaimed. */
import { ExitError } from '../args/usage-error.ts';
import type { Api, Json } from '../connection/api.ts';
import { filtersOf, type Session } from '../session.ts';
import { confirm } from '../terminal/prompt.ts';
import { humanSize } from '../text/go-text.ts';

interface Prune {
  readonly warning: string;
  readonly path: string;
  readonly title: string;
  readonly key: string;
  readonly extraFilters?: readonly string[];
  readonly query?: Readonly<Record<string, string | number | boolean | undefined>>;
}

/** `--filter` values and those config.json adds; a label given on the command line beats its opposite there. */
function filtersFor(session: Session, plan: Prune): string | undefined {
  const given = [...session.flags.list('filter'), ...(plan.extraFilters ?? [])];
  const added = (session.config.pruneFilters ?? []).filter((filter) => {
    const [key, value = ''] = filter.split(/=(.*)/s);
    if (!filter.includes('=')) return false;
    if (key === 'label') return !given.includes(`label!=${value}`);
    return key !== 'label!' || !given.includes(`label=${value}`);
  });
  return filtersOf([...given, ...added]);
}

interface Report {
  readonly text: string;
  readonly reclaimedBytes: number;
}

async function apply(session: Session, api: Api, plan: Prune): Promise<Report> {
  const answer = await api.json('POST', plan.path, {
    query: { ...plan.query, filters: filtersFor(session, plan) },
  });
  const items = (answer[plan.key] as unknown[] | null) ?? [];
  if (items.length === 0) return { text: '', reclaimedBytes: Number(answer['SpaceReclaimed'] ?? 0) };
  const lines = items.map((item) => {
    if (typeof item === 'string') return item;
    const image = item as Json;
    return image['Untagged'] ? `untagged: ${String(image['Untagged'])}` : `deleted: ${String(image['Deleted'])}`;
  });
  return {
    text: `${plan.title}:\n${lines.join('\n')}\n\n`,
    reclaimedBytes: Number(answer['SpaceReclaimed'] ?? 0),
  };
}

async function prune(
  session: Session,
  plan: Prune,
  question = '\nAre you sure you want to continue?',
): Promise<number> {
  // Compat: a refusal is no failure.
  if (!session.flags.bool('force') && !(await confirm(`WARNING! ${plan.warning}${question}`))) return 0;
  const report = await apply(session, await session.connect(), plan);
  session.print(report.text);
  if (plan.key !== 'NetworksDeleted') session.print(`Total reclaimed space: ${humanSize(report.reclaimedBytes)}\n`);
  return 0;
}

const CONTAINERS: Prune = {
  warning: 'This will remove all stopped containers.',
  path: '/containers/prune',
  title: 'Deleted Containers',
  key: 'ContainersDeleted',
};
const NETWORKS: Prune = {
  warning: 'This will remove all custom networks not used by at least one container.',
  path: '/networks/prune',
  title: 'Deleted Networks',
  key: 'NetworksDeleted',
};

function images(all: boolean): Prune {
  return {
    warning: all
      ? 'This will remove all images without at least one container associated to them.'
      : 'This will remove all dangling images.',
    path: '/images/prune',
    title: 'Deleted Images',
    key: 'ImagesDeleted',
    extraFilters: [`dangling=${!all}`],
  };
}

function volumes(all: boolean): Prune {
  return {
    warning: all
      ? 'This will remove all local volumes not used by at least one container.'
      : 'This will remove anonymous local volumes not used by at least one container.',
    path: '/volumes/prune',
    title: 'Deleted Volumes',
    key: 'VolumesDeleted',
    ...(all ? { extraFilters: ['all=1'] } : {}),
  };
}

function buildCache(all: boolean, keepBytes: number): Prune {
  return {
    warning: all ? 'This will remove all build cache.' : 'This will remove all dangling build cache.',
    path: '/build/prune',
    title: 'Deleted build cache objects',
    key: 'CachesDeleted',
    query: {
      all: all || undefined,
      'keep-storage': keepBytes || undefined,
      'reserved-space': keepBytes || undefined,
    },
  };
}

/** `container prune`. */
export function pruneContainers(session: Session): Promise<number> {
  return prune(session, CONTAINERS);
}

/** `image prune`. */
export function pruneImages(session: Session): Promise<number> {
  return prune(session, images(session.flags.bool('all')));
}

/** `volume prune`. */
export function pruneVolumes(session: Session): Promise<number> {
  return prune(session, volumes(session.flags.bool('all')));
}

/** `network prune`. */
export function pruneNetworks(session: Session): Promise<number> {
  return prune(session, NETWORKS);
}

/** `builder prune`. */
export function pruneBuilder(session: Session): Promise<number> {
  const { flags } = session;
  const plan = buildCache(flags.bool('all'), flags.number('keep-storage'));
  return prune(session, plan, ' Are you sure you want to continue?');
}

function systemWarning(session: Session): string {
  const { flags } = session;
  const what = [
    'all stopped containers',
    'all networks not used by at least one container',
    ...(flags.bool('volumes') ? ['all anonymous volumes not used by at least one container'] : []),
    flags.bool('all') ? 'all images without at least one container associated to them' : 'all dangling images',
    flags.bool('all') ? 'all build cache' : 'unused build cache',
  ];
  const filters = flags
    .list('filter')
    .filter((filter) => /^(label!?|until)=/.test(filter))
    .sort();
  const filtered =
    filters.length === 0
      ? ''
      : `\n  Items to be pruned will be filtered with:\n${filters.map((filter) => `  - ${filter}\n`).join('')}`;
  return `WARNING! This will remove:\n${what.map((item) => `  - ${item}\n`).join('')}${filtered}\nAre you sure you want to continue?`;
}

/** `system prune`. */
export async function pruneSystem(session: Session): Promise<number> {
  const { flags } = session;
  const all = flags.bool('all');
  if (flags.bool('volumes') && flags.list('filter').some((filter) => filter.startsWith('until=')))
    throw new ExitError(1, 'ERROR: The "until" filter is not supported with "--volumes"\n');
  if (!flags.bool('force') && !(await confirm(systemWarning(session)))) return 0;
  const api = await session.connect();
  // Compat: only anonymous volumes go, whatever --all says.
  const plans = [
    CONTAINERS,
    NETWORKS,
    ...(flags.bool('volumes') ? [volumes(false)] : []),
    images(all),
    ...(api.atLeast('1.31') ? [buildCache(all, 0)] : []),
  ];
  let reclaimed = 0;
  for (const plan of plans) {
    const report = await apply(session, api, plan);
    session.print(report.text);
    reclaimed += report.reclaimedBytes;
  }
  session.print(`Total reclaimed space: ${humanSize(reclaimed)}\n`);
  return 0;
}
