/** Networks and endpoints in the database; an in-memory copy answers reads. A write is durable when it returns. */
import { now } from '#system/clock/clock.ts';
import type { Database } from '#system/database/database.ts';
import { type Id, newId } from '#types/ids.ts';
import type { EndpointRecord, NetworkRecord } from './driver.ts';

const MIGRATION = {
  name: 'networks',
  steps: [
    `CREATE TABLE networks (id TEXT PRIMARY KEY, name TEXT NOT NULL UNIQUE, driver TEXT NOT NULL, config TEXT NOT NULL);
     CREATE TABLE network_endpoints (
       endpoint_id TEXT PRIMARY KEY, container_id TEXT NOT NULL, network_id TEXT NOT NULL,
       address TEXT, record TEXT NOT NULL,
       UNIQUE (network_id, container_id), UNIQUE (network_id, address));`,
    `ALTER TABLE networks ADD COLUMN created_at TEXT NOT NULL DEFAULT ''`,
    `ALTER TABLE networks ADD COLUMN record TEXT NOT NULL DEFAULT '';
     ALTER TABLE network_endpoints ADD COLUMN address6 TEXT;
     CREATE UNIQUE INDEX network_endpoints_address6 ON network_endpoints (network_id, address6);`,
  ],
};

const PREDEFINED: readonly (readonly [name: string, driver: string])[] = [
  ['bridge', 'bridge'],
  ['host', 'host'],
  ['none', 'null'],
];

/** Whether a name belongs to a network that is always there. `default` stands for one of them. */
export function isPredefined(name: string): boolean {
  return name === 'default' || PREDEFINED.some(([predefined]) => predefined === name);
}

/** The tables of the networks service. */
export class NetworkStore {
  readonly #database: Database;
  readonly #networks = new Map<string, NetworkRecord>();
  /** Endpoint ID → record, by container and by network: both are asked at every start. */
  readonly #byContainer = new Map<string, Map<string, EndpointRecord>>();
  readonly #byNetwork = new Map<string, Map<string, EndpointRecord>>();

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
    for (const row of database.all('SELECT id, name, driver, created_at, record FROM networks')) {
      const text = String(row['record']);
      const record = text === '' ? predefined(row) : (JSON.parse(text) as NetworkRecord);
      this.#networks.set(record.id, record);
    }
    for (const row of database.all('SELECT record FROM network_endpoints')) {
      this.#keep(JSON.parse(String(row['record'])) as EndpointRecord);
    }
  }

  networks(): NetworkRecord[] {
    return [...this.#networks.values()];
  }

  network(id: string): NetworkRecord | undefined {
    return this.#networks.get(id);
  }

  saveNetwork(record: NetworkRecord): void {
    this.#database.run(
      `INSERT INTO networks (id, name, driver, config, created_at, record) VALUES (?, ?, ?, '{}', ?, ?)
       ON CONFLICT (id) DO UPDATE SET record = excluded.record`,
      record.id,
      record.name,
      record.driver,
      record.createdAt,
      JSON.stringify(record),
    );
    this.#networks.set(record.id, record);
  }

  deleteNetwork(id: Id): void {
    this.#database.run('DELETE FROM networks WHERE id = ?', id);
    this.#networks.delete(id);
    this.#byNetwork.delete(id);
  }

  /** Driver settings remembered for a predefined network. */
  config(name: string): Record<string, unknown> {
    const row = this.#database.get('SELECT config FROM networks WHERE name = ?', name);
    return row === undefined ? {} : (JSON.parse(String(row['config'])) as Record<string, unknown>);
  }

  saveConfig(name: string, config: Record<string, unknown>): void {
    this.#database.run('UPDATE networks SET config = ? WHERE name = ?', JSON.stringify(config), name);
  }

  endpoints(): EndpointRecord[] {
    return [...this.#byContainer.values()].flatMap((records) => [...records.values()]);
  }

  endpointsOf(containerId: Id): EndpointRecord[] {
    return [...(this.#byContainer.get(containerId)?.values() ?? [])];
  }

  endpointsIn(networkId: Id): EndpointRecord[] {
    return [...(this.#byNetwork.get(networkId)?.values() ?? [])];
  }

  save(record: EndpointRecord): void {
    const { endpoint, containerId } = record;
    this.#database.run(
      `INSERT OR REPLACE INTO network_endpoints
       (endpoint_id, container_id, network_id, address, address6, record) VALUES (?, ?, ?, ?, ?, ?)`,
      endpoint.endpointId,
      containerId,
      endpoint.networkId,
      endpoint.ipAddress === '' ? null : endpoint.ipAddress,
      endpoint.ipv6Address === '' ? null : endpoint.ipv6Address,
      JSON.stringify(record),
    );
    this.#keep(record);
  }

  delete({ endpoint, containerId }: EndpointRecord): void {
    this.#database.run('DELETE FROM network_endpoints WHERE endpoint_id = ?', endpoint.endpointId);
    const mine = this.#byContainer.get(containerId);
    mine?.delete(endpoint.endpointId);
    if (mine?.size === 0) this.#byContainer.delete(containerId);
    this.#byNetwork.get(endpoint.networkId)?.delete(endpoint.endpointId);
  }

  #keep(record: EndpointRecord): void {
    const { endpoint, containerId } = record;
    for (const [map, key] of [
      [this.#byContainer, containerId],
      [this.#byNetwork, endpoint.networkId],
    ] as const) {
      const records = map.get(key) ?? new Map<string, EndpointRecord>();
      records.set(endpoint.endpointId, record);
      map.set(key, records);
    }
  }
}

function predefined(row: Record<string, unknown>): NetworkRecord {
  return {
    id: String(row['id']) as Id,
    name: String(row['name']),
    driver: String(row['driver']),
    createdAt: String(row['created_at']),
    ipv4: true,
    ipv6: false,
    internal: false,
    attachable: false,
    ingress: false,
    configOnly: false,
    configFrom: '',
    options: {},
    labels: {},
    ipam: { driver: 'default', options: null, pools: [] },
    pools: [],
    made: {},
    isPending: false,
  };
}
