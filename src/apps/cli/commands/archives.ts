/** Commands that move archives: `export`, `save`, `load`, `import`. */
import type { Readable } from 'node:stream';
import { parseReference } from '#types/reference.ts';
import { ExitError } from '../args/usage-error.ts';
import { jsonLines } from '../connection/api.ts';
import { type Session, segment } from '../session.ts';
import { renderProgress } from '../terminal/progress.ts';
import { platformsOf } from './platforms.ts';

const fs = process.getBuiltinModule('node:fs');

type FileStats = import('node:fs').Stats;

const FILE_KINDS: readonly [(stats: FileStats) => boolean, string][] = [
  [(stats) => stats.isDirectory(), 'cannot write to a directory'],
  [(stats) => stats.isSymbolicLink(), 'cannot write to a symbolic link directly'],
  [(stats) => stats.isFIFO(), 'cannot write to a named pipe (FIFO)'],
  [(stats) => stats.isSocket(), 'cannot write to a socket'],
  [(stats) => stats.isCharacterDevice(), 'cannot write to a character device file'],
  [(stats) => stats.isBlockDevice(), 'cannot write to a block device file'],
];

/** Refuses an output path that cannot be written, before the daemon is asked; `what` begins the text. */
function checkOutput(path: string, what: string): void {
  if (path === '') return;
  const refuse = (why: string): ExitError => new ExitError(1, `${what}: ${why}\n`);
  const directory = process.getBuiltinModule('node:path').dirname(path);
  const parent = fs.statSync(directory, { throwIfNoEntry: false });
  if (parent === undefined) throw refuse(`invalid output path: stat ${directory}: no such file or directory`);
  if (!parent.isDirectory()) throw refuse(`invalid output path: stat ${directory}: not a directory`);
  const stats = fs.lstatSync(path, { throwIfNoEntry: false });
  const kind = stats === undefined ? undefined : FILE_KINDS.find(([is]) => is(stats));
  if (kind !== undefined) throw refuse(kind[1]);
}

/** Copies a stream to a file (written beside it and renamed, mode 0600) or to standard output. */
async function store(source: Readable, path: string): Promise<void> {
  const { pipeline } = process.getBuiltinModule('node:stream/promises');
  if (path === '') {
    await pipeline(source, process.stdout, { end: false });
    return;
  }
  const temporary = `${path}.${process.pid}.partial`;
  try {
    await pipeline(source, fs.createWriteStream(temporary, { flags: 'wx', mode: 0o600 }));
    fs.renameSync(temporary, path);
  } catch (error) {
    fs.rmSync(temporary, { force: true });
    throw error;
  }
}

function refuseTerminal(path: string, text: string): void {
  if (path === '' && process.stdout.isTTY) throw new ExitError(1, `${text}\n`);
}

/** `export`. */
export async function exportContainer(session: Session): Promise<number> {
  const output = session.flags.text('output');
  refuseTerminal(output, 'cowardly refusing to save to a terminal. Use the -o flag or redirect');
  checkOutput(output, 'failed to export container');
  const api = await session.connect();
  await store(await api.open('GET', `/containers/${segment(session.args[0] ?? '')}/export`), output);
  return 0;
}

/** `save`. */
export async function saveImages(session: Session): Promise<number> {
  const { flags, args } = session;
  const platform = platformsOf(session);
  refuseTerminal(flags.text('output'), 'cowardly refusing to save to a terminal. Use the -o flag or redirect');
  checkOutput(flags.text('output'), 'failed to save image');
  const api = await session.connect();
  const query = { names: [...args], platform: platform.length > 0 ? platform : undefined };
  await store(await api.open('GET', '/images/get', { query }), flags.text('output'));
  return 0;
}

/** The archive a command reads. */
function openInput(path: string): Readable {
  if (path === '' || path === '-') return process.stdin;
  try {
    return fs.createReadStream('', { fd: fs.openSync(path, 'r') });
  } catch {
    throw new ExitError(1, `open ${path}: no such file or directory\n`);
  }
}

/** `load`. */
export async function loadImages(session: Session): Promise<number> {
  const { flags } = session;
  const input = flags.text('input');
  if (input === '' && process.stdin.isTTY) throw new ExitError(1, 'requested load from stdin, but stdin is empty\n');
  const platform = platformsOf(session);
  const stream = openInput(input);
  const api = await session.connect();
  await api.negotiate();
  const response = await api.open('POST', '/images/load', {
    query: {
      quiet: flags.bool('quiet') || !process.stdout.isTTY,
      platform: platform.length > 0 ? platform : undefined,
    },
    stream,
    headers: { 'Content-Type': 'application/x-tar' },
  });
  await renderProgress(jsonLines(response), process.stdout);
  return 0;
}

/** `import`. */
export async function importImage(session: Session): Promise<number> {
  const { flags, args } = session;
  const [source = '', reference = ''] = args;
  const isRemote = /^https?:\/\//.test(source);
  const stream = isRemote ? undefined : openInput(source);
  if (reference !== '') parseReference(reference);
  const api = await session.connect();
  await api.negotiate();
  const response = await api.open('POST', '/images/create', {
    query: {
      fromSrc: isRemote ? source : '-',
      // Compat: the tag stays in the name.
      repo: reference || undefined,
      message: flags.text('message') || undefined,
      changes: flags.list('change'),
      platform: (flags.text('platform', process.env['DOCKER_DEFAULT_PLATFORM'] ?? '') || undefined)?.toLowerCase(),
    },
    stream,
    headers: { 'Content-Type': 'text/plain' },
  });
  await renderProgress(jsonLines(response), process.stdout);
  return 0;
}
