/** `cp`: files between a container and this host, or a tar stream with `-`. */
import type { Readable } from 'node:stream';
import { packPath } from '../archive/pack.ts';
import { unpack } from '../archive/unpack.ts';
import { ExitError } from '../args/usage-error.ts';
import { type Api, ApiError } from '../connection/api.ts';
import { type Session, segment } from '../session.ts';
import { humanSize } from '../text/go-text.ts';

const fs = process.getBuiltinModule('node:fs');
const nodePath = process.getBuiltinModule('node:path');

interface PathStat {
  readonly name: string;
  readonly size: number;
  readonly mode: number;
  readonly linkTarget: string;
}

/** Go's os.FileMode bits of a stat answer. */
const GO_MODE_DIRECTORY = 0x8000_0000;
const GO_MODE_SYMLINK = 0x0800_0000;

/** `container:path`, or a local path when there is no container part. */
export function splitContainerPath(text: string): { container: string; path: string } {
  const at = text.indexOf(':');
  if (text.startsWith('/') || at === -1 || text.startsWith('.')) return { container: '', path: text };
  return { container: text.slice(0, at), path: text.slice(at + 1) };
}

async function statIn(api: Api, container: string, path: string): Promise<PathStat> {
  const response = await api.open('HEAD', `/containers/${segment(container)}/archive`, { query: { path } });
  response.resume();
  return JSON.parse(
    Buffer.from(String(response.headers['x-docker-container-path-stat'] ?? 'e30='), 'base64').toString(),
  ) as PathStat;
}

function isGoDirectory(stat: PathStat): boolean {
  return (stat.mode & GO_MODE_DIRECTORY) !== 0;
}

async function followed(
  api: Api,
  container: string,
  path: string,
): Promise<{ path: string; stat: PathStat | undefined }> {
  let stat: PathStat;
  try {
    stat = await statIn(api, container, path);
  } catch (error) {
    if (error instanceof ApiError && error.status === 404) return { path, stat: undefined };
    throw error;
  }
  if ((stat.mode & GO_MODE_SYMLINK) === 0) return { path, stat };
  const target = stat.linkTarget.startsWith('/')
    ? stat.linkTarget
    : nodePath.posix.join(nodePath.posix.dirname(path), stat.linkTarget);
  return { path: target, stat: await statIn(api, container, target).catch(() => undefined) };
}

interface Transfer {
  readonly container: string;
  readonly source: string;
  readonly target: string;
}

/** Refuses a target below a directory that is not there, before the container is asked. */
function checkTarget(target: string): void {
  if (target === '-') return;
  const directory = nodePath.dirname(nodePath.normalize(target));
  if (!fs.existsSync(directory))
    throw new ExitError(1, `invalid output path: directory ${JSON.stringify(directory)} does not exist\n`);
}

async function fromContainer(session: Session, api: Api, { container, source, target }: Transfer): Promise<number> {
  const { flags } = session;
  checkTarget(target);
  const path = flags.bool('follow-link') ? (await followed(api, container, source)).path : source;
  const response: Readable = await api.open('GET', `/containers/${segment(container)}/archive`, { query: { path } });
  if (target === '-') {
    await process.getBuiltinModule('node:stream/promises').pipeline(response, process.stdout, { end: false });
    return 0;
  }
  const contentsOnly = /(^|\/)\.$/.test(source);
  const existing = fs.statSync(target, { throwIfNoEntry: false });
  const base = nodePath.posix.basename(path);
  const intoDirectory = existing?.isDirectory() === true;
  if (!intoDirectory && target.endsWith('/') && existing === undefined)
    throw new ExitError(1, `destination directory must exist or be created: ${target}\n`);
  const root = intoDirectory ? target : nodePath.dirname(nodePath.resolve(target));
  const top = intoDirectory ? (contentsOnly ? '' : base) : nodePath.basename(target);
  const rename = (name: string): string => {
    const rest = name
      .split('/')
      .filter((part) => part !== '.' && part !== '')
      .slice(contentsOnly && name.startsWith('./') ? 0 : 1);
    return [top, ...rest].filter((part) => part !== '').join('/');
  };
  let size = 0;
  response.on('data', (chunk: Buffer) => {
    size += chunk.length;
  });
  response.pause();
  await unpack(response as AsyncIterable<Buffer>, root, { rename, keepOwner: flags.bool('archive') });
  if (!flags.bool('quiet') && process.stderr.isTTY)
    session.warn(`Successfully copied ${humanSize(size, 3)} to ${target}`);
  return 0;
}

/** The directory to unpack in and the name of the top entry there. */
async function placement(
  api: Api,
  transfer: Transfer,
  isDirectory: boolean,
): Promise<{ directory: string; name: string }> {
  const { container, source, target } = transfer;
  const absolute = target.startsWith('/') ? target : `/${target}`;
  const { path, stat } = await followed(api, container, absolute);
  const contentsOnly = /(^|\/)\.$/.test(source);
  if (stat !== undefined && isGoDirectory(stat))
    return { directory: path, name: contentsOnly && isDirectory ? '' : nodePath.basename(nodePath.resolve(source)) };
  if (stat !== undefined && isDirectory) throw new ExitError(1, 'cannot copy directory\n');
  if (stat === undefined && target.endsWith('/') && !isDirectory)
    throw new ExitError(1, 'destination directory must exist or be created\n');
  const clean = path.replace(/\/+$/, '');
  return { directory: nodePath.posix.dirname(clean), name: nodePath.posix.basename(clean) };
}

async function toContainer(session: Session, api: Api, transfer: Transfer): Promise<number> {
  const { flags } = session;
  const { container, source, target } = transfer;
  const { Readable } = process.getBuiltinModule('node:stream');
  const put = async (path: string, stream: Readable): Promise<void> => {
    await api.negotiate();
    const response = await api.open('PUT', `/containers/${segment(container)}/archive`, {
      query: { path, noOverwriteDirNonDir: 'true', copyUIDGID: flags.bool('archive') || undefined },
      stream,
      headers: { 'Content-Type': 'application/x-tar' },
    });
    response.resume();
  };
  if (source === '-') {
    const { path, stat } = await followed(api, container, target.startsWith('/') ? target : `/${target}`);
    if (stat === undefined || !isGoDirectory(stat))
      throw new ExitError(1, `destination "${container}:${target}" must be a directory\n`);
    await put(path, process.stdin);
    return 0;
  }
  const stats = flags.bool('follow-link')
    ? fs.statSync(source, { throwIfNoEntry: false })
    : fs.lstatSync(source, { throwIfNoEntry: false });
  // Compat: docker joins the directory and the name with one slash too many at the root.
  const resolved = nodePath.resolve(source);
  const shown = nodePath.dirname(resolved) === '/' ? `/${resolved}` : resolved;
  if (stats === undefined) throw new ExitError(1, `lstat ${shown}: no such file or directory\n`);
  const real = flags.bool('follow-link') ? fs.realpathSync(source) : nodePath.resolve(source);
  const { directory, name } = await placement(api, transfer, stats.isDirectory());
  let size = 0;
  async function* counted(): AsyncGenerator<Buffer> {
    for await (const chunk of packPath(real, name, { keepOwner: flags.bool('archive') })) {
      size += chunk.length;
      yield chunk;
    }
  }
  await put(directory, Readable.from(counted(), { objectMode: false }));
  if (!flags.bool('quiet') && process.stderr.isTTY)
    session.warn(`Successfully copied ${humanSize(size, 3)} to ${container}:${target}`);
  return 0;
}

/** `cp`. */
export async function copyCommand(session: Session): Promise<number> {
  const [source = '', target = ''] = session.args;
  if (source === '') throw new ExitError(1, 'source can not be empty\n');
  if (target === '') throw new ExitError(1, 'destination can not be empty\n');
  const from = splitContainerPath(source);
  const to = splitContainerPath(target);
  if (from.container !== '' && to.container !== '')
    throw new ExitError(1, 'copying between containers is not supported\n');
  if (from.container === '' && to.container === '')
    throw new ExitError(1, 'must specify at least one container source\n');
  const api = await session.connect();
  if (from.container !== '')
    return fromContainer(session, api, { container: from.container, source: from.path, target });
  return toContainer(session, api, { container: to.container, source, target: to.path });
}
