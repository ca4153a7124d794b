/** The prune commands: warning, question, API call, what was reclaimed. */
import type { Json } from '../connection/api.ts';
import { filtersOf, type Session } from '../session.ts';
import { humanSize } from '../text/go-text.ts';

/** Asks a yes/no question on the terminal; only `y` and `yes` agree. */
export async function confirm(session: Session, question: string): Promise<boolean> {
  session.print(`${question} [y/N] `);
  const lines = process.getBuiltinModule('node:readline').createInterface({ input: process.stdin });
  for await (const line of lines) {
    lines.close();
    return /^y(es)?$/i.test(line.trim());
  }
  return false;
}

interface Prune {
  readonly warning: string;
  readonly path: string;
  readonly title: string;
  readonly key: string;
  readonly extraFilters?: readonly string[];
}

const CANCELLED = 1;

async function prune(session: Session, plan: Prune): Promise<number> {
  const { flags } = session;
  if (!flags.bool('force') && !(await confirm(session, `WARNING! ${plan.warning}\nAre you sure you want to continue?`)))
    return CANCELLED;
  const api = await session.connect();
  const answer = await api.json('POST', plan.path, {
    query: { filters: filtersOf([...flags.list('filter'), ...(plan.extraFilters ?? [])]) },
  });
  session.print(report(plan, answer));
  if (plan.key !== 'NetworksDeleted')
    session.print(`Total reclaimed space: ${humanSize(Number(answer['SpaceReclaimed'] ?? 0))}\n`);
  return 0;
}

function report(plan: Prune, answer: Json): string {
  const items = (answer[plan.key] as unknown[] | null) ?? [];
  if (items.length === 0) return '';
  const lines = items.map((item) => {
    if (typeof item === 'string') return item;
    const image = item as Json;
    return image['Untagged'] === undefined
      ? `deleted: ${String(image['Deleted'])}`
      : `untagged: ${String(image['Untagged'])}`;
  });
  return `${plan.title}:\n${lines.join('\n')}\n\n`;
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

function images(session: Session): Prune {
  const all = session.flags.bool('all');
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

function volumes(session: Session): Prune {
  const all = session.flags.bool('all');
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

/** `container prune`. */
export function pruneContainers(session: Session): Promise<number> {
  return prune(session, CONTAINERS);
}

/** `image prune`. */
export function pruneImages(session: Session): Promise<number> {
  return prune(session, images(session));
}

/** `volume prune`. */
export function pruneVolumes(session: Session): Promise<number> {
  return prune(session, volumes(session));
}

/** `network prune`. */
export function pruneNetworks(session: Session): Promise<number> {
  return prune(session, NETWORKS);
}

/** `system prune`. */
export async function pruneSystem(session: Session): Promise<number> {
  const { flags } = session;
  const what = [
    'all stopped containers',
    'all networks not used by at least one container',
    ...(flags.bool('volumes') ? ['all anonymous volumes not used by at least one container'] : []),
    flags.bool('all') ? 'all images without at least one container associated to them' : 'all dangling images',
    flags.bool('all') ? 'all build cache' : 'unused build cache',
  ];
  const warning = `WARNING! This will remove:\n${what.map((item) => `  - ${item}\n`).join('')}\nAre you sure you want to continue?`;
  if (!flags.bool('force') && !(await confirm(session, warning))) return CANCELLED;
  const api = await session.connect();
  let reclaimed = 0;
  const plans = [
    CONTAINERS,
    NETWORKS,
    ...(flags.bool('volumes') ? [{ ...volumes(session), extraFilters: [] }] : []),
    images(session),
  ];
  for (const plan of plans) {
    const answer = await api.json('POST', plan.path, {
      query: { filters: filtersOf([...flags.list('filter'), ...(plan.extraFilters ?? [])]) },
    });
    session.print(report(plan, answer));
    reclaimed += Number(answer['SpaceReclaimed'] ?? 0);
  }
  session.print(`Total reclaimed space: ${humanSize(reclaimed)}\n`);
  return 0;
}
