/**
 * Snapshots: directory trees made of layers.
 *
 * Life: `applyLayer` turns a tar into a committed, immutable layer named by its chainID; `prepare` makes a
 * writable snapshot (keyed by container ID or build step) on top of a layer; `mount` shows it at a directory;
 * `changes`/`diff` tell what was written; `commit` freezes a writable snapshot into a layer; `remove` drops it.
 * A layer with children, or used by a snapshot, cannot be removed. Every driver passes one conformance suite.
 */
import type { Readable } from 'node:stream';
import type { Digest } from '#types/digest.ts';

/** A committed layer. */
export interface Layer {
  readonly chainId: Digest;
  readonly diffId: Digest;
  readonly parent: Digest | undefined;
  /** Bytes of files and symbolic links in this layer alone (docker's layer size). */
  readonly sizeBytes: number;
}

/** Kinds of docker's /changes: 0 modified, 1 added, 2 deleted. */
export type ChangeKind = 0 | 1 | 2;

export interface Change {
  readonly path: string;
  readonly kind: ChangeKind;
}

export interface Usage {
  readonly sizeBytes: number;
  readonly inodes: number;
}

export interface Snapshotter {
  /** Docker's name: `overlay2` or `vfs`. */
  readonly driver: string;
  /**
   * Extracts an uncompressed layer tar over `parent` and commits it. The diffID is computed while reading and,
   * when `expected` is given, must equal it. If the chain exists already, the tar is drained and verified only.
   * Nothing remains when it fails.
   */
  applyLayer(
    parent: Digest | undefined,
    tar: AsyncIterable<Buffer>,
    options: { expected?: Digest },
    signal?: AbortSignal,
  ): Promise<Layer>;
  layer(chainId: Digest): Layer | undefined;
  layers(): Layer[];
  /** Throws `conflict` when the layer is in use. */
  removeLayer(chainId: Digest): Promise<void>;
  /** A writable snapshot; `parent` undefined means an empty tree. `storageOptions` are `--storage-opt` pairs. */
  prepare(key: string, parent: Digest | undefined, storageOptions?: Record<string, string>): Promise<void>;
  exists(key: string): boolean;
  keys(): string[];
  /** Mounts at `target` (created if missing). Mounting twice at one target is counted, not stacked. */
  mount(key: string, target: string): Promise<void>;
  /** Undoes one `mount`. */
  unmount(key: string, target: string): Promise<void>;
  /** What differs from the parent, sorted by path, as `docker diff` shows. */
  changes(key: string): Promise<Change[]>;
  /** The changes as an uncompressed layer tar (with whiteouts). */
  diff(key: string): Readable;
  /** Makes a layer of the writable snapshot's changes; the snapshot stays usable. */
  commit(key: string): Promise<Layer>;
  /** Bytes written in the writable snapshot. */
  usage(key: string): Promise<Usage>;
  /** What `inspect` shows as GraphDriver.Data. */
  graphDriverData(key: string): Record<string, string>;
  /** GraphDriver.Data of a read-only layer stack (image inspect). */
  layerDriverData(chainId: Digest): Record<string, string>;
  remove(key: string): Promise<void>;
  /** After a crash: removes half-made layers and snapshots, unmounts what nobody needs. `keep` lists keys in use. */
  recover(keep: ReadonlySet<string>): Promise<void>;
}
