/**
 * The checks of `gantry system fsck`, in the order in which their repairs build on each other: blobs, rows, layers,
 * containers, and last what nobody needs. Each finding was true in one synchronous look at rows and disk.
 */
import { createHash } from 'node:crypto';
import { existsSync, readdirSync } from 'node:fs';
import { rm } from 'node:fs/promises';
import { join } from 'node:path';
import type { ImageRowProblem } from '#services/images/audit.ts';
import type { LayerBlob } from '#services/images/store.ts';
import type { SnapshotProblem } from '#services/snapshots/contract.ts';
import type { Digest } from '#types/digest.ts';
import { errorKind, errorMessage } from '#types/errors.ts';
import { isId } from '#types/ids.ts';
import { type Finding, imageName, imagesWithLayer, type Problem, type Run } from './finding.ts';
import { refetchConfig, refetchManifest, repositoriesOf, restoreBlob } from './restore.ts';

type Problems = AsyncGenerator<Problem, void, undefined>;

/** Everything that can be missing or damaged. */
export async function* damageChecks(run: Run): Problems {
  yield* checkRows(run);
  yield* checkBlobs(run);
  yield* checkImageLayers(run);
  yield* checkLayers(run);
  yield* checkContainers(run);
}

async function* checkBlobs(run: Run): Problems {
  const { images } = run.context;
  for (const { diffId, blob } of images.layerBlobs()) {
    run.signal.throwIfAborted();
    if (!images.collection.isDiffNeeded(diffId)) continue;
    run.checked.blobs += 1;
    const wrong = await blobProblem(run, blob);
    // A blob may have been removed with its image while it was read.
    if (wrong === undefined || images.layerBlob(diffId)?.digest !== blob.digest) continue;
    run.badBlobs.add(blob.digest);
    yield {
      finding: {
        object: 'blob',
        id: blob.digest,
        ...wrong,
        images: imagesWithLayer(images, diffId).map((id) => imageName(images, id)),
        repair: blobRepair(run, diffId),
      },
      broken: imagesWithLayer(images, diffId),
      fix: async (signal) => {
        const done = await restoreBlob(run.context, diffId, blob, signal);
        run.badBlobs.delete(blob.digest);
        return done;
      },
    };
  }
  for (const layer of images.snapshots.layers()) {
    const { diffId } = layer;
    if (images.layerBlob(diffId) !== undefined || images.snapshots.layer(layer.chainId) === undefined) continue;
    yield {
      finding: {
        object: 'blob',
        id: diffId,
        kind: 'missing',
        detail: 'no row tells which blob this layer came as',
        images: imagesWithLayer(images, diffId).map((id) => imageName(images, id)),
        repair: 'look for it among the blobs, or make it again from the extracted layer',
      },
      broken: imagesWithLayer(images, diffId),
      fix: (signal) => restoreBlob(run.context, diffId, undefined, signal),
    };
  }
}

function blobRepair(run: Run, diffId: Digest): string {
  const [repository] = repositoriesOf(run.context, imagesWithLayer(run.context.images, diffId), diffId);
  const from = repository === undefined ? '' : `fetch it again from ${repository.domain}/${repository.path}, or `;
  return `${from}make it again from the extracted layer`;
}

async function blobProblem(run: Run, blob: LayerBlob): Promise<Pick<Finding, 'kind' | 'detail'> | undefined> {
  const { content } = run.context.images;
  const sizeBytes = content.size(blob.digest);
  if (sizeBytes === undefined) return { kind: 'missing', detail: `${content.path(blob.digest)} is not there` };
  if (sizeBytes !== blob.sizeBytes) {
    return { kind: 'corrupt', detail: `it has ${sizeBytes} bytes instead of ${blob.sizeBytes}` };
  }
  const actual = await digestOfBlob(run, blob.digest);
  return actual === blob.digest ? undefined : { kind: 'corrupt', detail: `its bytes have digest ${actual}` };
}

async function digestOfBlob(run: Run, digest: Digest): Promise<string> {
  const hash = createHash('sha256');
  try {
    for await (const chunk of run.context.images.content.read(digest)) {
      run.signal.throwIfAborted();
      hash.update(chunk);
      run.checked.bytes += chunk.length;
    }
  } catch (error) {
    run.signal.throwIfAborted();
    return `(unreadable: ${errorMessage(error)})`;
  }
  return `sha256:${hash.digest('hex')}`;
}

async function* checkRows(run: Run): Problems {
  const { images } = run.context;
  run.checked.images = images.list().length;
  for (const problem of images.audit().problems()) yield rowProblem(run, problem);
}

function rowProblem(run: Run, problem: ImageRowProblem): Problem {
  const { images } = run.context;
  const audit = images.audit();
  const { id, kind, detail } = problem;
  const about = { id, kind, detail };
  const done = (work: () => void, text: string) => async (): Promise<string> => {
    work();
    return text;
  };
  switch (problem.row) {
    case 'image':
      return {
        finding: {
          ...about,
          object: 'image',
          images: audit.namesOf(id),
          repair: 'write its config again from memory, or fetch it again from its registry',
        },
        broken: [id as Digest],
        fix: (signal) => restoreConfig(run, id as Digest, signal),
      };
    case 'parent':
      return {
        finding: { ...about, object: 'image', repair: 'make it an image without parent' },
        fix: done(() => audit.forgetParent(id as Digest), 'it has no parent any more'),
      };
    case 'reference':
      return {
        finding: { ...about, object: 'reference', repair: 'remove the name' },
        fix: done(() => audit.forgetReference(id), 'the name was removed'),
      };
    case 'manifest':
      return {
        finding: {
          ...about,
          object: 'manifest',
          ...(problem.image === undefined ? {} : { images: [imageName(images, problem.image)] }),
          repair: kind === 'corrupt' ? 'fetch it again from its registry, or remove it' : 'remove it',
        },
        fix: (signal) => restoreManifest(run, problem, signal),
      };
    case 'layerBlob':
      return {
        finding: { ...about, object: 'blob', repair: 'forget the row and find or make the archive again' },
        fix: async (signal) => {
          audit.forgetLayerBlob(id);
          return restoreBlob(run.context, id as Digest, undefined, signal);
        },
      };
    default:
      return problem.row satisfies never;
  }
}

async function restoreConfig(run: Run, id: Digest, signal: AbortSignal): Promise<string> {
  const { images } = run.context;
  if (images.audit().isConfigWholeInMemory(id)) {
    await images.audit().rewriteImage(id);
    return 'its row was written again from memory';
  }
  const from = await refetchConfig(run.context, id, images.audit().namesOf(id), signal);
  return `its config was fetched again from ${from}`;
}

async function restoreManifest(run: Run, problem: ImageRowProblem, signal: AbortSignal): Promise<string> {
  const { image } = problem;
  try {
    if (image !== undefined)
      return `it was fetched again from ${await refetchManifest(run.context, image, problem.id as Digest, signal)}`;
  } catch (error) {
    signal.throwIfAborted();
    run.context.images.audit().forgetManifest(problem.id);
    return `it was removed: ${errorMessage(error)}`;
  }
  run.context.images.audit().forgetManifest(problem.id);
  return 'it was removed';
}

/** Layers that images name and that have no row. */
async function* checkImageLayers(run: Run): Problems {
  const { images } = run.context;
  const told = new Set<Digest>();
  for (const image of images.list()) {
    for (const [index, chainId] of images.chain(image.id).entries()) {
      if (told.has(chainId) || images.get(image.id) === undefined) continue;
      if (images.snapshots.layer(chainId) !== undefined) continue;
      told.add(chainId);
      const diffId = image.config.rootfs.diff_ids[index] as Digest;
      const parent = images.chain(image.id)[index - 1];
      const users = images.list().filter((other) => images.chain(other.id).includes(chainId));
      yield {
        finding: {
          object: 'layer',
          id: chainId,
          kind: 'missing',
          detail: 'images name it, but there is no row of it',
          images: users.map((user) => imageName(images, user.id)),
          repair: 'extract it again from its blob',
        },
        broken: users.map((user) => user.id),
        fix: async (signal) => {
          using hold = images.hold();
          hold.layers.add(chainId);
          if (images.layerBlob(diffId) === undefined) await restoreBlob(run.context, diffId, undefined, signal);
          await images.snapshots.applyLayer(parent, images.openLayer(diffId), { expected: diffId }, signal);
          return 'it was extracted again';
        },
      };
    }
  }
}

async function* checkLayers(run: Run): Problems {
  const { images } = run.context;
  const audit = images.snapshots.audit();
  const told = new Set<string>();
  run.checked.layers = images.snapshots.layers().length;
  for await (const problem of audit.problems(run.signal)) {
    if (problem.object !== 'layer') {
      yield snapshotProblem(run, problem);
      continue;
    }
    const detail = problem.suspect === true ? await compare(run, problem.id as Digest, problem.detail) : problem.detail;
    if (detail === undefined) continue;
    told.add(problem.id);
    yield layerProblem(run, { ...problem, detail });
  }
  if (!run.deep) return;
  for (const { chainId } of images.snapshots.layers()) {
    if (told.has(chainId)) continue;
    run.signal.throwIfAborted();
    const detail = await compare(run, chainId, undefined);
    if (detail !== undefined) yield layerProblem(run, { object: 'layer', id: chainId, kind: 'corrupt', detail });
  }
}

/** What differs between a layer's tree and its archive; `otherwise` when there is no archive to compare with. */
async function compare(run: Run, chainId: Digest, otherwise: string | undefined): Promise<string | undefined> {
  const { images } = run.context;
  const layer = images.snapshots.layer(chainId);
  if (layer === undefined) return undefined;
  const blob = images.layerBlob(layer.diffId);
  // Its archive is a finding of its own.
  if (blob === undefined || run.badBlobs.has(blob.digest)) return otherwise;
  using hold = images.hold();
  hold.layers.add(chainId);
  hold.lease.digests.add(blob.digest);
  try {
    const tar = images.openLayer(layer.diffId);
    return await images.snapshots.audit().compareLayer(chainId, tar, { repair: false }, run.signal);
  } catch (error) {
    run.signal.throwIfAborted();
    if (images.snapshots.layer(chainId) === undefined || errorKind(error) === 'notFound') return undefined;
    // Anything else, such as a full disk, tells nothing about the layer.
    if (errorKind(error) !== 'invalid') throw error;
    return `it cannot be compared with its archive: ${errorMessage(error)}`;
  }
}

function layerProblem(run: Run, problem: SnapshotProblem): Problem {
  const { images } = run.context;
  const chainId = problem.id as Digest;
  const users = images.list().filter((image) => images.chain(image.id).includes(chainId));
  return {
    finding: {
      object: 'layer',
      id: chainId,
      kind: problem.kind,
      detail: problem.detail,
      images: users.map((user) => imageName(images, user.id)),
      repair: 'extract it again from its blob',
    },
    broken: users.map((user) => user.id),
    fix: async (signal) => {
      const layer = images.snapshots.layer(chainId);
      if (layer === undefined) return 'it was removed meanwhile';
      using hold = images.hold();
      hold.layers.add(chainId);
      await images.snapshots.audit().compareLayer(chainId, images.openLayer(layer.diffId), { repair: true }, signal);
      return 'it was extracted again';
    },
  };
}

function snapshotProblem(run: Run, problem: SnapshotProblem): Problem {
  const { id, kind, detail } = problem;
  const about = { id, kind, detail };
  const fix = async (): Promise<string> => {
    await run.context.images.snapshots.audit().repair(problem);
    return problem.kind === 'orphaned' ? 'it was removed' : 'it was made again';
  };
  switch (problem.object) {
    case 'directory':
    case 'leftover':
      return { finding: { ...about, object: 'directory', repair: 'remove it' }, fix };
    case 'link':
      return { finding: { ...about, object: kind === 'orphaned' ? 'file' : 'layer', repair: 'make it anew' }, fix };
    case 'init':
      return { finding: { ...about, object: 'layer', repair: 'make the init layer again' }, fix };
    default:
      return { finding: { ...about, object: 'snapshot' } };
  }
}

async function* checkContainers(run: Run): Problems {
  const { containers, images, paths } = run.context;
  run.checked.containers = containers.all().length;
  for (const { record } of containers.all()) {
    const { id } = record;
    if (containers.get(id) === undefined || ['removing', 'dead'].includes(record.state.status)) continue;
    if (!images.snapshots.exists(id)) {
      const detail = 'it has no writable tree; what it wrote is lost, remove it';
      yield { finding: { object: 'container', id, kind: 'missing', detail } };
    }
    if (!existsSync(paths.container(id))) {
      const detail = `its directory ${paths.container(id)} is not there; remove it`;
      yield { finding: { object: 'container', id, kind: 'missing', detail } };
    }
  }
}

/** Snapshots of builds; they go with their build, or with the daemon. */
const BUILD_VIEW = /^build-view-/;

/** What nobody needs, as of now. Something that changes hands may show for a moment: look twice. */
export async function* orphanChecks(run: Run): Problems {
  const { containers, images, paths } = run.context;
  for (const problem of images.snapshots.audit().orphans()) yield snapshotProblem(run, problem);
  for (const key of images.snapshots.keys()) {
    if (BUILD_VIEW.test(key) || (isId(key) && containers.isReserved(key))) continue;
    yield orphan('snapshot', key, 'no container has it', () => images.snapshots.remove(key));
  }
  for (const name of readdirSync(join(paths.dataRoot, 'containers'))) {
    if (!isId(name) || containers.isReserved(name)) continue;
    const path = paths.container(name);
    yield orphan('directory', path, 'no container has it', () => rm(path, { recursive: true, force: true }));
  }
  const unneeded = images.collection.unneededLayers();
  for (const chainId of unneeded) {
    yield orphan('layer', chainId, 'no image and no container needs it', () => images.collection.releaseLayer(chainId));
  }
  for (const { diffId, blob } of images.layerBlobs()) {
    if (images.collection.isDiffNeeded(diffId) || images.content.isLeased(blob.digest)) continue;
    yield orphan('blob', blob.digest, 'its layer is gone', () => images.collection.forgetLayerBlob(diffId));
  }
  const { blobs, strangers, leftovers } = await images.content.list();
  for (const digest of blobs) {
    if (images.collection.isNeeded(digest) || images.content.isLeased(digest) || !images.content.has(digest)) continue;
    yield orphan('blob', digest, 'no layer came as it', () => images.content.delete(digest));
  }
  for (const path of strangers) yield orphan('file', path, 'it is no blob', () => images.content.discard(path));
  for (const path of leftovers)
    yield orphan('file', path, 'nobody writes it any more', () => images.content.discard(path));
}

function orphan(object: Finding['object'], id: string, detail: string, remove: () => Promise<void>): Problem {
  return {
    finding: { object, id, kind: 'orphaned', detail, repair: 'remove it' },
    fix: async () => {
      await remove();
      return 'it was removed';
    },
  };
}
