/**
 * The Engine API client: `new Client()` talks to DOCKER_HOST, negotiates the API version before the first request
 * and closes its idle connections when disposed (`using client = new Client()`).
 *
 * Every failure is a GantryError: its kind follows the status, its message is the daemon's.
 */
import { Connection } from './connection.ts';
import { Containers } from './containers.ts';
import { parseEndpoint, type TlsSettings } from './endpoint.ts';
import { Execs } from './execs.ts';
import { Images } from './images.ts';
import { Networks } from './networks.ts';
import { System } from './system.ts';
import { Volumes } from './volumes.ts';

/** Where gantryd listens unless told otherwise. */
export const DEFAULT_HOST = 'unix:///run/gantry.sock';

export interface ClientOptions {
  /** `unix:///path`, `tcp://host:port`; default DOCKER_HOST, else DEFAULT_HOST. */
  readonly host?: string;
  readonly tls?: TlsSettings;
  /** Fixed API version, e.g. `1.41`; default DOCKER_API_VERSION, else negotiated. */
  readonly version?: string;
  /** Sent with every request. */
  readonly headers?: Readonly<Record<string, string>>;
}

export class Client implements Disposable {
  readonly host: string;
  /** The generic escape: any method and path, JSON, lines, hijack. */
  readonly connection: Connection;
  readonly containers: Containers;
  readonly execs: Execs;
  readonly images: Images;
  readonly networks: Networks;
  readonly system: System;
  readonly volumes: Volumes;

  constructor(options: ClientOptions = {}) {
    this.host = options.host ?? (process.env['DOCKER_HOST'] || DEFAULT_HOST);
    this.connection = new Connection({
      endpoint: parseEndpoint(this.host, options.tls),
      version: options.version ?? (process.env['DOCKER_API_VERSION'] || undefined),
      headers: { 'User-Agent': 'gantry-client', ...options.headers },
    });
    this.containers = new Containers(this.connection);
    this.execs = new Execs(this.connection);
    this.images = new Images(this.connection);
    this.networks = new Networks(this.connection);
    this.system = new System(this.connection);
    this.volumes = new Volumes(this.connection);
  }

  [Symbol.dispose](): void {
    this.connection[Symbol.dispose]();
  }
}
