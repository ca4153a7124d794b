/**
 * The tables of a registry. Sizes of repositories and of the whole are kept by triggers, so that whatever removes
 * rows keeps them right. Times are milliseconds since the epoch.
 */
import type { Migration } from '#system/database/database.ts';

export const REGISTRY_MIGRATION: Migration = {
  name: 'registry',
  steps: [
    `CREATE TABLE totals (id INTEGER PRIMARY KEY CHECK (id = 1), blob_bytes INTEGER NOT NULL, blob_count INTEGER NOT NULL) STRICT;
     INSERT INTO totals VALUES (1, 0, 0);
     CREATE TABLE repositories (id INTEGER PRIMARY KEY, name TEXT NOT NULL UNIQUE, size_bytes INTEGER NOT NULL DEFAULT 0) STRICT;
     CREATE TABLE blobs (digest TEXT PRIMARY KEY, size_bytes INTEGER NOT NULL, stored_at INTEGER NOT NULL) STRICT;
     CREATE TABLE links (
       repository INTEGER NOT NULL REFERENCES repositories (id),
       digest TEXT NOT NULL REFERENCES blobs (digest),
       touched_at INTEGER NOT NULL,
       PRIMARY KEY (repository, digest)) STRICT, WITHOUT ROWID;
     CREATE INDEX links_by_digest ON links (digest);
     CREATE TABLE manifests (
       repository INTEGER NOT NULL REFERENCES repositories (id),
       digest TEXT NOT NULL,
       media_type TEXT NOT NULL,
       artifact_type TEXT NOT NULL,
       annotations TEXT NOT NULL,
       subject TEXT,
       size_bytes INTEGER NOT NULL,
       bytes BLOB NOT NULL,
       pushed_at INTEGER NOT NULL,
       touched_at INTEGER NOT NULL,
       PRIMARY KEY (repository, digest)) STRICT;
     CREATE INDEX manifests_by_subject ON manifests (repository, subject, digest) WHERE subject IS NOT NULL;
     CREATE TABLE children (
       repository INTEGER NOT NULL,
       parent TEXT NOT NULL,
       child TEXT NOT NULL,
       kind TEXT NOT NULL,
       PRIMARY KEY (repository, parent, child),
       FOREIGN KEY (repository, parent) REFERENCES manifests (repository, digest) ON DELETE CASCADE) STRICT, WITHOUT ROWID;
     CREATE INDEX children_by_child ON children (repository, child);
     CREATE TABLE tags (
       repository INTEGER NOT NULL,
       name TEXT NOT NULL,
       digest TEXT NOT NULL,
       pushed_at INTEGER NOT NULL,
       checked_at INTEGER NOT NULL,
       PRIMARY KEY (repository, name),
       FOREIGN KEY (repository, digest) REFERENCES manifests (repository, digest) ON DELETE CASCADE) STRICT, WITHOUT ROWID;
     CREATE INDEX tags_by_digest ON tags (repository, digest);
     CREATE TABLE uploads (id TEXT PRIMARY KEY, repository INTEGER NOT NULL REFERENCES repositories (id), user TEXT NOT NULL, started_at INTEGER NOT NULL) STRICT;
     CREATE TABLE refresh_tokens (hash TEXT PRIMARY KEY, user TEXT NOT NULL, service TEXT NOT NULL, credential TEXT NOT NULL, expires_at INTEGER NOT NULL) STRICT;
     CREATE INDEX refresh_tokens_by_user ON refresh_tokens (user, expires_at);
     CREATE TRIGGER blob_added AFTER INSERT ON blobs BEGIN
       UPDATE totals SET blob_bytes = blob_bytes + NEW.size_bytes, blob_count = blob_count + 1; END;
     CREATE TRIGGER blob_removed AFTER DELETE ON blobs BEGIN
       UPDATE totals SET blob_bytes = blob_bytes - OLD.size_bytes, blob_count = blob_count - 1; END;
     CREATE TRIGGER link_added AFTER INSERT ON links BEGIN
       UPDATE repositories SET size_bytes = size_bytes + (SELECT size_bytes FROM blobs WHERE digest = NEW.digest) WHERE id = NEW.repository; END;
     CREATE TRIGGER link_removed AFTER DELETE ON links BEGIN
       UPDATE repositories SET size_bytes = size_bytes - (SELECT size_bytes FROM blobs WHERE digest = OLD.digest) WHERE id = OLD.repository; END;
     CREATE TRIGGER manifest_added AFTER INSERT ON manifests BEGIN
       UPDATE repositories SET size_bytes = size_bytes + NEW.size_bytes WHERE id = NEW.repository; END;
     CREATE TRIGGER manifest_removed AFTER DELETE ON manifests BEGIN
       UPDATE repositories SET size_bytes = size_bytes - OLD.size_bytes WHERE id = OLD.repository; END;`,
  ],
};
