/**
 * A container in memory: its record plus what only lives with the daemon — the connection to its shim, its
 * streams, execs, health monitor, and those who wait for it.
 *
 * `lock` serialises operations that change the life-cycle state. Waiting for an exit never holds it.
 */
import type { LogWriter } from '#services/logs/contract.ts';
import type { ProcessStreams } from '#services/streams/contract.ts';
import type { Shim } from '#system/runtime/contract.ts';
import type { Id } from '#types/ids.ts';
import type { OciProcess } from '#types/oci.ts';
import type { ContainerRecord, ContainerState } from './container.ts';
import type { ExecInstance } from './exec.ts';
import { Lock } from './lock.ts';

/** Health as `inspect` shows it. */
export interface HealthRecord {
  status: 'starting' | 'healthy' | 'unhealthy';
  failingStreak: number;
  log: { Start: string; End: string; ExitCode: number; Output: string }[];
}

/** A running process and what belongs to this run of it. */
export interface LiveTask {
  readonly shim: Shim;
  readonly log: LogWriter | undefined;
  /** The process as started; what an exec derives from. Read from the bundle when first needed. */
  process: OciProcess | undefined;
  /** Resolves when the exit has been dealt with completely. */
  readonly settled: Promise<void>;
}

/** What a waiter of `docker wait` receives. */
export interface WaitResult {
  readonly exitCode: number;
  readonly error: string;
}

export type WaitCondition = 'not-running' | 'next-exit' | 'removed';

/** One container of this daemon. */
export class LiveContainer {
  readonly lock: Lock = new Lock();
  readonly execs: Map<Id, ExecInstance> = new Map();
  #record: ContainerRecord;
  readonly #save: (record: ContainerRecord) => void;
  /** Streams of the present or the next run. */
  streams: ProcessStreams | undefined;
  task: LiveTask | undefined;
  health: HealthRecord | undefined;
  /** Ends the health monitor. */
  healthMonitor: AbortController | undefined;
  /** Ends a pending automatic restart. */
  pendingRestart: AbortController | undefined;
  /** A stop or kill was asked for: the restart policy does not apply to the coming exit. */
  stopRequested = false;
  /** Kernel reported an out-of-memory kill in this run. */
  oomKilled = false;
  /** Consecutive automatic restarts and the present back-off. */
  restarts: { count: number; delayMs: number } = { count: 0, delayMs: 0 };
  removalInProgress = false;
  readonly #exitWaiters = new Set<(result: WaitResult) => void>();
  readonly #removalWaiters = new Set<(result: WaitResult) => void>();

  constructor(record: ContainerRecord, save: (record: ContainerRecord) => void) {
    this.#record = record;
    this.#save = save;
  }

  get id(): Id {
    return this.#record.id;
  }

  get record(): ContainerRecord {
    return this.#record;
  }

  get state(): ContainerState {
    return this.#record.state;
  }

  /** Saves a changed record durably; what changes nothing costs no write. */
  update(changes: Partial<ContainerRecord>): void {
    const fields = Object.keys(changes) as (keyof ContainerRecord)[];
    if (fields.every((field) => Object.is(changes[field], this.#record[field]))) return;
    const next = { ...this.#record, ...changes };
    this.#save(next);
    this.#record = next;
  }

  /** Changes the record without saving it: for what has happened whether or not the disk can take it. */
  updateUnsaved(changes: Partial<ContainerRecord>): void {
    this.#record = { ...this.#record, ...changes };
  }

  /** Wakes those who wait for an exit. */
  notifyExit(result: WaitResult): void {
    for (const waiter of this.#exitWaiters) waiter(result);
    this.#exitWaiters.clear();
  }

  /** Wakes those who wait for the removal (and any exit waiter left). */
  notifyRemoved(result: WaitResult): void {
    this.notifyExit(result);
    for (const waiter of this.#removalWaiters) waiter(result);
    this.#removalWaiters.clear();
  }

  /** Waits for the next exit or the removal. Rejects with the signal's reason when aborted. */
  waitFor(event: 'exit' | 'removal', signal: AbortSignal): Promise<WaitResult> {
    const waiters = event === 'exit' ? this.#exitWaiters : this.#removalWaiters;
    return new Promise((resolve, reject) => {
      const onAbort = (): void => {
        waiters.delete(waiter);
        reject(signal.reason);
      };
      const waiter = (result: WaitResult): void => {
        signal.removeEventListener('abort', onAbort);
        resolve(result);
      };
      if (signal.aborted) return onAbort();
      signal.addEventListener('abort', onAbort, { once: true });
      waiters.add(waiter);
    });
  }
}
