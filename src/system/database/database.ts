/**
 * The one SQLite database of a data root (WAL, FULL synchronous): what was acknowledged survives power loss.
 *
 * Services own their tables and register them as migrations; everything here is synchronous and on the
 * daemon's main thread (a commit is about 0.2 ms).
 */
import { existsSync, rmSync, writeFileSync } from 'node:fs';
import { DatabaseSync, type SQLInputValue, type SQLOutputValue, type StatementSync } from 'node:sqlite';
import { hasCode } from '../kernel/errno.ts';

/** One table family's schema steps; step n runs once, in order, and is never edited after release. */
export interface Migration {
  /** Owner, e.g. `containers`. */
  readonly name: string;
  readonly steps: readonly string[];
}

export type Row = Record<string, SQLOutputValue>;

/** SQLITE_FULL. */
const FULL = 13;

/** Whether a write failed for lack of disk space. */
export function isDiskFull(error: unknown): boolean {
  return error instanceof Error && 'errcode' in error && error.errcode === FULL;
}

/** Room kept beside the database, so that on a full disk what makes room can still be written down. */
const RESERVE_BYTES = 1024 * 1024;

/** An open metadata database. */
export class Database implements Disposable {
  readonly #connection: DatabaseSync;
  readonly #reserve: string | undefined;
  readonly #statements = new Map<string, StatementSync>();
  #depth = 0;

  /** Opens (creating) the database file; `:memory:` for tests. */
  constructor(file: string) {
    this.#connection = new DatabaseSync(file);
    this.#connection.exec(
      'PRAGMA journal_mode = WAL; PRAGMA synchronous = FULL; PRAGMA foreign_keys = ON; PRAGMA busy_timeout = 5000;',
    );
    this.#connection.exec('CREATE TABLE IF NOT EXISTS migrations (name TEXT PRIMARY KEY, step INTEGER NOT NULL)');
    this.#reserve = file === ':memory:' ? undefined : `${file}-reserve`;
    this.#keepReserve();
  }

  /** Brings one owner's tables to the newest step. */
  migrate(migration: Migration): void {
    this.transaction(() => {
      const row = this.get('SELECT step FROM migrations WHERE name = ?', migration.name);
      const done = row === undefined ? 0 : Number(row['step']);
      for (const step of migration.steps.slice(done)) this.#connection.exec(step);
      this.run(
        'INSERT INTO migrations (name, step) VALUES (?, ?) ON CONFLICT (name) DO UPDATE SET step = excluded.step',
        migration.name,
        migration.steps.length,
      );
    });
  }

  /** Runs `work` atomically; nested calls join the outer transaction. */
  transaction<T>(work: () => T): T {
    if (this.#depth > 0) return work();
    this.#connection.exec('BEGIN IMMEDIATE');
    this.#depth += 1;
    try {
      const result = work();
      this.#connection.exec('COMMIT');
      return result;
    } catch (error) {
      // A full disk makes SQLite roll back by itself.
      if (this.#connection.isTransaction) this.#connection.exec('ROLLBACK');
      throw error;
    } finally {
      this.#depth -= 1;
    }
  }

  /** A transaction that removes things: on a full disk it may use the reserve. */
  removal<T>(work: () => T): T {
    try {
      const result = this.transaction(work);
      this.#keepReserve();
      return result;
    } catch (error) {
      if (!isDiskFull(error) || this.#depth > 0 || !this.#releaseReserve()) throw error;
      return this.transaction(work);
    }
  }

  /** Takes the reserve (again), where there is room for it. */
  #keepReserve(): void {
    if (this.#reserve === undefined || existsSync(this.#reserve)) return;
    try {
      writeFileSync(this.#reserve, Buffer.alloc(RESERVE_BYTES), { mode: 0o600 });
    } catch (error) {
      rmSync(this.#reserve, { force: true });
      if (!hasCode(error, 'ENOSPC', 'EDQUOT')) throw error;
    }
  }

  #releaseReserve(): boolean {
    if (this.#reserve === undefined || !existsSync(this.#reserve)) return false;
    rmSync(this.#reserve);
    return true;
  }

  /** Executes a statement; returns the number of changed rows. */
  run(sql: string, ...values: SQLInputValue[]): number {
    return Number(this.#prepare(sql).run(...values).changes);
  }

  /** The first row, if any. */
  get(sql: string, ...values: SQLInputValue[]): Row | undefined {
    return this.#prepare(sql).get(...values);
  }

  /** All rows. */
  all(sql: string, ...values: SQLInputValue[]): Row[] {
    return this.#prepare(sql).all(...values);
  }

  #prepare(sql: string): StatementSync {
    const known = this.#statements.get(sql);
    if (known !== undefined) return known;
    const statement = this.#connection.prepare(sql);
    this.#statements.set(sql, statement);
    return statement;
  }

  [Symbol.dispose](): void {
    this.#statements.clear();
    this.#connection.close();
  }
}
