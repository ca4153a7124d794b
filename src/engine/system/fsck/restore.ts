/**
 * Bringing lost content back: from a registry by digest, from a layer's own tree (a tar written here is written the
 * same again), or from a blob whose row was lost. Bytes count only when their digest is the one wanted.
 */
import { createHash } from 'node:crypto';
import { decompressLayer, type LayerBlob, type LayerCompression } from '#services/images/store.ts';
import type { RemoteRepository } from '#system/registry-http/contract.ts';
import type { Digest } from '#types/digest.ts';
import { errorKind, errorMessage, GantryError } from '#types/errors.ts';
import { canonicalName, familiarName, nameOnly, parseReference, type Reference } from '#types/reference.ts';
import { CONFIG_LIMIT_BYTES } from '../../images/manifest.ts';
import { type FsckContext, imagesWithLayer } from './finding.ts';

/** Repositories that are known to hold an image's content, as its digest references and past transfers tell. */
export function repositoriesOf(context: FsckContext, images: readonly Digest[], diffId?: Digest): Reference[] {
  const names = images.flatMap((id) => context.images.get(id)?.repoDigests ?? []);
  if (diffId !== undefined) names.push(...context.records.places(diffId).map(({ repository }) => repository));
  const found = new Map<string, Reference>();
  for (const name of names) {
    const repository = nameOnly(parseReference(name));
    found.set(canonicalName(repository), repository);
  }
  return [...found.values()];
}

/** Runs work on each repository until one succeeds; returns its name. Throws what all of them said. */
async function inTurn(
  context: FsckContext,
  repositories: readonly Reference[],
  work: (remote: RemoteRepository) => Promise<void>,
  signal: AbortSignal,
): Promise<string> {
  const failures: string[] = [];
  for (const repository of repositories) {
    const { domain, path } = repository;
    try {
      await context.registries.pull({ domain, path, credentials: context.credentials(domain) }, work, signal);
      return familiarName(repository);
    } catch (error) {
      signal.throwIfAborted();
      failures.push(`${familiarName(repository)}: ${errorMessage(error)}`);
    }
  }
  throw new GantryError('unavailable', failures.join('; ') || 'no registry is known to have it');
}

/** Fetches a layer's blob again; returns the repository it came from. */
function refetchBlob(context: FsckContext, diffId: Digest, blob: LayerBlob, signal: AbortSignal): Promise<string> {
  const { content } = context.images;
  const { digest, sizeBytes } = blob;
  const repositories = repositoriesOf(context, imagesWithLayer(context.images, diffId), diffId);
  const fetch = async (remote: RemoteRepository): Promise<void> => {
    using lease = content.lease();
    lease.digests.add(digest);
    const source = await remote.openBlob({ digest, sizeBytes }, { offset: 0 }, signal);
    await content.write(source, { expected: digest, limitBytes: sizeBytes, lease, replace: true }, signal);
  };
  return inTurn(context, repositories, fetch, signal);
}

/** Fetches an image's config again and writes its row. */
export async function refetchConfig(
  context: FsckContext,
  id: Digest,
  names: readonly string[],
  signal: AbortSignal,
): Promise<string> {
  // What the image is named says where it may have come from; a damaged image has no digest references to ask.
  const repositories = [...repositoriesOf(context, [id]), ...names.map((name) => nameOnly(parseReference(name)))];
  const fetch = async (remote: RemoteRepository): Promise<void> => {
    await context.images.create(await remote.configBlob(id, CONFIG_LIMIT_BYTES, signal));
  };
  return inTurn(context, repositories, fetch, signal);
}

/** Fetches a kept manifest again. */
export function refetchManifest(
  context: FsckContext,
  image: Digest,
  digest: Digest,
  signal: AbortSignal,
): Promise<string> {
  const fetch = async (remote: RemoteRepository): Promise<void> => {
    const { bytes } = await remote.manifest(digest, signal);
    context.images.audit().rewriteManifest(digest, bytes);
  };
  return inTurn(context, repositoriesOf(context, [image]), fetch, signal);
}

/** Makes the archive of a layer from its extracted tree; throws when the bytes come out otherwise. */
export async function repackBlob(context: FsckContext, diffId: Digest, signal: AbortSignal): Promise<void> {
  const { images } = context;
  const layer = images.snapshots.layers().find((candidate) => candidate.diffId === diffId);
  if (layer === undefined) throw new GantryError('notFound', 'no extracted tree has this layer');
  using hold = images.hold();
  hold.layers.add(layer.chainId);
  const source = images.snapshots.audit().packLayer(layer.chainId);
  const options = { lease: hold.lease, expected: diffId, replace: true };
  const made = await images.content.write(source, options, signal).catch((error: unknown) => {
    if (errorKind(error) !== 'invalid') throw error;
    throw new GantryError('system', 'its tree does not make the same archive again', { cause: error });
  });
  images.replaceLayerBlob(diffId, {
    digest: made.digest,
    sizeBytes: made.sizeBytes,
    compression: 'none',
    tarSizeBytes: made.sizeBytes,
  });
}

/** Brings a layer's archive back by whatever way works; returns which one did. */
export async function restoreBlob(
  context: FsckContext,
  diffId: Digest,
  known: LayerBlob | undefined,
  signal: AbortSignal,
): Promise<string> {
  const { images } = context;
  const users = imagesWithLayer(images, diffId);
  const fetched = async (blob: LayerBlob): Promise<string> =>
    `fetched again from ${await refetchBlob(context, diffId, blob, signal)}`;
  const packed = async (): Promise<string> => {
    await repackBlob(context, diffId, signal);
    return 'made again from the extracted layer';
  };
  const ways: (() => Promise<string>)[] = [];
  if (known === undefined) ways.push(() => restoreRow(context, diffId, users, signal), packed);
  // The same bytes are better than the same content: a registry knows them by their digest.
  else if (known.digest === diffId) ways.push(packed, () => fetched(known));
  else ways.push(() => fetched(known), packed);
  const failures: string[] = [];
  for (const way of ways) {
    try {
      return await way();
    } catch (error) {
      signal.throwIfAborted();
      failures.push(errorMessage(error));
    }
  }
  throw new GantryError('unavailable', failures.join('; '));
}

/** Finds the blob of a layer whose row is lost: under its diffID, or where a kept manifest names it. */
async function restoreRow(
  context: FsckContext,
  diffId: Digest,
  users: readonly Digest[],
  signal: AbortSignal,
): Promise<string> {
  const { images } = context;
  using lease = images.content.lease();
  for (const candidate of [{ digest: diffId, compression: 'none' as const }, ...namedBlobs(context, diffId, users)]) {
    lease.digests.add(candidate.digest);
    if (!images.content.has(candidate.digest)) continue;
    const tarSizeBytes = await tarSizeOf(context, candidate, diffId, signal);
    if (tarSizeBytes === undefined) continue;
    const sizeBytes = images.content.size(candidate.digest) ?? 0;
    images.replaceLayerBlob(diffId, { ...candidate, sizeBytes, tarSizeBytes });
    return `found its archive ${candidate.digest}`;
  }
  throw new GantryError('notFound', 'no blob is its archive');
}

interface Candidate {
  readonly digest: Digest;
  readonly compression: LayerCompression;
}

function namedBlobs(context: FsckContext, diffId: Digest, users: readonly Digest[]): Candidate[] {
  const found: Candidate[] = [];
  for (const id of users) {
    const diffIds = context.images.get(id)?.config.rootfs.diff_ids ?? [];
    for (const { bytes } of context.images.manifests(id)) {
      const layers = layersOf(bytes);
      const layer = layers.length === diffIds.length ? layers[diffIds.indexOf(diffId)] : undefined;
      if (layer === undefined) continue;
      const compression = /zstd$/.test(layer.mediaType) ? 'zstd' : /gzip$/.test(layer.mediaType) ? 'gzip' : 'none';
      found.push({ digest: layer.digest as Digest, compression });
    }
  }
  return found;
}

function layersOf(manifest: Buffer): { digest: string; mediaType: string }[] {
  try {
    const { layers } = JSON.parse(manifest.toString()) as { layers?: { digest?: unknown; mediaType?: unknown }[] };
    return (layers ?? []).map(({ digest, mediaType }) => ({ digest: String(digest), mediaType: String(mediaType) }));
  } catch {
    // Bytes that are no manifest name no layers; the row is a finding of its own.
    return [];
  }
}

/** Bytes of the tar in a blob; undefined when it is not the layer's. */
async function tarSizeOf(
  context: FsckContext,
  candidate: Candidate,
  diffId: Digest,
  signal: AbortSignal,
): Promise<number | undefined> {
  const hash = createHash('sha256');
  let sizeBytes = 0;
  try {
    for await (const chunk of decompressLayer(context.images.content.read(candidate.digest), candidate.compression)) {
      signal.throwIfAborted();
      hash.update(chunk);
      sizeBytes += chunk.length;
    }
  } catch {
    signal.throwIfAborted();
    return undefined;
  }
  return `sha256:${hash.digest('hex')}` === diffId ? sizeBytes : undefined;
}
