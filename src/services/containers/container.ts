/**
 * What a container is: the record kept in the database, and its state.
 *
 * Records are immutable; a change is a new record saved through the store. Times are RFC 3339 with
 * nanoseconds as docker prints them; ZERO_TIME stands for "never".
 */
import type { Endpoint } from '#services/networks/contract.ts';
import type { Digest } from '#types/digest.ts';
import type { Id } from '#types/ids.ts';
import type { ContainerConfig, EndpointSettings, HostConfig, MountPoint } from '#wire/engine.ts';

export const ZERO_TIME = '0001-01-01T00:00:00Z';

/** How a process ended, or why it never began. */
interface Ended {
  readonly exitCode: number;
  /** Why the last start failed; empty otherwise. */
  readonly error: string;
  readonly oomKilled: boolean;
  readonly startedAt: string;
  readonly finishedAt: string;
}

/** A process is there. */
interface Alive {
  readonly pid: number;
  readonly startedAt: string;
  /** When the run before this one ended. */
  readonly finishedAt: string;
}

/** The life-cycle state. `restarting` waits for its restart policy; `removing` and `dead` accept nothing but removal. */
export type ContainerState =
  | ({ readonly status: 'created' } & Ended)
  | ({ readonly status: 'running' } & Alive)
  | ({ readonly status: 'paused' } & Alive)
  | ({ readonly status: 'restarting' } & Ended)
  | ({ readonly status: 'exited' } & Ended)
  | ({ readonly status: 'removing' } & Ended)
  | ({ readonly status: 'dead' } & Ended);

/** A container that was never started. */
export const NEVER_STARTED: ContainerState = {
  status: 'created',
  exitCode: 0,
  error: '',
  oomKilled: false,
  startedAt: ZERO_TIME,
  finishedAt: ZERO_TIME,
};

export type AliveState = Extract<ContainerState, Alive>;

/** Whether a process is there (running or paused). */
export function isAlive(state: ContainerState): state is AliveState {
  return state.status === 'running' || state.status === 'paused';
}

/** The container's network attachment while its sandbox exists. */
export interface SandboxRecord {
  readonly id: Id;
  /** Namespace file; empty: the host's namespace. */
  readonly path: string;
  readonly endpoints: readonly Endpoint[];
}

/** A mount of an image's file system. */
export interface ImageMount {
  readonly destination: string;
  readonly imageId: Digest;
  /** Key of the snapshot. */
  readonly snapshot: Id;
}

/** Everything about a container that must survive the daemon. */
export interface ContainerRecord {
  readonly id: Id;
  /** Without the leading slash. */
  readonly name: string;
  readonly createdAt: string;
  /** As the user wrote it; shown by `ps` while it still means the same image. */
  readonly imageReference: string;
  readonly imageId: Digest;
  /** ChainID of the image's top layer at creation. */
  readonly layer: Digest | undefined;
  readonly platform: { readonly os: string; readonly architecture: string; readonly variant?: string };
  readonly config: ContainerConfig;
  readonly hostConfig: HostConfig;
  /** Entry point joined with command. */
  readonly args: readonly string[];
  readonly mounts: readonly MountPoint[];
  /** What the mounts of type `image` show: one snapshot each, never written to. */
  readonly imageMounts?: readonly ImageMount[];
  /** Network name → wanted settings. Empty: the network its mode names. */
  readonly networks: Readonly<Record<string, EndpointSettings>>;
  /** It was disconnected from its last network. */
  readonly hasLeftNetworks?: boolean;
  readonly state: ContainerState;
  readonly restartCount: number;
  readonly hasBeenManuallyStopped: boolean;
  readonly hasBeenStartedBefore: boolean;
  /** Created by a client below API 1.44: its read-only binds leave submounts writable. */
  readonly nonRecursiveReadOnly?: boolean;
  /** Shim address while a task exists, else empty. */
  readonly shimAddress: string;
  readonly sandbox: SandboxRecord | undefined;
}

/** Labels of the container, never null. */
export function labelsOf(record: ContainerRecord): Readonly<Record<string, string>> {
  return record.config.Labels ?? {};
}
