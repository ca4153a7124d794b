/**
 * Taking an image's layers in, wherever they come from: each becomes a blob of the content store and a committed
 * snapshot over the one before it. Bytes are verified against the blob's digest and size, the uncompressed tar
 * against the diffID; what is here already (by chainID, or by blob) is not opened.
 */
import type { ImageStore, LayerHold } from '#services/images/store.ts';
import type { TarCodec } from '#services/images/tar-codec.ts';
import type { Digest } from '#types/digest.ts';
import { applyBlob, chainUnder } from './layer.ts';

/** One layer to take in. */
export interface LayerSource {
  /** Digest and size of the bytes as they travel, e.g. of a manifest's descriptor. */
  readonly digest: Digest;
  readonly sizeBytes: number;
  /** Digest of the uncompressed tar, from the image's config. */
  readonly diffId: Digest;
  /** The bytes from `offset` on. Called again, with what is there already, when a transfer breaks. */
  open(offset: number, signal: AbortSignal): Promise<AsyncIterable<Buffer>>;
}

/** What is told of one layer while it is taken in; the use-case words it for its client. */
export type LayerStep =
  | { readonly step: 'exists' }
  | { readonly step: 'waiting' }
  | { readonly step: 'downloading' | 'extracting'; readonly current: number; readonly total: number }
  | { readonly step: 'verifying' | 'downloaded' | 'complete' }
  | { readonly step: 'retrying'; readonly seconds: number };

export interface IntakeOptions {
  readonly images: ImageStore;
  readonly tar: TarCodec;
  /** Keeps layers and blobs until the image that needs them is recorded. */
  readonly hold: LayerHold;
  readonly observe: (layer: LayerSource, step: LayerStep) => Promise<void> | void;
}

/** Takes layers in, lowest first. When it returns, the whole chain is committed and held by `options.hold`. */
export async function takeInLayers(
  layers: readonly LayerSource[],
  options: IntakeOptions,
  signal: AbortSignal,
): Promise<void> {
  const { images, tar, hold, observe } = options;
  let parent: Digest | undefined;
  for (const layer of layers) {
    const chainId = chainUnder(parent, layer.diffId);
    hold.layers.add(chainId);
    if (images.snapshots.layer(chainId) !== undefined && images.layerBlob(layer.diffId) !== undefined) {
      await observe(layer, { step: 'exists' });
    } else {
      hold.lease.digests.add(layer.digest);
      if (!images.content.has(layer.digest)) {
        const { digest: expected, sizeBytes: limitBytes } = layer;
        await images.content.write(await layer.open(0, signal), { expected, limitBytes, lease: hold.lease }, signal);
      }
      await observe(layer, { step: 'downloaded' });
      await applyBlob(layer, { images, tar, hold, parent, expected: layer.diffId }, signal);
      await observe(layer, { step: 'complete' });
    }
    parent = chainId;
  }
}
