/** An exec: a further process in a running container. Execs live in memory only, as with dockerd. */
import type { ProcessStreams } from '#services/streams/contract.ts';
import type { Id } from '#types/ids.ts';
import type { ExecConfig } from '#wire/engine.ts';

export type ExecState =
  | { readonly status: 'created' }
  | { readonly status: 'running'; readonly pid: number }
  | { readonly status: 'exited'; readonly exitCode: number; readonly pid: number };

/** One exec instance. */
export interface ExecInstance {
  readonly id: Id;
  readonly containerId: Id;
  readonly config: ExecConfig;
  readonly streams: ProcessStreams;
  /** When it ended, for the collection of old instances. */
  endedAtMs: number | undefined;
  state: ExecState;
}
