/**
 * What `manifests=1` adds to the list and the inspection of images: the manifests of the index an image was pulled by,
 * and which of them are here. An image that came without a manifest, or was made here, has none to show.
 */
import type { Image } from '#services/images/contract.ts';
import type { StoredManifest } from '#services/images/registry-records.ts';
import type { ImageStore } from '#services/images/store.ts';
import { imagePlatform } from './inspect.ts';
import type { ImageUse } from './remove.ts';

interface Descriptor {
  readonly mediaType: string;
  readonly digest: string;
  readonly size: number;
  readonly platform?: Readonly<Record<string, unknown>>;
  readonly annotations?: Readonly<Record<string, string>>;
}

interface ManifestSummary {
  readonly ID: string;
  readonly Descriptor: Descriptor;
  readonly Available: boolean;
  readonly Size: { readonly Content: number; readonly Total: number };
  readonly Kind: 'image' | 'attestation';
  readonly ImageData?: {
    readonly Platform: Readonly<Record<string, unknown>>;
    readonly Containers: readonly string[];
    readonly Size: { readonly Unpacked: number };
  };
  readonly AttestationData?: { readonly For: string };
}

export interface ManifestSources {
  readonly images: ImageStore;
  /** Indexes an image was pulled by, outermost first. */
  readonly indexes: (image: Image['id']) => readonly StoredManifest[];
  readonly uses: () => readonly ImageUse[];
}

/** The manifests of one image, in the order of its index. */
export function manifestSummaries(sources: ManifestSources, image: Image): ManifestSummary[] {
  const own = new Map(sources.images.manifests(image.id).map((manifest) => [String(manifest.digest), manifest]));
  const listed = sources.indexes(image.id).flatMap(({ bytes }) => descriptorsOf(bytes));
  const unlisted = [...own.values()]
    .filter(({ digest }) => !listed.some((descriptor) => descriptor.digest === digest))
    .map(({ digest, mediaType, bytes }) => ({ mediaType, digest, size: bytes.length }));
  const known = new Set<string>();
  return [...listed, ...unlisted].flatMap((descriptor) => {
    // An index within an index is listed by its own entries.
    if (known.has(descriptor.digest) || /(index|manifest\.list)\.v\d\+json$/.test(descriptor.mediaType)) return [];
    known.add(descriptor.digest);
    return [summary(sources, image, { descriptor, bytes: own.get(descriptor.digest)?.bytes })];
  });
}

function summary(
  sources: ManifestSources,
  image: Image,
  { descriptor, bytes }: { descriptor: Descriptor; bytes: Buffer | undefined },
): ManifestSummary {
  const base = { ID: descriptor.digest, Descriptor: descriptor, Available: bytes !== undefined };
  if (descriptor.annotations?.['vnd.docker.reference.type'] === 'attestation-manifest') {
    const subject = descriptor.annotations['vnd.docker.reference.digest'] ?? '';
    const size = bytes?.length ?? 0;
    return { ...base, Size: { Content: size, Total: size }, Kind: 'attestation', AttestationData: { For: subject } };
  }
  const content = bytes === undefined ? 0 : bytes.length + contentBytes(sources.images, image);
  const unpacked = bytes === undefined ? 0 : image.sizeBytes;
  const containers = bytes === undefined ? [] : sources.uses().filter((use) => use.imageId === image.id);
  return {
    ...base,
    Size: { Content: content, Total: content + unpacked },
    Kind: 'image',
    ImageData: {
      Platform: descriptor.platform ?? platformOf(image),
      Containers: containers.map((use) => use.containerId),
      Size: { Unpacked: unpacked },
    },
  };
}

/** The config and the archives of the layers. */
function contentBytes(images: ImageStore, image: Image): number {
  const blobs = image.config.rootfs.diff_ids.map((diffId) => images.layerBlob(diffId)?.sizeBytes ?? 0);
  return images.configBytes(image.id).length + blobs.reduce((sum, sizeBytes) => sum + sizeBytes, 0);
}

function platformOf(image: Image): Readonly<Record<string, unknown>> {
  const { architecture, os, variant } = imagePlatform(image);
  return { architecture, os, ...(variant === undefined ? {} : { variant }) };
}

/** Entries of an index that was checked when it was pulled. */
function descriptorsOf(bytes: Buffer): Descriptor[] {
  const { manifests } = JSON.parse(bytes.toString('utf8')) as { manifests?: Descriptor[] };
  return (manifests ?? []).map(({ mediaType, digest, size, platform, annotations }) => ({
    mediaType,
    digest,
    size,
    ...(annotations === undefined ? {} : { annotations }),
    ...(platform === undefined ? {} : { platform }),
  }));
}
