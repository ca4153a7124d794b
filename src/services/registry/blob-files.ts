/**
 * The files of a registry root: `blobs/<algorithm>/<hex>` (OCI image layout), `uploads/<id>` for what is arriving and
 * `trash/` for what is leaving. Paths are made from checked digests and generated IDs only, never from names.
 *
 * A file gets its place under `blobs/` by rename, after its bytes were hashed and synced, inside the transaction that
 * records it; it leaves by rename to `trash/` inside the transaction that forgets it. So whichever process collects,
 * a recorded blob has its file.
 */
import {
  closeSync,
  existsSync,
  fsyncSync,
  mkdirSync,
  openSync,
  readdirSync,
  renameSync,
  rmSync,
  statSync,
} from 'node:fs';
import { join } from 'node:path';
import { type Digest, digestHex, isDigest } from '#types/digest.ts';
import { GantryError } from '#types/errors.ts';

const ALGORITHMS: readonly string[] = ['sha256', 'sha512'];

/** A file under `blobs/`. */
export interface BlobFile {
  readonly digest: Digest;
  readonly sizeBytes: number;
  readonly changedAtMs: number;
}

/** Where the bytes of one registry lie. */
export class BlobFiles {
  readonly #root: string;

  /** Makes the directories. */
  constructor(root: string) {
    this.#root = root;
    for (const name of [...ALGORITHMS.map((algorithm) => `blobs/${algorithm}`), 'uploads', 'trash']) {
      mkdirSync(join(root, name), { recursive: true, mode: 0o700 });
    }
  }

  /** Where a blob lies or would lie. */
  path(digest: Digest): string {
    if (!isDigest(digest)) throw new GantryError('invalid', 'invalid checksum digest format');
    return join(this.#directory(digest), digestHex(digest));
  }

  #directory(digest: Digest): string {
    return join(this.#root, 'blobs', digest.slice(0, digest.indexOf(':')));
  }

  uploadPath(id: string): string {
    return join(this.#root, 'uploads', id);
  }

  /** Bytes of a blob's file; undefined when it is not there. */
  size(digest: Digest): number | undefined {
    return statSync(this.path(digest), { throwIfNoEntry: false })?.size;
  }

  /** Gives a synced upload its place. Durable when it returns. */
  place(uploadPath: string, digest: Digest): void {
    renameSync(uploadPath, this.path(digest));
    const directory = openSync(this.#directory(digest), 'r');
    try {
      fsyncSync(directory);
    } finally {
      closeSync(directory);
    }
  }

  /** Moves a blob out of its place; `emptyTrash` removes it. */
  discard(digest: Digest): void {
    if (existsSync(this.path(digest))) renameSync(this.path(digest), this.#trashPath(digest));
  }

  #trashPath(digest: Digest): string {
    return join(this.#root, 'trash', digest.replace(':', '-'));
  }

  /**
   * Removes what was discarded. A blob that `isRecorded` is one whose transaction never committed: it gets its place
   * back. Call only while no other process collects.
   */
  emptyTrash(isRecorded: (digest: Digest) => boolean): void {
    for (const name of readdirSync(join(this.#root, 'trash'))) {
      const digest = name.replace('-', ':');
      const path = join(this.#root, 'trash', name);
      if (isDigest(digest) && isRecorded(digest) && !existsSync(this.path(digest))) this.place(path, digest);
      else rmSync(path, { force: true });
    }
  }

  /** Every file under `blobs/`. */
  *blobs(): Generator<BlobFile> {
    for (const algorithm of ALGORITHMS) {
      for (const name of readdirSync(join(this.#root, 'blobs', algorithm))) {
        const digest = `${algorithm}:${name}`;
        const stat = statSync(join(this.#root, 'blobs', algorithm, name), { throwIfNoEntry: false });
        if (stat === undefined || !isDigest(digest)) continue;
        yield { digest, sizeBytes: stat.size, changedAtMs: stat.ctimeMs };
      }
    }
  }

  /** IDs of the upload files. */
  uploadIds(): string[] {
    return readdirSync(join(this.#root, 'uploads'));
  }

  /** When bytes last came in; undefined when there is no such file. */
  uploadChangedAtMs(id: string): number | undefined {
    return statSync(this.uploadPath(id), { throwIfNoEntry: false })?.mtimeMs;
  }
}
