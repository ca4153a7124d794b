/**
 * `manifest inspect|create|annotate|push|rm`: manifest lists put together on this host from images in a registry, and
 * pushed to it. Everything happens in the client; the store is docker's (config/manifest-store.ts).
 */
import { createHash } from 'node:crypto';
import type { RemoteManifest, RemoteRepository } from '#system/registry-http/contract.ts';
import type { Digest } from '#types/digest.ts';
import { canonicalName, canonicalString, parseReference, type Reference, withDefaultTag } from '#types/reference.ts';
import { ExitError } from '../args/usage-error.ts';
import {
  type ImageManifest,
  type ManifestPlatform,
  ManifestStore,
  manifestDocument,
} from '../config/manifest-store.ts';
import { isAbsent, withRegistry } from '../connection/registry.ts';
import type { Session } from '../session.ts';

const DOCKER_MANIFEST = 'application/vnd.docker.distribution.manifest.v2+json';
const OCI_MANIFEST = 'application/vnd.oci.image.manifest.v1+json';
const DOCKER_LIST = 'application/vnd.docker.distribution.manifest.list.v2+json';
const OCI_INDEX = 'application/vnd.oci.image.index.v1+json';
/** A configuration is read whole for its platform. */
const MAX_CONFIG_BYTES = 8 * 1024 * 1024;
/** A list with more entries than this is not one somebody reads. */
const MAX_LIST_ENTRIES = 1000;

/** Combinations that may stand in a list. */
const PLATFORMS: Readonly<Record<string, string>> = {
  darwin: '386 amd64 arm arm64',
  dragonfly: 'amd64',
  freebsd: '386 amd64 arm',
  linux: '386 amd64 arm arm64 ppc64le mips64 mips64le riscv64 s390x loong64',
  netbsd: '386 amd64 arm',
  openbsd: '386 amd64 arm',
  plan9: '386 amd64',
  solaris: 'amd64',
  windows: '386 amd64 arm64',
};

interface ListEntry {
  readonly mediaType: string;
  readonly size: number;
  readonly digest: string;
  readonly platform?: ManifestPlatform;
}

function fail(text: string): ExitError {
  return new ExitError(1, `${text}\n`);
}

function normalised(text: string): Reference {
  return withDefaultTag(parseReference(text));
}

function noSuchManifest(reference: Reference): ExitError {
  return fail(`no such manifest: ${canonicalString(reference)}`);
}

/** Runs work on an image's registry; what the registry does not show is `no such manifest`. */
async function ask<T>(
  session: Session,
  reference: Reference,
  work: (repository: RemoteRepository, signal: AbortSignal) => Promise<T>,
): Promise<T> {
  try {
    return await withRegistry(session, {
      reference,
      insecure: session.flags.bool('insecure'),
      writes: false,
      work,
    });
  } catch (error) {
    throw isAbsent(error) ? noSuchManifest(reference) : error;
  }
}

function selectorOf(reference: Reference): string {
  return reference.digest ?? reference.tag ?? 'latest';
}

function isList(manifest: RemoteManifest): boolean {
  return manifest.mediaType === DOCKER_LIST || manifest.mediaType === OCI_INDEX;
}

/** An image's manifest with the platform its configuration tells. */
async function imageManifest(
  repository: RemoteRepository,
  image: { readonly reference: Reference; readonly manifest: RemoteManifest },
  signal: AbortSignal,
): Promise<ImageManifest> {
  const { reference, manifest } = image;
  if (manifest.mediaType !== DOCKER_MANIFEST && manifest.mediaType !== OCI_MANIFEST)
    throw fail(`${canonicalString(reference)} is not a manifest`);
  const parsed = JSON.parse(manifest.bytes.toString()) as { config?: { digest?: string } };
  const config = JSON.parse(
    (await repository.configBlob((parsed.config?.digest ?? '') as Digest, MAX_CONFIG_BYTES, signal)).toString(),
  ) as ManifestPlatform;
  const platform: ManifestPlatform = {
    architecture: config.architecture ?? '',
    os: config.os ?? '',
    ...(config['os.version'] ? { 'os.version': config['os.version'] } : {}),
    ...(config['os.features'] ? { 'os.features': config['os.features'] } : {}),
    ...(config.variant ? { variant: config.variant } : {}),
  };
  return {
    Ref: canonicalString(reference),
    Descriptor: { mediaType: manifest.mediaType, digest: manifest.digest, size: manifest.bytes.length, platform },
    Raw: manifest.bytes,
  };
}

/** What a name stands for in its registry: one image, or every image of a list. */
async function fetchAny(session: Session, reference: Reference): Promise<ImageManifest | ImageManifest[]> {
  return ask(session, reference, async (repository, signal) => {
    const manifest = await repository.manifest(selectorOf(reference), signal);
    if (!isList(manifest)) return imageManifest(repository, { reference, manifest }, signal);
    const list = JSON.parse(manifest.bytes.toString()) as { manifests?: ListEntry[] };
    const entries = list.manifests ?? [];
    if (entries.length > MAX_LIST_ENTRIES) throw fail(`manifest list has more than ${MAX_LIST_ENTRIES} entries`);
    const found: ImageManifest[] = [];
    for (const entry of entries) {
      const member = { ...reference, digest: entry.digest };
      const image = { reference: member, manifest: await repository.manifest(entry.digest, signal) };
      const read = await imageManifest(repository, image, signal);
      // The list says better than the configuration what the image is for.
      read.Descriptor.platform = entry.platform ?? {};
      found.push(read);
    }
    return found;
  });
}

/** An image of a list from the store, else from its registry. */
async function fetchImage(session: Session, list: Reference, image: Reference): Promise<ImageManifest> {
  const stored = new ManifestStore(session.configDirectory).find(list, image);
  if (stored !== undefined) return stored;
  const found = await fetchAny(session, image);
  if (Array.isArray(found)) throw fail(`${canonicalString(image)} is a manifest list`);
  return found;
}

function orderedPlatform(platform: ManifestPlatform): ManifestPlatform {
  return {
    architecture: platform.architecture ?? '',
    os: platform.os ?? '',
    ...(platform['os.version'] ? { 'os.version': platform['os.version'] } : {}),
    ...(platform['os.features'] ? { 'os.features': platform['os.features'] } : {}),
    ...(platform.variant ? { variant: platform.variant } : {}),
  };
}

/** The manifest list's bytes and media type. */
function buildList(target: Reference, images: readonly ImageManifest[]): { mediaType: string; bytes: Buffer } {
  const manifests = images.map((image): ListEntry => {
    const { domain } = parseReference(image.Ref);
    if (domain !== target.domain)
      throw fail(
        `cannot use source images from a different registry than the target image: ${domain} != ${target.domain}`,
      );
    const { mediaType, size, digest, platform } = image.Descriptor;
    return { mediaType, size, digest, platform: orderedPlatform(platform ?? {}) };
  });
  const mediaType = manifests[0]?.mediaType === OCI_MANIFEST ? OCI_INDEX : DOCKER_LIST;
  const text = JSON.stringify({ schemaVersion: 2, mediaType, manifests }, undefined, 3);
  return { mediaType, bytes: Buffer.from(text) };
}

function printImage(session: Session, image: ImageManifest): void {
  const document = session.flags.bool('verbose') ? manifestDocument(image) : JSON.parse(image.Raw.toString());
  session.print(`${JSON.stringify(document, undefined, '\t')}\n`);
}

function printImages(session: Session, target: Reference, images: readonly ImageManifest[]): void {
  if (session.flags.bool('verbose'))
    session.print(`${JSON.stringify(images.map(manifestDocument), undefined, '\t')}\n`);
  else session.print(`${buildList(target, images).bytes.toString()}\n`);
}

/** `manifest inspect`. */
export async function inspectManifest(session: Session): Promise<number> {
  const { args } = session;
  const store = new ManifestStore(session.configDirectory);
  const reference = normalised(args.at(-1) ?? '');
  if (args.length === 2) {
    printImage(session, store.get(normalised(args[0] ?? ''), reference));
    return 0;
  }
  const found = store.hasList(reference) ? store.all(reference) : await fetchAny(session, reference);
  if (Array.isArray(found)) printImages(session, reference, found);
  else printImage(session, found);
  return 0;
}

/** `manifest create`. */
export async function createManifest(session: Session): Promise<number> {
  const [name = '', ...images] = session.args;
  const store = new ManifestStore(session.configDirectory);
  let list: Reference;
  try {
    list = normalised(name);
  } catch (error) {
    throw fail(`error parsing name for manifest list ${name}: ${(error as Error).message}`);
  }
  if (store.hasList(list) && !session.flags.bool('amend'))
    throw fail('refusing to amend an existing manifest list with no --amend flag');
  for (const image of images) {
    const reference = normalised(image);
    store.save(list, reference, await fetchImage(session, list, reference));
  }
  session.print(`Created manifest list ${canonicalString(list)}\n`);
  return 0;
}

/** `manifest annotate`. */
export async function annotateManifest(session: Session): Promise<number> {
  const { flags } = session;
  const [name = '', image = ''] = session.args;
  const parse = (text: string, what: string): Reference => {
    try {
      return normalised(text);
    } catch (error) {
      throw fail(`annotate: error parsing name for ${what} ${text}: ${(error as Error).message}`);
    }
  };
  const list = parse(name, 'manifest list');
  const reference = parse(image, 'manifest');
  const store = new ManifestStore(session.configDirectory);
  const found = store.find(list, reference);
  if (found === undefined) throw fail(`manifest for image ${image} does not exist in ${name}`);
  const platform: ManifestPlatform = { ...found.Descriptor.platform };
  if (flags.text('os') !== '') platform.os = flags.text('os');
  if (flags.text('arch') !== '') platform.architecture = flags.text('arch');
  if (flags.text('variant') !== '') platform.variant = flags.text('variant');
  if (flags.text('os-version') !== '') platform['os.version'] = flags.text('os-version');
  const features = flags.list('os-features').flatMap((value) => value.split(','));
  if (features.length > 0) platform['os.features'] = [...new Set([...(platform['os.features'] ?? []), ...features])];
  if (!(PLATFORMS[platform.os ?? ''] ?? '').split(' ').includes(platform.architecture || '-'))
    throw fail(
      `manifest entry for image has unsupported os/arch combination: ${flags.text('os')}/${flags.text('arch')}`,
    );
  found.Descriptor.platform = orderedPlatform(platform);
  store.save(list, reference, found);
  return 0;
}

interface Layered {
  readonly config?: { readonly digest?: string };
  readonly layers?: readonly { readonly digest?: string }[];
}

/** Brings an image of another repository of the registry into the target's: its blobs are mounted, then it is put. */
async function pushMember(
  session: Session,
  repository: RemoteRepository,
  member: { readonly image: ImageManifest; readonly target: Reference; readonly from: string },
  signal: AbortSignal,
): Promise<void> {
  const { image, target, from } = member;
  const actual = `sha256:${createHash('sha256').update(image.Raw).digest('hex')}`;
  if (image.Descriptor.digest.startsWith('sha256:') && actual !== image.Descriptor.digest)
    throw fail(`internal digest mismatch for ${image.Ref}: expected ${image.Descriptor.digest}, got ${actual}`);
  const { config, layers = [] } = JSON.parse(image.Raw.toString()) as Layered;
  for (const blob of [...(config === undefined ? [] : [config]), ...layers]) {
    const mounted = await repository.mountBlob((blob.digest ?? '') as Digest, from, signal);
    if (!mounted && image.Descriptor.platform?.os !== 'windows')
      throw fail(`error mounting ${from}@${blob.digest ?? ''} to ${canonicalString(target)}`);
  }
  const manifest = { mediaType: image.Descriptor.mediaType, bytes: image.Raw };
  const digest = await repository.putManifest(image.Descriptor.digest, manifest, signal);
  session.print(`Pushed ref ${canonicalName(target)}@${image.Descriptor.digest} with digest: ${digest}\n`);
}

/** `manifest push`. */
export async function pushManifest(session: Session): Promise<number> {
  const { flags } = session;
  const target = normalised(session.args[0] ?? '');
  const store = new ManifestStore(session.configDirectory);
  const images = store.all(target);
  if (images.length === 0) throw fail(`${canonicalString(target)} not found`);
  for (const { Ref, Descriptor } of images)
    if (!Descriptor.platform?.architecture || !Descriptor.platform.os)
      throw fail(`manifest ${Ref} must have an OS and Architecture to be pushed to a registry`);
  const list = buildList(target, images);
  const digest = await withRegistry(session, {
    reference: target,
    insecure: flags.bool('insecure'),
    writes: true,
    work: async (repository, signal) => {
      for (const image of images) {
        const from = parseReference(image.Ref).path;
        if (from !== target.path) await pushMember(session, repository, { image, target, from }, signal);
      }
      return repository.putManifest(selectorOf(target), list, signal);
    },
  });
  session.print(`${digest}\n`);
  if (flags.bool('purge')) store.remove(target);
  return 0;
}

/** `manifest rm`. */
export async function removeManifests(session: Session): Promise<number> {
  const store = new ManifestStore(session.configDirectory);
  const failures: string[] = [];
  for (const name of session.args) {
    try {
      const list = normalised(name);
      store.all(list);
      store.remove(list);
    } catch (error) {
      failures.push((error as Error).message.trimEnd());
    }
  }
  if (failures.length > 0) throw fail(failures.join('\n'));
  return 0;
}
