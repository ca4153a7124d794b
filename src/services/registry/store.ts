/**
 * The metadata of a registry: which repository links which blobs, holds which manifests, and what its tags name.
 *
 * The database is the truth; every method is one transaction, durable when it returns. A manifest is stored only
 * while everything it names is in its repository, checked in the transaction that stores it, so a tag never names
 * something incomplete (a cache of an upstream is the exception: there the parts come when they are asked for).
 */
import { rmSync } from 'node:fs';
import type { Database, Row } from '#system/database/database.ts';
import { type Digest, isDigest } from '#types/digest.ts';
import { DistributionError } from '#types/distribution-error.ts';
import type { BlobFiles } from './blob-files.ts';
import type { Descriptor, Page, PageRequest, RepositoryName, StoredManifest, TagRecord } from './contract.ts';
import type { ParsedManifest } from './manifest.ts';
import type { ManifestReference } from './names.ts';
import { REGISTRY_MIGRATION } from './schema.ts';

/** A touch newer than this share of the grace time is not written again, so that asking is cheap. */
const TOUCH_SHARE = 4;

export interface PutManifestOptions {
  readonly digest: Digest;
  readonly bytes: Buffer;
  readonly parsed: ParsedManifest;
  readonly tag?: string;
  /** Its parts need not be here yet. */
  readonly isCached?: boolean;
}

export interface RepositorySize {
  readonly name: string;
  readonly sizeBytes: number;
}

/** Repositories, manifests, tags and blob links of one registry. */
export class RegistryStore {
  readonly database: Database;
  readonly files: BlobFiles;
  readonly #graceMs: number;
  readonly #now: () => number;

  constructor(database: Database, files: BlobFiles, options: { graceMs: number; now: () => number }) {
    this.database = database;
    this.files = files;
    this.#graceMs = options.graceMs;
    this.#now = options.now;
    database.migrate(REGISTRY_MIGRATION);
  }

  /** The row of a repository, if there is one. */
  repositoryId(name: RepositoryName): number | undefined {
    const row = this.database.get('SELECT id FROM repositories WHERE name = ?', name);
    return row === undefined ? undefined : Number(row['id']);
  }

  /** Makes the row when needed. */
  ensureRepository(name: RepositoryName): number {
    this.database.run('INSERT INTO repositories (name) VALUES (?) ON CONFLICT (name) DO NOTHING', name);
    return this.repositoryId(name) ?? 0;
  }

  /** Whether a repository holds anything a user put there. */
  isKnown(name: RepositoryName): boolean {
    const sql = `SELECT 1 FROM repositories r WHERE name = ? AND (
      EXISTS (SELECT 1 FROM manifests WHERE repository = r.id) OR EXISTS (SELECT 1 FROM links WHERE repository = r.id))`;
    return this.database.get(sql, name) !== undefined;
  }

  /** Repositories that hold a manifest. */
  listRepositories(page: PageRequest): Page {
    const sql = `SELECT name FROM repositories r WHERE name > ? AND EXISTS (SELECT 1 FROM manifests WHERE repository = r.id) ORDER BY name LIMIT ?`;
    return pageOf(this.database.all(sql, page.last, page.limit + 1), page.limit);
  }

  /** Tags of a repository; none when it is not known. */
  listTags(name: RepositoryName, page: PageRequest): Page {
    const sql = `SELECT t.name AS name FROM tags t JOIN repositories r ON r.id = t.repository WHERE r.name = ? AND t.name > ? ORDER BY t.name LIMIT ?`;
    return pageOf(this.database.all(sql, name, page.last, page.limit + 1), page.limit);
  }

  /** Tags with what they name. */
  describeTags(name: RepositoryName, page: PageRequest): TagRecord[] {
    const sql = `SELECT t.name AS name, t.digest AS digest, t.pushed_at AS pushed_at, m.media_type AS media_type
      FROM tags t JOIN repositories r ON r.id = t.repository JOIN manifests m ON m.repository = t.repository AND m.digest = t.digest
      WHERE r.name = ? AND t.name > ? ORDER BY t.name LIMIT ?`;
    return this.database.all(sql, name, page.last, page.limit).map((row) => ({
      name: String(row['name']),
      digest: String(row['digest']) as Digest,
      mediaType: String(row['media_type']),
      pushedAtMs: Number(row['pushed_at']),
    }));
  }

  /** The manifest a tag or digest names. */
  manifest(name: RepositoryName, reference: ManifestReference): StoredManifest | undefined {
    const id = this.repositoryId(name);
    if (id === undefined) return undefined;
    const digest = reference.kind === 'digest' ? reference.digest : this.tag(name, reference.tag)?.digest;
    if (digest === undefined) return undefined;
    const sql = 'SELECT digest, media_type, bytes, pushed_at FROM manifests WHERE repository = ? AND digest = ?';
    const row = this.database.get(sql, id, digest);
    if (row === undefined) return undefined;
    return {
      digest,
      mediaType: String(row['media_type']),
      bytes: Buffer.from(row['bytes'] as Uint8Array),
      pushedAtMs: Number(row['pushed_at']),
    };
  }

  /** What a tag names, and when that was last checked against an upstream. */
  tag(name: RepositoryName, tag: string): { digest: Digest; checkedAtMs: number } | undefined {
    const sql = `SELECT t.digest AS digest, t.checked_at AS checked_at FROM tags t JOIN repositories r ON r.id = t.repository WHERE r.name = ? AND t.name = ?`;
    const row = this.database.get(sql, name, tag);
    return row && { digest: String(row['digest']) as Digest, checkedAtMs: Number(row['checked_at']) };
  }

  /** Stores a manifest and lets a tag name it. Throws MANIFEST_BLOB_UNKNOWN naming what is missing. */
  putManifest(name: RepositoryName, options: PutManifestOptions): void {
    const { digest, bytes, parsed, tag } = options;
    this.database.transaction(() => {
      const repository = this.ensureRepository(name);
      if (options.isCached !== true) this.#requireParts(repository, parsed);
      const time = this.#now();
      this.database.run(
        `INSERT INTO manifests (repository, digest, media_type, artifact_type, annotations, subject, size_bytes, bytes, pushed_at, touched_at)
         VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)
         ON CONFLICT (repository, digest) DO UPDATE SET media_type = excluded.media_type, touched_at = excluded.touched_at`,
        repository,
        digest,
        parsed.mediaType,
        parsed.artifactType,
        JSON.stringify(parsed.annotations),
        parsed.subject?.digest ?? null,
        bytes.length,
        bytes,
        time,
        time,
      );
      const insert =
        'INSERT INTO children (repository, parent, child, kind) VALUES (?, ?, ?, ?) ON CONFLICT DO NOTHING';
      for (const blob of parsed.blobs) this.database.run(insert, repository, digest, blob.digest, 'blob');
      for (const child of parsed.manifests) this.database.run(insert, repository, digest, child.digest, 'manifest');
      if (tag !== undefined) this.#setTag(repository, tag, digest);
    });
  }

  #setTag(repository: number, tag: string, digest: Digest): void {
    const time = this.#now();
    this.database.run(
      `INSERT INTO tags (repository, name, digest, pushed_at, checked_at) VALUES (?, ?, ?, ?, ?)
       ON CONFLICT (repository, name) DO UPDATE SET digest = excluded.digest, pushed_at = excluded.pushed_at, checked_at = excluded.checked_at`,
      repository,
      tag,
      digest,
      time,
      time,
    );
  }

  /** Lets a tag name a manifest that is here; false when it is not. */
  setTag(name: RepositoryName, tag: string, digest: Digest): boolean {
    return this.database.transaction(() => {
      const repository = this.repositoryId(name);
      if (repository === undefined || this.manifest(name, { kind: 'digest', digest }) === undefined) return false;
      this.#setTag(repository, tag, digest);
      return true;
    });
  }

  #requireParts(repository: number, parsed: ParsedManifest): void {
    const missing: Descriptor[] = [];
    for (const blob of parsed.blobs) {
      const row = this.#linkedBlob(repository, blob.digest);
      if (row === undefined) missing.push(blob);
      else if (Number(row['size_bytes']) !== blob.sizeBytes) {
        throw new DistributionError('MANIFEST_INVALID', {
          message: `manifest invalid: ${blob.digest} has ${row['size_bytes']} bytes, not ${blob.sizeBytes}`,
        });
      }
    }
    for (const child of parsed.manifests) {
      const row = this.database.get(
        'SELECT size_bytes FROM manifests WHERE repository = ? AND digest = ?',
        repository,
        child.digest,
      );
      if (row === undefined) missing.push(child);
    }
    if (missing.length === 0) return;
    throw new DistributionError('MANIFEST_BLOB_UNKNOWN', {
      detail: missing.slice(0, 100).map(({ digest }) => ({ digest })),
    });
  }

  #linkedBlob(repository: number, digest: Digest): Row | undefined {
    const sql = `SELECT b.size_bytes AS size_bytes, l.touched_at AS touched_at FROM links l JOIN blobs b ON b.digest = l.digest WHERE l.repository = ? AND l.digest = ?`;
    return this.database.get(sql, repository, digest);
  }

  /** Bytes of a blob of this repository; undefined when it has none such. Asking keeps it for the grace time. */
  blobSize(name: RepositoryName, digest: Digest): number | undefined {
    const repository = this.repositoryId(name);
    if (repository === undefined) return undefined;
    const row = this.#linkedBlob(repository, digest);
    if (row === undefined) return undefined;
    if (Number(row['touched_at']) > this.#now() - this.#graceMs / TOUCH_SHARE) return Number(row['size_bytes']);
    // The collector may have been here between the two statements: only a touched row counts.
    const sql = 'UPDATE links SET touched_at = ? WHERE repository = ? AND digest = ?';
    return this.database.run(sql, this.#now(), repository, digest) === 0 ? undefined : Number(row['size_bytes']);
  }

  /** Records a finished upload: places its file (unless the bytes are here) and links the blob. */
  addBlob(name: RepositoryName, upload: { path: string; digest: Digest; sizeBytes: number }): void {
    const { digest, sizeBytes, path } = upload;
    this.database.transaction(() => {
      const isHere = this.database.get('SELECT 1 FROM blobs WHERE digest = ?', digest) !== undefined;
      // A file that was lost or cut is made whole by the push.
      if (isHere && this.files.size(digest) === sizeBytes) rmSync(path, { force: true });
      else this.files.place(path, digest);
      if (!isHere)
        this.database.run(
          'INSERT INTO blobs (digest, size_bytes, stored_at) VALUES (?, ?, ?)',
          digest,
          sizeBytes,
          this.#now(),
        );
      this.#link(this.ensureRepository(name), digest);
    });
  }

  #link(repository: number, digest: Digest): void {
    this.database.run(
      `INSERT INTO links (repository, digest, touched_at) VALUES (?, ?, ?)
       ON CONFLICT (repository, digest) DO UPDATE SET touched_at = excluded.touched_at`,
      repository,
      digest,
      this.#now(),
    );
  }

  /** Links a blob of `source` into `target`; its size, or undefined when `source` has none such. */
  mountBlob(target: RepositoryName, source: RepositoryName, digest: Digest): number | undefined {
    return this.database.transaction(() => {
      const from = this.repositoryId(source);
      const row = from === undefined ? undefined : this.#linkedBlob(from, digest);
      if (row === undefined) return undefined;
      this.#link(this.ensureRepository(target), digest);
      return Number(row['size_bytes']);
    });
  }

  /** Repositories that have a blob, for a mount that names none. */
  repositoriesWith(digest: Digest, limit: number): RepositoryName[] {
    const sql =
      'SELECT r.name AS name FROM links l JOIN repositories r ON r.id = l.repository WHERE l.digest = ? LIMIT ?';
    return this.database.all(sql, digest, limit).map((row) => String(row['name']) as RepositoryName);
  }

  /** Removes a blob's link; `inUse` when a manifest of the repository names it. */
  deleteBlob(name: RepositoryName, digest: Digest): 'deleted' | 'unknown' | 'inUse' {
    return this.database.transaction(() => {
      const repository = this.repositoryId(name);
      if (repository === undefined || this.#linkedBlob(repository, digest) === undefined) return 'unknown';
      if (this.database.get('SELECT 1 FROM children WHERE repository = ? AND child = ?', repository, digest))
        return 'inUse';
      this.database.run('DELETE FROM links WHERE repository = ? AND digest = ?', repository, digest);
      return 'deleted';
    });
  }

  /** Removes a tag; the digest it named, or undefined when there was none. */
  deleteTag(name: RepositoryName, tag: string): Digest | undefined {
    return this.database.transaction(() => {
      const known = this.tag(name, tag);
      const repository = this.repositoryId(name);
      if (known === undefined || repository === undefined) return undefined;
      this.database.run('DELETE FROM tags WHERE repository = ? AND name = ?', repository, tag);
      return known.digest;
    });
  }

  /** Removes a manifest and the tags that name it; `inUse` when an index of the repository names it. */
  deleteManifest(name: RepositoryName, digest: Digest): 'deleted' | 'unknown' | 'inUse' {
    return this.database.transaction(() => {
      const repository = this.repositoryId(name);
      if (repository === undefined) return 'unknown';
      const sql = "SELECT 1 FROM children WHERE repository = ? AND child = ? AND kind = 'manifest'";
      if (this.database.get(sql, repository, digest) !== undefined) return 'inUse';
      const gone = this.database.run('DELETE FROM manifests WHERE repository = ? AND digest = ?', repository, digest);
      return gone === 0 ? 'unknown' : 'deleted';
    });
  }

  /** Descriptors of the manifests whose subject is `subject`, at most `limit` after `last`. */
  referrers(name: RepositoryName, subject: Digest, page: PageRequest): Descriptor[] {
    const sql = `SELECT m.digest AS digest, m.media_type AS media_type, m.size_bytes AS size_bytes, m.artifact_type AS artifact_type, m.annotations AS annotations
      FROM manifests m JOIN repositories r ON r.id = m.repository WHERE r.name = ? AND m.subject = ? AND m.digest > ? ORDER BY m.digest LIMIT ?`;
    return this.database.all(sql, name, subject, page.last, page.limit).map(descriptorOfRow);
  }

  /** Keeps a manifest of a cache from ageing out. */
  touchManifest(name: RepositoryName, digest: Digest): void {
    const repository = this.repositoryId(name);
    const time = this.#now();
    const sql = 'UPDATE manifests SET touched_at = ? WHERE repository = ? AND digest = ? AND touched_at < ?';
    if (repository !== undefined) this.database.run(sql, time, repository, digest, time - this.#graceMs / TOUCH_SHARE);
  }

  /** Bytes of all blobs, each counted once, and how many there are. */
  totals(): { blobBytes: number; blobCount: number; repositories: number } {
    const row = this.database.get(
      'SELECT blob_bytes, blob_count, (SELECT count(*) FROM repositories) AS repositories FROM totals',
    );
    return {
      blobBytes: Number(row?.['blob_bytes']),
      blobCount: Number(row?.['blob_count']),
      repositories: Number(row?.['repositories']),
    };
  }

  /** Bytes each repository holds, shared blobs counted in each. */
  repositorySizes(): RepositorySize[] {
    const rows = this.database.all('SELECT name, size_bytes FROM repositories');
    return rows.map((row) => ({ name: String(row['name']), sizeBytes: Number(row['size_bytes']) }));
  }

  /** Bytes one repository holds. */
  repositorySize(name: RepositoryName): number {
    return Number(this.database.get('SELECT size_bytes FROM repositories WHERE name = ?', name)?.['size_bytes'] ?? 0);
  }

  /** Whether the bytes of a digest are recorded. */
  isRecorded(digest: Digest): boolean {
    return this.database.get('SELECT 1 FROM blobs WHERE digest = ?', digest) !== undefined;
  }
}

function pageOf(rows: readonly Row[], limit: number): Page {
  const names = rows.slice(0, limit).map((row) => String(row['name']));
  return { names, hasMore: rows.length > limit };
}

function descriptorOfRow(row: Row): Descriptor {
  const digest = String(row['digest']);
  if (!isDigest(digest)) throw new DistributionError('UNKNOWN');
  const annotations = JSON.parse(String(row['annotations'])) as Record<string, string>;
  const artifactType = String(row['artifact_type']);
  return {
    mediaType: String(row['media_type']),
    digest,
    sizeBytes: Number(row['size_bytes']),
    ...(artifactType === '' ? {} : { artifactType }),
    ...(Object.keys(annotations).length === 0 ? {} : { annotations }),
  };
}
