/** One repository at one endpoint, over an authenticated session (distribution-spec "Endpoints"). */
import { createHash } from 'node:crypto';
import { type Digest, digestOf, isDigest } from '#types/digest.ts';
import type { BlobUpload, RemoteDescriptor, RemoteManifest, RemoteRepository, UploadedBlob } from './contract.ts';
import { openDownload } from './download.ts';
import { contentError } from './errors.ts';
import type { Session } from './session.ts';
import { failed } from './tokens.ts';
import { drop, type HttpAnswer, readBody } from './transport.ts';
import { locationOf, uploadBlob } from './upload.ts';

/** Bytes of a manifest or index (distribution-spec asks registries for at least this, docker takes no more). */
export const MANIFEST_LIMIT_BYTES: number = 4 * 1024 * 1024;
/** Bytes of one page of tags or repositories. */
const PAGE_LIMIT_BYTES = 4 * 1024 * 1024;
/** Pages of one list. */
const PAGES_LIMIT = 1000;
/** Entries of one list. */
const LIST_LIMIT = 100_000;

export const MANIFEST_MEDIA_TYPES = {
  ociIndex: 'application/vnd.oci.image.index.v1+json',
  ociManifest: 'application/vnd.oci.image.manifest.v1+json',
  dockerList: 'application/vnd.docker.distribution.manifest.list.v2+json',
  dockerManifest: 'application/vnd.docker.distribution.manifest.v2+json',
  dockerSchema1: 'application/vnd.docker.distribution.manifest.v1+json',
  dockerSignedSchema1: 'application/vnd.docker.distribution.manifest.v1+prettyjws',
} as const;

const ACCEPT = Object.values(MANIFEST_MEDIA_TYPES).join(', ');

/** The digest of bytes by the algorithm of another digest. */
export function digestLike(digest: Digest, bytes: Uint8Array): Digest {
  const algorithm = digest.slice(0, digest.indexOf(':'));
  return `${algorithm}:${createHash(algorithm).update(bytes).digest('hex')}` as Digest;
}

/** The `next` page of a `Link` header. */
function nextPage(answer: HttpAnswer): URL | undefined {
  const link = /<([^>]*)>\s*;\s*rel="?next"?/.exec(answer.header('link'))?.[1];
  if (link === undefined || !URL.canParse(link, answer.url.href)) return undefined;
  const next = new URL(link, answer.url.href);
  return next.origin === answer.url.origin ? next : undefined;
}

/** All entries of a paged list. */
export async function readPages(session: Session, first: URL, field: string, signal: AbortSignal): Promise<string[]> {
  const entries: string[] = [];
  let url: URL | undefined = first;
  for (let page = 0; url !== undefined; page += 1) {
    if (page >= PAGES_LIMIT) throw contentError(`list has more than ${PAGES_LIMIT} pages`);
    const answer: HttpAnswer = await session.expect({ method: 'GET', url, headers: {} }, signal);
    const text = (await readBody(answer, PAGE_LIMIT_BYTES, 'list')).toString('utf8');
    for (const entry of listField(text, field)) entries.push(entry);
    if (entries.length > LIST_LIMIT) throw contentError(`list has more than ${LIST_LIMIT} entries`);
    url = nextPage(answer);
  }
  return entries;
}

function listField(text: string, field: string): string[] {
  let value: unknown;
  try {
    value = (JSON.parse(text) as Record<string, unknown> | null)?.[field];
  } catch {
    throw contentError('registry sent a list that is no JSON');
  }
  return Array.isArray(value) ? value.filter((entry) => typeof entry === 'string') : [];
}

export class HttpRepository implements RemoteRepository {
  readonly #session: Session;
  readonly #path: string;

  constructor(session: Session, path: string) {
    this.#session = session;
    this.#path = path;
  }

  get endpoint(): string {
    return this.#session.endpoint.url.origin;
  }

  get isMirror(): boolean {
    return this.#session.endpoint.isMirror;
  }

  #url(rest: string): URL {
    return this.#session.url(`/v2/${this.#path}/${rest}`);
  }

  async resolveTag(tag: string, signal: AbortSignal): Promise<RemoteDescriptor> {
    const headers = { accept: ACCEPT };
    const answer = await this.#session.send({ method: 'HEAD', url: this.#url(`manifests/${tag}`), headers }, signal);
    drop(answer.body);
    const digest = answer.header('docker-content-digest');
    if (answer.status === 200 && isDigest(digest)) {
      const sizeBytes = Number(answer.header('content-length')) || 0;
      return { mediaType: mediaTypeOf(answer), digest, sizeBytes };
    }
    // Without a digest, or for the words of a refusal, the manifest itself is asked for.
    const manifest = await this.manifest(tag, signal);
    return { mediaType: manifest.mediaType, digest: manifest.digest, sizeBytes: manifest.bytes.length };
  }

  async manifest(reference: string, signal: AbortSignal): Promise<RemoteManifest> {
    const url = this.#url(`manifests/${reference}`);
    const answer = await this.#session.expect({ method: 'GET', url, headers: { accept: ACCEPT } }, signal);
    const length = Number(answer.header('content-length'));
    if (length > MANIFEST_LIMIT_BYTES) {
      drop(answer.body);
      throw contentError(`manifest of ${length} bytes is larger than ${MANIFEST_LIMIT_BYTES} bytes`);
    }
    const bytes = await readBody(answer, MANIFEST_LIMIT_BYTES, 'manifest');
    const claimed = isDigest(reference) ? reference : answer.header('docker-content-digest');
    const digest = isDigest(claimed) ? digestLike(claimed, bytes) : digestOf(bytes);
    if (isDigest(claimed) && claimed !== digest)
      throw contentError(`manifest verification failed for digest ${claimed}`);
    return { mediaType: mediaTypeOf(answer), digest, bytes };
  }

  async putManifest(
    reference: string,
    manifest: { mediaType: string; bytes: Uint8Array },
    signal: AbortSignal,
  ): Promise<Digest> {
    const answer = await this.#session.expect(
      {
        method: 'PUT',
        url: this.#url(`manifests/${reference}`),
        headers: { 'content-type': manifest.mediaType },
        body: Buffer.from(manifest.bytes),
      },
      signal,
    );
    drop(answer.body);
    const digest = digestOf(manifest.bytes);
    const stored = answer.header('docker-content-digest');
    if (isDigest(stored) && stored !== digest && digestLike(stored, manifest.bytes) !== stored) {
      throw contentError(`registry stored manifest ${digest} as ${stored}`);
    }
    return digest;
  }

  tags(signal: AbortSignal): Promise<string[]> {
    return readPages(this.#session, this.#url('tags/list'), 'tags', signal);
  }

  async configBlob(digest: Digest, limitBytes: number, signal: AbortSignal): Promise<Buffer> {
    const url = this.#url(`blobs/${digest}`);
    const headers = { 'accept-encoding': 'identity' };
    const answer = await this.#session.expect({ method: 'GET', url, headers }, signal);
    const bytes = await readBody(answer, limitBytes, 'image configuration');
    if (digestLike(digest, bytes) !== digest) {
      throw contentError(`image config verification failed for digest ${digest}`);
    }
    return bytes;
  }

  openBlob(
    blob: { digest: Digest; sizeBytes: number },
    options: { readonly offset: number },
    signal: AbortSignal,
  ): Promise<AsyncIterable<Buffer>> {
    const url = this.#url(`blobs/${blob.digest}`);
    return openDownload({ session: this.#session, url, ...blob, offset: options.offset }, signal);
  }

  async blobSize(digest: Digest, signal: AbortSignal): Promise<number | undefined> {
    const url = this.#url(`blobs/${digest}`);
    const answer = await this.#session.send({ method: 'HEAD', url, headers: {} }, signal);
    if (answer.status === 404) {
      drop(answer.body);
      return undefined;
    }
    if (answer.status < 200 || answer.status >= 400) throw await failed(answer);
    drop(answer.body);
    return Number(answer.header('content-length')) || 0;
  }

  async mountBlob(digest: Digest, from: string, signal: AbortSignal): Promise<boolean> {
    const url = this.#url('blobs/uploads/');
    url.searchParams.append('from', from);
    url.searchParams.append('mount', digest);
    const answer = await this.#session.send(
      {
        method: 'POST',
        url,
        headers: { 'content-length': '0' },
        extraScopes: [`repository:${from}:pull`],
        isRepeatable: true,
      },
      signal,
    );
    drop(answer.body);
    if (answer.status === 201) return true;
    if (answer.status === 202) await this.#cancelUpload(locationOf(answer), signal);
    return false;
  }

  /** An upload that the registry began instead of mounting is not left open. */
  async #cancelUpload(location: URL, signal: AbortSignal): Promise<void> {
    const answer = await this.#session
      .send({ method: 'DELETE', url: location, headers: {} }, signal)
      .catch(() => undefined);
    if (answer !== undefined) drop(answer.body);
  }

  uploadBlob(blob: BlobUpload, signal: AbortSignal): Promise<UploadedBlob> {
    return uploadBlob(this.#session, this.#url('blobs/uploads/'), blob, signal);
  }
}

function mediaTypeOf(answer: HttpAnswer): string {
  return (answer.header('content-type').split(';')[0] ?? '').trim();
}
