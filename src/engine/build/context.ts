/**
 * The files a COPY can see: the build context that came as a tar (its files lie as blobs, nothing is unpacked
 * on the host), or the tree of an earlier stage or image.
 */
import { createHash } from 'node:crypto';
import { parseIgnore } from '#services/build/ignore.ts';
import type { ContentStore, Lease } from '#services/content/contract.ts';
import type { TarCodec } from '#services/images/tar-codec.ts';
import type { TarEntry } from '#system/tar/contract.ts';
import type { Digest } from '#types/digest.ts';
import { GantryError } from '#types/errors.ts';
import { cleanRelative } from '#types/path.ts';

/** One file, directory or link of a source tree; `path` has no leading slash. */
export interface SourceEntry {
  readonly entry: TarEntry;
  /** Digest of a regular file's bytes, for the cache key. */
  readonly contentDigest: string;
  readonly open: () => AsyncIterable<Buffer>;
}

/** A tree to copy from. */
export interface SourceTree {
  /** By clean path; the root is the empty path. */
  get(path: string): SourceEntry | undefined;
  /** Every entry below (and at) a path, sorted. */
  under(path: string): SourceEntry[];
  paths(): string[];
}

/** Entries in one build context. */
export const CONTEXT_ENTRY_LIMIT = 1_000_000;

/** A tree from a list of entries. */
export class EntryTree implements SourceTree {
  readonly #entries: Map<string, SourceEntry>;

  constructor(entries: Map<string, SourceEntry>) {
    this.#entries = new Map([...entries].sort(([a], [b]) => (a < b ? -1 : 1)));
  }

  get(path: string): SourceEntry | undefined {
    return this.#entries.get(path);
  }

  paths(): string[] {
    return [...this.#entries.keys()];
  }

  under(path: string): SourceEntry[] {
    const found: SourceEntry[] = [];
    for (const [name, entry] of this.#entries)
      if (path === '' || name === path || name.startsWith(`${path}/`)) found.push(entry);
    return found;
  }
}

const noBytes = async function* (): AsyncGenerator<Buffer> {};

/** Reads a context archive into the content store, under a lease. */
export async function readContext(
  source: AsyncIterable<Buffer>,
  options: { content: ContentStore; tar: TarCodec; lease: Lease },
  signal?: AbortSignal,
): Promise<EntryTree> {
  const { content, tar, lease } = options;
  const entries = new Map<string, SourceEntry>();
  for await (const item of tar.read(tar.decompress(source, signal))) {
    const path = cleanRelative(item.entry.path);
    if (path === '') continue;
    if (entries.size >= CONTEXT_ENTRY_LIMIT)
      throw new GantryError('invalid', `build context has more than ${CONTEXT_ENTRY_LIMIT} entries`);
    const entry = { ...item.entry, path };
    if (entry.type === 'file') {
      const { digest } = await content.write(item.content, { lease }, signal);
      entries.set(path, { entry, contentDigest: digest, open: () => content.read(digest as Digest) });
    } else if (entry.type === 'link') {
      const target = entries.get(cleanRelative(entry.linkPath));
      // A hard link is copied as the file it names.
      if (target !== undefined) entries.set(path, { ...target, entry: { ...target.entry, path } });
    } else entries.set(path, { entry, contentDigest: '', open: noBytes });
    addParents(entries, path);
  }
  return new EntryTree(entries);
}

function addParents(entries: Map<string, SourceEntry>, path: string): void {
  for (let slash = path.lastIndexOf('/'); slash > 0; slash = path.lastIndexOf('/', slash - 1)) {
    const parent = path.slice(0, slash);
    if (entries.has(parent)) return;
    const base = entries.get(path) as SourceEntry;
    const entry: TarEntry = {
      ...base.entry,
      path: parent,
      type: 'directory',
      mode: 0o755,
      sizeBytes: 0,
      linkPath: '',
      xattrs: new Map(),
    };
    entries.set(parent, { entry, contentDigest: '', open: noBytes });
  }
}

/** Drops what `.dockerignore` names. */
export function applyIgnore(tree: EntryTree, text: string): EntryTree {
  const rules = parseIgnore(text);
  const kept = new Map<string, SourceEntry>();
  for (const path of tree.paths()) {
    if (rules.ignores(path)) continue;
    kept.set(path, tree.get(path) as SourceEntry);
    addParents(kept, path);
  }
  return new EntryTree(kept);
}

/** The cache key of entries: names, kinds, modes, owners, links and contents, but no times. */
export function hashEntries(entries: readonly SourceEntry[], base: string): string {
  const hash = createHash('sha256');
  for (const { entry, contentDigest } of entries) {
    const relative = entry.path.slice(base.length);
    const xattrs = [...entry.xattrs]
      .sort(([a], [b]) => (a < b ? -1 : 1))
      .map(([name, value]) => [name, value.toString('hex')]);
    hash.update(
      JSON.stringify([
        relative,
        entry.type,
        entry.mode,
        entry.uid,
        entry.gid,
        entry.linkPath,
        contentDigest,
        entry.deviceMajor,
        entry.deviceMinor,
        xattrs,
      ]),
    );
  }
  return hash.digest('hex');
}

/** Reads a small file of a tree. */
export async function readText(file: SourceEntry, limitBytes: number): Promise<string> {
  const chunks: Buffer[] = [];
  if (file.entry.sizeBytes > limitBytes)
    throw new GantryError('invalid', `${file.entry.path} is larger than ${limitBytes} bytes`);
  for await (const chunk of file.open()) chunks.push(chunk);
  return Buffer.concat(chunks).toString('utf8');
}
