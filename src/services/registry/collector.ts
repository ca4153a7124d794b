/**
 * Online garbage collection. Small transactions, each deciding and acting at once, so that pushes go on beside it in
 * this or another process. Nothing is removed that was pushed, mounted or asked for within the grace time, or that
 * lies in a repository into which an upload is going on.
 */
import { rmSync } from 'node:fs';
import { setImmediate as breathe } from 'node:timers/promises';
import type { Digest } from '#types/digest.ts';
import type { RegistryStore } from './store.ts';

/** Rows looked at in one transaction: a few milliseconds. */
const BATCH_ROWS = 200;

export interface CollectOptions {
  readonly graceMs: number;
  readonly now: () => number;
  /** Untagged manifests that no index names, older than this, go too; undefined keeps them. */
  readonly untaggedAfterMs?: number | undefined;
  /** In a cache: manifests nobody asked for in this long go. */
  readonly unusedAfterMs?: number | undefined;
}

/** What a collection removed. */
export interface Collected {
  readonly manifests: number;
  readonly links: number;
  readonly blobs: number;
  readonly freedBytes: number;
  readonly repositories: number;
}

/** Runs one collection. Only one may run at a time on a root (the caller holds its lock). */
export async function collectRegistry(
  store: RegistryStore,
  options: CollectOptions,
  signal?: AbortSignal,
): Promise<Collected> {
  store.files.emptyTrash((digest) => store.isRecorded(digest));
  const manifests = await removeManifests(store, options, signal);
  const links = await removeLinks(store, options, signal);
  const blobs = await removeBlobs(store, signal);
  const strays = removeStrays(store, options);
  store.files.emptyTrash((digest) => store.isRecorded(digest));
  const repositories = removeRepositories(store);
  return { manifests, links, blobs: blobs.count + strays.count, freedBytes: blobs.bytes + strays.bytes, repositories };
}

async function removeManifests(store: RegistryStore, options: CollectOptions, signal?: AbortSignal): Promise<number> {
  const { database } = store;
  let removed = 0;
  const sweep = async (condition: string, before: number): Promise<void> => {
    const sql = `SELECT repository, digest FROM manifests AS m WHERE ${condition} LIMIT ${BATCH_ROWS}`;
    for (let isMore = true; isMore; ) {
      signal?.throwIfAborted();
      const count = database.transaction(() => {
        const rows = database.all(sql, before);
        for (const row of rows) {
          database.run(
            'DELETE FROM manifests WHERE repository = ? AND digest = ?',
            Number(row['repository']),
            String(row['digest']),
          );
        }
        return rows.length;
      });
      removed += count;
      isMore = count === BATCH_ROWS;
      await breathe();
    }
  };
  if (options.unusedAfterMs !== undefined) await sweep('m.touched_at < ?', options.now() - options.unusedAfterMs);
  if (options.untaggedAfterMs !== undefined) {
    const untagged = `m.touched_at < ?
      AND NOT EXISTS (SELECT 1 FROM tags t WHERE t.repository = m.repository AND t.digest = m.digest)
      AND NOT EXISTS (SELECT 1 FROM children c WHERE c.repository = m.repository AND c.child = m.digest AND c.kind = 'manifest')
      AND NOT EXISTS (SELECT 1 FROM manifests s WHERE s.repository = m.repository AND s.digest = m.subject)`;
    // Removing an index frees what it names, so this goes on until nothing is left to remove.
    for (let before = -1; before !== removed; ) {
      before = removed;
      await sweep(untagged, options.now() - Math.max(options.untaggedAfterMs, options.graceMs));
    }
  }
  return removed;
}

/** Repositories into which something is being uploaded: their fresh blobs wait for a manifest. */
function busyRepositories(store: RegistryStore, before: number): Set<number> {
  const busy = new Set<number>();
  for (const row of store.database.all('SELECT id, repository FROM uploads')) {
    const changed = store.files.uploadChangedAtMs(String(row['id']));
    if (changed !== undefined && changed >= before) busy.add(Number(row['repository']));
  }
  return busy;
}

async function removeLinks(store: RegistryStore, options: CollectOptions, signal?: AbortSignal): Promise<number> {
  const { database } = store;
  const before = options.now() - options.graceMs;
  let removed = 0;
  let repository = 0;
  let digest = '';
  for (;;) {
    signal?.throwIfAborted();
    const count = database.transaction(() => {
      const busy = busyRepositories(store, before);
      const rows = database.all(
        `SELECT repository, digest, touched_at, EXISTS (SELECT 1 FROM children c WHERE c.repository = links.repository AND c.child = links.digest) AS used
         FROM links WHERE (repository, digest) > (?, ?) ORDER BY repository, digest LIMIT ${BATCH_ROWS}`,
        repository,
        digest,
      );
      for (const row of rows) {
        repository = Number(row['repository']);
        digest = String(row['digest']);
        if (row['used'] === 1 || Number(row['touched_at']) >= before || busy.has(repository)) continue;
        removed += database.run('DELETE FROM links WHERE repository = ? AND digest = ?', repository, digest);
      }
      return rows.length;
    });
    if (count < BATCH_ROWS) return removed;
    await breathe();
  }
}

async function removeBlobs(store: RegistryStore, signal?: AbortSignal): Promise<{ count: number; bytes: number }> {
  const { database } = store;
  let count = 0;
  let bytes = 0;
  let last = '';
  for (;;) {
    signal?.throwIfAborted();
    const seen = database.transaction(() => {
      const rows = database.all(
        `SELECT digest, size_bytes, EXISTS (SELECT 1 FROM links l WHERE l.digest = blobs.digest) AS used FROM blobs WHERE digest > ? ORDER BY digest LIMIT ${BATCH_ROWS}`,
        last,
      );
      for (const row of rows) {
        last = String(row['digest']);
        if (row['used'] === 1) continue;
        database.run('DELETE FROM blobs WHERE digest = ?', last);
        store.files.discard(last as Digest);
        count += 1;
        bytes += Number(row['size_bytes']);
      }
      return rows.length;
    });
    if (seen < BATCH_ROWS) return { count, bytes };
    await breathe();
  }
}

/** Files that no row records: a crash came between placing and recording. */
function removeStrays(store: RegistryStore, options: CollectOptions): { count: number; bytes: number } {
  const before = options.now() - options.graceMs;
  let count = 0;
  let bytes = 0;
  for (const file of store.files.blobs()) {
    if (file.changedAtMs >= before || store.isRecorded(file.digest)) continue;
    const isGone = store.database.transaction(() => {
      if (store.isRecorded(file.digest)) return false;
      rmSync(store.files.path(file.digest), { force: true });
      return true;
    });
    if (!isGone) continue;
    count += 1;
    bytes += file.sizeBytes;
  }
  return { count, bytes };
}

function removeRepositories(store: RegistryStore): number {
  return store.database.run(
    `DELETE FROM repositories AS r WHERE NOT EXISTS (SELECT 1 FROM manifests WHERE repository = r.id)
     AND NOT EXISTS (SELECT 1 FROM links WHERE repository = r.id) AND NOT EXISTS (SELECT 1 FROM uploads WHERE repository = r.id)`,
  );
}
