/** Names in registry requests: repositories, tags, references and upload IDs (OCI distribution-spec, "Pulling manifests"). */
import { type Digest, isDigest } from '#types/digest.ts';
import { DistributionError } from '#types/distribution-error.ts';
import { isTag, NAME_LENGTH_LIMIT } from '#types/reference.ts';
import type { RepositoryName } from './contract.ts';

const COMPONENT = '[a-z0-9]+(?:(?:\\.|_|__|-+)[a-z0-9]+)*';
const NAME = new RegExp(`^${COMPONENT}(?:/${COMPONENT})*$`);
const UPLOAD_ID = /^[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}$/;

/** A tag or a digest in a manifest's URL. */
export type ManifestReference =
  | { readonly kind: 'tag'; readonly tag: string }
  | { readonly kind: 'digest'; readonly digest: Digest };

/** Checks a repository name; throws NAME_INVALID. */
export function parseRepositoryName(text: string): RepositoryName {
  if (text.length > NAME_LENGTH_LIMIT || !NAME.test(text))
    throw new DistributionError('NAME_INVALID', { detail: { name: text.slice(0, NAME_LENGTH_LIMIT) } });
  return text as RepositoryName;
}

/** Checks a digest in a URL; throws DIGEST_INVALID. */
export function parseRegistryDigest(text: string): Digest {
  if (!isDigest(text))
    throw new DistributionError('DIGEST_INVALID', {
      message: 'invalid or unsupported digest',
      detail: { digest: text.slice(0, 150) },
    });
  return text;
}

/** Reads a manifest reference; what is neither tag nor digest is TAG_INVALID or DIGEST_INVALID. */
export function parseManifestReference(text: string): ManifestReference {
  if (text.includes(':')) return { kind: 'digest', digest: parseRegistryDigest(text) };
  if (!isTag(text))
    throw new DistributionError('TAG_INVALID', { message: 'invalid tag', detail: { tag: text.slice(0, 150) } });
  return { kind: 'tag', tag: text };
}

/** Checks an upload's ID; others are unknown uploads. */
export function parseUploadId(text: string): string {
  if (!UPLOAD_ID.test(text)) throw new DistributionError('BLOB_UPLOAD_UNKNOWN');
  return text;
}
