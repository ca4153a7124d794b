/**
 * Turning bytes into layers: a layer's archive is a blob, its files a snapshot. Where the snapshotter can extract a
 * layer before its parents it does so on a thread of its own, while the archive is still being written.
 */
import { dirname } from 'node:path';
import {
  decompressLayer,
  type ImageStore,
  type LayerBlob,
  type LayerCompression,
  type LayerHold,
} from '#services/images/store.ts';
import type { TarCodec } from '#services/images/tar-codec.ts';
import type { Layer, StagedLayer } from '#services/snapshots/contract.ts';
import { withinFreeSpace } from '#system/disk/free-space.ts';
import { FileGrowth } from '#system/disk/growing-file.ts';
import { chainIds, type Digest, digestOf } from '#types/digest.ts';
import { GantryError } from '#types/errors.ts';
import { progressMessage, reportProgress, type WriteProgress } from './progress.ts';

export interface StoredLayerSource {
  readonly digest: Digest;
  readonly sizeBytes: number;
}

export interface ApplyBlobOptions {
  readonly images: ImageStore;
  readonly tar: TarCodec;
  readonly hold: LayerHold;
  readonly parent: Digest | undefined;
  readonly expected?: Digest;
  readonly progress?: LayerProgress;
}

export interface LayerProgress {
  readonly status: string;
  readonly id: string;
  readonly write: WriteProgress;
}

/** How often progress is told. */
export const PROGRESS_INTERVAL_MS = 100;
/** Compat: docker's limit of layers in one image. */
export const LAYER_DEPTH_LIMIT = 125;

/** A blob whose files are extracted and wait for their parents. */
export interface StagedBlob {
  readonly stored: StoredLayerSource;
  readonly staged: StagedLayer;
}

/** How a stored blob is compressed, by its first bytes; undefined for kinds that are not kept. */
async function compressionOf(source: AsyncIterable<Buffer>): Promise<LayerCompression | undefined> {
  for await (const chunk of source) {
    const magic = chunk.subarray(0, 6).toString('hex');
    if (magic.startsWith('1f8b')) return 'gzip';
    if (magic.startsWith('28b52ffd') || /^5[0-9a-f]2a4d18/.test(magic)) return 'zstd';
    if (magic.startsWith('425a68') || magic.startsWith('fd377a585a00')) return undefined;
    return 'none';
  }
  return 'none';
}

/** bzip2 and xz are slow to read again and in no registry: the plain tar is kept instead. */
function storePlain(
  stored: StoredLayerSource,
  { images, tar, hold }: Pick<ApplyBlobOptions, 'images' | 'tar' | 'hold'>,
  signal?: AbortSignal,
): Promise<StoredLayerSource> {
  const plain = tar.decompress(images.content.read(stored.digest), signal);
  const bounded = withinFreeSpace(plain, dirname(images.content.path(stored.digest)));
  return images.content.write(bounded, { lease: hold.lease }, signal);
}

/** The error for a layer that is not the one its image's config names. */
function differentLayer(expected: Digest, actual: Digest): GantryError {
  return new GantryError(
    'invalid',
    `layers from manifest don't match image configuration: wanted ${expected}, got ${actual}`,
  );
}

/** Applies a blob that is in the content store as a layer over `parent`. */
export async function applyBlob(
  blob: StoredLayerSource,
  options: ApplyBlobOptions,
  signal?: AbortSignal,
): Promise<Layer> {
  const { images, parent, expected } = options;
  if (!images.snapshots.stagesAhead) return applyInOrder(blob, options, signal);
  const growth = FileGrowth.complete(blob.sizeBytes);
  const staging = stageBlob(images, blob, { growth, ...(signal === undefined ? {} : { signal }) });
  using staged = await reportWhile(staging, growth, { sizeBytes: blob.sizeBytes, progress: options.progress });
  if (expected !== undefined) checkStaged(staged, expected);
  const [layer] = await commitBlobs([{ stored: blob, staged }], { ...options, parent }, signal);
  return layer as Layer;
}

/** Extracts a blob of the content store without its parents. */
export function stageBlob(
  images: ImageStore,
  blob: StoredLayerSource,
  options: { readonly growth?: FileGrowth; readonly signal?: AbortSignal } = {},
): Promise<StagedLayer> {
  const growth = options.growth ?? FileGrowth.complete(blob.sizeBytes);
  return images.snapshots.stage({ path: images.content.path(blob.digest), growth }, options.signal);
}

/** Tells how far an extraction is until it settles, and its end. */
async function reportWhile(
  staging: Promise<StagedLayer>,
  growth: FileGrowth,
  { sizeBytes, progress }: { sizeBytes: number; progress: LayerProgress | undefined },
): Promise<StagedLayer> {
  if (progress === undefined) return staging;
  const tell = (current: number): Promise<void> | void =>
    progress.write(progressMessage(progress.id, progress.status, { current, total: sizeBytes }));
  const timer = setInterval(() => void tell(growth.consumed), PROGRESS_INTERVAL_MS);
  try {
    const staged = await staging;
    await tell(sizeBytes);
    return staged;
  } finally {
    clearInterval(timer);
  }
}

/** Commits staged blobs, the first over `parent`, each other over the one before, and remembers their bytes. */
export async function commitBlobs(
  blobs: readonly StagedBlob[],
  options: Pick<ApplyBlobOptions, 'images' | 'tar' | 'hold' | 'parent'>,
  signal?: AbortSignal,
): Promise<Layer[]> {
  const { images, hold, parent } = options;
  const kept: { diffId: Digest; blob: LayerBlob }[] = [];
  const chain: Digest[] = [];
  for (const { stored, staged } of blobs) {
    const { diffId, tarSizeBytes, compression } = staged;
    chain.push(chainUnder(chain.at(-1) ?? parent, diffId));
    hold.layers.add(chain.at(-1) as Digest);
    const plain = compression === 'xz' || compression === 'bzip2';
    const { digest, sizeBytes } = plain ? await storePlain(stored, options, signal) : stored;
    kept.push({ diffId, blob: { digest, sizeBytes, compression: plain ? 'none' : compression, tarSizeBytes } });
  }
  using again = new DisposableStack();
  // Files are given away once only: another caller, or the same image further down, may have taken these meanwhile.
  const own = blobs.map(({ staged }) => staged);
  const isTaken = (staged: StagedLayer, index: number): boolean =>
    images.snapshots.layer(chain[index] as Digest) === undefined &&
    (!staged.isAvailable || own.indexOf(staged) < index);
  for (let taken = own.findIndex(isTaken); taken >= 0; taken = own.findIndex(isTaken)) {
    const { stored } = blobs[taken] as StagedBlob;
    own[taken] = again.use(await stageBlob(images, stored, signal === undefined ? {} : { signal }));
  }
  signal?.throwIfAborted();
  const fresh = chain.filter((id) => images.snapshots.layer(id) === undefined);
  try {
    return images.atomically(() => {
      images.setLayerBlobs(kept);
      return images.snapshots.commitStaged(parent, own);
    });
  } catch (error) {
    // Where the disk was full only at the very end, the snapshotter takes the layers for real.
    for (const id of fresh.reverse()) await images.snapshots.removeLayer(id).catch(() => undefined);
    throw error;
  }
}

/** For drivers that need the parent's files: reads the blob here and now. */
async function applyInOrder(blob: StoredLayerSource, options: ApplyBlobOptions, signal?: AbortSignal): Promise<Layer> {
  const { images, hold } = options;
  let stored = blob;
  let compression = await compressionOf(images.content.read(blob.digest));
  if (compression === undefined) {
    stored = await storePlain(blob, options, signal);
    compression = 'none';
  }
  const expectedChain = options.expected === undefined ? undefined : chainUnder(options.parent, options.expected);
  if (expectedChain !== undefined) hold.layers.add(expectedChain);
  let tarSizeBytes = 0;
  const raw = reportProgress(images.content.read(stored.digest), {
    id: options.progress?.id ?? '',
    status: options.progress?.status ?? '',
    total: stored.sizeBytes,
    write: options.progress?.write,
  });
  const counted = async function* (): AsyncGenerator<Buffer> {
    for await (const chunk of decompressLayer(raw, compression as LayerCompression)) {
      tarSizeBytes += chunk.length;
      yield chunk;
    }
  };
  const wanted = options.expected === undefined ? {} : { expected: options.expected };
  const layer = await images.snapshots.applyLayer(options.parent, counted(), wanted, signal);
  hold.layers.add(layer.chainId);
  images.setLayerBlob(layer.diffId, { ...stored, compression, tarSizeBytes });
  return layer;
}

/** ChainID of `diffId` over a parent chain. */
export function chainUnder(parent: Digest | undefined, diffId: Digest): Digest {
  return parent === undefined ? diffId : (chainIds([parent, diffId])[1] as Digest);
}

/** Stores a layer tar as it comes (any known compression) and applies it. */
export async function importLayer(
  source: AsyncIterable<Buffer>,
  options: ApplyBlobOptions,
  signal?: AbortSignal,
): Promise<Layer> {
  const { images, hold, expected } = options;
  if (!images.snapshots.stagesAhead) {
    return applyInOrder(await images.content.write(source, { lease: hold.lease }, signal), options, signal);
  }
  await using ingest = await images.content.ingest({ lease: hold.lease });
  const staging = images.snapshots.stage(ingest, signal);
  staging.catch(() => {});
  await using stack = new AsyncDisposableStack();
  // Whatever fails, the thread is waited for: it reads the file that is then dropped.
  stack.defer(async () => {
    ingest.growth.abandon();
    await staging.then((staged) => staged[Symbol.dispose]()).catch(() => {});
  });
  for await (const chunk of source) {
    signal?.throwIfAborted();
    await ingest.append(chunk);
  }
  const stored = await ingest.commit();
  const staged = await staging;
  if (expected !== undefined) checkStaged(staged, expected);
  const [layer] = await commitBlobs([{ stored, staged }], options, signal);
  return layer as Layer;
}

/** Checks that a staged layer is the one an image's config names. */
export function checkStaged(staged: StagedLayer, expected: Digest): void {
  if (staged.diffId !== expected) throw differentLayer(expected, staged.diffId);
}

/** Digest of an archive that holds nothing: 1024 zero bytes. */
const EMPTY_ARCHIVE: Digest = digestOf(Buffer.alloc(1024));

/**
 * Freezes a writable snapshot into a layer and keeps its tar, so that `save` and `push` can give it again. The tree is
 * read once: a container that goes on writing meanwhile is committed as it was seen.
 * Compat: undefined when nothing was written; an empty layer is none.
 */
export async function commitSnapshot(
  images: ImageStore,
  key: string,
  options: { hold: LayerHold },
  signal?: AbortSignal,
): Promise<Layer | undefined> {
  const blob = await images.content.write(
    images.snapshots.diff(key) as AsyncIterable<Buffer>,
    { lease: options.hold.lease },
    signal,
  );
  const { digest } = blob;
  if (digest === EMPTY_ARCHIVE) {
    options.hold.lease.digests.delete(digest);
    if (!images.isLayerBlob(digest)) await images.content.delete(digest);
    return undefined;
  }
  const parent = images.snapshots.parent(key);
  options.hold.layers.add(chainUnder(parent, digest));
  const layer = await images.snapshots.applyLayer(parent, images.content.read(digest), { expected: digest }, signal);
  images.setLayerBlob(layer.diffId, {
    digest: blob.digest,
    sizeBytes: blob.sizeBytes,
    compression: 'none',
    tarSizeBytes: blob.sizeBytes,
  });
  return layer;
}
