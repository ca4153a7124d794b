/** Commands that move archives: `export`, `save`, `load`, `import`. */
import type { Readable } from 'node:stream';
import { ExitError } from '../args/usage-error.ts';
import { jsonLines } from '../connection/api.ts';
import { type Session, segment } from '../session.ts';
import { renderProgress } from '../terminal/progress.ts';
import { splitReference } from './container-verbs.ts';

const fs = process.getBuiltinModule('node:fs');

/** Copies a stream to a file (written beside it and renamed) or to standard output. */
async function store(source: Readable, path: string): Promise<void> {
  const { pipeline } = process.getBuiltinModule('node:stream/promises');
  if (path === '') {
    await pipeline(source, process.stdout, { end: false });
    return;
  }
  const temporary = `${path}.${process.pid}.partial`;
  try {
    await pipeline(source, fs.createWriteStream(temporary, { flags: 'wx' }));
    fs.renameSync(temporary, path);
  } catch (error) {
    fs.rmSync(temporary, { force: true });
    const code = (error as { code?: string }).code;
    if (code === 'ENOENT')
      throw new ExitError(
        1,
        `invalid output path: directory ${JSON.stringify(process.getBuiltinModule('node:path').dirname(path))} does not exist\n`,
      );
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
  const api = await session.connect();
  await store(await api.open('GET', `/containers/${segment(session.args[0] ?? '')}/export`), output);
  return 0;
}

/** `save`. */
export async function saveImages(session: Session): Promise<number> {
  const { flags, args } = session;
  refuseTerminal(flags.text('output'), 'cowardly refusing to save to a terminal. Use the -o flag or redirect');
  const api = await session.connect();
  await store(
    await api.open('GET', '/images/get', {
      query: { names: [...args], platform: flags.text('platform') || undefined },
    }),
    flags.text('output'),
  );
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
  const stream = openInput(input);
  const api = await session.connect();
  await api.negotiate();
  const response = await api.open('POST', '/images/load', {
    query: { quiet: flags.bool('quiet') || !process.stdout.isTTY },
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
  const { repo, tag } = splitReference(reference);
  const stream = isRemote ? undefined : openInput(source);
  const api = await session.connect();
  await api.negotiate();
  const response = await api.open('POST', '/images/create', {
    query: {
      fromSrc: isRemote ? source : '-',
      repo: repo || undefined,
      tag: tag || undefined,
      message: flags.text('message') || undefined,
      changes: flags.list('change'),
      platform: flags.text('platform') || undefined,
    },
    stream,
    headers: { 'Content-Type': 'text/plain' },
  });
  await renderProgress(jsonLines(response), process.stdout);
  return 0;
}
