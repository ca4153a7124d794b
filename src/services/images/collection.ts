/**
 * What may be removed from the image store, and its removal. Roots are images, holds and snapshots; whether
 * something is needed is always asked in the same synchronous stretch that takes its row or name away, so work
 * in flight (which holds first and looks afterwards) never loses what it has seen.
 */
import type { ContentStore } from '#services/content/contract.ts';
import type { Snapshotter } from '#services/snapshots/contract.ts';
import type { Database } from '#system/database/database.ts';
import type { Digest } from '#types/digest.ts';
import { GantryError } from '#types/errors.ts';
import type { LayerBlobRows } from './layer-blobs.ts';

/** What keeps things. */
export interface Roots {
  /** An image whose row cannot be read may need anything: as long as there is one, nothing goes. */
  isIncomplete(): boolean;
  images(): Iterable<{ readonly chain: readonly Digest[]; readonly diffIds: readonly Digest[] }>;
  readonly holds: Iterable<{ readonly layers: ReadonlySet<Digest> }>;
}

export interface CollectionOptions {
  readonly database: Database;
  readonly content: ContentStore;
  readonly snapshots: Snapshotter;
  readonly blobs: LayerBlobRows;
  readonly roots: Roots;
}

/** Garbage collection of one image store. */
export class Collection {
  readonly #database: Database;
  readonly #content: ContentStore;
  readonly #snapshots: Snapshotter;
  readonly #blobs: LayerBlobRows;
  readonly #roots: Roots;

  constructor(options: CollectionOptions) {
    this.#database = options.database;
    this.#content = options.content;
    this.#snapshots = options.snapshots;
    this.#blobs = options.blobs;
    this.#roots = options.roots;
  }

  /**
   * Layers taken in for an image that never came to be go with their hold. Their blobs stay until the next
   * collection: a transfer that is begun again finds what was verified already.
   */
  dropUnused(layers: ReadonlySet<Digest>): void {
    const chains = [...layers].map((chainId) => this.#stack(chainId)).sort((a, b) => b.length - a.length);
    for (const chain of chains) {
      const chainId = chain.at(-1);
      const layer = chainId === undefined ? undefined : this.#snapshots.layer(chainId);
      if (chainId === undefined || layer === undefined || this.#layerInUse(chainId)) continue;
      // Refused while another layer or a container lies on it. A snapshotter removes within the call.
      this.#snapshots.removeLayer(chainId).catch(() => undefined);
      if (this.#snapshots.layer(chainId) === undefined && !this.isDiffNeeded(layer.diffId)) {
        this.#blobs.delete(layer.diffId);
      }
    }
  }

  /** ChainIDs from the lowest layer up to this one, as far as they are there. */
  #stack(top: Digest): Digest[] {
    const chain: Digest[] = [];
    for (let at = this.#snapshots.layer(top); at !== undefined; ) {
      chain.unshift(at.chainId);
      at = at.parent === undefined ? undefined : this.#snapshots.layer(at.parent);
    }
    return chain;
  }

  /** Whether the tar of this diffID is a layer of an image or on the disk, over whichever parent. */
  isDiffNeeded(diffId: Digest): boolean {
    if (this.#roots.isIncomplete()) return true;
    for (const record of this.#roots.images()) if (record.diffIds.includes(diffId)) return true;
    return this.#snapshots.layers().some((layer) => layer.diffId === diffId);
  }

  /** After the last container on a layer has gone: removes what no image, hold or snapshot needs of its stack. */
  async releaseLayer(chainId: Digest): Promise<void> {
    await this.removeUnused(this.#stack(chainId));
  }

  /** Removes layers of a chain from the top down, as far as nobody needs them; returns their ChainIDs. */
  async removeUnused(chain: readonly Digest[]): Promise<Digest[]> {
    const removed: Digest[] = [];
    for (const chainId of [...chain].reverse()) {
      if (this.#layerInUse(chainId)) break;
      const layer = this.#snapshots.layer(chainId);
      if (layer === undefined) continue;
      try {
        await this.#snapshots.removeLayer(chainId);
      } catch (error) {
        if (error instanceof GantryError && error.kind === 'conflict') break;
        throw error;
      }
      removed.push(chainId);
      await this.#removeUnusedBlob(layer.diffId);
    }
    return removed;
  }

  #layerInUse(chainId: Digest): boolean {
    if (this.#roots.isIncomplete()) return true;
    for (const hold of this.#roots.holds) if (hold.layers.has(chainId)) return true;
    for (const record of this.#roots.images()) if (record.chain.includes(chainId)) return true;
    return false;
  }

  async #removeUnusedBlob(diffId: Digest): Promise<void> {
    if (!this.isDiffNeeded(diffId)) await this.forgetLayerBlob(diffId);
  }

  /** Forgets which blob a layer came as, and removes the blob. */
  async forgetLayerBlob(diffId: Digest): Promise<void> {
    const blob = this.#blobs.get(diffId);
    if (blob === undefined) return;
    this.#blobs.delete(diffId);
    if (!this.#blobs.names(blob.digest)) await this.#content.delete(blob.digest);
  }

  /**
   * Removes layers and blobs that no image, hold or snapshot needs: what a crash, a failed load or a cancelled
   * transfer left. Safe beside running work: whether something is needed is asked in the stretch that removes it.
   * Returns the bytes of removed blobs.
   */
  async collect(): Promise<number> {
    const layers = this.#snapshots.layers();
    const parents = new Set(layers.map((layer) => layer.parent));
    for (const top of layers.filter((layer) => !parents.has(layer.chainId))) {
      await this.removeUnused(this.#stack(top.chainId));
    }
    for (const { diffId } of this.#blobs.list()) {
      if (!this.isDiffNeeded(diffId)) this.#blobs.delete(diffId);
    }
    return (await this.#content.gc({ has: (digest) => this.isNeeded(digest) })).sizeBytes;
  }

  /** Whether a blob belongs to a layer, is a layer's plain archive, or is named by a kept manifest. */
  isNeeded(digest: Digest): boolean {
    return this.#blobs.names(digest) || this.isDiffNeeded(digest) || this.#isNamedByManifest(digest);
  }

  /** A layer's row may be lost; its manifest still tells that the bytes are wanted. */
  #isNamedByManifest(digest: Digest): boolean {
    return (
      this.#database.get('SELECT 1 FROM image_manifests WHERE instr(CAST(bytes AS TEXT), ?) > 0', digest) !== undefined
    );
  }

  /** Layers that no image, hold or snapshot needs, top first. */
  unneededLayers(): Digest[] {
    if (this.#roots.isIncomplete()) return [];
    const snapshots = this.#snapshots;
    const needed = new Set<Digest>();
    for (const hold of this.#roots.holds)
      for (const held of hold.layers) for (const id of this.#stack(held)) needed.add(id);
    for (const record of this.#roots.images()) for (const id of record.chain) needed.add(id);
    for (const key of snapshots.keys()) {
      const parent = snapshots.parent(key);
      if (parent !== undefined) for (const id of this.#stack(parent)) needed.add(id);
    }
    const chains = snapshots.layers().map(({ chainId }) => this.#stack(chainId));
    const rest = chains.filter((chain) => !needed.has(chain.at(-1) as Digest));
    return rest.sort((a, b) => b.length - a.length).map((chain) => chain.at(-1) as Digest);
  }
}
