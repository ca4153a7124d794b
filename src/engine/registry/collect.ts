/** Collects garbage in a registry's root, whoever serves it; one collection at a time, held by a lock file. */
import { join } from 'node:path';
import { type Collected, type CollectOptions, collectRegistry } from '#services/registry/collector.ts';
import type { RegistryStore } from '#services/registry/store.ts';
import { tryLock } from '#system/kernel/flock.ts';

const COLLECT_LOCK = 'collect.lock';

/** What was removed; undefined when another collection is going on. */
export async function collectGarbage(
  root: string,
  store: RegistryStore,
  options: CollectOptions,
  signal?: AbortSignal,
): Promise<Collected | undefined> {
  using lock = tryLock(join(root, COLLECT_LOCK));
  if (lock === undefined) return undefined;
  return await collectRegistry(store, options, signal);
}

/**
 * Settles what a collection that was killed has left: blobs whose removal was not committed get their place back.
 * Nothing is done while another collection is going on.
 */
export function recoverCollection(root: string, store: RegistryStore): void {
  using lock = tryLock(join(root, COLLECT_LOCK));
  if (lock !== undefined) store.files.emptyTrash((digest) => store.isRecorded(digest));
}
