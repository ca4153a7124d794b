/** The short container verbs: each is one API call a name. */
import { canonicalName, parseReference, withDefaultTag } from '#types/reference.ts';
import { keyValues, resourceLimits, restartPolicy } from '../args/container-options.ts';
import { ExitError } from '../args/usage-error.ts';
import { type Api, ApiError, type Json, type Query } from '../connection/api.ts';
import { forEachName, type Session, segment } from '../session.ts';
import { alignTabs } from '../template/tabwriter.ts';

async function post(session: Session, verb: string, query: Query = {}): Promise<number> {
  const api = await session.connect();
  return forEachName(session, session.args, async (name) => {
    await api.json('POST', `/containers/${segment(name)}/${verb}`, { query });
    return name;
  });
}

function timeoutQuery(session: Session): Query {
  const { flags } = session;
  const seconds = flags.has('timeout') ? flags.number('timeout') : flags.has('time') ? flags.number('time') : undefined;
  return { signal: flags.text('signal') || undefined, t: seconds };
}

/** `stop`. */
export function stopContainers(session: Session): Promise<number> {
  return post(session, 'stop', timeoutQuery(session));
}

/** `restart`. */
export function restartContainers(session: Session): Promise<number> {
  return post(session, 'restart', timeoutQuery(session));
}

/** `kill`. */
export function killContainers(session: Session): Promise<number> {
  return post(session, 'kill', { signal: session.flags.text('signal') || undefined });
}

/** `pause`. */
export function pauseContainers(session: Session): Promise<number> {
  return post(session, 'pause');
}

/** `unpause`. */
export function unpauseContainers(session: Session): Promise<number> {
  return post(session, 'unpause');
}

/** `wait`: prints exit codes. */
export async function waitContainers(session: Session): Promise<number> {
  const api = await session.connect();
  return forEachName(session, session.args, async (name) =>
    String((await api.json('POST', `/containers/${segment(name)}/wait`))['StatusCode']),
  );
}

/** `rm`. */
export async function removeContainers(session: Session): Promise<number> {
  const { flags } = session;
  const api = await session.connect();
  const query = {
    v: flags.bool('volumes') || undefined,
    link: flags.bool('link') || undefined,
    force: flags.bool('force') || undefined,
  };
  return forEachName(session, session.args, async (name) => {
    const trimmed = name.replace(/^\/+/, '');
    if (trimmed === '') throw new ApiError(0, 'container name cannot be empty');
    try {
      await api.json('DELETE', `/containers/${segment(trimmed)}`, { query });
    } catch (error) {
      // Compat: with --force a missing container is reported but is no failure.
      if (!flags.bool('force') || !(error instanceof ApiError) || error.status !== 404) throw error;
      session.warn(error.message);
      return undefined;
    }
    return name;
  });
}

/** `rename`. */
export async function renameContainer(session: Session): Promise<number> {
  const [from = '', to = ''] = session.args.map((name) => name.trim());
  if (from === '' || to === '') throw new ExitError(1, 'Error: Neither old nor new names may be empty\n');
  const api = await session.connect();
  try {
    await api.json('POST', `/containers/${segment(from)}/rename`, { query: { name: to } });
  } catch (error) {
    if (!(error instanceof ApiError)) throw error;
    throw new ExitError(1, `${error.message}\nError: failed to rename container named ${from}\n`);
  }
  return 0;
}

/** `update`. */
export async function updateContainers(session: Session): Promise<number> {
  const { flags } = session;
  if (
    flags.list(
      'blkio-weight',
      'cpu-period',
      'cpu-quota',
      'cpu-rt-period',
      'cpu-rt-runtime',
      'cpu-shares',
      'cpus',
      'cpuset-cpus',
      'cpuset-mems',
      'kernel-memory',
      'memory',
      'memory-reservation',
      'memory-swap',
      'pids-limit',
      'restart',
    ).length === 0
  ) {
    throw new ExitError(1, 'you must provide one or more flags when using this command\n');
  }
  const limits = resourceLimits(flags);
  if (!flags.has('pids-limit')) delete limits['PidsLimit'];
  const policy = flags.text('restart') === '' ? {} : { RestartPolicy: restartPolicy(flags.text('restart')) };
  const api = await session.connect();
  return forEachName(session, session.args, async (name) => {
    const answer = await api.json('POST', `/containers/${segment(name)}/update`, { body: { ...limits, ...policy } });
    for (const warning of (answer['Warnings'] as string[] | null) ?? []) session.warn(warning);
    return name;
  });
}

const CHANGE_LETTERS = ['C', 'A', 'D'];

/** `diff`. */
export async function diffContainer(session: Session): Promise<number> {
  const api = await session.connect();
  const changes = await api.json<{ Path: string; Kind: number }[] | null>(
    'GET',
    `/containers/${segment(session.args[0] ?? '')}/changes`,
  );
  for (const change of changes ?? []) session.print(`${CHANGE_LETTERS[change.Kind] ?? ''} ${change.Path}\n`);
  return 0;
}

/** `top`. */
export async function topContainer(session: Session): Promise<number> {
  const [name = '', ...args] = session.args;
  const api = await session.connect();
  const answer = await api.json<{ Titles: string[]; Processes: string[][] | null }>(
    'GET',
    `/containers/${segment(name)}/top`,
    { query: { ps_args: args.length > 0 ? args.join(' ') : undefined } },
  );
  const rows = [answer.Titles, ...(answer.Processes ?? [])];
  session.print(alignTabs(`${rows.map((row) => row.join('\t')).join('\n')}\n`, { minWidth: 20, padding: 3 }));
  return 0;
}

function hostPort(binding: { HostIp: string; HostPort: string }): string {
  return `${binding.HostIp.includes(':') ? `[${binding.HostIp}]` : binding.HostIp}:${binding.HostPort}`;
}

/** `port`. */
export async function portContainer(session: Session): Promise<number> {
  const [name = '', wanted] = session.args;
  const api: Api = await session.connect();
  const details = await api.json('GET', `/containers/${segment(name)}/json`);
  const ports = (details['NetworkSettings'] as Json)['Ports'] as Record<
    string,
    { HostIp: string; HostPort: string }[] | null
  > | null;
  if (wanted !== undefined) {
    const key = wanted.includes('/') ? wanted.toLowerCase() : `${wanted}/tcp`;
    const bindings = ports?.[key];
    if (!bindings || bindings.length === 0)
      throw new ExitError(1, `Error: No public port '${wanted}' published for ${name}\n`);
    for (const binding of bindings) session.print(`${hostPort(binding)}\n`);
    return 0;
  }
  const lines = Object.entries(ports ?? {}).flatMap(([key, bindings]) =>
    (bindings ?? []).map((binding) => ({ key, line: `${key} -> ${hostPort(binding)}\n` })),
  );
  lines.sort((a, b) => Number.parseInt(a.key, 10) - Number.parseInt(b.key, 10));
  for (const { line } of lines) session.print(line);
  return 0;
}

/** Splits `name:tag`. */
export function splitReference(reference: string): { repo: string; tag: string } {
  const match = /^(.+?)(?::([^/:]*))?$/.exec(reference);
  return { repo: match?.[1] ?? reference, tag: match?.[2] ?? '' };
}

/** `commit`. */
export async function commitContainer(session: Session): Promise<number> {
  const { flags } = session;
  const [container = '', reference = ''] = session.args;
  const named = reference === '' ? undefined : withDefaultTag(parseReference(reference));
  if (named?.digest !== undefined) throw new ExitError(1, 'refusing to create a tag with a digest reference\n');
  const api = await session.connect();
  const pause = flags.bool('pause', true) && !flags.bool('no-pause');
  const answer = await api.json('POST', '/commit', {
    query: {
      container,
      repo: named === undefined ? undefined : canonicalName(named),
      tag: named?.tag,
      comment: flags.text('message') || undefined,
      author: flags.text('author') || undefined,
      changes: flags.list('change'),
      pause: pause ? undefined : 0,
    },
  });
  session.print(`${String(answer['Id'])}\n`);
  return 0;
}

/** Labels given as KEY=VALUE. */
export function labelsOf(session: Session): Record<string, string> {
  return keyValues(session.flags.list('label'));
}
