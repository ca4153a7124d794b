/**
 * What use-cases work with: the daemon's services, built once in apps/daemon/assemble.ts.
 * A use-case names the few it needs (`Pick<Services, …>`).
 */
import type { Archives } from '#services/archive/contract.ts';
import type { ContainerStore } from '#services/containers/store.ts';
import type { Resolver } from '#services/dns/contract.ts';
import type { Events } from '#services/events/events.ts';
import type { RegistryRecords } from '#services/images/registry-records.ts';
import type { ImageStore } from '#services/images/store.ts';
import type { LogDrivers } from '#services/logs/contract.ts';
import type { Networks } from '#services/networks/contract.ts';
import type { Snapshotter } from '#services/snapshots/contract.ts';
import type { ProcessStreams } from '#services/streams/contract.ts';
import type { Volumes } from '#services/volumes/contract.ts';
import type { RegistryClient } from '#system/registry-http/contract.ts';
import type { ShimLauncher } from '#system/runtime/contract.ts';
import type { Settings } from './settings.ts';

/** Makes the streams of one process. */
export type StreamsFactory = (options: {
  readonly terminal: boolean;
  readonly openStdin: boolean;
  /** A client's half-close ends the process's stdin. */
  readonly stdinOnce: boolean;
  /** Tells the shim to let go of stdin. */
  readonly closeStdin: () => Promise<void>;
}) => ProcessStreams;

export interface Services {
  readonly archives: Archives;
  readonly containers: ContainerStore;
  readonly events: Events;
  readonly images: ImageStore;
  readonly logs: LogDrivers;
  readonly networks: Networks;
  /** The embedded resolver of user-defined networks. */
  readonly resolver: Resolver | undefined;
  readonly registries: RegistryClient;
  readonly registryRecords: RegistryRecords;
  readonly settings: Settings;
  readonly shims: ShimLauncher;
  readonly snapshots: Snapshotter;
  readonly streams: StreamsFactory;
  readonly volumes: Volumes;
  /** Aborted when the daemon begins to stop. */
  readonly stopping: AbortSignal;
  /** Writes to the daemon's own log. */
  readonly logger: Logger;
}

/** The daemon's log, dockerd-style levels. */
export interface Logger {
  debug(message: string, fields?: Readonly<Record<string, string | number>>): void;
  info(message: string, fields?: Readonly<Record<string, string | number>>): void;
  warn(message: string, fields?: Readonly<Record<string, string | number>>): void;
  error(message: string, fields?: Readonly<Record<string, string | number>>): void;
}
