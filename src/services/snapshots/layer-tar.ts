/**
 * Layer archives (OCI image-spec, layer.md): extraction with whiteouts into a directory, and differences
 * written as one. Whiteouts become overlay's character device 0/0 and opaque attribute, or are carried out
 * at once on a full copy of the parent.
 */
import { createHash } from 'node:crypto';
import { closeSync, constants } from 'node:fs';
import { setImmediate } from 'node:timers/promises';
import { withinFreeSpace } from '#system/disk/free-space.ts';
import { hasCode } from '#system/kernel/errno.ts';
import { makeNodeAt, S_IFCHR, S_IFDIR, S_IFMT } from '#system/kernel/node.ts';
import { listFd, openAt, openRoot, statAt } from '#system/kernel/path.ts';
import { openDirectoryAt } from '#system/kernel/tree.ts';
import { setXattr } from '#system/kernel/xattr.ts';
import type { TarEntry } from '#system/tar/contract.ts';
import { makeEntry } from '#system/tar/entry.ts';
import { TarError } from '#system/tar/header.ts';
import { pack, packedBlocks, type SeenLinks } from '#system/tar/pack.ts';
import { readTar } from '#system/tar/reader.ts';
import { splitPath, Unpacker } from '#system/tar/unpack.ts';
import { TAR_END, tarHeader } from '#system/tar/writer.ts';
import type { Digest } from '#types/digest.ts';
import { GantryError, wrapError } from '#types/errors.ts';
import type { Change } from './contract.ts';
import { comparePaths, type Difference } from './differences.ts';

const WHITEOUT = '.wh.';
const WHITEOUT_META = '.wh..wh.';
const OPAQUE = '.wh..wh..opq';
const OPAQUE_XATTR = 'trusted.overlay.opaque';
/** Longest stretch of synchronous work before the event loop gets a turn. */
const STRETCH_MS = 8;

export type WhiteoutStyle = 'overlay' | 'apply';

/** Passes bytes on, taking their sha256. */
export class HashedSource {
  readonly #hash = createHash('sha256');
  readonly #source: AsyncIterable<Buffer>;

  constructor(source: AsyncIterable<Buffer>) {
    this.#source = source;
  }

  async *[Symbol.asyncIterator](): AsyncGenerator<Buffer> {
    for await (const chunk of this.#source) {
      this.#hash.update(chunk);
      yield chunk;
    }
  }

  /** Call once, at the end. */
  digest(): Digest {
    return `sha256:${this.#hash.digest('hex')}` as Digest;
  }
}

/** Applies whiteouts during one extraction. */
class Whiteouts {
  readonly #style: WhiteoutStyle;
  readonly #unpacker: Unpacker;
  /** Paths this layer made: opaque markers and whiteouts do not hide them. */
  readonly #made = new Set<string>();

  constructor(style: WhiteoutStyle, unpacker: Unpacker) {
    this.#style = style;
    this.#unpacker = unpacker;
  }

  /** Remembers an entry of this layer and its parents. */
  note(parts: readonly string[]): void {
    if (this.#style === 'apply')
      for (let count = parts.length; count > 0; count -= 1) this.#made.add(parts.slice(0, count).join('/'));
  }

  apply(parts: readonly string[]): void {
    const name = parts.at(-1) as string;
    const parentFd = this.#unpacker.parent(parts);
    const parent = parts.slice(0, -1);
    if (name === OPAQUE) this.#makeOpaque(parentFd, parent);
    // Other names in this space belonged to AUFS and mean nothing in a layer.
    else if (!name.startsWith(WHITEOUT_META)) this.#whiteOut(parentFd, [...parent, name.slice(WHITEOUT.length)]);
  }

  #makeOpaque(parentFd: number, parent: readonly string[]): void {
    if (this.#style === 'overlay') {
      if (parent.length > 0) setOpaque(parentFd, '.');
      return;
    }
    this.#clear(parentFd, parent);
  }

  /** Removes below a directory what this layer did not make. */
  #clear(fd: number, path: readonly string[]): void {
    for (const child of listFd(fd)) {
      const below = [...path, child];
      if (!this.#made.has(below.join('/'))) {
        this.#unpacker.remove(fd, child);
        continue;
      }
      const stat = statAt(fd, child);
      if (stat === undefined || (stat.mode & S_IFMT) !== S_IFDIR) continue;
      const childFd = openDirectoryAt(fd, child);
      try {
        this.#clear(childFd, below);
      } finally {
        closeSync(childFd);
      }
    }
  }

  #clearDirectory(parentFd: number, parts: readonly string[]): void {
    const fd = openDirectoryAt(parentFd, parts.at(-1) as string);
    try {
      this.#clear(fd, parts);
    } finally {
      closeSync(fd);
    }
  }

  #whiteOut(parentFd: number, parts: readonly string[]): void {
    const name = parts.at(-1) as string;
    if (name === '' || name === '.' || name === '..')
      throw new GantryError('invalid', `invalid whiteout "${parts.join('/')}"`);
    if (this.#style === 'apply') {
      const stat = this.#made.has(parts.join('/')) ? statAt(parentFd, name) : undefined;
      if (stat === undefined) this.#unpacker.remove(parentFd, name);
      else if ((stat.mode & S_IFMT) === S_IFDIR) this.#clearDirectory(parentFd, parts);
      return;
    }
    const stat = statAt(parentFd, name);
    if (stat === undefined) makeNodeAt(parentFd, name, S_IFCHR);
    // The name exists in this very layer, which therefore only hides what is below it.
    else if ((stat.mode & S_IFMT) === S_IFDIR) setOpaque(parentFd, name);
  }
}

function setOpaque(parentFd: number, name: string): void {
  const fd = openAt(parentFd, name, constants.O_RDONLY | constants.O_DIRECTORY | constants.O_NOFOLLOW);
  try {
    setXattr(fd, OPAQUE_XATTR, Buffer.from('y'));
  } finally {
    closeSync(fd);
  }
}

/** Compat: a symbolic link is as large as its target's name. */
function contentBytes({ type, sizeBytes, linkPath }: TarEntry): number {
  if (type === 'symlink') return Buffer.byteLength(linkPath);
  return type === 'file' ? sizeBytes : 0;
}

/** Extracts a layer into `directory`; returns the bytes of its files and links. */
export async function extractLayer(
  directory: string,
  tar: AsyncIterable<Buffer>,
  options: { style: WhiteoutStyle; signal?: AbortSignal | undefined },
): Promise<number> {
  const rootFd = openRoot(directory);
  let sizeBytes = 0;
  try {
    const replaced = new Set<string>();
    using unpacker = new Unpacker(rootFd, {
      onReplace: (parentFd, name) => {
        const stat = statAt(parentFd, name);
        if (stat !== undefined && (stat.mode & S_IFMT) === S_IFCHR && stat.deviceMajor === 0 && stat.deviceMinor === 0)
          replaced.add(name);
      },
    });
    const whiteouts = new Whiteouts(options.style, unpacker);
    for await (const item of readTar(withinFreeSpace(tar, directory))) {
      options.signal?.throwIfAborted();
      const parts = splitPath(item.entry.path);
      const name = parts.at(-1);
      if (name === undefined) continue;
      if (name.startsWith(WHITEOUT)) {
        whiteouts.apply(parts);
      } else {
        await placeEntry(unpacker, item);
        whiteouts.note(parts);
        // A directory over a whiteout of the same layer must keep hiding what the whiteout hid.
        if (replaced.delete(name) && item.entry.type === 'directory' && options.style === 'overlay')
          setOpaque(unpacker.parent(parts), name);
        sizeBytes += contentBytes(item.entry);
      }
      await unpacker.pause();
    }
    unpacker.finish();
  } finally {
    closeSync(rootFd);
  }
  return sizeBytes;
}

async function placeEntry(unpacker: Unpacker, item: Parameters<Unpacker['place']>[0]): Promise<void> {
  try {
    await unpacker.place(item);
  } catch (error) {
    if (error instanceof TarError || error instanceof GantryError) throw error;
    if (hasCode(error, 'ENOSPC', 'EDQUOT', 'EROFS', 'EIO') || error instanceof Error)
      throw wrapError(`failed to register layer: /${item.entry.path}`, error);
    throw error;
  }
}

function whiteoutEntry(path: string): TarEntry {
  return makeEntry(path, 'file', { mode: 0o600 });
}

/** Differences as a layer archive. `all` writes unchanged entries too (overlay's upper directories). */
export async function* packDifferences(differences: Iterable<Difference>, all: boolean): AsyncGenerator<Buffer> {
  const links: SeenLinks = new Map();
  let stretchStart = performance.now();
  for (const difference of differences) {
    const { path, name, directoryFd, stat } = difference;
    if (performance.now() - stretchStart > STRETCH_MS) {
      await setImmediate();
      stretchStart = performance.now();
    }
    if (difference.kind === 'deleted') {
      yield tarHeader(whiteoutEntry(`${path.slice(0, path.length - name.length)}${WHITEOUT}${name}`));
      continue;
    }
    if (stat === undefined || (difference.kind === 'unchanged' && !all)) continue;
    const packed = pack(path, { directoryFd, name, stat, links });
    if (packed === undefined) continue;
    yield* packedBlocks(packed);
    if (difference.opaque) yield tarHeader(whiteoutEntry(`${path}/${OPAQUE}`));
  }
  yield TAR_END;
}

/** Differences as `docker diff` lists them: parents of a change are changed themselves. */
export function listChanges(differences: Iterable<Difference>): Change[] {
  const changes = new Map<string, Change>();
  for (const { path, kind } of differences) {
    if (kind === 'unchanged') continue;
    for (let slash = path.indexOf('/'); slash >= 0; slash = path.indexOf('/', slash + 1)) {
      const parent = `/${path.slice(0, slash)}`;
      if (!changes.has(parent)) changes.set(parent, { path: parent, kind: 0 });
    }
    changes.set(`/${path}`, { path: `/${path}`, kind: kind === 'added' ? 1 : kind === 'deleted' ? 2 : 0 });
  }
  return [...changes.values()].sort((a, b) => comparePaths(a.path, b.path));
}
