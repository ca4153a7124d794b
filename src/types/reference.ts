/**
 * Image references: docker's grammar (the distribution project's "reference" specification).
 *
 * A named reference is always held normalised (`docker.io/library/busybox`); `familiar*` gives what users
 * read (`busybox`). Error texts are docker's, because clients print and match them.
 */
import { GantryError } from './errors.ts';

/** A parsed, normalised name with optional tag and digest. */
export interface Reference {
  /** Registry host, `docker.io` by default. */
  readonly domain: string;
  /** Repository path within the registry, `library/busybox`. */
  readonly path: string;
  readonly tag?: string;
  readonly digest?: string;
}

/** Either a name or a bare digest (an image ID written out). */
export type AnyReference =
  | { readonly kind: 'named'; readonly reference: Reference }
  | { readonly kind: 'digest'; readonly digest: string };

/** Longest repository name (domain and path). */
export const NAME_LENGTH_LIMIT = 255;

const DEFAULT_DOMAIN = 'docker.io';
const LEGACY_DOMAIN = 'index.docker.io';
const OFFICIAL_PREFIX = 'library/';

const ALPHANUMERIC = '[a-z0-9]+';
const SEPARATOR = '(?:[._]|__|[-]+)';
const PATH_COMPONENT = `${ALPHANUMERIC}(?:${SEPARATOR}${ALPHANUMERIC})*`;
const DOMAIN_COMPONENT = '(?:[a-zA-Z0-9]|[a-zA-Z0-9][a-zA-Z0-9-]*[a-zA-Z0-9])';
const DOMAIN_NAME = `${DOMAIN_COMPONENT}(?:\\.${DOMAIN_COMPONENT})*`;
const DOMAIN = `(?:${DOMAIN_NAME}|\\[[a-fA-F0-9:]+\\])(?::[0-9]+)?`;
const TAG = '[\\w][\\w.-]{0,127}';
const DIGEST = '[A-Za-z][A-Za-z0-9]*(?:[-_+.][A-Za-z][A-Za-z0-9]*)*[:][0-9a-fA-F]{32,}';
const NAME = `(?:(${DOMAIN})/)?(${PATH_COMPONENT}(?:/${PATH_COMPONENT})*)`;

const REFERENCE_PATTERN = new RegExp(
  `^((?:${DOMAIN}/)?${PATH_COMPONENT}(?:/${PATH_COMPONENT})*)(?::(${TAG}))?(?:@(${DIGEST}))?$`,
);
const NAME_PATTERN = new RegExp(`^${NAME}$`);
const TAG_PATTERN = new RegExp(`^${TAG}$`);
const IDENTIFIER = /^[a-f0-9]{64}$/;
const ALGORITHM_HEX_LENGTH: Readonly<Record<string, number>> = { sha256: 64, sha384: 96, sha512: 128 };

function invalid(text: string): GantryError {
  return new GantryError('invalid', text);
}

/** Whether `text` may be a tag. */
export function isTag(text: string): boolean {
  return TAG_PATTERN.test(text);
}

/** Throws docker's text when the digest is not one of the registered algorithms with the right length. */
function checkDigest(digest: string): void {
  const colon = digest.indexOf(':');
  const length = ALGORITHM_HEX_LENGTH[digest.slice(0, colon)];
  if (length === undefined) throw invalid('unsupported digest algorithm');
  const hex = digest.slice(colon + 1);
  if (hex.length !== length) throw invalid('invalid checksum digest length');
  if (!/^[a-f0-9]+$/.test(hex)) throw invalid('invalid checksum digest format');
}

/** Splits off the domain as docker does: the first part is one only with a dot, a colon, upper case, or as `localhost`. */
function splitDomain(name: string): { domain: string; remainder: string } {
  const slash = name.indexOf('/');
  const first = slash < 0 ? '' : name.slice(0, slash);
  const isDomain = /[.:]/.test(first) || first === 'localhost' || first.toLowerCase() !== first;
  let domain = slash >= 0 && isDomain ? first : DEFAULT_DOMAIN;
  let remainder = slash >= 0 && isDomain ? name.slice(slash + 1) : name;
  if (domain === LEGACY_DOMAIN) domain = DEFAULT_DOMAIN;
  if (domain === DEFAULT_DOMAIN && !remainder.includes('/')) remainder = OFFICIAL_PREFIX + remainder;
  return { domain, remainder };
}

/** Parses user input to a normalised reference; throws `invalid` with docker's text. */
export function parseReference(text: string): Reference {
  if (IDENTIFIER.test(text)) {
    throw invalid(`invalid repository name (${text}), cannot specify 64-byte hexadecimal strings`);
  }
  const { domain, remainder } = splitDomain(text);
  const at = remainder.indexOf('@');
  const undigested = at < 0 ? remainder : remainder.slice(0, at);
  const colon = undigested.indexOf(':');
  const remote = colon < 0 ? undigested : undigested.slice(0, colon);
  if (remote.toLowerCase() !== remote) {
    throw invalid(`invalid reference format: repository name (${remote}) must be lowercase`);
  }
  const match = REFERENCE_PATTERN.exec(`${domain}/${remainder}`);
  if (match === null) throw invalid('invalid reference format');
  const name = NAME_PATTERN.exec(match[1] ?? '');
  if (name?.[1] === undefined || name[2] === undefined) throw invalid('invalid reference format');
  if (name[2].length > NAME_LENGTH_LIMIT) {
    throw invalid(`repository name must not be more than ${NAME_LENGTH_LIMIT} characters`);
  }
  if (match[3] !== undefined) checkDigest(match[3]);
  return {
    domain: name[1],
    path: name[2],
    ...(match[2] === undefined ? {} : { tag: match[2] }),
    ...(match[3] === undefined ? {} : { digest: match[3] }),
  };
}

/** Parses a name, a bare digest or 64 hex digits. */
export function parseAnyReference(text: string): AnyReference {
  if (IDENTIFIER.test(text)) return { kind: 'digest', digest: `sha256:${text}` };
  if (/^sha(256|384|512):[a-f0-9]+$/.test(text)) {
    const [algorithm = '', hex = ''] = text.split(':');
    if (hex.length === ALGORITHM_HEX_LENGTH[algorithm]) return { kind: 'digest', digest: text };
  }
  return { kind: 'named', reference: parseReference(text) };
}

/** `docker.io/library/busybox`. */
export function canonicalName(reference: Reference): string {
  return `${reference.domain}/${reference.path}`;
}

/** The whole normalised form with tag and digest. */
export function canonicalString(reference: Reference): string {
  return canonicalName(reference) + suffix(reference);
}

/** What users read for the name: `busybox`, `me/app`, `example.org/x`. */
export function familiarName(reference: Reference): string {
  if (reference.domain !== DEFAULT_DOMAIN) return canonicalName(reference);
  const short = reference.path.startsWith(OFFICIAL_PREFIX)
    ? reference.path.slice(OFFICIAL_PREFIX.length)
    : reference.path;
  // Compat: a short path that would read as a host (`localhost`, `a.b/c`) keeps its prefix.
  return reference.path.startsWith(OFFICIAL_PREFIX) && short.includes('/') ? reference.path : short;
}

/** `busybox:latest`, `busybox@sha256:…`. */
export function familiarString(reference: Reference): string {
  return familiarName(reference) + suffix(reference);
}

function suffix(reference: Reference): string {
  const tag = reference.tag === undefined ? '' : `:${reference.tag}`;
  return tag + (reference.digest === undefined ? '' : `@${reference.digest}`);
}

/** Adds `latest` when neither tag nor digest is there. */
export function withDefaultTag(reference: Reference): Reference {
  return isNameOnly(reference) ? { ...reference, tag: 'latest' } : reference;
}

/** Neither tag nor digest. */
export function isNameOnly(reference: Reference): boolean {
  return reference.tag === undefined && reference.digest === undefined;
}

/** Replaces the tag; throws docker's text for a bad one. */
export function withTag(reference: Reference, tag: string): Reference {
  if (!isTag(tag)) throw invalid('invalid tag format');
  return { ...reference, tag };
}

/** The name alone. */
export function nameOnly(reference: Reference): Reference {
  return { domain: reference.domain, path: reference.path };
}

/**
 * The key under which a reference is stored: name and digest when there is a digest (the tag beside it is
 * dropped), else name and tag.
 */
export function storedString(reference: Reference): string {
  if (reference.digest !== undefined) return `${canonicalName(reference)}@${reference.digest}`;
  return canonicalString(withDefaultTag(reference));
}
