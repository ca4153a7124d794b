/**
 * Packs local files as a tar stream. Symbolic links are stored, never followed; names are relative to
 * what was asked for.
 */
import type { Stats } from 'node:fs';
import type { TarEntry, TarEntryType } from '#system/tar/contract.ts';
import { makeEntry } from '#system/tar/entry.ts';
import { TAR_END, tarBlocks } from '#system/tar/writer.ts';

const fs = process.getBuiltinModule('node:fs');

/** How files are packed. */
export interface PackOptions {
  /** Whether a path (relative to the root, with slashes) is left out; a directory may still be walked for exceptions. */
  readonly excludes?: (path: string, isDirectory: boolean) => 'keep' | 'skip' | 'walk';
  /** Further blocks before the end. */
  readonly added?: AsyncIterable<Buffer>;
  /** Everything belongs to root when false. */
  readonly keepOwner?: boolean;
}

function typeOf(stats: Stats): TarEntryType | undefined {
  if (stats.isFile()) return 'file';
  if (stats.isDirectory()) return 'directory';
  if (stats.isSymbolicLink()) return 'symlink';
  if (stats.isFIFO()) return 'fifo';
  // Compat: sockets and devices are left out.
  return undefined;
}

function entryOf(path: string, name: string, stats: Stats, options: PackOptions): TarEntry | undefined {
  const type = typeOf(stats);
  if (type === undefined) return undefined;
  return {
    path: name,
    type,
    linkPath: type === 'symlink' ? fs.readlinkSync(path) : '',
    mode: stats.mode & 0o7777,
    uid: options.keepOwner === true ? stats.uid : 0,
    gid: options.keepOwner === true ? stats.gid : 0,
    userName: '',
    groupName: '',
    sizeBytes: type === 'file' ? stats.size : 0,
    // Compat: whole seconds, which need no PAX record.
    modifiedNs: BigInt(Math.round(stats.mtimeMs / 1000)) * 1_000_000_000n,
    deviceMajor: 0,
    deviceMinor: 0,
    xattrs: new Map(),
  };
}

async function* walk(path: string, name: string, relative: string, options: PackOptions): AsyncGenerator<Buffer> {
  const stats = fs.lstatSync(path);
  const isDirectory = stats.isDirectory();
  const verdict = relative === '' ? 'keep' : (options.excludes?.(relative, isDirectory) ?? 'keep');
  if (verdict === 'skip') return;
  if (verdict === 'keep' && name !== '') {
    const entry = entryOf(path, name, stats, options);
    if (entry === undefined) return;
    // Reading stops at the announced size, so a file that grows meanwhile does not break the archive.
    const content =
      entry.type === 'file' && entry.sizeBytes > 0
        ? (fs.createReadStream(path, { end: entry.sizeBytes - 1 }) as AsyncIterable<Buffer>)
        : [];
    yield* tarBlocks(entry, content);
  }
  if (!isDirectory) return;
  for (const child of fs.readdirSync(path).sort()) {
    yield* walk(
      `${path}/${child}`,
      name === '' ? child : `${name}/${child}`,
      relative === '' ? child : `${relative}/${child}`,
      options,
    );
  }
}

/** A file that exists only in the archive. */
export function packText(name: string, text: Buffer, seconds: number): AsyncIterable<Buffer> {
  const modifiedNs = BigInt(seconds) * 1_000_000_000n;
  const entry = makeEntry(name, 'file', { mode: 0o600, sizeBytes: text.length, modifiedNs });
  return tarBlocks(entry, text.length === 0 ? [] : [text]);
}

/** A tar of `path` under `name`; an empty name packs a directory's contents. */
export async function* packPath(path: string, name: string, options: PackOptions = {}): AsyncGenerator<Buffer> {
  yield* walk(path, name, '', options);
  yield* options.added ?? [];
  yield TAR_END;
}

/** One Go-style pattern of .dockerignore as a regular expression on whole paths. */
export function ignorePattern(pattern: string): RegExp {
  let out = '';
  for (let index = 0; index < pattern.length; index++) {
    const char = pattern[index] ?? '';
    if (char === '*' && pattern[index + 1] === '*') {
      index++;
      if (pattern[index + 1] === '/') index++;
      out += index + 1 >= pattern.length ? '.*' : '(.*/)?';
    } else if (char === '*') out += '[^/]*';
    else if (char === '?') out += '[^/]';
    else if (char === '\\') out += `\\${pattern[++index] ?? '\\'}`;
    else if (char === '[') {
      const end = pattern.indexOf(']', index);
      if (end === -1) throw new Error(`syntax error in pattern: ${pattern}`);
      out += pattern.slice(index, end + 1);
      index = end;
    } else out += /[.+()|{}^$]/.test(char) ? `\\${char}` : char;
  }
  return new RegExp(`^${out}(/.*)?$`);
}

/** The rule of a .dockerignore file: the last matching line decides, `!` makes an exception. */
export function ignoreRules(text: string): (path: string, isDirectory: boolean) => 'keep' | 'skip' | 'walk' {
  const rules = text
    .replace(/^\uFEFF/, '')
    .split('\n')
    .map((line) => line.trim())
    .filter((line) => line !== '' && !line.startsWith('#'))
    .map((line) => ({
      keeps: line.startsWith('!'),
      pattern: ignorePattern(
        process
          .getBuiltinModule('node:path')
          .posix.normalize(line.replace(/^!/, '').trim())
          .replace(/^\/+|\/+$/g, ''),
      ),
    }));
  const hasExceptions = rules.some(({ keeps }) => keeps);
  return (path, isDirectory) => {
    const verdict = rules.findLast(({ pattern }) => pattern.test(path));
    if (verdict === undefined || verdict.keeps) return 'keep';
    return isDirectory && hasExceptions ? 'walk' : 'skip';
  };
}
