/**
 * What a container is: the record kept in the database, and its state.
 *
 * Times are RFC 3339 with nanoseconds as docker prints them; ZERO_TIME stands for "never".
 */
import type { Digest } from '#types/digest.ts';
import type { Id } from '#types/ids.ts';
import type { ContainerConfig, EndpointSettings, HostConfig, MountPoint } from '#wire/engine.ts';

export const ZERO_TIME = '0001-01-01T00:00:00Z';

/** The life-cycle state; transitions are in state.ts. */
export type ContainerState =
  | { readonly status: 'created'; readonly error: string; readonly exitCode: number }
  | { readonly status: 'running'; readonly pid: number; readonly startedAt: string; readonly finishedAt: string }
  | { readonly status: 'paused'; readonly pid: number; readonly startedAt: string; readonly finishedAt: string }
  | { readonly status: 'restarting'; readonly exitCode: number; readonly error: string; readonly startedAt: string; readonly finishedAt: string }
  | {
      readonly status: 'exited';
      readonly exitCode: number;
      readonly error: string;
      readonly oomKilled: boolean;
      readonly startedAt: string;
      readonly finishedAt: string;
    }
  | { readonly status: 'removing' | 'dead'; readonly exitCode: number; readonly error: string; readonly startedAt: string; readonly finishedAt: string };

/** Everything about a container that must survive the daemon. */
export interface ContainerRecord {
  readonly id: Id;
  /** Without the leading slash. */
  readonly name: string;
  readonly createdAt: string;
  readonly imageId: Digest;
  /** ChainID of the image's top layer at creation. */
  readonly layer: Digest | undefined;
  readonly platform: { readonly os: string; readonly architecture: string; readonly variant?: string };
  readonly config: ContainerConfig;
  readonly hostConfig: HostConfig;
  /** Entry point joined with command. */
  readonly args: readonly string[];
  readonly mounts: readonly MountPoint[];
  /** Network name → wanted settings. */
  readonly networks: Readonly<Record<string, EndpointSettings>>;
  readonly state: ContainerState;
  readonly restartCount: number;
  readonly hasBeenManuallyStopped: boolean;
  readonly hasBeenStartedBefore: boolean;
  /** Shim address while a task exists. */
  readonly shimAddress: string;
}
