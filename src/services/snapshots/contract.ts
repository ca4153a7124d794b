/**
 * Snapshots: directory trees made of layers.
 *
 * Life: `applyLayer` turns a tar into a committed, immutable layer named by its chainID, or `stage` extracts it
 * before its parents are there and `commitStaged` puts it over them; `prepare` makes a writable snapshot (keyed by container ID or build step) on top of a layer; `mount` shows it at a directory;
 * `changes`/`diff` tell what was written; `commit` freezes a writable snapshot into a layer; `remove` drops it.
 * A layer with children, or used by a snapshot, cannot be removed. Every driver passes one conformance suite.
 */
import type { Readable } from 'node:stream';
import type { FileGrowth } from '#system/disk/growing-file.ts';
import type { Compression } from '#system/tar/compression.ts';
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

/** A layer's bytes (any known compression) in a file that may still grow. */
export interface LayerFile {
  readonly path: string;
  readonly growth: FileGrowth;
  /** Whether to take the digest of the file as it is too. */
  readonly hashFile?: boolean;
}

/** A layer that is extracted but nowhere visible. Disposing drops what was not committed. */
export interface StagedLayer extends Disposable {
  readonly diffId: Digest;
  readonly sizeBytes: number;
  readonly tarSizeBytes: number;
  readonly compression: Compression;
  /** Of the file as it was, where it was asked for. */
  readonly fileDigest: Digest | undefined;
  /** Whether its files are still to be given away: a commit takes them, unless the layer existed. */
  readonly isAvailable: boolean;
}

/** Allocated bytes. */
export interface SnapshotUsage {
  readonly layers: ReadonlyMap<Digest, number>;
  /** What was written in each writable snapshot, by key; an unwritten one has 0. */
  readonly snapshots: ReadonlyMap<string, number>;
  /** What layers share: init layers and links. */
  readonly sharedBytes: number;
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
  /** Whether layers can be extracted before their parents; without it `stage` throws. */
  readonly stagesAhead: boolean;
  /** Extracts a layer on a thread of its own while its file grows. Nothing remains when it fails. */
  stage(file: LayerFile, signal?: AbortSignal): Promise<StagedLayer>;
  /** Makes staged layers real, the first over `parent`, each other over the one before, in one step. */
  commitStaged(parent: Digest | undefined, staged: readonly StagedLayer[]): Layer[];
  layer(chainId: Digest): Layer | undefined;
  layers(): Layer[];
  /** Throws `conflict` when the layer is in use. */
  removeLayer(chainId: Digest): Promise<void>;
  /** A writable snapshot; `parent` undefined means an empty tree. `storageOptions` are `--storage-opt` pairs. */
  prepare(key: string, parent: Digest | undefined, storageOptions?: Record<string, string>): Promise<void>;
  exists(key: string): boolean;
  /** The layer a writable snapshot lies on. */
  parent(key: string): Digest | undefined;
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
  /** What the layers above `base` up to `top` change together, as one uncompressed layer tar. */
  stackDifference(base: Digest | undefined, top: Digest): Readable;
  /** Bytes written in the writable snapshot. */
  usage(key: string): Promise<Usage>;
  /** What `inspect` shows as GraphDriver.Data. */
  graphDriverData(key: string): Record<string, string>;
  /** GraphDriver.Data of a read-only layer stack (image inspect). */
  layerDriverData(chainId: Digest): Record<string, string>;
  remove(key: string): Promise<void>;
  /** What everything takes on the disk, as du(1) counts. */
  diskUsage(): Promise<SnapshotUsage>;
  /** Checks and repairs of all of this, for `gantry system fsck`. */
  audit(): SnapshotAudit;
  /** After a crash: removes half-made layers and snapshots, unmounts what nobody needs. `keep` lists keys in use. */
  recover(keep: ReadonlySet<string>): Promise<void>;
  /**
   * After a power loss: extracts again, from what `open` gives, the layers whose files may not have reached the disk.
   * Returns those that could not be. A layer is on the disk some time after its commit, its archive before.
   */
  repair(open: (diffId: Digest) => AsyncIterable<Buffer> | undefined): Promise<Digest[]>;
  /** Resolves when every committed layer is on the disk and everything removed is off it. */
  settled(): Promise<void>;
}

/** Something of a snapshotter that is not as its rows say. */
export interface SnapshotProblem {
  readonly object: 'layer' | 'link' | 'init' | 'snapshot' | 'directory' | 'leftover';
  /** ChainID, snapshot key, or path. */
  readonly id: string;
  readonly kind: 'missing' | 'corrupt' | 'orphaned';
  readonly detail: string;
}

/** Safe beside running work: what is being made or removed is never a problem. */
export interface SnapshotAudit {
  /**
   * What is wrong, lower layers first. Trees are measured, not read: `suspect` layers have another size than was
   * recorded, which a few rare archives have too, so only a comparison decides.
   */
  problems(signal?: AbortSignal): AsyncGenerator<SnapshotProblem & { readonly suspect?: boolean }>;
  /** What no row knows and nobody works on. */
  orphans(): SnapshotProblem[];
  /**
   * Extracts the layer's tar aside and compares it with the tree; the first difference, if any. With `repair`, the
   * fresh tree takes the place of one that differs, in one step; `conflict` while a mount uses it.
   */
  compareLayer(
    chainId: Digest,
    tar: AsyncIterable<Buffer>,
    options: { repair: boolean },
    signal?: AbortSignal,
  ): Promise<string | undefined>;
  /** Undoes a problem of any object but a layer. */
  repair(problem: SnapshotProblem): Promise<void>;
  /** The tar a layer's tree makes today; of a layer made here it has the layer's diffID. */
  packLayer(chainId: Digest): AsyncIterable<Buffer>;
}
