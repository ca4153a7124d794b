/**
 * `docker save`: one archive that is both docker-archive (manifest.json, repositories) and OCI layout
 * (oci-layout, index.json), as dockerd writes since 25. An image that came with a manifest is saved with it, one that
 * came by an index with the whole index, where all that it lists is here (manifest.json names the image alone).
 */
import { goJson } from '#services/images/config.ts';
import type { Image } from '#services/images/contract.ts';
import type { StoredManifest } from '#services/images/registry-records.ts';
import type { ImageStore } from '#services/images/store.ts';
import { type TarCodec, type TarPiece, writeArchive } from '#services/images/tar-codec.ts';
import { parseTime } from '#system/clock/clock.ts';
import { makeEntry } from '#system/tar/entry.ts';
import { chainIds, type Digest, digestHex, digestOf } from '#types/digest.ts';
import { GantryError } from '#types/errors.ts';
import { formatPlatform, matchesPlatform, type Platform } from '#types/platform.ts';
import {
  canonicalString,
  familiarName,
  familiarString,
  isNameOnly,
  parseAnyReference,
  type Reference,
  withDefaultTag,
} from '#types/reference.ts';
import { imagePlatform } from './inspect.ts';
import { type PushSources, planIndex } from './push-plan.ts';
import { type EmitEvent, imageAttributes } from './remove.ts';

const LAYER_MEDIA_TYPE = 'application/vnd.oci.image.layer.v1.tar';
const MANIFEST_MEDIA_TYPE = 'application/vnd.oci.image.manifest.v1+json';

interface Chosen {
  readonly image: Image;
  readonly tags: Reference[];
}

export interface SaveContext extends PushSources {
  readonly tar: TarCodec;
  readonly emit: EmitEvent;
}

/** What goes into the archive for one chosen image. */
interface Saved extends Chosen {
  readonly manifest: SavedManifest;
  /** The index it came by and the other images that this lists. */
  readonly whole:
    | { readonly index: StoredManifest; readonly parts: readonly { image: Image; manifest: SavedManifest }[] }
    | undefined;
}

/** Which images and names a list of arguments means; a bare repository means all its tags. */
function choose(images: ImageStore, names: readonly string[]): Chosen[] {
  const chosen = new Map<Digest, Chosen>();
  const add = (image: Image, reference?: Reference): void => {
    const entry = chosen.get(image.id) ?? { image, tags: [] };
    chosen.set(image.id, entry);
    if (reference === undefined || reference.digest !== undefined) return;
    const tag = withDefaultTag(reference);
    if (!entry.tags.some((known) => canonicalString(known) === canonicalString(tag))) entry.tags.push(tag);
  };
  for (const name of names) {
    const parsed = parseAnyReference(name);
    if (parsed.kind === 'named' && isNameOnly(parsed.reference)) {
      const matches = images.referencesByName(parsed.reference);
      for (const match of matches) add(images.get(match.image) as Image, match.reference);
      if (matches.length > 0) continue;
    }
    const named = parsed.kind === 'named' && images.named(parsed.reference) !== undefined;
    add(images.resolve(name), named ? parsed.reference : undefined);
  }
  return [...chosen.values()];
}

/** Checks the names at once and returns the archive as a stream. */
export function saveImages(context: SaveContext, names: readonly string[], platform?: Platform): AsyncIterable<Buffer> {
  const chosen = choose(context.images, names);
  for (const { image } of chosen) {
    if (platform !== undefined && !matchesPlatform(platform, imagePlatform(image))) {
      throw new GantryError('notFound', `no suitable export target found for platform ${formatPlatform(platform)}`);
    }
    if (image.topLayer === undefined) throw new GantryError('system', 'empty export - not implemented');
  }
  const saved = chosen.map((each): Saved => {
    const manifest = keptManifest(context.images, each.image) ?? newManifest(context.images, each.image);
    return { ...each, manifest, whole: platform === undefined ? wholeIndex(context, each) : undefined };
  });
  const pieces = archivePieces(context.images, saved);
  for (const { image } of chosen) context.emit('image', 'save', image.id, imageAttributes(image, image.id));
  const held = saved.flatMap(({ image, whole }) => [image, ...(whole?.parts ?? []).map((part) => part.image)]);
  return heldArchive(context, held, pieces);
}

/** What is being saved stays until the last byte, whoever removes its images meanwhile. */
async function* heldArchive(
  { images, tar }: { images: ImageStore; tar: TarCodec },
  saved: readonly Image[],
  pieces: readonly TarPiece[],
): AsyncGenerator<Buffer> {
  using hold = images.hold();
  for (const image of saved) {
    for (const [index, chainId] of imageChain(image).entries()) {
      hold.layers.add(chainId);
      const blob = images.layerBlob(image.config.rootfs.diff_ids[index] as Digest);
      if (blob !== undefined) hold.lease.digests.add(blob.digest);
    }
  }
  yield* writeArchive(tar, pieces);
}

const imageChain = (image: Image): Digest[] => chainIds(image.config.rootfs.diff_ids);

function filePiece(path: string, bytes: Buffer, modifiedNs = 0n): TarPiece {
  const once = async function* (): AsyncGenerator<Buffer> {
    yield bytes;
  };
  return { entry: makeEntry(path, 'file', { sizeBytes: bytes.length, modifiedNs }), content: once };
}

/** A layer as the blob it came as, or else uncompressed under its diffID. */
function layerPiece(images: ImageStore, layer: { diffId: Digest; digest: Digest }, modifiedNs: bigint): TarPiece {
  const blob = images.layerBlob(layer.diffId);
  if (blob === undefined) throw new GantryError('system', `content of layer ${layer.diffId}: not found`);
  const asItCame = blob.digest === layer.digest;
  const sizeBytes = asItCame ? blob.sizeBytes : blob.tarSizeBytes;
  const entry = makeEntry(blobPath(layer.digest), 'file', { sizeBytes, modifiedNs });
  return { entry, content: () => (asItCame ? images.content.read(blob.digest) : images.openLayer(layer.diffId)) };
}

interface LayerDescriptor {
  readonly mediaType: string;
  readonly digest: Digest;
  readonly size: number;
}

/** The manifest an image is saved with. */
interface SavedManifest {
  readonly mediaType: string;
  readonly bytes: Buffer;
  readonly layers: readonly LayerDescriptor[];
  readonly created: bigint;
}

function createdNs(image: Image): bigint {
  return (image.config.created === undefined ? undefined : parseTime(image.config.created)) ?? 0n;
}

/** The index an image came by, if all that it lists is here. */
function wholeIndex(sources: PushSources, { image, tags }: Chosen): Saved['whole'] {
  const [reference] = tags;
  const found = reference === undefined ? undefined : planIndex(sources, image, reference);
  if (found === undefined) return undefined;
  const parts: { image: Image; manifest: SavedManifest }[] = [];
  for (const { image: part, manifest } of found.images) {
    const kept = savedAs(sources.images, part, manifest);
    if (kept === undefined) return undefined;
    parts.push({ image: part, manifest: kept });
  }
  return { index: found.index, parts };
}

/** A manifest the image came with, if all the blobs it names are here: its digest stays the same. */
function keptManifest(images: ImageStore, image: Image): SavedManifest | undefined {
  for (const manifest of images.manifests(image.id)) {
    const saved = savedAs(images, image, manifest);
    if (saved !== undefined) return saved;
  }
  return undefined;
}

function savedAs(
  images: ImageStore,
  image: Image,
  { mediaType, bytes }: Pick<StoredManifest, 'mediaType' | 'bytes'>,
): SavedManifest | undefined {
  const diffIds = image.config.rootfs.diff_ids;
  const parsed = JSON.parse(bytes.toString('utf8')) as { layers?: LayerDescriptor[]; config?: LayerDescriptor };
  const layers = (parsed.layers ?? []).map(({ mediaType, digest, size }) => ({ mediaType, digest, size }));
  const whole =
    parsed.config?.digest === image.id &&
    layers.length === diffIds.length &&
    layers.every(({ digest }, at) => {
      const blob = images.layerBlob(diffIds[at] as Digest);
      return blob?.digest === digest && images.content.has(digest);
    });
  return whole ? { mediaType, bytes, layers, created: createdNs(image) } : undefined;
}

/** Compat: as dockerd makes it: layers are plain tars named by their diffID. */
function newManifest(images: ImageStore, image: Image): SavedManifest {
  const layers = image.config.rootfs.diff_ids.map((digest) => {
    const blob = images.layerBlob(digest);
    if (blob === undefined) throw new GantryError('system', `content of layer ${digest}: not found`);
    return { mediaType: LAYER_MEDIA_TYPE, digest, size: blob.tarSizeBytes };
  });
  const size = images.configBytes(image.id).length;
  const bytes = Buffer.from(
    goJson({
      schemaVersion: 2,
      mediaType: MANIFEST_MEDIA_TYPE,
      config: { mediaType: 'application/vnd.oci.image.config.v1+json', digest: image.id, size },
      layers,
    }),
  );
  return { mediaType: MANIFEST_MEDIA_TYPE, bytes, layers, created: createdNs(image) };
}

const blobPath = (digest: Digest): string => `blobs/sha256/${digestHex(digest)}`;

/** Adds the blobs of an image; returns the descriptor of its manifest. */
function addBlobs(
  blobs: Map<string, TarPiece>,
  images: ImageStore,
  { image, manifest }: { image: Image; manifest: SavedManifest },
): LayerDescriptor {
  const { created, layers, bytes, mediaType } = manifest;
  for (const [at, { digest }] of layers.entries()) {
    const path = blobPath(digest);
    const diffId = image.config.rootfs.diff_ids[at] as Digest;
    if (!blobs.has(path)) blobs.set(path, layerPiece(images, { diffId, digest }, created));
  }
  blobs.set(blobPath(image.id), filePiece(blobPath(image.id), images.configBytes(image.id), created));
  const digest = digestOf(bytes);
  blobs.set(blobPath(digest), filePiece(blobPath(digest), bytes));
  return { mediaType, digest, size: bytes.length };
}

/** The archive's entries, sorted by path as dockerd packs its directory. */
function archivePieces(images: ImageStore, saved: readonly Saved[]): TarPiece[] {
  const blobs = new Map<string, TarPiece>();
  const manifest: object[] = [];
  const descriptors: object[] = [];
  const repositories: Record<string, Record<string, string>> = {};
  for (const { image, tags, manifest: own, whole } of saved) {
    const { layers } = own;
    const diffIds = image.config.rootfs.diff_ids;
    let descriptor = addBlobs(blobs, images, { image, manifest: own });
    if (whole !== undefined) {
      for (const part of whole.parts) addBlobs(blobs, images, part);
      const { digest, mediaType, bytes } = whole.index;
      blobs.set(blobPath(digest), filePiece(blobPath(digest), bytes));
      descriptor = { mediaType, digest, size: bytes.length };
    }
    for (const tag of tags) {
      const tagText = tag.tag ?? 'latest';
      const repository = familiarName(tag);
      repositories[repository] ??= {};
      repositories[repository][tagText] = digestHex(diffIds.at(-1) as Digest);
      descriptors.push({
        ...descriptor,
        annotations: { 'io.containerd.image.name': canonicalString(tag), 'org.opencontainers.image.ref.name': tagText },
      });
    }
    if (tags.length === 0) descriptors.push(descriptor);
    manifest.push({
      Config: blobPath(image.id),
      RepoTags: tags.length === 0 ? null : tags.map(familiarString),
      Layers: layers.map((layer) => blobPath(layer.digest)),
      ...(image.parent !== undefined && saved.some((other) => other.image.id === image.parent)
        ? { Parent: image.parent }
        : {}),
      LayerSources: Object.fromEntries(layers.map((layer, at) => [diffIds[at], layer])),
    });
  }
  const index = { schemaVersion: 2, mediaType: 'application/vnd.oci.image.index.v1+json', manifests: descriptors };
  const text = (path: string, value: string): TarPiece => filePiece(path, Buffer.from(value));
  return [
    { entry: makeEntry('blobs', 'directory') },
    { entry: makeEntry('blobs/sha256', 'directory') },
    ...[...blobs].sort(([a], [b]) => (a < b ? -1 : 1)).map(([, piece]) => piece),
    text('index.json', goJson(index)),
    text('manifest.json', `${goJson(manifest)}\n`),
    text('oci-layout', '{"imageLayoutVersion": "1.0.0"}'),
    ...(Object.keys(repositories).length === 0 ? [] : [text('repositories', `${goJson(repositories)}\n`)]),
  ];
}
