/**
 * The standard streams of one process (a container's main process or an exec): FIFOs towards the shim,
 * a log sink, and any number of attached clients.
 *
 * Invariants: bytes of a stream keep their order; a slow attached client slows the process once
 * ATTACH_BUFFER_BYTES are waiting for it (as dockerd does) and never grows the daemon; the log sink
 * sees every byte whether or not anyone is attached.
 */
import type { Duplex } from 'node:stream';
import type { Stdio } from '#system/runtime/contract.ts';

export type OutputStream = 'stdout' | 'stderr';

/**
 * Receives a process's output for logging. Called in order; a returned promise holds back further reading.
 * The chunk's memory is used again once `write` has returned, or its promise has resolved.
 */
export interface LogSink {
  write(stream: OutputStream, chunk: Buffer): Promise<void> | undefined;
  /** Flushes partial lines; called once after the end of both streams. */
  end(): Promise<void>;
}

export interface AttachOptions {
  readonly stdin: boolean;
  readonly stdout: boolean;
  readonly stderr: boolean;
  /** Frame output as docker's multiplexed stream (false for terminals and websockets). */
  readonly multiplexed: boolean;
  /** Byte sequence that detaches; empty for none. Already parsed. */
  readonly detachKeys: Buffer;
  /** Chunks to send before live output, e.g. past logs (already framed where multiplexed). */
  readonly preamble?: AsyncIterable<Buffer>;
}

/** Why an attachment ended. */
export type AttachEnd = 'process-ended' | 'detached' | 'client-gone';

export interface ProcessStreams extends AsyncDisposable {
  /** Creates the FIFOs under `directory` and opens them; call before the task is created. `log` undefined: output only goes to attached clients. */
  open(directory: string, log: LogSink | undefined): Promise<Stdio>;
  /** Opens FIFOs that a running task already writes to (daemon restarted). */
  reopen(directory: string, log: LogSink | undefined): Promise<Stdio>;
  /** The task exists, so the shim holds its ends: from now on end-of-file means the process closed its output. */
  connected(): void;
  /**
   * Attaches a client until the process ends, the client leaves or types the detach keys.
   * May be called before `open`: input typed early is delivered once the process runs.
   * The client's half-close ends the process's stdin when it was created with StdinOnce or for an exec.
   */
  attach(client: Duplex, options: AttachOptions): Promise<AttachEnd>;
  /** After the process exited: waits until output is drained (bounded), ends attached clients and the log, closes the FIFOs. */
  finish(): Promise<void>;
}
