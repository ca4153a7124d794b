/**
 * Archives into and out of a container's file system: `docker cp`, `docker export`.
 *
 * A root is a descriptor of the container's `/`. Every path is resolved by the kernel inside it, so neither
 * an archive nor a process in the container changing links meanwhile leads outside.
 */
import type { Readable } from 'node:stream';

/** X-Docker-Container-Path-Stat. `mode` has Go's FileMode bits. */
export interface PathStat {
  readonly name: string;
  readonly size: number;
  readonly mode: number;
  /** RFC 3339 with nanoseconds. */
  readonly mtime: string;
  readonly linkTarget: string;
}

/** A mount of a stopped container, to be shown in its view. */
export interface ViewMount {
  /** Path on the host. */
  readonly source: string;
  /** Path in the container. */
  readonly target: string;
  readonly readOnly: boolean;
}

/** A container's file system, open. Dispose to let it go; streams made from it must have ended. */
export interface RootView extends Disposable {
  readonly rootFd: number;
}

export interface ArchivePath {
  readonly root: RootView;
  /** As the client wrote it: a trailing `/` or `/.` has docker's meaning. */
  readonly path: string;
  /** For messages. */
  readonly containerName: string;
}

export interface PutOptions {
  readonly noOverwriteDirNonDir: boolean;
  /** Gives everything this owner (`copyUIDGID`). */
  readonly owner?: { readonly uid: number; readonly gid: number };
}

export interface Archives {
  /** The root a running process sees. */
  openRunning(pid: number): RootView;
  /** A stopped container's root directory with its volumes mounted where they belong, seen by nobody else. */
  openStopped(rootDirectory: string, mounts: readonly ViewMount[], signal?: AbortSignal): Promise<RootView>;
  /** Throws `notFound`: `Could not find the file {path} in container {name}`. */
  stat(at: ArchivePath): PathStat;
  /** A file, link or directory tree as an archive with docker's naming of entries. */
  get(at: ArchivePath): { readonly stat: PathStat; readonly archive: Readable };
  /** Extracts an archive, possibly compressed, into an existing directory. */
  put(at: ArchivePath, archive: AsyncIterable<Buffer>, options: PutOptions, signal?: AbortSignal): Promise<void>;
  /** The whole file system of one mount (volumes and other mounts left out). */
  export(root: RootView): Readable;
}
