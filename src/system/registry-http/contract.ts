/**
 * A client of OCI registries (distribution-spec 1.1) and of Docker's v2 protocol before it.
 *
 * `RegistryClient` finds the endpoints of a registry (mirrors first, then itself; plain HTTP only where a registry may
 * be insecure) and runs work against a `RemoteRepository` on each in turn, until one gives an answer that counts.
 * Everything a registry sends is bounded in size and time; manifests and blobs are verified against their digests.
 */
import type { Digest } from '#types/digest.ts';

/** A user's credentials for one registry (docker's AuthConfig). Never logged. */
export interface RegistryCredentials {
  readonly username?: string;
  readonly password?: string;
  /** A refresh token, exchanged for access tokens. */
  readonly identityToken?: string;
  /** A bearer token sent as it is. */
  readonly registryToken?: string;
  readonly serverAddress?: string;
}

export interface RemoteDescriptor {
  readonly mediaType: string;
  readonly digest: Digest;
  readonly sizeBytes: number;
}

/** A manifest or index with the exact bytes its digest is of. */
export interface RemoteManifest {
  readonly mediaType: string;
  readonly digest: Digest;
  readonly bytes: Buffer;
}

/** What is uploaded. `open` gives the same bytes each time: a broken upload is resumed with the rest of them. */
export interface BlobUpload {
  open(): AsyncIterable<Buffer>;
  /** Known beforehand for stored blobs; computed on the way for what is compressed meanwhile. */
  readonly digest?: Digest;
  readonly sizeBytes?: number;
  /** Bytes of this upload that the registry has been sent so far. */
  readonly onProgress?: (sentBytes: number) => void;
  /** A further attempt is made after this pause. */
  readonly onRetry?: (pauseMs: number) => void;
}

export interface UploadedBlob {
  readonly digest: Digest;
  readonly sizeBytes: number;
}

/** One repository at one endpoint. Every method throws `RemoteRegistryError` with docker's texts. */
export interface RemoteRepository {
  /** `https://host`, without a path. */
  readonly endpoint: string;
  readonly isMirror: boolean;
  /** Where a tag points, without fetching the manifest. */
  resolveTag(tag: string, signal: AbortSignal): Promise<RemoteDescriptor>;
  /** A manifest by tag or digest, verified when asked for by digest. */
  manifest(reference: string, signal: AbortSignal): Promise<RemoteManifest>;
  /** Stores a manifest under a tag or its digest. */
  putManifest(
    reference: string,
    manifest: { mediaType: string; bytes: Uint8Array },
    signal: AbortSignal,
  ): Promise<Digest>;
  tags(signal: AbortSignal): Promise<string[]>;
  /** An image's config, whole and verified. */
  configBlob(digest: Digest, limitBytes: number, signal: AbortSignal): Promise<Buffer>;
  /**
   * A blob's bytes from `offset` on. A transfer that breaks is continued by range while that brings something; more or
   * fewer bytes than `sizeBytes` are an error. The digest of the whole is the reader's to check.
   */
  openBlob(
    blob: { digest: Digest; sizeBytes: number },
    options: { readonly offset: number },
    signal: AbortSignal,
  ): Promise<AsyncIterable<Buffer>>;
  /** Size of a blob; undefined when the repository has no such blob. */
  blobSize(digest: Digest, signal: AbortSignal): Promise<number | undefined>;
  /** Takes a blob over from another repository of the registry; false when the registry would not. */
  mountBlob(digest: Digest, from: string, signal: AbortSignal): Promise<boolean>;
  uploadBlob(blob: BlobUpload, signal: AbortSignal): Promise<UploadedBlob>;
}

/** What is wanted of which repository. */
export interface RepositoryAccess {
  readonly domain: string;
  readonly path: string;
  readonly credentials: RegistryCredentials;
  /** Sent with every request to the registry: docker passes `X-Meta-…` of its clients on. */
  readonly metaHeaders?: Readonly<Record<string, string>>;
}

export interface SearchResult {
  readonly star_count: number;
  readonly is_official: boolean;
  readonly name: string;
  readonly is_automated: boolean;
  readonly description: string;
}

/** All registries, as the daemon's options say how to reach them. */
export interface RegistryClient {
  /** Runs `work` on mirrors and the registry itself, to read. */
  pull<T>(
    access: RepositoryAccess,
    work: (repository: RemoteRepository) => Promise<T>,
    signal: AbortSignal,
  ): Promise<T>;
  /** Runs `work` on the registry itself, to write. */
  push<T>(
    access: RepositoryAccess,
    work: (repository: RemoteRepository) => Promise<T>,
    signal: AbortSignal,
  ): Promise<T>;
  /** Checks credentials; gives the identity token if the registry offers one instead of the password. */
  login(
    credentials: RegistryCredentials,
    signal: AbortSignal,
  ): Promise<{ readonly status: string; readonly identityToken: string }>;
  /** Search of Docker Hub or of a private registry (its v1 search, else its catalogue). */
  search(
    term: string,
    options: { readonly limit: number; readonly credentials: RegistryCredentials },
    signal: AbortSignal,
  ): Promise<SearchResult[]>;
}
