/** Turning bytes into layers: a tar is stored as a blob and applied as a snapshot in one use-case. */
import { decompressLayer, type ImageStore, type LayerCompression, type LayerHold } from '#services/images/store.ts';
import type { TarCodec } from '#services/images/tar-codec.ts';
import type { Layer } from '#services/snapshots/contract.ts';
import { chainIds, type Digest } from '#types/digest.ts';
import { GantryError } from '#types/errors.ts';
import { reportProgress, type WriteProgress } from './progress.ts';

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
  readonly progress?: { readonly status: string; readonly id: string; readonly write: WriteProgress };
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

/** Applies a blob that is in the content store as a layer over `parent`. */
export async function applyBlob(
  blob: StoredLayerSource,
  options: ApplyBlobOptions,
  signal?: AbortSignal,
): Promise<Layer> {
  const { images, hold } = options;
  let stored = blob;
  let compression = await compressionOf(images.content.read(blob.digest));
  if (compression === undefined) {
    // bzip2 and xz are slow to read again and in no registry: the plain tar is kept instead.
    stored = await images.content.write(
      options.tar.decompress(images.content.read(blob.digest), signal),
      { lease: hold.lease },
      signal,
    );
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
  const blob = await options.images.content.write(source, { lease: options.hold.lease }, signal);
  return applyBlob(blob, options, signal);
}

/** Freezes a writable snapshot into a layer and keeps its tar, so that `save` and `push` can give it again. */
export async function commitSnapshot(
  images: ImageStore,
  key: string,
  options: { hold: LayerHold },
  signal?: AbortSignal,
): Promise<Layer> {
  const blob = await images.content.write(
    images.snapshots.diff(key) as AsyncIterable<Buffer>,
    { lease: options.hold.lease },
    signal,
  );
  const layer = await images.snapshots.commit(key);
  options.hold.layers.add(layer.chainId);
  if (layer.diffId !== blob.digest) {
    throw new GantryError(
      'system',
      `layer ${layer.diffId} changed while it was committed (its archive is ${blob.digest})`,
    );
  }
  images.setLayerBlob(layer.diffId, {
    digest: blob.digest,
    sizeBytes: blob.sizeBytes,
    compression: 'none',
    tarSizeBytes: blob.sizeBytes,
  });
  return layer;
}
