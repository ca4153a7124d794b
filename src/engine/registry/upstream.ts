/**
 * The upstream of a cache, asked through the registry client with one set of credentials. What is not there (or hidden
 * behind a refusal) is undefined; everything else that fails throws.
 */
import type {
  RegistryClient,
  RegistryCredentials,
  RemoteManifest,
  RemoteRepository,
} from '#system/registry-http/contract.ts';
import type { Digest } from '#types/digest.ts';
import { errorKind } from '#types/errors.ts';

/** Kinds of errors that mean: not for us. */
const ABSENT: ReadonlySet<string> = new Set(['notFound', 'unauthorized', 'forbidden']);

/** One upstream registry. */
export class Upstream {
  readonly #client: RegistryClient;
  readonly #domain: string;
  readonly #credentials: RegistryCredentials;

  constructor(client: RegistryClient, upstream: { domain: string; credentials: RegistryCredentials }) {
    this.#client = client;
    this.#domain = upstream.domain;
    this.#credentials = upstream.credentials;
  }

  /** The digest a tag has now. */
  async tagDigest(repository: string, tag: string, signal: AbortSignal): Promise<Digest | undefined> {
    return await this.#ask(repository, async (remote) => (await remote.resolveTag(tag, signal)).digest, signal);
  }

  /** A manifest whose bytes have the digest it says. */
  async manifest(repository: string, reference: string, signal: AbortSignal): Promise<RemoteManifest | undefined> {
    return await this.#ask(repository, (remote) => remote.manifest(reference, signal), signal);
  }

  /** Gives a blob's size and bytes (not verified) to `take`; false when there is none. */
  async blob(
    repository: string,
    digest: Digest,
    take: (sizeBytes: number, open: () => Promise<AsyncIterable<Buffer>>) => Promise<void>,
    signal: AbortSignal,
  ): Promise<boolean> {
    const isFound = await this.#ask(
      repository,
      async (remote) => {
        const sizeBytes = await remote.blobSize(digest, signal);
        if (sizeBytes === undefined) return false;
        await take(sizeBytes, () => remote.openBlob({ digest, sizeBytes }, { offset: 0 }, signal));
        return true;
      },
      signal,
    );
    return isFound === true;
  }

  /** All tags. */
  async tags(repository: string, signal: AbortSignal): Promise<string[] | undefined> {
    return await this.#ask(repository, (remote) => remote.tags(signal), signal);
  }

  async #ask<T>(
    repository: string,
    work: (remote: RemoteRepository) => Promise<T>,
    signal: AbortSignal,
  ): Promise<T | undefined> {
    try {
      const access = { domain: this.#domain, path: repository, credentials: this.#credentials };
      return await this.#client.pull(access, work, signal);
    } catch (error) {
      if (ABSENT.has(errorKind(error))) return undefined;
      throw error;
    }
  }
}
