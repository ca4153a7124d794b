/**
 * Tar entries as this engine sees them: USTAR, PAX and GNU all read to the same record, and a record is
 * written as USTAR with PAX records where needed (docker's layer format). Times are exact nanoseconds.
 */

export type TarEntryType = 'file' | 'directory' | 'symlink' | 'link' | 'character' | 'block' | 'fifo';

export interface TarEntry {
  /** Path as written, without resolving anything; directories end without slash. */
  readonly path: string;
  readonly type: TarEntryType;
  /** Target of a symlink or hard link; empty otherwise. */
  readonly linkPath: string;
  /** Permission bits with setuid, setgid and sticky (07777). */
  readonly mode: number;
  readonly uid: number;
  readonly gid: number;
  readonly userName: string;
  readonly groupName: string;
  readonly sizeBytes: number;
  readonly modifiedNs: bigint;
  readonly accessedNs?: bigint;
  readonly changedNs?: bigint;
  readonly deviceMajor: number;
  readonly deviceMinor: number;
  /** From `SCHILY.xattr.*` PAX records. */
  readonly xattrs: ReadonlyMap<string, Buffer>;
}

/** One entry while reading; `content` must be consumed (or is skipped) before the next entry. */
export interface TarReadEntry {
  readonly entry: TarEntry;
  readonly content: AsyncIterable<Buffer>;
  /** For sparse files: where the data lies and that data alone. Consume this or `content`, not both. */
  readonly sparse?: { readonly fragments: readonly TarFragment[]; readonly data: AsyncIterable<Buffer> };
}

/** A piece of a sparse file that is not a hole. */
export interface TarFragment {
  readonly offset: number;
  readonly length: number;
}
