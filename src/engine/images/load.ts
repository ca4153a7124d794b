/**
 * `docker load`: docker-archive (manifest.json) and OCI layout (index.json), in any known compression.
 *
 * The archive is read once; every file goes straight into the content store (hashed, under a lease), so a
 * layer is written exactly once and no path of the archive ever touches the host's file system.
 */

import { parseImageConfig } from '#services/images/config.ts';
import type { ImageStore, LayerHold } from '#services/images/store.ts';
import type { TarCodec } from '#services/images/tar-codec.ts';
import { type Digest, digestHex, isDigest } from '#types/digest.ts';
import { errorMessage, GantryError } from '#types/errors.ts';
import { shortId } from '#types/ids.ts';
import { formatPlatform, matchesPlatform, type Platform } from '#types/platform.ts';
import { familiarString, parseReference, type Reference } from '#types/reference.ts';
import { applyBlob, chainUnder, type StoredLayerSource } from './layer.ts';
import { progressMessage, type WriteProgress } from './progress.ts';
import { type EmitEvent, imageAttributes } from './remove.ts';

/** Files in one archive. */
export const ARCHIVE_ENTRY_LIMIT = 100_000;
/** Bytes of one JSON document in an archive. */
export const ARCHIVE_JSON_LIMIT_BYTES: number = 16 * 1024 * 1024;
/** Symlinks followed for one name; old archives link shared layers. */
const LINK_LIMIT = 16;

export interface LoadContext {
  readonly images: ImageStore;
  readonly tar: TarCodec;
  readonly emit: EmitEvent;
}

export interface LoadOptions {
  readonly quiet: boolean;
  readonly platform?: Platform;
  readonly write: WriteProgress;
}

interface Archive {
  readonly files: Map<string, StoredLayerSource>;
  readonly links: Map<string, string>;
}

/** One image of an archive, whichever format it had. */
interface ArchivedImage {
  readonly config: Buffer;
  readonly layers: readonly StoredLayerSource[];
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
  const archive: Archive = { files: new Map(), links: new Map() };
  try {
    using hold = images.hold();
    await spool(context, source, { archive, hold }, signal);
    const list =
      archive.files.has('manifest.json') || !archive.files.has('index.json') ? readDockerArchive : readOciLayout;
    const reader = new ArchiveReader(images, archive);
    let named = 0;
    const ids: { id: Digest; parent: string }[] = [];
    for (const image of await list(reader, options.platform)) {
      const id = await loadOne(context, image, { ...options, hold }, signal);
      if (id === undefined) continue;
      ids.push({ id, parent: image.parent });
      named = image.tags.length;
    }
    linkParents(images, ids);
    if (named === 0 && ids.length > 0) {
      await options.write({ stream: ids.map(({ id }) => `Loaded image ID: ${id}\n`).join('') });
    }
  } finally {
    for (const { digest } of archive.files.values())
      if (!images.isLayerBlob(digest)) await images.content.delete(digest);
  }
}

function cleanPath(path: string): string {
  const parts: string[] = [];
  for (const part of path.split('/')) {
    if (part === '' || part === '.') continue;
    if (part === '..') parts.pop();
    else parts.push(part);
  }
  return parts.join('/');
}

async function spool(
  context: LoadContext,
  source: AsyncIterable<Buffer>,
  target: { archive: Archive; hold: LayerHold },
  signal?: AbortSignal,
): Promise<void> {
  let count = 0;
  for await (const { entry, content } of context.tar.read(context.tar.decompress(source, signal))) {
    count += 1;
    if (count > ARCHIVE_ENTRY_LIMIT)
      throw new GantryError('invalid', `invalid archive: more than ${ARCHIVE_ENTRY_LIMIT} entries`);
    const path = cleanPath(entry.path);
    if (entry.type === 'file') {
      target.archive.files.set(path, await context.images.content.write(content, { lease: target.hold.lease }, signal));
    } else if (entry.type === 'symlink') {
      const directory = path.slice(0, Math.max(0, path.lastIndexOf('/')));
      target.archive.links.set(
        path,
        cleanPath(entry.linkPath.startsWith('/') ? entry.linkPath : `${directory}/${entry.linkPath}`),
      );
    } else if (entry.type === 'link') target.archive.links.set(path, cleanPath(entry.linkPath));
  }
}

class ArchiveReader {
  readonly #images: ImageStore;
  readonly #archive: Archive;

  constructor(images: ImageStore, archive: Archive) {
    this.#images = images;
    this.#archive = archive;
  }

  find(path: string): StoredLayerSource {
    let name = cleanPath(path);
    for (let hop = 0; hop < LINK_LIMIT; hop += 1) {
      const file = this.#archive.files.get(name);
      if (file !== undefined) return file;
      const next = this.#archive.links.get(name);
      if (next === undefined) break;
      name = next;
    }
    throw new GantryError('system', `open ${path}: no such file or directory`);
  }

  async bytes(path: string): Promise<Buffer> {
    const file = this.find(path);
    if (file.sizeBytes > ARCHIVE_JSON_LIMIT_BYTES)
      throw new GantryError('invalid', `invalid archive: ${path} is too large`);
    const chunks: Buffer[] = [];
    for await (const chunk of this.#images.content.read(file.digest)) chunks.push(chunk);
    return Buffer.concat(chunks);
  }

  has(path: string): boolean {
    return this.#archive.files.has(cleanPath(path)) || this.#archive.links.has(cleanPath(path));
  }

  async json(path: string): Promise<unknown> {
    try {
      return JSON.parse((await this.bytes(path)).toString('utf8'));
    } catch (error) {
      throw new GantryError('invalid', `invalid archive: failed to decode ${path}: ${errorMessage(error)}`, {
        cause: error,
      });
    }
  }

  /** A blob of an OCI layout; its name must be its digest. */
  blob(digest: unknown): { path: string; file: StoredLayerSource } {
    if (typeof digest !== 'string' || !isDigest(digest) || !digest.startsWith('sha256:')) {
      throw new GantryError('invalid', 'invalid checksum digest format');
    }
    const path = `blobs/sha256/${digestHex(digest)}`;
    const file = this.find(path);
    if (file.digest !== digest) throw new GantryError('invalid', `invalid archive: ${path} has digest ${file.digest}`);
    return { path, file };
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

async function readDockerArchive(reader: ArchiveReader): Promise<ArchivedImage[]> {
  if (!reader.has('manifest.json'))
    throw new GantryError('invalid', 'invalid archive: does not contain a manifest.json');
  const manifest = await reader.json('manifest.json');
  if (manifest === null) throw new GantryError('invalid', 'invalid manifest, manifest cannot be null (but can be [])');
  const found: ArchivedImage[] = [];
  for (const value of items(manifest)) {
    const item = fields(value);
    found.push({
      config: await reader.bytes(String(item['Config'])),
      layers: items(item['Layers']).map((path) => reader.find(String(path))),
      tags: items(item['RepoTags']).map(tagged),
      parent: typeof item['Parent'] === 'string' ? item['Parent'] : '',
    });
  }
  return found;
}

/** Indexes within indexes are followed this deep. */
const INDEX_DEPTH_LIMIT = 4;

async function readOciLayout(reader: ArchiveReader, platform: Platform | undefined): Promise<ArchivedImage[]> {
  const found = new Map<string, { config: Buffer; layers: StoredLayerSource[]; tags: Reference[]; parent: string }>();
  const visit = async (
    descriptor: Record<string, unknown>,
    names: readonly Reference[],
    depth: number,
  ): Promise<void> => {
    const { path } = reader.blob(descriptor['digest']);
    const document = fields(await reader.json(path));
    if (document['manifests'] !== undefined) {
      if (depth >= INDEX_DEPTH_LIMIT)
        throw new GantryError('invalid', 'invalid archive: indexes are nested too deeply');
      const wanted = items(document['manifests'])
        .map(fields)
        .filter((child) => isWanted(child, platform) && reader.has(`blobs/sha256/${String(child['digest']).slice(7)}`));
      for (const child of wanted) await visit(child, names, depth + 1);
      return;
    }
    const known = found.get(path);
    if (known !== undefined) {
      known.tags.push(...names);
      return;
    }
    found.set(path, {
      config: await reader.bytes(reader.blob(fields(document['config'])['digest']).path),
      layers: items(document['layers']).map((layer) => reader.blob(fields(layer)['digest']).file),
      tags: [...names],
      parent: '',
    });
  };
  for (const value of items(fields(await reader.json('index.json'))['manifests'])) {
    const descriptor = fields(value);
    await visit(descriptor, ociNames(descriptor), 0);
  }
  return [...found.values()];
}

function ociNames(descriptor: Record<string, unknown>): Reference[] {
  const annotations = descriptor['annotations'] === undefined ? {} : fields(descriptor['annotations']);
  const full = annotations['io.containerd.image.name'] ?? annotations['org.opencontainers.image.ref.name'];
  // A bare `org.opencontainers.image.ref.name` is often only a tag; then there is no repository to name.
  if (typeof full !== 'string' || !/[:/]/.test(full)) return [];
  return [tagged(full)];
}

function isWanted(descriptor: Record<string, unknown>, platform: Platform | undefined): boolean {
  const described = descriptor['platform'];
  if (described === undefined || described === null) return true;
  const { os, architecture, variant } = fields(described);
  const actual = {
    os: String(os),
    architecture: String(architecture),
    ...(typeof variant === 'string' ? { variant } : {}),
  };
  if (actual.os === 'unknown') return false;
  return platform === undefined || matchesPlatform(platform, actual);
}

interface LoadOneOptions extends LoadOptions {
  readonly hold: LayerHold;
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
  let parent: Digest | undefined;
  for (const [index, diffId] of diffIds.entries()) {
    const chainId = chainUnder(parent, diffId);
    options.hold.layers.add(chainId);
    if (images.snapshots.layer(chainId) === undefined || images.layerBlob(diffId) === undefined) {
      const id = shortId(digestHex(diffId));
      const blob = image.layers[index] as StoredLayerSource;
      if (!options.quiet)
        await options.write(progressMessage(id, 'Loading layer', { current: 0, total: blob.sizeBytes }));
      const progress = options.quiet ? {} : { progress: { status: 'Loading layer', id, write: options.write } };
      await applyBlob(
        blob,
        { images, tar: context.tar, hold: options.hold, parent, expected: diffId, ...progress },
        signal,
      );
    }
    parent = chainId;
  }
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
