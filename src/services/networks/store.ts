/** Networks and endpoints in the database; an in-memory copy answers reads. A write is durable when it returns. */
import { now } from '#system/clock/clock.ts';
import type { Database } from '#system/database/database.ts';
import { type Id, newId } from '#types/ids.ts';
import type { NetworkSummary } from './contract.ts';
import type { EndpointRecord } from './driver.ts';

const MIGRATION = {
  name: 'networks',
  steps: [
    `CREATE TABLE networks (id TEXT PRIMARY KEY, name TEXT NOT NULL UNIQUE, driver TEXT NOT NULL, config TEXT NOT NULL);
     CREATE TABLE network_endpoints (
       endpoint_id TEXT PRIMARY KEY, container_id TEXT NOT NULL, network_id TEXT NOT NULL,
       address TEXT, record TEXT NOT NULL,
       UNIQUE (network_id, container_id), UNIQUE (network_id, address));`,
    `ALTER TABLE networks ADD COLUMN created_at TEXT NOT NULL DEFAULT ''`,
  ],
};

const PREDEFINED: readonly (readonly [name: string, driver: string])[] = [
  ['bridge', 'bridge'],
  ['host', 'host'],
  ['none', 'null'],
];

/** The tables of the networks service. */
export class NetworkStore {
  readonly #database: Database;
  readonly #networks = new Map<string, NetworkSummary>();
  readonly #endpoints = new Map<string, EndpointRecord>();

  constructor(database: Database) {
    this.#database = database;
    database.migrate(MIGRATION);
    for (const [name, driver] of PREDEFINED) {
      database.run(
        'INSERT OR IGNORE INTO networks (id, name, driver, config) VALUES (?, ?, ?, ?)',
        newId(),
        name,
        driver,
        '{}',
      );
    }
    database.run("UPDATE networks SET created_at = ? WHERE created_at = ''", now());
    for (const row of database.all('SELECT id, name, driver FROM networks')) {
      const id = row['id'] as Id;
      this.#networks.set(id, { id, name: String(row['name']), driver: String(row['driver']), scope: 'local' });
    }
    for (const row of database.all('SELECT endpoint_id, record FROM network_endpoints')) {
      this.#endpoints.set(String(row['endpoint_id']), JSON.parse(String(row['record'])) as EndpointRecord);
    }
  }

  networks(): NetworkSummary[] {
    return [...this.#networks.values()];
  }

  /** Driver settings remembered for a network. */
  config(name: string): Record<string, unknown> {
    const row = this.#database.get('SELECT config FROM networks WHERE name = ?', name);
    return row === undefined ? {} : (JSON.parse(String(row['config'])) as Record<string, unknown>);
  }

  saveConfig(name: string, config: Record<string, unknown>): void {
    this.#database.run('UPDATE networks SET config = ? WHERE name = ?', JSON.stringify(config), name);
  }

  createdAt(id: Id): string {
    return String(this.#database.get('SELECT created_at FROM networks WHERE id = ?', id)?.['created_at'] ?? '');
  }

  endpoints(): EndpointRecord[] {
    return [...this.#endpoints.values()];
  }

  endpointsOf(containerId: Id): EndpointRecord[] {
    return this.endpoints().filter((record) => record.containerId === containerId);
  }

  save(record: EndpointRecord): void {
    const { endpoint, containerId } = record;
    this.#database.run(
      'INSERT OR REPLACE INTO network_endpoints VALUES (?, ?, ?, ?, ?)',
      endpoint.endpointId,
      containerId,
      endpoint.networkId,
      endpoint.ipAddress === '' ? null : endpoint.ipAddress,
      JSON.stringify(record),
    );
    this.#endpoints.set(endpoint.endpointId, record);
  }

  delete(endpointId: Id): void {
    this.#database.run('DELETE FROM network_endpoints WHERE endpoint_id = ?', endpointId);
    this.#endpoints.delete(endpointId);
  }
}
