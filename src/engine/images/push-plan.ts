/**
 * What is pushed for an image: the exact manifest it came with where its layers are here as that says, else a manifest
 * made from the layers as they are stored, plain ones compressed on the way.
 */
import { goJson } from '#services/images/config.ts';
import type { Image } from '#services/images/contract.ts';
import type { RegistryRecords, StoredManifest } from '#services/images/registry-records.ts';
import type { ImageStore, LayerBlob } from '#services/images/store.ts';
import type { Digest } from '#types/digest.ts';
import { GantryError } from '#types/errors.ts';
import type { Reference } from '#types/reference.ts';
import { type Descriptor, type Manifest, parseManifest } from './manifest.ts';

/** One layer to be at the registry. */
export interface LayerPush {
  readonly diffId: Digest;
  readonly blob: LayerBlob;
  /** The plain tar is compressed on the way; its digest there is known only afterwards. */
  readonly isCompressed: boolean;
}

export interface ImagePush {
  readonly image: Image;
  readonly layers: readonly LayerPush[];
  /** Exact bytes; undefined: to be made once the layers' digests are known. */
  readonly manifest: StoredManifest | undefined;
}

/** An image with the manifest it came with. */
export interface ExactPush extends ImagePush {
  readonly manifest: StoredManifest;
}

export interface TagPush {
  readonly images: readonly ImagePush[];
  /** Exact bytes of the index that names them all. */
  readonly index: StoredManifest | undefined;
}

export interface PushSources {
  readonly images: ImageStore;
  readonly records: RegistryRecords;
}

const DOCKER_MANIFEST = 'application/vnd.docker.distribution.manifest.v2+json';
const OCI_MANIFEST = 'application/vnd.oci.image.manifest.v1+json';

/** Plans the push of what a tag names. `wholeIndex` allows an index whose every part is here. */
export function planTag(
  sources: PushSources,
  image: Image,
  options: { reference: Reference; wholeIndex: boolean },
): TagPush {
  if (options.wholeIndex) {
    const whole = planIndex(sources, image, options.reference);
    if (whole !== undefined) return whole;
  }
  return { images: [planImage(sources, image, options.reference)], index: undefined };
}

/** The index an image came by, one that a name of it points at first, if everything it lists is here as it says. */
export function planIndex(
  sources: PushSources,
  image: Image,
  reference: Reference,
): { readonly images: readonly ExactPush[]; readonly index: StoredManifest } | undefined {
  const digests = sources.images.references(image.id).flatMap(({ digest }) => (digest === undefined ? [] : [digest]));
  const named = digests.flatMap((digest) => sources.records.manifest(digest as Digest) ?? []);
  for (const index of [...named, ...sources.records.indexes(image.id)]) {
    const parsed = parseManifest(index.bytes, index.mediaType, reference);
    if (parsed.kind !== 'index' || parsed.manifests.length === 0) continue;
    const parts = parsed.manifests.map((entry) => exactPart(sources, entry, reference));
    if (parts.every((part) => part !== undefined)) return { images: parts, index };
  }
  return undefined;
}

function exactPart(sources: PushSources, entry: Descriptor, reference: Reference): ExactPush | undefined {
  const manifest = sources.records.manifest(entry.digest);
  if (manifest === undefined) return undefined;
  const parsed = parseManifest(manifest.bytes, manifest.mediaType, reference);
  if (parsed.kind !== 'image') return undefined;
  const image = sources.images.get(parsed.config.digest);
  return image === undefined ? undefined : exactPush(sources, image, { manifest, parsed });
}

/** Plans one image. Throws when a layer's bytes are not here. */
function planImage(sources: PushSources, image: Image, reference: Reference): ImagePush {
  const named = new Set(sources.images.references(image.id).map(({ digest }) => digest));
  const kept = sources.images.manifests(image.id);
  // Those that a name of the image still points at come first.
  kept.sort((a, b) => Number(named.has(b.digest)) - Number(named.has(a.digest)));
  for (const manifest of kept) {
    const parsed = parseManifest(manifest.bytes, manifest.mediaType, reference);
    const exact = parsed.kind === 'image' ? exactPush(sources, image, { manifest, parsed }) : undefined;
    if (exact !== undefined) return exact;
  }
  const layers = image.config.rootfs.diff_ids.map((diffId) => {
    const blob = sources.images.layerBlob(diffId);
    if (blob === undefined) throw new GantryError('system', `content of layer ${diffId}: not found`);
    return { diffId, blob, isCompressed: blob.compression === 'none' };
  });
  return { image, layers, manifest: undefined };
}

function exactPush(
  sources: PushSources,
  image: Image,
  kept: { manifest: StoredManifest; parsed: Manifest & { kind: 'image' } },
): ExactPush | undefined {
  const layers: LayerPush[] = [];
  for (const [index, diffId] of image.config.rootfs.diff_ids.entries()) {
    const blob = sources.images.layerBlob(diffId);
    if (blob === undefined || blob.digest !== kept.parsed.layers[index]?.digest) return undefined;
    layers.push({ diffId, blob, isCompressed: false });
  }
  return { image, layers, manifest: kept.manifest };
}

/** A layer as the registry has it. */
export interface PushedLayer {
  readonly digest: Digest;
  readonly sizeBytes: number;
  readonly isZstd: boolean;
}

/** The manifest of an image made here: docker schema 2, or OCI where docker's has no name for the compression. */
export function makeManifest(
  config: { digest: Digest; sizeBytes: number },
  layers: readonly PushedLayer[],
): { mediaType: string; bytes: Buffer } {
  const isOci = layers.some(({ isZstd }) => isZstd);
  const mediaType = isOci ? OCI_MANIFEST : DOCKER_MANIFEST;
  const layerType = (layer: PushedLayer): string =>
    isOci
      ? `application/vnd.oci.image.layer.v1.tar+${layer.isZstd ? 'zstd' : 'gzip'}`
      : 'application/vnd.docker.image.rootfs.diff.tar.gzip';
  const value = {
    schemaVersion: 2,
    mediaType,
    config: {
      mediaType: isOci ? 'application/vnd.oci.image.config.v1+json' : 'application/vnd.docker.container.image.v1+json',
      size: config.sizeBytes,
      digest: config.digest,
    },
    layers: layers.map((layer) => ({ mediaType: layerType(layer), size: layer.sizeBytes, digest: layer.digest })),
  };
  return { mediaType, bytes: Buffer.from(JSON.stringify(JSON.parse(goJson(value)), null, 3)) };
}
