/**
 * Log drivers: where a container's output goes, and how it is read back.
 *
 * A log is opened for writing while a process runs (`open`), and for reading at any time (`read`), also while
 * it is being written: a follower sees every record exactly once, across rotations.
 */
import type { LogSink, OutputStream } from '#services/streams/contract.ts';
import type { Id } from '#types/ids.ts';

/** What a driver needs to know about the container. */
export interface LogInfo {
  readonly containerId: Id;
  readonly containerName: string;
  readonly imageId: string;
  readonly imageName: string;
  readonly labels: Readonly<Record<string, string>>;
  readonly env: readonly string[];
  /** The container's own directory under the data root; file-based drivers write here. */
  readonly directory: string;
  readonly driver: string;
  readonly options: Readonly<Record<string, string>>;
}

/** One message, without its line end unless it was partial. */
export interface LogRecord {
  readonly stream: OutputStream;
  /** Message bytes, line end included when the line was complete. */
  readonly line: Buffer;
  readonly timeNs: bigint;
  readonly attributes: Readonly<Record<string, string>>;
}

export interface LogReadOptions {
  readonly stdout: boolean;
  readonly stderr: boolean;
  readonly sinceNs: bigint | undefined;
  readonly untilNs: bigint | undefined;
  /** Last n records; undefined: all. */
  readonly tail: number | undefined;
  /** Go on with live records until the container's run ends or `signal` aborts. */
  readonly follow: boolean;
}

/** An open log of a running container. */
export interface LogWriter extends LogSink {}

/** All drivers of this daemon. */
export interface LogDrivers {
  /** Names for /info, sorted. */
  readonly names: readonly string[];
  /** Throws `invalid` with docker's text for an unknown driver or option. */
  validate(driver: string, options: Readonly<Record<string, string>>): void;
  open(info: LogInfo): Promise<LogWriter>;
  /** Throws `notImplemented`: `configured logging driver does not support reading`. */
  read(info: LogInfo, options: LogReadOptions, signal: AbortSignal): AsyncIterable<LogRecord>;
  /** The same as `read`, with the records that are at hand together: many times faster for long logs. */
  readBatches(info: LogInfo, options: LogReadOptions, signal: AbortSignal): AsyncIterable<readonly LogRecord[]>;
  /** Path shown as LogPath by inspect; empty when the driver has none. */
  path(info: LogInfo): string;
}
