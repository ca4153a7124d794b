/**
 * Quotas: a limit for the whole registry (each blob counted once) and limits for repositories by pattern, either for
 * each matching repository or for all of them together. Unfinished uploads count.
 */

import { DistributionError } from '#types/distribution-error.ts';
import { matchesGlob } from '#types/glob.ts';
import type { RepositoryName } from './contract.ts';
import type { RegistryStore } from './store.ts';
import type { Uploads } from './uploads.ts';

/** One limit on repositories. */
export interface QuotaRule {
  readonly repositories: string;
  readonly limitBytes: number;
  /** `each`: every matching repository for itself; `together`: their sum. */
  readonly scope: 'each' | 'together';
}

export interface QuotaSettings {
  /** Undefined: as much as the disk takes. */
  readonly totalBytes: number | undefined;
  readonly rules: readonly QuotaRule[];
}

/** Decides whether a repository may grow. */
export class Quotas {
  readonly #store: RegistryStore;
  readonly #uploads: Uploads;
  settings: QuotaSettings;

  constructor(store: RegistryStore, uploads: Uploads, settings: QuotaSettings) {
    this.#store = store;
    this.#uploads = uploads;
    this.settings = settings;
  }

  /** Bytes `repository` may still get, and which limit says so. */
  remaining(repository: RepositoryName): { bytes: number; limit: string } {
    let least = { bytes: Number.POSITIVE_INFINITY, limit: '' };
    const consider = (limitBytes: number, usedBytes: number, limit: string): void => {
      const bytes = Math.max(0, limitBytes - usedBytes);
      if (bytes < least.bytes) least = { bytes, limit: `${limit} is limited to ${limitBytes} bytes` };
    };
    const { totalBytes, rules } = this.settings;
    if (totalBytes !== undefined) {
      consider(totalBytes, this.#store.totals().blobBytes + this.#uploads.pendingBytes(() => true), 'the registry');
    }
    for (const rule of rules) {
      if (!matchesGlob(rule.repositories, repository)) continue;
      if (rule.scope === 'each') {
        const pending = this.#uploads.pendingBytes((name) => name === repository);
        consider(rule.limitBytes, this.#store.repositorySize(repository) + pending, `repository ${repository}`);
        continue;
      }
      const matches = (name: string): boolean => matchesGlob(rule.repositories, name);
      const used = this.#store
        .repositorySizes()
        .reduce((sum, { name, sizeBytes }) => (matches(name) ? sum + sizeBytes : sum), 0);
      consider(rule.limitBytes, used + this.#uploads.pendingBytes(matches), rule.repositories);
    }
    return least;
  }

  /** Throws DENIED when `repository` may not grow by `bytes`. */
  require(repository: RepositoryName, bytes: number): void {
    const { bytes: left, limit } = this.remaining(repository);
    if (bytes > left || (left === 0 && bytes > 0)) throw quotaError(limit);
  }
}

/** The error for a push beyond a quota. */
export function quotaError(limit: string): DistributionError {
  return new DistributionError('DENIED', {
    message: `requested access to the resource is denied: quota exceeded: ${limit}`,
  });
}
