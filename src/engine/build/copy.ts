/**
 * COPY and ADD: what is copied is planned against the image's tree and becomes a layer archive directly;
 * no file is written to a mount.
 */
import { createHash } from 'node:crypto';
import { compileGoPattern } from '#services/build/go-match.ts';
import type { TarCodec, TarPiece } from '#services/images/tar-codec.ts';
import { nowNs } from '#system/clock/clock.ts';
import { makeEntry } from '#system/tar/entry.ts';
import { GantryError } from '#types/errors.ts';
import { cleanRelative } from '#types/path.ts';
import { hashEntries, type SourceEntry } from './context.ts';
import type { RootView } from './rootfs.ts';

/** One resolved source of a COPY. */
export interface CopySource {
  /** Clean path in its tree; empty for the root. */
  readonly base: string;
  readonly entries: readonly SourceEntry[];
  readonly isDirectory: boolean;
  /** As in docker's comment: `file:…` or `dir:…`. */
  readonly hash: string;
}

/** Looks up sources; a tree is asked for a path's entries and for names to match wildcards. */
export interface CopyLookup {
  entries(path: string): Promise<readonly SourceEntry[]>;
  paths(): Promise<readonly string[]>;
}

/** Resolves the source arguments of one instruction. */
export async function findSources(
  sources: readonly string[],
  lookup: CopyLookup,
  fromContext: boolean,
): Promise<CopySource[]> {
  const found: CopySource[] = [];
  for (const source of sources) {
    if (fromContext && leavesTree(source))
      throw new GantryError('system', `forbidden path outside the build context: ${source} ()`);
    const path = cleanRelative(source);
    const wild = /[*?[]/.test(source);
    const match = wild ? compileGoPattern(path) : undefined;
    const names = match === undefined ? [path] : (await lookup.paths()).filter((name) => match(name));
    for (const name of names) found.push(await oneSource(name, await lookup.entries(name), fromContext));
  }
  if (found.length === 0) throw new GantryError('system', 'no source files were specified');
  return found;
}

function leavesTree(path: string): boolean {
  let depth = 0;
  for (const part of path.split('/')) {
    if (part === '..') depth -= 1;
    else if (part !== '' && part !== '.') depth += 1;
    if (depth < 0) return true;
  }
  return false;
}

async function oneSource(base: string, entries: readonly SourceEntry[], fromContext: boolean): Promise<CopySource> {
  const first = entries[0];
  if (first === undefined && base !== '') {
    const text = `stat ${base}: file does not exist`;
    throw new GantryError(
      'system',
      fromContext ? `file not found in build context or excluded by .dockerignore: ${text}` : text,
    );
  }
  const isDirectory = base === '' || first?.entry.type === 'directory';
  return { base, entries, isDirectory, hash: `${isDirectory ? 'dir' : 'file'}:${hashEntries(entries, base)}` };
}

/** The hash docker prints for all sources together. */
export function combinedHash(sources: readonly CopySource[]): string {
  const [only] = sources;
  if (sources.length === 1 && only !== undefined) return only.hash;
  return `multi:${createHash('sha256')
    .update(sources.map((source) => source.hash).join(','))
    .digest('hex')}`;
}

export interface CopyPlan {
  readonly sources: readonly CopySource[];
  /** Absolute; ends with a slash when written so. */
  readonly destination: string;
  /** undefined keeps owners (COPY --from without --chown). */
  readonly owner: { readonly uid: number; readonly gid: number } | undefined;
  /** ADD: archives are unpacked. */
  readonly unpack: TarCodec | undefined;
}

const ARCHIVE_MAGIC = /^(1f8b|425a68|fd377a585a00|28b52ffd)/;
const USTAR_OFFSET = 257;

async function isArchive(source: SourceEntry): Promise<boolean> {
  for await (const chunk of source.open()) {
    if (ARCHIVE_MAGIC.test(chunk.subarray(0, 6).toString('hex'))) return true;
    return chunk.subarray(USTAR_OFFSET, USTAR_OFFSET + 5).toString() === 'ustar';
  }
  return false;
}

/** The layer's entries in order; parents that are missing in the image come first. */
export async function* planCopy(plan: CopyPlan, root: RootView): AsyncGenerator<TarPiece> {
  const made = new Set<string>(['']);
  const owner = plan.owner ?? { uid: 0, gid: 0 };
  const parents = async function* (path: string): AsyncGenerator<TarPiece> {
    const parts = path.split('/').filter((part) => part !== '');
    for (let length = 1; length <= parts.length; length += 1) {
      const directory = parts.slice(0, length).join('/');
      if (made.has(directory)) continue;
      made.add(directory);
      const kind = await root.kind(directory);
      if (kind === 'other')
        throw new GantryError('system', `failed to copy files: mkdir /${directory}: not a directory`);
      if (kind === undefined) yield { entry: makeEntry(directory, 'directory', { ...owner, modifiedNs: nowNs() }) };
    }
  };
  const target = await root.resolve(plan.destination);
  const intoDirectory = plan.destination.endsWith('/') || (await root.kind(target)) === 'directory';
  for (const source of plan.sources) {
    const first = source.entries[0];
    if (!source.isDirectory && plan.unpack !== undefined && first?.entry.type === 'file' && (await isArchive(first))) {
      yield* parents(target);
      yield* unpackInto(plan.unpack, { file: first, target, root, made });
      continue;
    }
    if (source.isDirectory) {
      yield* parents(target);
      for (const item of source.entries) {
        const relative = item.entry.path.slice(source.base.length).replace(/^\//, '');
        if (relative === '') continue;
        const path = await root
          .resolve(target === '' ? relative : `${target}/${relative}`.replace(/\/[^/]*$/, ''))
          .then((parent) => place(parent, target, relative));
        if (item.entry.type === 'directory') made.add(path);
        yield piece(item, path, plan.owner);
      }
      continue;
    }
    if (first === undefined) continue;
    const name = source.base.slice(source.base.lastIndexOf('/') + 1);
    const path = intoDirectory ? (target === '' ? name : `${target}/${name}`) : target;
    yield* parents(path.includes('/') ? path.slice(0, path.lastIndexOf('/')) : '');
    yield piece(first, path, plan.owner);
  }
}

/** Where a file of a copied directory goes: links above it in the image are followed. */
function place(resolvedParent: string, target: string, relative: string): string {
  if (target === '' && !relative.includes('/')) return relative;
  const name = relative.slice(relative.lastIndexOf('/') + 1);
  if (target === '') return resolvedParent;
  return resolvedParent === '' ? name : `${resolvedParent}/${name}`;
}

function piece(item: SourceEntry, path: string, owner: CopyPlan['owner']): TarPiece {
  const entry = { ...item.entry, path, userName: '', groupName: '', ...(owner ?? {}) };
  return item.entry.type === 'file' ? { entry, content: item.open } : { entry };
}

async function* unpackInto(
  tar: TarCodec,
  at: { file: SourceEntry; target: string; root: RootView; made: Set<string> },
): AsyncGenerator<TarPiece> {
  for await (const { entry, content } of tar.read(tar.decompress(at.file.open()))) {
    const relative = cleanRelative(entry.path);
    if (relative === '') continue;
    const wanted = at.target === '' ? relative : `${at.target}/${relative}`;
    const slash = wanted.lastIndexOf('/');
    const parent = slash < 0 ? '' : await at.root.resolve(wanted.slice(0, slash));
    const path = parent === '' ? wanted.slice(slash + 1) : `${parent}/${wanted.slice(slash + 1)}`;
    const link = entry.type === 'link' ? cleanRelative(`${at.target}/${entry.linkPath}`) : entry.linkPath;
    const placed = { ...entry, path, linkPath: link };
    yield entry.type === 'file' ? { entry: placed, content: () => content } : { entry: placed };
  }
}
