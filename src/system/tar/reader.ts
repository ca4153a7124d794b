/**
 * Reads tar archives as a stream: one entry at a time, memory bounded by the limits below, nothing resolved
 * or cleaned. The source is read to its end, so that a digest taken over it covers trailing padding too.
 */
import type { TarEntry, TarEntryType, TarReadEntry } from './contract.ts';
import {
  BLOCK_BYTES,
  invalidHeader,
  isZeroBlock,
  parseHeader,
  type RawHeader,
  TarError,
  unexpectedEnd,
} from './header.ts';
import { parsePax, paxInteger, paxText, paxTime, XATTR_PREFIX } from './pax.ts';
import { ByteSource } from './source.ts';
import { expand, paxMap, readOldGnuMap, readPax1Map, type SparseMap } from './sparse.ts';

/** One extended header (long name, PAX records): room for every xattr the kernel allows on a file. */
const EXTENSION_MAX_BYTES = 1 << 20;
/** Extended headers in a row before one file: more is an attack. */
const EXTENSIONS_MAX = 16;

const TYPES: Readonly<Record<string, TarEntryType>> = {
  '\0': 'file',
  '0': 'file',
  '7': 'file',
  S: 'file',
  '1': 'link',
  '2': 'symlink',
  '3': 'character',
  '4': 'block',
  '5': 'directory',
  '6': 'fifo',
};

const NO_XATTRS: ReadonlyMap<string, Buffer> = new Map();

/** Content of one entry; remembers what has not been read. */
class Content {
  readonly #source: ByteSource;
  left: number;
  padding: number;

  constructor(source: ByteSource, length: number, padding: number) {
    this.#source = source;
    this.left = length;
    this.padding = padding;
  }

  async *[Symbol.asyncIterator](): AsyncGenerator<Buffer> {
    while (this.left > 0) {
      const piece = await this.#source.some(this.left);
      this.left -= piece.length;
      yield piece;
    }
  }

  /** Passes over the rest; false when the stream ended within the padding. */
  async finish(): Promise<boolean> {
    const { left, padding } = this;
    this.left = 0;
    this.padding = 0;
    if (this.#source.has(left + padding)) {
      this.#source.takeNow(left + padding);
      return true;
    }
    if (left > 0) await this.#source.skip(left);
    return this.#source.skipPadding(padding);
  }
}

/** Extended headers collected before an entry. */
interface Extensions {
  longName: string | undefined;
  longLink: string | undefined;
  pax: [string, Buffer][];
}

const paddingOf = (length: number): number => (BLOCK_BYTES - (length % BLOCK_BYTES)) % BLOCK_BYTES;

async function readExtension(source: ByteSource, size: number): Promise<Buffer> {
  if (size > EXTENSION_MAX_BYTES) throw new TarError('archive/tar: header field too long');
  const data = await source.read(size + paddingOf(size));
  if (data === undefined && size > 0) throw unexpectedEnd();
  return Buffer.from(data?.subarray(0, size) ?? []);
}

function cString(data: Buffer): string {
  const end = data.indexOf(0);
  return paxText(end < 0 ? data : data.subarray(0, end));
}

/** Reads the header blocks of the next file; undefined at the end of the archive. */
async function nextHeader(
  source: ByteSource,
): Promise<{ header: RawHeader; block: Buffer; extensions: Extensions } | undefined> {
  const extensions: Extensions = { longName: undefined, longLink: undefined, pax: [] };
  // Compat: an archive may end after global records (an empty tree of git), but not after those of one file.
  let pending = false;
  for (let count = 0; count <= EXTENSIONS_MAX; count += 1) {
    const block = await source.read(BLOCK_BYTES);
    if (block === undefined || isZeroBlock(block)) {
      if (pending) throw unexpectedEnd();
      const second = block === undefined ? undefined : await source.read(BLOCK_BYTES);
      if (second !== undefined && !isZeroBlock(second)) throw invalidHeader();
      return undefined;
    }
    const header = parseHeader(block);
    if (header.type === 'x' || header.type === 'X') extensions.pax = parsePax(await readExtension(source, header.size));
    else if (header.type === 'L') extensions.longName = cString(await readExtension(source, header.size));
    else if (header.type === 'K') extensions.longLink = cString(await readExtension(source, header.size));
    // Global records are read and, like in Go and docker, not applied.
    else if (header.type === 'g') {
      parsePax(await readExtension(source, header.size));
      continue;
    } else return { header, block: Buffer.from(block), extensions };
    pending = true;
  }
  throw invalidHeader();
}

/** Applies PAX records to the header; returns the xattrs and the sparse format's own fields. */
function applyPax(header: RawHeader, records: readonly [string, Buffer][]): ReadonlyMap<string, Buffer> {
  if (records.length === 0) return NO_XATTRS;
  const xattrs = new Map<string, Buffer>();
  for (const [key, value] of records) {
    if (key.startsWith(XATTR_PREFIX)) {
      xattrs.set(key.slice(XATTR_PREFIX.length), value);
      continue;
    }
    if (value.length === 0) continue;
    if (key === 'path') header.name = paxText(value);
    else if (key === 'linkpath') header.linkName = paxText(value);
    else if (key === 'uname') header.userName = paxText(value);
    else if (key === 'gname') header.groupName = paxText(value);
    else if (key === 'uid') header.uid = paxInteger(value);
    else if (key === 'gid') header.gid = paxInteger(value);
    else if (key === 'size') header.size = paxInteger(value);
    else if (key === 'mtime') header.modifiedNs = paxTime(value);
    else if (key === 'atime') header.accessedNs = paxTime(value);
    else if (key === 'ctime') header.changedNs = paxTime(value);
    else if (key === 'GNU.sparse.name') header.name = paxText(value);
  }
  if (header.size < 0) throw invalidHeader();
  return xattrs;
}

function makeTarEntry(
  header: RawHeader,
  type: TarEntryType,
  xattrs: ReadonlyMap<string, Buffer>,
  sizeBytes: number,
): TarEntry {
  return {
    path: header.name.length > 1 ? header.name.replace(/(?<=.)\/+$/, '') : header.name,
    type,
    linkPath: type === 'symlink' || type === 'link' ? header.linkName : '',
    mode: header.mode & 0o7777,
    uid: header.uid,
    gid: header.gid,
    userName: header.userName,
    groupName: header.groupName,
    sizeBytes,
    modifiedNs: header.modifiedNs,
    ...(header.accessedNs === undefined ? {} : { accessedNs: header.accessedNs }),
    ...(header.changedNs === undefined ? {} : { changedNs: header.changedNs }),
    deviceMajor: header.deviceMajor,
    deviceMinor: header.deviceMinor,
    xattrs,
  };
}

/** The sparse map of an entry, if it is a sparse file; `stored` is what remains of its data. */
async function sparseMap(
  source: ByteSource,
  file: { header: RawHeader; block: Buffer; extensions: Extensions },
): Promise<{ map: SparseMap; stored: number } | undefined> {
  const { header, block, extensions } = file;
  if (header.type === 'S') return { map: await readOldGnuMap(block, source), stored: header.size };
  const field = (name: string): string => extensions.pax.find(([key]) => key === name)?.[1].toString('latin1') ?? '';
  if (field('GNU.sparse.major') === '1' && field('GNU.sparse.minor') === '0') {
    const map = await readPax1Map(paxInteger(Buffer.from(field('GNU.sparse.realsize'))), source);
    if (map.mapBytes > header.size) throw invalidHeader();
    return { map, stored: header.size - map.mapBytes };
  }
  const map = extensions.pax.some(([key]) => key.startsWith('GNU.sparse.')) ? paxMap(extensions.pax) : undefined;
  return map === undefined ? undefined : { map, stored: header.size };
}

/** Reads an uncompressed archive. Content not consumed is skipped; leaving the loop early closes the source. */
export async function* readTar(input: AsyncIterable<Buffer>): AsyncGenerator<TarReadEntry> {
  const source = new ByteSource(input);
  try {
    for (;;) {
      const file = await nextHeader(source);
      if (file === undefined) break;
      const { header, extensions } = file;
      if (extensions.longName !== undefined) header.name = extensions.longName;
      if (extensions.longLink !== undefined) header.linkName = extensions.longLink;
      const xattrs = applyPax(header, extensions.pax);
      let type = TYPES[header.type];
      if (type === undefined) throw new TarError(`unhandled tar header type ${header.type.charCodeAt(0)}`);
      // V7 archives mark directories by a trailing slash only.
      if (type === 'file' && header.name.endsWith('/')) type = 'directory';
      if (header.name.includes('\0') || header.linkName.includes('\0')) throw invalidHeader();
      const sparse = type === 'file' ? await sparseMap(source, file) : undefined;
      const stored = type === 'file' ? (sparse?.stored ?? header.size) : 0;
      const content = new Content(source, stored, paddingOf(stored));
      if (sparse === undefined) {
        yield { entry: makeTarEntry(header, type, xattrs, stored), content };
      } else {
        const { map } = sparse;
        if (map.fragments.reduce((sum, { length }) => sum + length, 0) !== stored) throw invalidHeader();
        const entry = makeTarEntry(header, type, xattrs, map.sizeBytes);
        yield { entry, content: expand(map, content), sparse: { fragments: map.fragments, data: content } };
      }
      // Compat: an archive may stop right after its last file, as the docker CLI's `build -f -` writes it.
      if (!(await content.finish())) break;
    }
    await source.drain();
  } finally {
    await source.close();
  }
}
