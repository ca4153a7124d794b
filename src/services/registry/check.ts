/** Looks a registry's root over: every record has its bytes, every digest is true, every name leads somewhere. */
import { createHash } from 'node:crypto';
import { createReadStream } from 'node:fs';
import type { Digest } from '#types/digest.ts';
import { digestHex } from '#types/digest.ts';
import type { RegistryStore } from './store.ts';

const READ_CHUNK_BYTES = 1024 * 1024;

/** Something that is not as it must be. */
export interface Finding {
  readonly kind: 'missing' | 'corrupt' | 'orphaned';
  readonly object: string;
  readonly text: string;
}

/** Yields what is wrong. `isDeep` reads and hashes every blob. */
export async function* checkRegistry(
  store: RegistryStore,
  options: { isDeep: boolean },
  signal?: AbortSignal,
): AsyncGenerator<Finding> {
  yield* checkBlobs(store, options.isDeep, signal);
  yield* checkManifests(store);
  for (const file of store.files.blobs()) {
    if (!store.isRecorded(file.digest))
      yield { kind: 'orphaned', object: `blob ${file.digest}`, text: 'no record; the collector removes it' };
  }
}

async function hashFile(path: string, digest: Digest, signal?: AbortSignal): Promise<string> {
  const hash = createHash(digest.slice(0, digest.indexOf(':')));
  for await (const chunk of createReadStream(path, { highWaterMark: READ_CHUNK_BYTES, signal })) hash.update(chunk);
  return hash.digest('hex');
}

async function* checkBlobs(store: RegistryStore, isDeep: boolean, signal?: AbortSignal): AsyncGenerator<Finding> {
  for (const row of store.database.all('SELECT digest, size_bytes FROM blobs ORDER BY digest')) {
    const digest = String(row['digest']) as Digest;
    const object = `blob ${digest}`;
    const size = store.files.size(digest);
    // Collected meanwhile is no finding.
    if (size === undefined && !store.isRecorded(digest)) continue;
    if (size === undefined) yield { kind: 'missing', object, text: 'its file is not there; push it again' };
    else if (size !== Number(row['size_bytes'])) {
      yield { kind: 'corrupt', object, text: `its file has ${size} bytes, not ${row['size_bytes']}; push it again` };
    } else if (isDeep && (await hashFile(store.files.path(digest), digest, signal)) !== digestHex(digest)) {
      yield { kind: 'corrupt', object, text: 'its bytes have another digest; remove its file and push it again' };
    }
  }
}

function* checkManifests(store: RegistryStore): Generator<Finding> {
  const { database } = store;
  const rows = database.all(
    'SELECT m.rowid AS row, r.name AS name, m.digest AS digest FROM manifests m JOIN repositories r ON r.id = m.repository',
  );
  for (const row of rows) {
    const stored = database.get('SELECT bytes FROM manifests WHERE rowid = ?', row['row'] ?? 0);
    if (stored === undefined) continue;
    const digest = String(row['digest']) as Digest;
    const actual = createHash(digest.slice(0, digest.indexOf(':')))
      .update(stored['bytes'] as Uint8Array)
      .digest('hex');
    if (actual !== digestHex(digest)) {
      yield {
        kind: 'corrupt',
        object: `manifest ${row['name']}@${digest}`,
        text: 'its bytes have another digest; delete and push it again',
      };
    }
  }
  const lost = `SELECT r.name AS name, c.parent AS parent, c.child AS child, c.kind AS kind FROM children c JOIN repositories r ON r.id = c.repository
    WHERE (c.kind = 'blob' AND NOT EXISTS (SELECT 1 FROM links l WHERE l.repository = c.repository AND l.digest = c.child))
       OR (c.kind = 'manifest' AND NOT EXISTS (SELECT 1 FROM manifests m WHERE m.repository = c.repository AND m.digest = c.child))`;
  for (const row of database.all(lost)) {
    yield {
      kind: 'missing',
      object: `${row['kind']} ${row['child']}`,
      text: `manifest ${row['name']}@${row['parent']} names it`,
    };
  }
}
