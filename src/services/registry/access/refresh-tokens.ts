/**
 * Refresh tokens: random, stored as hashes, bound to a user's present password, so that changing it or removing the
 * user ends them. Bounded per user; the oldest give way.
 */
import { createHash, randomBytes } from 'node:crypto';
import type { Database } from '#system/database/database.ts';

const LIFE_MS = 90 * 24 * 3_600_000;
const MAX_PER_USER = 100;

/** The refresh tokens of one registry. */
export class RefreshTokens {
  readonly #database: Database;
  readonly #now: () => number;

  constructor(database: Database, now: () => number) {
    this.#database = database;
    this.#now = now;
  }

  /** A new token for a user; `credential` names the password it is bound to. */
  issue(user: string, service: string, credential: string): string {
    const token = randomBytes(32).toString('base64url');
    this.#database.transaction(() => {
      this.#database.run('DELETE FROM refresh_tokens WHERE expires_at < ?', this.#now());
      const sql = 'INSERT INTO refresh_tokens (hash, user, service, credential, expires_at) VALUES (?, ?, ?, ?, ?)';
      this.#database.run(sql, hashOf(token), user, service, credential, this.#now() + LIFE_MS);
      this.#database.run(
        `DELETE FROM refresh_tokens WHERE user = ? AND hash NOT IN (SELECT hash FROM refresh_tokens WHERE user = ? ORDER BY expires_at DESC LIMIT ${MAX_PER_USER})`,
        user,
        user,
      );
    });
    return token;
  }

  /** Whose token it is, if it is one. */
  find(token: string, service: string): { user: string; credential: string } | undefined {
    const sql = 'SELECT user, credential FROM refresh_tokens WHERE hash = ? AND service = ? AND expires_at > ?';
    const row = this.#database.get(sql, hashOf(token), service, this.#now());
    return row && { user: String(row['user']), credential: String(row['credential']) };
  }
}

function hashOf(token: string): string {
  return createHash('sha256').update(token).digest('base64url');
}
