/**
 * Image manifests and indexes (OCI image-spec, docker schema 2): parsed from hostile bytes, checked once. Schema 1,
 * artifacts and layers that may not be distributed are refused with docker's texts.
 */
import { LAYER_COUNT_LIMIT } from '#services/images/config.ts';
import { type Digest, isDigest } from '#types/digest.ts';
import { GantryError } from '#types/errors.ts';
import type { Platform } from '#types/platform.ts';
import { canonicalString, type Reference } from '#types/reference.ts';

export interface Descriptor {
  readonly mediaType: string;
  readonly digest: Digest;
  readonly sizeBytes: number;
  readonly platform?: Platform;
}

export type Manifest =
  | { readonly kind: 'index'; readonly manifests: readonly Descriptor[] }
  | {
      readonly kind: 'image';
      readonly mediaType: string;
      readonly config: Descriptor;
      readonly layers: readonly Descriptor[];
    };

/** Entries of an index. Real ones have a few dozen. */
const INDEX_ENTRIES_LIMIT = 10_000;
/** Bytes of one layer; more is a mistake or an attack. */
const LAYER_LIMIT_BYTES: number = 2 ** 40;
/** Bytes of an image config. */
export const CONFIG_LIMIT_BYTES: number = 8 * 1024 * 1024;

const DOCKER_MANIFEST = 'application/vnd.docker.distribution.manifest.v2+json';
const OCI_MANIFEST = 'application/vnd.oci.image.manifest.v1+json';
/** Media types of indexes. */
export const INDEX_TYPES: ReadonlySet<string> = new Set([
  'application/vnd.oci.image.index.v1+json',
  'application/vnd.docker.distribution.manifest.list.v2+json',
]);
const SCHEMA1 = /^application\/vnd\.docker\.distribution\.manifest\.v1\+(json|prettyjws)$/;
/** Compat: config types that old clients wrote instead of the right one. */
const CONFIG_TYPES: ReadonlySet<string> = new Set([
  'application/vnd.docker.container.image.v1+json',
  'application/vnd.oci.image.config.v1+json',
  'application/octet-stream',
  'application/json',
  'text/html',
  '',
]);
const LAYER_TYPE =
  /^application\/vnd\.(docker\.image\.rootfs\.diff\.tar(\.gzip|\.zstd)?|oci\.image\.layer\.v1\.tar(\+gzip|\+zstd)?)$/;
const FOREIGN_LAYER_TYPE =
  /^application\/vnd\.(docker\.image\.rootfs\.foreign\.diff\.tar(\.gzip|\.zstd)?|oci\.image\.layer\.nondistributable\.v1\.tar(\+gzip|\+zstd)?)$/;

function invalid(text: string): GantryError {
  return new GantryError('invalid', text);
}

function object(value: unknown, what: string): Record<string, unknown> {
  if (typeof value !== 'object' || value === null || Array.isArray(value))
    throw invalid(`invalid manifest: ${what} is no object`);
  return value as Record<string, unknown>;
}

function text(value: unknown): string {
  return typeof value === 'string' ? value : '';
}

function list(value: unknown, what: string): unknown[] {
  if (value === undefined || value === null) return [];
  if (!Array.isArray(value)) throw invalid(`invalid manifest: ${what} is no list`);
  return value;
}

function descriptor(value: unknown, what: string): Descriptor {
  const fields = object(value, what);
  const digest = text(fields['digest']);
  if (!isDigest(digest)) throw invalid(`could not validate ${what} digest "${digest}": invalid checksum digest format`);
  const size = fields['size'];
  if (typeof size !== 'number' || !Number.isSafeInteger(size) || size < 0) {
    throw invalid(`invalid manifest: size of ${what} ${digest} is not a valid number of bytes`);
  }
  const platform = fields['platform'];
  return {
    mediaType: text(fields['mediaType']),
    digest,
    sizeBytes: size,
    ...(platform === undefined || platform === null ? {} : { platform: platformOf(object(platform, 'platform')) }),
  };
}

function platformOf(fields: Record<string, unknown>): Platform {
  return {
    os: text(fields['os']),
    architecture: text(fields['architecture']),
    ...(text(fields['variant']) === '' ? {} : { variant: text(fields['variant']) }),
    ...(text(fields['os.version']) === '' ? {} : { osVersion: text(fields['os.version']) }),
  };
}

/** The refusal of docker's first image format. */
export function schema1Error(reference: Reference): GantryError {
  return invalid(
    `Docker Image Format v1 and Docker Image manifest version 2, schema 1 support has been removed. Suggest the author of ${canonicalString(reference)} to upgrade the image to the OCI Format or Docker Image manifest v2, schema 2. More information at https://docs.docker.com/go/deprecated-image-specs/`,
  );
}

/** Parses a manifest or index; `mediaType` is what came with the bytes and counts only where they say nothing. */
export function parseManifest(bytes: Buffer, mediaType: string, reference: Reference): Manifest {
  let value: unknown;
  try {
    value = JSON.parse(bytes.toString('utf8'));
  } catch {
    throw invalid('invalid manifest: not JSON');
  }
  const fields = object(value, 'document');
  const own = text(fields['mediaType']);
  const type = own === '' ? mediaType : own;
  if (SCHEMA1.test(type) || fields['fsLayers'] !== undefined) throw schema1Error(reference);
  const has = (name: string): boolean => fields[name] !== undefined && fields[name] !== null;
  const looksLikeIndex = has('manifests');
  if (looksLikeIndex && (has('config') || has('layers'))) {
    throw invalid(`media-type: "${type}" should not have "manifests" beside "config" or "layers"`);
  }
  if (INDEX_TYPES.has(type) || (looksLikeIndex && type !== DOCKER_MANIFEST && type !== OCI_MANIFEST))
    return indexOf(fields);
  if (type !== DOCKER_MANIFEST && type !== OCI_MANIFEST && (own !== '' || !has('config'))) {
    throw invalid(`unsupported media type ${type}`);
  }
  return imageOf(fields, type === DOCKER_MANIFEST ? DOCKER_MANIFEST : OCI_MANIFEST);
}

function indexOf(fields: Record<string, unknown>): Manifest {
  const entries = list(fields['manifests'], 'manifests');
  if (entries.length > INDEX_ENTRIES_LIMIT) throw invalid(`invalid manifest: more than ${INDEX_ENTRIES_LIMIT} entries`);
  return { kind: 'index', manifests: entries.map((entry) => descriptor(entry, 'manifest')) };
}

function imageOf(fields: Record<string, unknown>, mediaType: string): Manifest {
  const layers = list(fields['layers'], 'layers');
  if (layers.length > LAYER_COUNT_LIMIT) throw invalid('max depth exceeded');
  return {
    kind: 'image',
    mediaType,
    config: descriptor(fields['config'], 'config'),
    layers: layers.map((layer) => descriptor(layer, 'layer')),
  };
}

/** Refuses what cannot be made an image here. */
export function checkImageManifest(manifest: Manifest & { kind: 'image' }): void {
  const { config, layers } = manifest;
  if (!CONFIG_TYPES.has(config.mediaType)) throw configTypeError(manifest);
  if (config.sizeBytes > CONFIG_LIMIT_BYTES) {
    throw invalid(`image configuration of ${config.sizeBytes} bytes is larger than ${CONFIG_LIMIT_BYTES} bytes`);
  }
  if (!config.digest.startsWith('sha256:'))
    throw invalid(`image configuration ${config.digest}: unsupported digest algorithm`);
  for (const layer of layers) {
    if (FOREIGN_LAYER_TYPE.test(layer.mediaType)) {
      throw invalid(
        `layer ${layer.digest} is a foreign layer (${layer.mediaType}), which is not distributed by registries`,
      );
    }
    if (!LAYER_TYPE.test(layer.mediaType)) throw invalid(`unsupported media type ${layer.mediaType}`);
    if (!layer.digest.startsWith('sha256:')) throw invalid(`layer ${layer.digest}: unsupported digest algorithm`);
    if (layer.sizeBytes > LAYER_LIMIT_BYTES) {
      throw invalid(`layer ${layer.digest} of ${layer.sizeBytes} bytes is larger than ${LAYER_LIMIT_BYTES} bytes`);
    }
  }
}

function configTypeError(manifest: Manifest & { kind: 'image' }): GantryError {
  const { mediaType } = manifest.config;
  if (mediaType.toLowerCase().startsWith('application/vnd.docker.ai.')) {
    return invalid('AI models are not yet supported by the Engine, please use "docker model pull/run" instead');
  }
  if (manifest.mediaType !== DOCKER_MANIFEST) return invalid(`unsupported media type ${mediaType}`);
  const kind = mediaType === 'application/vnd.docker.plugin.v1+json' ? 'plugin' : 'unknown';
  return invalid(`Encountered remote "${mediaType}"(${kind}) when fetching`);
}
