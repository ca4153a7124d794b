/**
 * All containers of this daemon: records in SQLite, one live object each in memory.
 *
 * A name belongs to one container from its reservation until its removal. Every save is durable before it
 * returns; readers never wait.
 */
import type { Database, Migration } from '#system/database/database.ts';
import { GantryError } from '#types/errors.ts';
import type { Id } from '#types/ids.ts';
import { isId } from '#types/ids.ts';
import type { ContainerRecord } from './container.ts';
import type { ExecInstance } from './exec.ts';
import { LiveContainer } from './live.ts';

const MIGRATION: Migration = {
  name: 'containers',
  steps: [
    `CREATE TABLE containers (
       id TEXT PRIMARY KEY,
       name TEXT NOT NULL UNIQUE,
       record TEXT NOT NULL
     ) STRICT`,
  ],
};

/** Lower-case hex of 1 to 64 digits may be an ID prefix. */
const ID_PREFIX = /^[0-9a-f]{1,64}$/;

/** The container table. */
export class ContainerStore {
  readonly #database: Database;
  readonly #byId = new Map<Id, LiveContainer>();
  readonly #byName = new Map<string, Id>();
  /** Exec ID → its container, so that an exec is found without looking through all of them. */
  readonly #execOwners = new Map<Id, LiveContainer>();

  /** Opens the table and loads every record. */
  constructor(database: Database) {
    this.#database = database;
    database.migrate(MIGRATION);
    for (const row of database.all('SELECT record FROM containers')) {
      const record = JSON.parse(String(row['record'])) as ContainerRecord;
      this.#byId.set(record.id, new LiveContainer(record, (next) => this.#save(next)));
      this.#byName.set(record.name, record.id);
    }
  }

  /** All containers, newest first. */
  all(): LiveContainer[] {
    return [...this.#byId.values()].sort((a, b) => compareText(b.record.createdAt, a.record.createdAt));
  }

  get size(): number {
    return this.#byId.size;
  }

  get(id: Id): LiveContainer | undefined {
    return this.#byId.get(id);
  }

  /** By full ID, then name, then unique ID prefix. Throws `notFound`, or `invalid` for an ambiguous prefix. */
  find(reference: string): LiveContainer {
    const found = this.#lookup(reference);
    if (found === undefined) throw new GantryError('notFound', `No such container: ${reference}`);
    return found;
  }

  #lookup(reference: string): LiveContainer | undefined {
    if (isId(reference)) {
      const exact = this.#byId.get(reference);
      if (exact !== undefined) return exact;
    }
    const named = this.#byName.get(reference.startsWith('/') ? reference.slice(1) : reference);
    if (named !== undefined) return this.#byId.get(named);
    if (!ID_PREFIX.test(reference)) return undefined;
    const matches = [...this.#byId.keys()].filter((id) => id.startsWith(reference));
    if (matches.length > 1) {
      throw new GantryError('invalid', `multiple IDs found with provided prefix: ${reference}`);
    }
    const only = matches[0];
    return only === undefined ? undefined : this.#byId.get(only);
  }

  /** Takes a name for `id`; disposing gives it back unless `add` or `rename` kept it. Throws `conflict` when taken. */
  reserveName(name: string, id: Id): { keep(): void } & Disposable {
    const owner = this.#byName.get(name);
    if (owner !== undefined && owner !== id) {
      throw new GantryError(
        'conflict',
        `Conflict. The container name "/${name}" is already in use by container "${owner}". You have to remove (or rename) that container to be able to reuse that name.`,
      );
    }
    this.#byName.set(name, id);
    let kept = owner === id;
    return {
      keep: () => {
        kept = true;
      },
      [Symbol.dispose]: () => {
        if (!kept) this.#byName.delete(name);
      },
    };
  }

  /** Whether a container of this ID is here or being created. */
  isReserved(id: Id): boolean {
    if (this.#byId.has(id)) return true;
    for (const owner of this.#byName.values()) if (owner === id) return true;
    return false;
  }

  isNameTaken(name: string): boolean {
    return this.#byName.has(name);
  }

  /** Registers a new container under its reserved name. */
  add(record: ContainerRecord): LiveContainer {
    this.#save(record);
    const live = new LiveContainer(record, (next) => this.#save(next));
    this.#byId.set(record.id, live);
    this.#byName.set(record.name, record.id);
    return live;
  }

  /** Keeps an exec with its container. */
  addExec(container: LiveContainer, exec: ExecInstance): void {
    container.execs.set(exec.id, exec);
    this.#execOwners.set(exec.id, container);
  }

  /** The container of an exec that is still kept. */
  ownerOfExec(id: Id): LiveContainer | undefined {
    return this.#execOwners.get(id);
  }

  removeExec(container: LiveContainer, id: Id): void {
    container.execs.delete(id);
    this.#execOwners.delete(id);
  }

  /** Gives a container its new, already reserved name and frees the old one. */
  rename(container: LiveContainer, name: string): void {
    const old = container.record.name;
    container.update({ name });
    this.#byName.set(name, container.id);
    if (old !== name) this.#byName.delete(old);
  }

  /** Forgets a container. */
  remove(container: LiveContainer): void {
    this.#database.run('DELETE FROM containers WHERE id = ?', container.id);
    this.#byId.delete(container.id);
    this.#byName.delete(container.record.name);
    for (const id of container.execs.keys()) this.#execOwners.delete(id);
  }

  #save(record: ContainerRecord): void {
    this.#database.run(
      `INSERT INTO containers (id, name, record) VALUES (?, ?, ?)
       ON CONFLICT (id) DO UPDATE SET name = excluded.name, record = excluded.record`,
      record.id,
      record.name,
      JSON.stringify(record),
    );
  }
}

function compareText(a: string, b: string): number {
  return a < b ? -1 : a > b ? 1 : 0;
}
