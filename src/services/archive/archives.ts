/** Archives on real file systems. See the contract for what keeps hostile containers in. */
import { closeSync, constants } from 'node:fs';
import { Readable } from 'node:stream';
import { pathToFileURL } from 'node:url';
import { Worker } from 'node:worker_threads';
import { hasCode } from '#system/kernel/errno.ts';
import { S_IFLNK, S_IFMT } from '#system/kernel/node.ts';
import { O_PATH, openInRoot, openRoot, readLinkAt, statAt, statFd } from '#system/kernel/path.ts';
import { decompress } from '#system/tar/compression.ts';
import { readTar } from '#system/tar/reader.ts';
import { Unpacker } from '#system/tar/unpack.ts';
import { TAR_END } from '#system/tar/writer.ts';
import { GantryError } from '#types/errors.ts';
import type { ArchivePath, Archives, PathStat, PutOptions, RootView, ViewMount } from './contract.ts';
import { type CleanPath, cleanPath, makePathStat } from './path-stat.ts';
import type { ViewAnswer } from './view-worker.ts';
import { isDirectory, packDirectory, packTree, startWalk } from './walk.ts';

const DIRECTORY_FLAGS = O_PATH | constants.O_DIRECTORY;

/** The worker's file: beside this one in the sources, beside the bundle's entry in a bundle. */
function viewWorker(): URL {
  if (import.meta.url.endsWith('.ts')) return new URL('./view-worker.ts', import.meta.url);
  return new URL('view-worker.mjs', pathToFileURL(process.argv[1] ?? ''));
}

class OpenView implements RootView {
  readonly rootFd: number;
  readonly #kept: readonly number[];
  readonly #readOnlyTargets: readonly string[];
  #closed = false;

  constructor(rootFd: number, kept: readonly number[] = [], mounts: readonly ViewMount[] = []) {
    this.rootFd = rootFd;
    this.#kept = kept;
    this.#readOnlyTargets = mounts.filter(({ readOnly }) => readOnly).map(({ target }) => cleanPath(target).absolute);
  }

  /** Whether a path lies in a volume this view mounts read-only. */
  isReadOnlyVolume(path: string): boolean {
    return this.#readOnlyTargets.some((target) => path === target || path.startsWith(`${target}/`));
  }

  [Symbol.dispose](): void {
    if (this.#closed) return;
    this.#closed = true;
    for (const fd of [this.rootFd, ...this.#kept]) closeSync(fd);
  }
}

/** Builds the view in a thread that ends at once. */
async function buildView(rootDirectory: string, mounts: readonly ViewMount[], signal?: AbortSignal): Promise<RootView> {
  signal?.throwIfAborted();
  const { promise, resolve, reject } = Promise.withResolvers<ViewAnswer>();
  // The thread's descriptors are opened by native calls, which Node does not track, and outlive it.
  const worker = new Worker(viewWorker(), {
    workerData: { rootDirectory, mounts },
    trackUnmanagedFds: false,
  });
  worker.once('message', resolve);
  worker.once('error', reject);
  worker.once('exit', (code) => reject(new GantryError('system', `the mount thread ended with ${code}`)));
  const answer = await promise;
  if ('message' in answer) throw new GantryError('system', answer.message);
  const view = new OpenView(answer.rootFd, [answer.namespaceFd], mounts);
  if (signal?.aborted === true) {
    view[Symbol.dispose]();
    signal.throwIfAborted();
  }
  return view;
}

function notFound(at: ArchivePath): GantryError {
  return new GantryError('notFound', `Could not find the file ${at.path} in container ${at.containerName}`);
}

/** Path of an open file as its root sees it. */
function pathInRoot(rootFd: number, fd: number): string {
  const root = readLinkAt(-100, `/proc/self/fd/${rootFd}`);
  const path = readLinkAt(-100, `/proc/self/fd/${fd}`);
  const inside = root === '/' || !path.startsWith(root) ? path : path.slice(root.length);
  return inside === '' ? '/' : inside;
}

/** Where a link leads; a dangling one is told as text only. */
function linkTarget(at: ArchivePath, clean: CleanPath, directoryFd: number): string {
  const { rootFd } = at.root;
  try {
    const fd = openInRoot(rootFd, clean.absolute, O_PATH);
    try {
      return pathInRoot(rootFd, fd);
    } finally {
      closeSync(fd);
    }
  } catch (error) {
    if (!hasCode(error, 'ENOENT', 'ENOTDIR', 'ELOOP')) throw error;
    const target = readLinkAt(directoryFd, clean.base);
    const whole = target.startsWith('/') ? target : `${pathInRoot(rootFd, directoryFd)}/${target}`;
    return cleanPath(whole.replace(/\/\.?$/, '')).absolute;
  }
}

interface Located {
  readonly clean: CleanPath;
  readonly directoryFd: number;
  readonly stat: PathStat;
}

/** Opens the directory of a path and looks at its last component. The caller closes `directoryFd`. */
function locate(at: ArchivePath): Located {
  const clean = cleanPath(at.path);
  let directoryFd: number;
  try {
    directoryFd = openInRoot(at.root.rootFd, clean.directory, DIRECTORY_FLAGS);
  } catch (error) {
    if (hasCode(error, 'ENOENT')) throw notFound(at);
    if (hasCode(error, 'ENOTDIR'))
      throw new GantryError('system', `lstat ${clean.absolute}: not a directory`, { cause: error });
    throw error;
  }
  try {
    const stat = statAt(directoryFd, clean.base);
    if (stat === undefined) throw notFound(at);
    const link = (stat.mode & S_IFMT) === S_IFLNK ? linkTarget(at, clean, directoryFd) : '';
    return { clean, directoryFd, stat: makePathStat(clean.name, stat, link) };
  } catch (error) {
    closeSync(directoryFd);
    throw error;
  }
}

/** Blocks of one path. Compat: the entry for `/` is `/`, for `dir/.` it is `./`, else the last component. */
async function* packPath(at: ArchivePath): AsyncGenerator<Buffer> {
  // Located again when reading begins: a stream nobody reads must not hold a descriptor.
  const { clean, directoryFd } = locate(at);
  try {
    const walk = startWalk({ oneFileSystem: false });
    yield* packTree(walk, { directoryFd, name: clean.base, path: clean.name, parent: undefined, depth: 0 });
    yield TAR_END;
  } finally {
    closeSync(directoryFd);
  }
}

async function* packRoot(rootFd: number): AsyncGenerator<Buffer> {
  yield* packDirectory(startWalk({ oneFileSystem: true }), rootFd, { prefix: '', stat: statFd(rootFd), depth: 0 });
  yield TAR_END;
}

function readOnlyError(at: ArchivePath, path: string, cause: unknown): GantryError {
  const volume = at.root instanceof OpenView && at.root.isReadOnlyVolume(path);
  return new GantryError(
    'invalid',
    volume ? 'mounted volume is marked read-only' : 'container rootfs is marked read-only',
    { cause },
  );
}

/** The real Archives. */
export class FilesystemArchives implements Archives {
  openRunning(pid: number): RootView {
    return new OpenView(openRoot(`/proc/${pid}/root`));
  }

  async openStopped(rootDirectory: string, mounts: readonly ViewMount[], signal?: AbortSignal): Promise<RootView> {
    if (mounts.length === 0) return new OpenView(openRoot(rootDirectory));
    return buildView(rootDirectory, mounts, signal);
  }

  stat(at: ArchivePath): PathStat {
    const located = locate(at);
    closeSync(located.directoryFd);
    return located.stat;
  }

  get(at: ArchivePath): { readonly stat: PathStat; readonly archive: Readable } {
    return { stat: this.stat(at), archive: Readable.from(packPath(at), { objectMode: false }) };
  }

  async put(at: ArchivePath, archive: AsyncIterable<Buffer>, options: PutOptions, signal?: AbortSignal): Promise<void> {
    const base = this.#destination(at);
    using unpacker = new Unpacker(at.root.rootFd, {
      base,
      noOverwriteDirNonDir: options.noOverwriteDirNonDir,
      ...(options.owner === undefined ? {} : { owner: options.owner }),
    });
    try {
      for await (const item of readTar(decompress(archive, signal))) {
        signal?.throwIfAborted();
        await unpacker.place(item);
        await unpacker.pause();
      }
      unpacker.finish();
    } catch (error) {
      if (hasCode(error, 'EROFS')) throw readOnlyError(at, base, error);
      throw error;
    }
  }

  /** Path of the directory to extract into, links resolved. */
  #destination(at: ArchivePath): string {
    let fd: number;
    try {
      fd = openInRoot(at.root.rootFd, cleanPath(at.path).absolute, O_PATH);
    } catch (error) {
      if (hasCode(error, 'ENOENT')) throw notFound(at);
      if (hasCode(error, 'ENOTDIR'))
        throw new GantryError('invalid', 'extraction point is not a directory', { cause: error });
      throw error;
    }
    try {
      if (!isDirectory(statFd(fd))) throw new GantryError('invalid', 'extraction point is not a directory');
      return pathInRoot(at.root.rootFd, fd);
    } finally {
      closeSync(fd);
    }
  }

  export(root: RootView): Readable {
    return Readable.from(packRoot(root.rootFd), { objectMode: false });
  }
}
