/**
 * Writes tar archives as docker's layers are written: USTAR blocks, PAX records only where a value does not
 * fit (long or non-ASCII names, xattrs, sub-second or early times, large numbers). Same entries, same bytes.
 */
import { Readable } from 'node:stream';
import { encodeBytes } from '../kernel/bytes.ts';
import type { TarEntry, TarEntryType } from './contract.ts';
import { BLOCK_BYTES, encodeHeader, TarError } from './header.ts';
import { encodePax, formatPaxTime, XATTR_PREFIX } from './pax.ts';

const TYPE_FLAGS: Readonly<Record<TarEntryType, string>> = {
  file: '0',
  link: '1',
  symlink: '2',
  character: '3',
  block: '4',
  directory: '5',
  fifo: '6',
};

const NAME_BYTES = 100;
const PREFIX_BYTES = 155;
const OWNER_BYTES = 32;
const SMALL_MAX = 0o7777777;
const LARGE_MAX = 0o77777777777;
const NS_PER_S = 1_000_000_000n;
const EMPTY: Buffer = Buffer.alloc(0);

const isAscii = (bytes: Buffer): boolean => bytes.every((byte) => byte < 0x80);

/** Splits a long ASCII name at a slash so that both halves fit; undefined when impossible. */
function splitName(name: Buffer): { prefix: Buffer; name: Buffer } | undefined {
  if (!isAscii(name)) return undefined;
  if (name.length <= NAME_BYTES) return { prefix: EMPTY, name };
  if (name.length > PREFIX_BYTES + 1 + NAME_BYTES) return undefined;
  const slash = name.subarray(0, Math.min(name.length - 1, PREFIX_BYTES + 1)).lastIndexOf(0x2f);
  if (slash <= 0 || name.length - slash - 1 > NAME_BYTES || name.length - slash - 1 === 0) return undefined;
  return { prefix: name.subarray(0, slash), name: name.subarray(slash + 1) };
}

function paxRecords(entry: TarEntry, path: Buffer): Map<string, string | Buffer> {
  const records = new Map<string, string | Buffer>();
  if (splitName(path) === undefined) records.set('path', path);
  const link = encodeBytes(entry.linkPath);
  if (link.length > NAME_BYTES || !isAscii(link)) records.set('linkpath', link);
  for (const [key, value] of [
    ['uname', entry.userName],
    ['gname', entry.groupName],
  ] as const) {
    const bytes = encodeBytes(value);
    if (bytes.length > OWNER_BYTES || !isAscii(bytes)) records.set(key, bytes);
  }
  if (entry.uid > SMALL_MAX) records.set('uid', String(entry.uid));
  if (entry.gid > SMALL_MAX) records.set('gid', String(entry.gid));
  if (entry.sizeBytes > LARGE_MAX) records.set('size', String(entry.sizeBytes));
  const seconds = entry.modifiedNs / NS_PER_S;
  if (entry.modifiedNs < 0n || entry.modifiedNs % NS_PER_S !== 0n || seconds > BigInt(LARGE_MAX)) {
    records.set('mtime', formatPaxTime(entry.modifiedNs));
  }
  if (entry.accessedNs !== undefined) records.set('atime', formatPaxTime(entry.accessedNs));
  if (entry.changedNs !== undefined) records.set('ctime', formatPaxTime(entry.changedNs));
  for (const [name, value] of entry.xattrs) records.set(XATTR_PREFIX + name, value);
  return records;
}

/** Zeros that fill the last block of `sizeBytes`. */
export function tarPadding(sizeBytes: number): Buffer {
  const rest = sizeBytes % BLOCK_BYTES;
  return rest === 0 ? EMPTY : Buffer.alloc(BLOCK_BYTES - rest);
}

/** The two zero blocks that end an archive. */
export const TAR_END: Buffer = Buffer.alloc(2 * BLOCK_BYTES);

/** All header blocks of an entry, PAX records first where needed. */
export function tarHeader(entry: TarEntry): Buffer {
  const slash = entry.type === 'directory' && !entry.path.endsWith('/') ? '/' : '';
  const path = encodeBytes(entry.path + slash);
  const records = paxRecords(entry, path);
  const size = entry.type === 'file' ? entry.sizeBytes : 0;
  const split = splitName(path);
  const seconds = entry.modifiedNs / NS_PER_S;
  const header = encodeHeader({
    name: split?.name ?? path.subarray(0, NAME_BYTES),
    prefix: split?.prefix ?? EMPTY,
    linkName: encodeBytes(entry.linkPath).subarray(0, NAME_BYTES),
    type: TYPE_FLAGS[entry.type],
    mode: entry.mode & 0o7777,
    uid: records.has('uid') ? 0 : entry.uid,
    gid: records.has('gid') ? 0 : entry.gid,
    size: records.has('size') ? 0 : size,
    modifiedSeconds: entry.modifiedNs < 0n || seconds > BigInt(LARGE_MAX) ? 0 : Number(seconds),
    userName: encodeBytes(entry.userName).subarray(0, OWNER_BYTES),
    groupName: encodeBytes(entry.groupName).subarray(0, OWNER_BYTES),
    deviceMajor: entry.deviceMajor,
    deviceMinor: entry.deviceMinor,
  });
  if (records.size === 0) return header;
  const data = encodePax(records);
  const base = path.subarray(path.subarray(0, path.length - slash.length).lastIndexOf(0x2f) + 1);
  const pax = encodeHeader({
    name: Buffer.concat([Buffer.from('PaxHeaders.0/'), isAscii(base) ? base : EMPTY]).subarray(0, NAME_BYTES - 1),
    prefix: EMPTY,
    linkName: EMPTY,
    type: 'x',
    mode: 0,
    uid: 0,
    gid: 0,
    size: data.length,
    modifiedSeconds: 0,
    userName: EMPTY,
    groupName: EMPTY,
    deviceMajor: 0,
    deviceMinor: 0,
  });
  return Buffer.concat([pax, data, tarPadding(data.length), header]);
}

/** Blocks of one entry. Fails when the content is not exactly as long as announced. */
export async function* tarBlocks(
  entry: TarEntry,
  content?: AsyncIterable<Buffer> | Iterable<Buffer>,
): AsyncGenerator<Buffer> {
  yield tarHeader(entry);
  if (entry.type !== 'file') return;
  let written = 0;
  for await (const chunk of content ?? []) {
    written += chunk.length;
    if (written > entry.sizeBytes) throw new TarError('archive/tar: write too long');
    yield chunk;
  }
  if (written < entry.sizeBytes) {
    throw new TarError(`archive/tar: missed writing ${entry.sizeBytes - written} bytes`);
  }
  const padding = tarPadding(written);
  if (padding.length > 0) yield padding;
}

/** An archive written entry by entry; bytes come out of `readable`, and `add` waits for its reader. */
export class TarWriter {
  readonly readable: Readable;
  #wake: (() => void) | undefined;

  constructor() {
    this.readable = new Readable({
      highWaterMark: 256 * 1024,
      read: () => this.#wake?.(),
      destroy: (error, done) => {
        this.#wake?.();
        done(error);
      },
    });
  }

  async #push(chunk: Buffer): Promise<void> {
    if (this.readable.destroyed) throw new TarError('archive/tar: write after close');
    if (this.readable.push(chunk)) return;
    const { promise, resolve } = Promise.withResolvers<void>();
    this.#wake = resolve;
    await promise;
    this.#wake = undefined;
  }

  /** Adds one entry; `content` for files with a size. */
  async add(entry: TarEntry, content?: AsyncIterable<Buffer> | Iterable<Buffer>): Promise<void> {
    for await (const block of tarBlocks(entry, content)) await this.#push(block);
  }

  /** Ends the archive. */
  async finish(): Promise<void> {
    await this.#push(TAR_END);
    this.readable.push(null);
  }
}
