/**
 * Looking into an image's tree while it is mounted privately for one build step.
 *
 * Nothing else writes to that mount, so walking it link by link cannot be raced; every link is followed
 * inside the root, never on the host.
 */
import { createHash, randomUUID } from 'node:crypto';
import { closeSync, createReadStream } from 'node:fs';
import { lstat, mkdir, mkdtemp, readdir, readlink, rmdir } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import type { Snapshotter } from '#services/snapshots/contract.ts';
import { openRoot, readFileInRoot } from '#system/kernel/path.ts';
import type { TarEntryType } from '#system/tar/contract.ts';
import { makeEntry } from '#system/tar/entry.ts';
import type { Digest } from '#types/digest.ts';
import { GantryError } from '#types/errors.ts';
import type { SourceEntry } from './context.ts';

/** Links followed for one path, as the kernel. */
const LINK_LIMIT = 40;
/** Largest user or group file read. */
const TEXT_MAX_BYTES = 4 * 1024 * 1024;
/** Directories within directories that are copied: deeper trees exceed what a path can name. */
const DEPTH_LIMIT = 2048;

/** A mounted, private view of a layer stack. */
export class RootView implements AsyncDisposable {
  readonly #root: string;
  readonly #close: () => Promise<void>;

  private constructor(root: string, close: () => Promise<void>) {
    this.#root = root;
    this.#close = close;
  }

  /** Mounts a stack of layers (undefined: an empty tree). */
  static async open(snapshots: Snapshotter, top: Digest | undefined): Promise<RootView> {
    const key = `build-view-${randomUUID()}`;
    // The mount lies below the private directory: on it, the image's own root would decide who may enter.
    const holder = await mkdtemp(join(tmpdir(), 'gantry-build-'));
    await using undo = new AsyncDisposableStack();
    undo.defer(() => rmdir(holder));
    const target = join(holder, 'root');
    await mkdir(target, { mode: 0o700 });
    // Never a recursive removal: a mount that is still there would lose its files.
    undo.defer(() => rmdir(target));
    await snapshots.prepare(key, top);
    undo.defer(() => snapshots.remove(key));
    await snapshots.mount(key, target);
    undo.defer(() => snapshots.unmount(key, target));
    const owned = undo.move();
    return new RootView(target, () => owned.disposeAsync());
  }

  /** The path with every link followed inside the root; missing tail parts stay as written. */
  async resolve(path: string): Promise<string> {
    const pending = path.split('/').filter((part) => part !== '' && part !== '.');
    const done: string[] = [];
    let links = 0;
    while (pending.length > 0) {
      const part = pending.shift() as string;
      if (part === '..') {
        done.pop();
        continue;
      }
      const here = join(this.#root, ...done, part);
      const stats = await lstat(here).catch(() => undefined);
      if (stats?.isSymbolicLink() !== true) {
        done.push(part);
        continue;
      }
      links += 1;
      if (links > LINK_LIMIT) throw new GantryError('invalid', `${path}: too many levels of symbolic links`);
      const target = await readlink(here);
      if (target.startsWith('/')) done.length = 0;
      pending.unshift(...target.split('/').filter((name) => name !== '' && name !== '.'));
    }
    return done.join('/');
  }

  /** What a resolved path is. */
  async kind(resolved: string): Promise<'directory' | 'other' | undefined> {
    const stats = await lstat(join(this.#root, resolved)).catch(() => undefined);
    return stats === undefined ? undefined : stats.isDirectory() ? 'directory' : 'other';
  }

  /** A small text file; empty when it is missing. */
  async text(path: string): Promise<string> {
    const rootFd = openRoot(this.#root);
    try {
      return readFileInRoot(rootFd, path, TEXT_MAX_BYTES)?.toString('utf8') ?? '';
    } finally {
      closeSync(rootFd);
    }
  }

  /** Names in a resolved directory, sorted. */
  async names(resolved: string): Promise<string[]> {
    return (await readdir(join(this.#root, resolved)).catch(() => [])).sort();
  }

  /** Every entry at and below a resolved path. Extended attributes are not read. */
  async entries(resolved: string): Promise<SourceEntry[]> {
    const found: SourceEntry[] = [];
    await this.#collect(resolved, 0, found);
    return found;
  }

  async #collect(resolved: string, depth: number, found: SourceEntry[]): Promise<void> {
    if (depth > DEPTH_LIMIT)
      throw new GantryError('invalid', `${resolved.slice(0, 100)}…: directories nest too deeply`);
    const full = join(this.#root, resolved);
    const stats = await lstat(full, { bigint: true });
    const type: TarEntryType = stats.isDirectory()
      ? 'directory'
      : stats.isSymbolicLink()
        ? 'symlink'
        : stats.isFile()
          ? 'file'
          : stats.isFIFO()
            ? 'fifo'
            : stats.isBlockDevice()
              ? 'block'
              : 'character';
    if (stats.isSocket()) return;
    const device = Number(stats.rdev);
    const entry = makeEntry(resolved, type, {
      mode: Number(stats.mode) & 0o7777,
      uid: Number(stats.uid),
      gid: Number(stats.gid),
      sizeBytes: type === 'file' ? Number(stats.size) : 0,
      modifiedNs: stats.mtimeNs,
      linkPath: type === 'symlink' ? await readlink(full) : '',
      deviceMajor: (device >> 8) & 0xfff,
      deviceMinor: (device & 0xff) | ((device >> 12) & 0xfff00),
    });
    const open = (): AsyncIterable<Buffer> => createReadStream(full);
    found.push({ entry, contentDigest: type === 'file' ? await digestFile(full) : '', open });
    if (type !== 'directory') return;
    for (const name of await this.names(resolved))
      await this.#collect(resolved === '' ? name : `${resolved}/${name}`, depth + 1, found);
  }

  [Symbol.asyncDispose](): Promise<void> {
    return this.#close();
  }
}

async function digestFile(path: string): Promise<string> {
  const hash = createHash('sha256');
  for await (const chunk of createReadStream(path)) hash.update(chunk as Buffer);
  return `sha256:${hash.digest('hex')}`;
}

/** User and group of `--chown`, by number or by the image's own files. */
export async function resolveOwner(root: RootView, text: string): Promise<{ uid: number; gid: number }> {
  const colon = text.indexOf(':');
  const user = colon < 0 ? text : text.slice(0, colon);
  const group = colon < 0 ? user : text.slice(colon + 1);
  const find = async (file: string, name: string, what: string): Promise<number> => {
    if (/^\d+$/.test(name)) return Number(name);
    for (const line of (await root.text(file)).split('\n')) {
      const fields = line.split(':');
      if (fields[0] === name && /^\d+$/.test(fields[2] ?? '')) return Number(fields[2]);
    }
    throw new GantryError(
      'invalid',
      `unable to convert uid/gid chown string to host mapping: can't find ${what} for ${what === 'uid' ? 'user' : 'group'} ${name}: no such ${what === 'uid' ? 'user' : 'group'}: ${name}`,
    );
  };
  return { uid: await find('/etc/passwd', user, 'uid'), gid: await find('/etc/group', group, 'gid') };
}
