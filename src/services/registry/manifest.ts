/**
 * Reads a pushed manifest (image-spec manifest.md and image-index.md, Docker's schema 2 and manifest list) into what the
 * registry needs: its type, what it names, its subject. The bytes themselves are stored as they came.
 */
import { isDigest } from '#types/digest.ts';
import { DistributionError } from '#types/distribution-error.ts';
import type { Descriptor } from './contract.ts';

/** Docker's and the distribution-spec's own limit. */
export const MAX_MANIFEST_BYTES: number = 4 * 1024 * 1024;
/** Descriptors in one manifest: far above any image, far below what would hold up the database. */
export const MAX_DESCRIPTORS = 4096;

export const OCI_MANIFEST = 'application/vnd.oci.image.manifest.v1+json';
export const OCI_INDEX = 'application/vnd.oci.image.index.v1+json';
export const DOCKER_MANIFEST = 'application/vnd.docker.distribution.manifest.v2+json';
export const DOCKER_LIST = 'application/vnd.docker.distribution.manifest.list.v2+json';

const IMAGES: ReadonlySet<string> = new Set([OCI_MANIFEST, DOCKER_MANIFEST]);
const INDEXES: ReadonlySet<string> = new Set([OCI_INDEX, DOCKER_LIST]);

/** What the registry knows of a manifest. */
export interface ParsedManifest {
  readonly mediaType: string;
  /** Type shown in the referrers list. */
  readonly artifactType: string;
  readonly annotations: Readonly<Record<string, string>>;
  readonly subject: Descriptor | undefined;
  readonly config: Descriptor | undefined;
  /** Blobs it needs here: the configuration and every distributable layer. */
  readonly blobs: readonly Descriptor[];
  readonly layers: readonly Descriptor[];
  /** Manifests it needs here. */
  readonly manifests: readonly Descriptor[];
}

type Fields = Readonly<Record<string, unknown>>;

function invalid(why: string): DistributionError {
  return new DistributionError('MANIFEST_INVALID', { message: `manifest invalid: ${why}`, detail: { reason: why } });
}

function isFields(value: unknown): value is Fields {
  return typeof value === 'object' && value !== null && !Array.isArray(value);
}

function textOf(fields: Fields, name: string, where: string): string {
  const value = fields[name] ?? '';
  if (typeof value !== 'string') throw invalid(`${where}${name} is not a string`);
  return value;
}

function annotationsOf(fields: Fields, where: string): Readonly<Record<string, string>> {
  const value = fields['annotations'] ?? {};
  if (!isFields(value) || Object.values(value).some((text) => typeof text !== 'string')) {
    throw invalid(`${where}annotations is not a map of strings`);
  }
  return value as Readonly<Record<string, string>>;
}

function descriptorOf(value: unknown, where: string): Descriptor {
  if (!isFields(value)) throw invalid(`${where} is not a descriptor`);
  const digest = value['digest'];
  if (typeof digest !== 'string' || !isDigest(digest)) throw invalid(`${where}.digest is not a supported digest`);
  const size = value['size'];
  if (typeof size !== 'number' || !Number.isSafeInteger(size) || size < 0) throw invalid(`${where}.size is not a size`);
  const artifactType = textOf(value, 'artifactType', `${where}.`);
  const { urls, platform } = value;
  return {
    mediaType: textOf(value, 'mediaType', `${where}.`),
    digest,
    sizeBytes: size,
    annotations: annotationsOf(value, `${where}.`),
    ...(artifactType === '' ? {} : { artifactType }),
    ...(isFields(platform) ? { platform } : {}),
    ...(Array.isArray(urls) ? { urls: urls.filter((url) => typeof url === 'string') } : {}),
  };
}

function descriptorsOf(fields: Fields, name: string): Descriptor[] {
  const value = fields[name] ?? [];
  if (!Array.isArray(value)) throw invalid(`${name} is not a list`);
  if (value.length > MAX_DESCRIPTORS) throw invalid(`${name} has more than ${MAX_DESCRIPTORS} entries`);
  return value.map((item, index) => descriptorOf(item, `${name}[${index}]`));
}

/** Layers that may live elsewhere: Docker's foreign and OCI's non-distributable ones, with an address. */
function isElsewhere(layer: Descriptor): boolean {
  return /\.(foreign|nondistributable)\./.test(layer.mediaType) && (layer.urls?.length ?? 0) > 0;
}

function mediaTypeOf(fields: Fields, contentType: string): string {
  if (fields['schemaVersion'] === 1 || /docker\.distribution\.manifest\.v1\+(json|prettyjws)/.test(contentType)) {
    throw invalid('schema 1 manifests are not supported; push an OCI or a Docker schema 2 manifest');
  }
  if (fields['schemaVersion'] !== 2) throw invalid('schemaVersion is not 2');
  const header = (contentType.split(';')[0] ?? '').trim().toLowerCase();
  const body = textOf(fields, 'mediaType', '');
  const mediaType =
    header === '' || header === 'application/json' || header === 'application/octet-stream' ? body : header;
  if (body !== '' && body !== mediaType) throw invalid(`mediaType ${body} is not the Content-Type ${mediaType}`);
  if (!IMAGES.has(mediaType) && !INDEXES.has(mediaType)) {
    throw invalid(
      mediaType === '' ? 'there is neither a mediaType nor a Content-Type' : `unsupported media type ${mediaType}`,
    );
  }
  return mediaType;
}

/** Whether `mediaType` is that of an index or manifest list. */
export function isIndexType(mediaType: string): boolean {
  return INDEXES.has(mediaType);
}

/** Parses and checks; throws MANIFEST_INVALID. `contentType` may be empty. */
export function parseManifest(bytes: Buffer, contentType: string): ParsedManifest {
  let fields: unknown;
  try {
    fields = JSON.parse(new TextDecoder('utf-8', { fatal: true }).decode(bytes));
  } catch (error) {
    throw new DistributionError('MANIFEST_INVALID', { message: 'manifest invalid: it is not JSON', cause: error });
  }
  if (!isFields(fields)) throw invalid('it is not an object');
  const mediaType = mediaTypeOf(fields, contentType);
  const subject = fields['subject'] === undefined ? undefined : descriptorOf(fields['subject'], 'subject');
  const own = textOf(fields, 'artifactType', '');
  const base = { mediaType, subject, annotations: annotationsOf(fields, '') };
  if (INDEXES.has(mediaType)) {
    if (fields['layers'] !== undefined || fields['config'] !== undefined)
      throw invalid('an index has neither layers nor config');
    const manifests = descriptorsOf(fields, 'manifests');
    return { ...base, artifactType: own, config: undefined, blobs: [], layers: [], manifests };
  }
  if (fields['manifests'] !== undefined) throw invalid('an image manifest has no manifests');
  const config = descriptorOf(fields['config'], 'config');
  const layers = descriptorsOf(fields, 'layers');
  return {
    ...base,
    artifactType: own === '' ? config.mediaType : own,
    config,
    layers,
    blobs: [config, ...layers.filter((layer) => !isElsewhere(layer))],
    manifests: [],
  };
}
