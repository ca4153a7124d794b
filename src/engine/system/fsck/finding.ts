/** What a check of the store tells, and what it works with. */
import type { ContainerStore } from '#services/containers/store.ts';
import type { RegistryRecords } from '#services/images/registry-records.ts';
import type { ImageStore } from '#services/images/store.ts';
import type { RegistryClient, RegistryCredentials } from '#system/registry-http/contract.ts';
import type { Digest } from '#types/digest.ts';
import type { EmitEvent } from '../../images/remove.ts';
import type { Paths } from '../../settings.ts';

/** Kinds of things that are checked. */
export type CheckedObject =
  | 'blob'
  | 'image'
  | 'manifest'
  | 'reference'
  | 'layer'
  | 'snapshot'
  | 'container'
  | 'directory'
  | 'file';

/** One thing that is wrong. Plain data: it is sent as it is. */
export interface Finding {
  readonly object: CheckedObject;
  /** Digest, ID, name or path. */
  readonly id: string;
  readonly kind: 'missing' | 'corrupt' | 'orphaned';
  readonly detail: string;
  /** Names (or IDs) of the images that suffer. */
  readonly images?: readonly string[];
  /** What would undo it; absent when nothing can. */
  readonly repair?: string;
  /** Set by a repairing run. */
  readonly outcome?: 'repaired' | 'failed';
  /** What the repair did, or why it failed. */
  readonly result?: string;
}

/** A finding with the deed that undoes it; the deed returns what it did. */
export interface Problem {
  readonly finding: Finding;
  readonly fix?: (signal: AbortSignal) => Promise<string>;
  /** Images that are of no use while this is so. */
  readonly broken?: readonly Digest[];
}

/** What a check works with. */
export interface FsckContext {
  readonly images: ImageStore;
  readonly containers: Pick<ContainerStore, 'all' | 'get' | 'isReserved'>;
  readonly paths: Pick<Paths, 'dataRoot' | 'container'>;
  readonly emit: EmitEvent;
  /** Where lost content is asked for. */
  readonly registries: Pick<RegistryClient, 'pull'>;
  readonly records: Pick<RegistryRecords, 'places'>;
  /** The caller's credentials for a registry. */
  readonly credentials: (domain: string) => RegistryCredentials;
}

/** How many things were looked at. */
export interface Checked {
  images: number;
  layers: number;
  blobs: number;
  /** Bytes of blobs that were read and hashed. */
  bytes: number;
  containers: number;
}

/** What one run shares among its checks. */
export interface Run {
  readonly context: FsckContext;
  readonly deep: boolean;
  readonly signal: AbortSignal;
  readonly checked: Checked;
  /** Blobs found missing or corrupt and not repaired so far. */
  readonly badBlobs: Set<Digest>;
}

/** How an image is named to people: its first tag or digest reference, else its ID. */
export function imageName(images: ImageStore, id: Digest): string {
  const image = images.get(id);
  return image?.repoTags[0] ?? image?.repoDigests[0] ?? id;
}

/** Images that have a layer of this diffID. */
export function imagesWithLayer(images: ImageStore, diffId: Digest): Digest[] {
  return images
    .list()
    .filter((image) => image.config.rootfs.diff_ids.includes(diffId))
    .map((image) => image.id);
}
