/** Collects garbage in a registry's root, whoever serves it; one collection at a time, held by a lock file. */
import { join } from 'node:path';
import { type Collected, type CollectOptions, collectRegistry } from '#services/registry/collector.ts';
import type { RegistryStore } from '#services/registry/store.ts';
import { tryLock } from '#system/kernel/flock.ts';

/** What was removed; undefined when another collection is going on. */
export async function collectGarbage(
  root: string,
  store: RegistryStore,
  options: CollectOptions,
  signal?: AbortSignal,
): Promise<Collected | undefined> {
  using lock = tryLock(join(root, 'collect.lock'));
  if (lock === undefined) return undefined;
  return await collectRegistry(store, options, signal);
}
