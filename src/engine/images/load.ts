/**
 * `docker load`: docker-archive (manifest.json) and OCI layout (index.json), in any known compression.
 *
 * The archive is read once (load-archive.ts); when it has ended, its layers are mostly extracted and are committed.
 * Manifests of an OCI layout are kept where the blobs they name are, and its indexes with the images they led to.
 */

import { parseImageConfig } from '#services/images/config.ts';
import type { RegistryRecords } from '#services/images/registry-records.ts';
import type { ImageStore, LayerHold } from '#services/images/store.ts';
import type { TarCodec } from '#services/images/tar-codec.ts';
import { type Digest, digestHex } from '#types/digest.ts';
import { GantryError } from '#types/errors.ts';
import { shortId } from '#types/ids.ts';
import { formatPlatform, matchesPlatform, type Platform } from '#types/platform.ts';
import { familiarString, parseReference, type Reference } from '#types/reference.ts';
import { applyBlob, chainUnder, checkStaged, commitBlobs, LAYER_DEPTH_LIMIT, type StagedBlob } from './layer.ts';
import { LoadArchive } from './load-archive.ts';
import { INDEX_TYPES } from './manifest.ts';
import { chooseManifests, ownPlatform } from './platform-choice.ts';
import { progressMessage, type WriteProgress } from './progress.ts';
import { type EmitEvent, imageAttributes } from './remove.ts';

export interface LoadContext {
  readonly images: ImageStore;
  readonly records: Pick<RegistryRecords, 'addIndex'>;
  readonly tar: TarCodec;
  readonly emit: EmitEvent;
}

export interface LoadOptions {
  readonly quiet: boolean;
  readonly platform?: Platform;
  readonly write: WriteProgress;
}

/** One image of an archive, whichever format it had. */
interface ArchivedImage {
  readonly config: Buffer;
  /** Paths in the archive. */
  readonly layers: readonly string[];
  readonly tags: readonly Reference[];
  readonly parent: string;
}

/** Loads every image of an archive. */
export async function loadImages(
  context: LoadContext,
  source: AsyncIterable<Buffer>,
  options: LoadOptions,
  signal?: AbortSignal,
): Promise<void> {
  const { images } = context;
  let opened: LoadArchive | undefined;
  try {
    using hold = images.hold();
    await using archive = new LoadArchive(images, hold);
    opened = archive;
    await archive.read(context.tar, source, signal);
    const list = (await isOciLayout(archive)) ? readOciLayout : readDockerArchive;
    let named = 0;
    const ids: { id: Digest; parent: string }[] = [];
    for (const image of await list(archive, options.platform)) {
      const id = await loadOne(context, image, { ...options, hold, archive }, signal);
      if (id === undefined) continue;
      ids.push({ id, parent: image.parent });
      named = image.tags.length;
    }
    linkParents(images, ids);
    await keepManifests(context, archive);
    if (named === 0 && ids.length > 0) {
      await options.write({ stream: ids.map(({ id }) => `Loaded image ID: ${id}\n`).join('') });
    }
  } finally {
    await opened?.dropBlobs();
  }
}

function fields(value: unknown): Record<string, unknown> {
  if (typeof value !== 'object' || value === null || Array.isArray(value))
    throw new GantryError('invalid', 'invalid manifest');
  return value as Record<string, unknown>;
}

function items(value: unknown): unknown[] {
  if (value === undefined || value === null) return [];
  if (!Array.isArray(value)) throw new GantryError('invalid', 'invalid manifest');
  return value;
}

function tagged(name: unknown): Reference {
  const reference = parseReference(String(name));
  if (reference.tag === undefined) throw new GantryError('invalid', `invalid tag "${String(name)}"`);
  return reference;
}

async function readDockerArchive(reader: LoadArchive): Promise<ArchivedImage[]> {
  if (!reader.has('manifest.json'))
    throw new GantryError('invalid', 'invalid archive: does not contain a manifest.json');
  const manifest = await reader.json('manifest.json');
  if (manifest === null) throw new GantryError('invalid', 'invalid manifest, manifest cannot be null (but can be [])');
  const found: ArchivedImage[] = [];
  for (const value of items(manifest)) {
    const item = fields(value);
    found.push({
      config: await reader.bytes(String(item['Config'])),
      layers: items(item['Layers']).map(String),
      tags: items(item['RepoTags']).map(tagged),
      parent: typeof item['Parent'] === 'string' ? item['Parent'] : '',
    });
  }
  return found;
}

/**
 * Whether the OCI side of an archive is read. Where both formats are there, docker's names all images unless an index
 * leads to several: those are in the OCI side only.
 */
async function isOciLayout(reader: LoadArchive): Promise<boolean> {
  if (!reader.has('index.json')) return false;
  if (!reader.has('manifest.json')) return true;
  const descriptors = items(fields(await reader.json('index.json'))['manifests']).map(fields);
  return descriptors.some(({ mediaType }) => INDEX_TYPES.has(String(mediaType)));
}

/** Parents by image ID, as manifest.json tells them. */
async function parentsOf(reader: LoadArchive): Promise<Map<string, string>> {
  if (!reader.has('manifest.json')) return new Map();
  const images = items(await reader.json('manifest.json')).map(fields);
  return new Map(
    images
      .filter(({ Parent: parent }) => typeof parent === 'string')
      .map((image) => [reader.digest(String(image['Config'])), String(image['Parent'])]),
  );
}

/** Indexes within indexes are followed this deep. */
const INDEX_DEPTH_LIMIT = 4;

async function readOciLayout(reader: LoadArchive, platform: Platform | undefined): Promise<ArchivedImage[]> {
  const parents = await parentsOf(reader);
  const found = new Map<string, { config: Buffer; layers: string[]; tags: Reference[]; parent: string }>();
  const visit = async (
    descriptor: Record<string, unknown>,
    names: readonly Reference[],
    depth: number,
  ): Promise<void> => {
    const path = reader.blobPath(descriptor['digest']);
    const document = fields(await reader.json(path));
    if (document['manifests'] !== undefined) {
      if (depth >= INDEX_DEPTH_LIMIT)
        throw new GantryError('invalid', 'invalid archive: indexes are nested too deeply');
      const wanted = items(document['manifests'])
        .map(fields)
        .filter((child) => isWanted(child, platform) && reader.has(`blobs/sha256/${String(child['digest']).slice(7)}`));
      const bearer = nameBearer(wanted, platform);
      for (const child of wanted) await visit(child, child === bearer ? names : [], depth + 1);
      return;
    }
    const known = found.get(path);
    if (known !== undefined) {
      known.tags.push(...names);
      return;
    }
    const configPath = reader.blobPath(fields(document['config'])['digest']);
    found.set(path, {
      config: await reader.bytes(configPath),
      layers: items(document['layers']).map((layer) => reader.blobPath(fields(layer)['digest'])),
      tags: [...names],
      parent: parents.get(reader.digest(configPath)) ?? '',
    });
  };
  for (const value of items(fields(await reader.json('index.json'))['manifests'])) {
    const descriptor = fields(value);
    await visit(descriptor, ociNames(descriptor), 0);
  }
  // Named ones last, as the answer's last word is about the last image.
  return [...found.values()].sort((a, b) => Number(a.tags.length > 0) - Number(b.tags.length > 0));
}

function ociNames(descriptor: Record<string, unknown>): Reference[] {
  const annotations = descriptor['annotations'] === undefined ? {} : fields(descriptor['annotations']);
  const full = annotations['io.containerd.image.name'] ?? annotations['org.opencontainers.image.ref.name'];
  // A bare `org.opencontainers.image.ref.name` is often only a tag; then there is no repository to name.
  if (typeof full !== 'string' || !/[:/]/.test(full)) return [];
  return [tagged(full)];
}

function describedPlatform(descriptor: Record<string, unknown>): Platform | undefined {
  const described = descriptor['platform'];
  if (described === undefined || described === null) return undefined;
  const { os, architecture, variant } = fields(described);
  return {
    os: String(os),
    architecture: String(architecture),
    ...(typeof variant === 'string' ? { variant } : {}),
  };
}

/** Of an index's images the one that its name means here: the best for the platform, else the first. */
function nameBearer(
  children: readonly Record<string, unknown>[],
  platform: Platform | undefined,
): Record<string, unknown> | undefined {
  const entries = children.map((child) => {
    const described = describedPlatform(child);
    return { child, ...(described === undefined ? {} : { platform: described }) };
  });
  return (chooseManifests(entries, platform ?? ownPlatform())[0] ?? entries[0])?.child;
}

function isWanted(descriptor: Record<string, unknown>, platform: Platform | undefined): boolean {
  const actual = describedPlatform(descriptor);
  if (actual === undefined) return true;
  if (actual.os === 'unknown') return false;
  return platform === undefined || matchesPlatform(platform, actual);
}

interface LoadOneOptions extends LoadOptions {
  readonly hold: LayerHold;
  readonly archive: LoadArchive;
}

async function loadOne(
  context: LoadContext,
  image: ArchivedImage,
  options: LoadOneOptions,
  signal?: AbortSignal,
): Promise<Digest | undefined> {
  const { images } = context;
  const config = parseImageConfig(image.config);
  if (config.os !== 'linux') throw new GantryError('invalid', `cannot load ${config.os} image on linux`);
  if (
    options.platform !== undefined &&
    !matchesPlatform(options.platform, { ...config, ...(config.variant ? { variant: config.variant } : {}) })
  ) {
    if (image.tags.length === 0) return undefined;
    throw new GantryError('notFound', `no suitable image found for platform ${formatPlatform(options.platform)}`);
  }
  const diffIds = config.rootfs.diff_ids;
  if (diffIds.length !== image.layers.length) {
    throw new GantryError(
      'invalid',
      `invalid manifest, layers length mismatch: expected ${image.layers.length}, got ${diffIds.length}`,
    );
  }
  await loadLayers(context, { diffIds, paths: image.layers }, options, signal);
  const loaded = await images.create(image.config, {});
  for (const reference of image.tags) {
    const previous = images.named(reference);
    const name = familiarString(reference);
    if (previous !== undefined && previous !== loaded.id) {
      await options.write({
        stream: `The image ${name} already exists, renaming the old one with ID ${previous} to empty string\n`,
      });
    }
    images.addReference(reference, loaded.id);
    await options.write({ stream: `Loaded image: ${name}\n` });
  }
  context.emit('image', 'load', loaded.id, imageAttributes(images.get(loaded.id), loaded.id));
  return loaded.id;
}

/** Makes the layers of one image; those that are here stay. */
async function loadLayers(
  { images, tar }: LoadContext,
  { diffIds, paths }: { diffIds: readonly Digest[]; paths: readonly string[] },
  options: LoadOneOptions,
  signal?: AbortSignal,
): Promise<void> {
  if (diffIds.length > LAYER_DEPTH_LIMIT) throw new GantryError('invalid', 'max depth exceeded');
  const { hold, archive } = options;
  const blobs: StagedBlob[] = [];
  let parent: Digest | undefined;
  let below: Digest | undefined;
  for (const [index, diffId] of diffIds.entries()) {
    const chainId = chainUnder(parent, diffId);
    hold.layers.add(chainId);
    if (images.snapshots.layer(chainId) === undefined || images.layerBlob(diffId) === undefined) {
      const path = paths[index] as string;
      const stored = await archive.stored(path);
      const id = shortId(digestHex(diffId));
      const tell = (current: number): Promise<void> | void =>
        options.quiet
          ? undefined
          : options.write(progressMessage(id, 'Loading layer', { current, total: stored.sizeBytes }));
      await tell(0);
      if (images.snapshots.stagesAhead) {
        const staged = await archive.staged(path, signal);
        checkStaged(staged, diffId);
        blobs.push({ stored, staged });
        await tell(stored.sizeBytes);
      } else {
        const progress = options.quiet ? {} : { progress: { status: 'Loading layer', id, write: options.write } };
        await applyBlob(stored, { images, tar, hold, parent, expected: diffId, ...progress }, signal);
      }
    } else {
      // A layer that lacks nothing lies on those before it: they exist, and only get their bytes back.
      if (blobs.length > 0) await commitBlobs(blobs.splice(0), { images, tar, hold, parent: below }, signal);
      below = chainId;
    }
    parent = chainId;
  }
  if (blobs.length > 0) await commitBlobs(blobs, { images, tar, hold, parent: below }, signal);
}

/**
 * Keeps manifests of an OCI layout whose image was loaded and whose layers are the very blobs it names, and the indexes
 * that led to them.
 */
async function keepManifests({ images, records }: LoadContext, archive: LoadArchive): Promise<void> {
  if (!archive.has('index.json')) return;
  /** Returns the images whose manifests were kept. */
  const visit = async (value: unknown, depth: number): Promise<Digest[]> => {
    const digest = String(fields(value)['digest']);
    if (!archive.has(`blobs/sha256/${digest.slice('sha256:'.length)}`) || depth > INDEX_DEPTH_LIMIT) return [];
    const path = archive.blobPath(digest);
    const document = fields(await archive.json(path));
    const mediaType = String(document['mediaType'] ?? fields(value)['mediaType']);
    const kept: Digest[] = [];
    for (const child of items(document['manifests'])) kept.push(...(await visit(child, depth + 1)));
    if (INDEX_TYPES.has(mediaType) && kept.length > 0) {
      const index = { digest: digest as Digest, mediaType, bytes: await archive.bytes(path) };
      for (const image of new Set(kept)) records.addIndex(image, index);
    }
    if (document['config'] === undefined) return kept;
    const image = images.get(String(fields(document['config'])['digest']) as Digest);
    const layers = items(document['layers']).map((layer) => String(fields(layer)['digest']));
    const diffIds = image?.config.rootfs.diff_ids ?? [];
    const same =
      layers.length === diffIds.length && diffIds.every((id, at) => images.layerBlob(id)?.digest === layers[at]);
    if (image === undefined || !same) return [];
    images.setManifest(image.id, mediaType, await archive.bytes(path));
    return [image.id];
  };
  try {
    for (const value of items(fields(await archive.json('index.json'))['manifests'])) await visit(value, 0);
  } catch (error) {
    // The images are loaded; what else an archive says wrongly of them is not kept.
    if (!(error instanceof GantryError)) throw error;
  }
}

/** Restores parents within one archive, where the child's history really continues the parent's. */
function linkParents(images: ImageStore, loaded: readonly { id: Digest; parent: string }[]): void {
  for (const { id, parent } of loaded) {
    const found = loaded.find((other) => other.id === parent && other.id !== id);
    if (found === undefined) continue;
    const child = images.get(id)?.config.history ?? [];
    const base = images.get(found.id)?.config.history ?? [];
    const continues =
      child.length === base.length + 1 &&
      base.every((entry, index) => JSON.stringify(entry) === JSON.stringify(child[index]));
    if (!continues) throw new GantryError('invalid', `image ${found.id} is not a valid parent for ${id}`);
    images.setParent(id, found.id);
  }
}
