/**
 * The contract's ProcessStreams on FIFOs: one pump an output stream, feeding the log and the clients.
 *
 * Invariant: a chunk is given to the log and every client before the next one of its stream is read, and
 * the stream is not read while any of them asked to wait. Both output FIFOs always exist (except for a
 * terminal), because the runc shim wants both or none.
 */
import { closeSync, rmSync } from 'node:fs';
import type { Socket } from 'node:net';
import { join } from 'node:path';
import type { Duplex } from 'node:stream';
import type { Stdio } from '#system/runtime/contract.ts';
import { makeFifo, openFifoKeeper, openFifoReader } from '#system/runtime/fifo.ts';
import { Attachment } from './attachment.ts';
import type { AttachEnd, AttachOptions, LogSink, OutputStream, ProcessStreams } from './contract.ts';
import { ProcessStdin } from './process-stdin.ts';
import { BufferUse, takeBuffer } from './read-buffers.ts';

/** Without any progress for this long after the exit, output still held open by someone is given up (as dockerd). */
const DRAIN_IDLE_MS = 2000;
/** The same while a client or the log makes us wait. */
const DRAIN_HELD_MS = 10_000;
const DRAIN_CHECK_MS = 100;

export interface ProcessStreamsOptions {
  /** The process has an input at all. */
  readonly openStdin: boolean;
  /** The first client's half-close ends the input: StdinOnce, and always for an exec. */
  readonly stdinOnce: boolean;
  readonly terminal: boolean;
  /** Makes the shim close its end of the input; called at most once, after `connected`. */
  readonly closeStdin: () => Promise<void> | void;
}

/** Streams of one process. */
export class FifoProcessStreams implements ProcessStreams {
  readonly #options: ProcessStreamsOptions;
  readonly #stdin: ProcessStdin | undefined;
  readonly #attachments = new Set<Attachment>();
  #pumps: OutputPump[] = [];
  #keepers: number[] = [];
  #paths: string[] = [];
  #log: LogSink | undefined;
  #isOver = false;

  constructor(options: ProcessStreamsOptions) {
    this.#options = options;
    this.#stdin = options.openStdin ? new ProcessStdin(options.closeStdin) : undefined;
  }

  async open(directory: string, log: LogSink | undefined): Promise<Stdio> {
    const stdio = this.#stdio(directory);
    for (const path of this.#paths) makeFifo(path);
    // Kept open for writing, the readers see no end-of-file before the shim has opened its ends.
    this.#keepers = [stdio.stdout, stdio.stderr].filter((path) => path !== '').map(openFifoKeeper);
    this.#connect(stdio, log);
    return stdio;
  }

  async reopen(directory: string, log: LogSink | undefined): Promise<Stdio> {
    const stdio = this.#stdio(directory);
    this.#connect(stdio, log);
    this.#stdin?.connected();
    return stdio;
  }

  connected(): void {
    for (const descriptor of this.#keepers.splice(0)) closeSync(descriptor);
    this.#stdin?.connected();
  }

  attach(client: Duplex, options: AttachOptions): Promise<AttachEnd> {
    const attachment = new Attachment(client, options, this.#input());
    this.#attachments.add(attachment);
    void attachment.ended.then(() => this.#attachments.delete(attachment));
    if (this.#isOver) attachment.processEnded();
    return attachment.ended;
  }

  async finish(): Promise<void> {
    this.connected();
    await this.#drain();
    this.#release();
    for (const path of this.#paths) rmSync(path, { force: true });
    await this.#log?.end();
    this.#log = undefined;
  }

  /** Lets go of everything without waiting; a running process goes on and can be reopened. */
  async [Symbol.asyncDispose](): Promise<void> {
    this.#release();
    await this.#log?.end();
    this.#log = undefined;
  }

  #stdio(directory: string): Stdio {
    const { openStdin, terminal } = this.#options;
    const stdio = {
      stdin: openStdin ? join(directory, 'stdin') : '',
      stdout: join(directory, 'stdout'),
      stderr: terminal ? '' : join(directory, 'stderr'),
      terminal,
    };
    this.#paths = [stdio.stdin, stdio.stdout, stdio.stderr].filter((path) => path !== '');
    return stdio;
  }

  #connect(stdio: Stdio, log: LogSink | undefined): void {
    this.#log = log;
    if (stdio.stdin !== '') this.#stdin?.open(stdio.stdin);
    const deliver: Deliver = (stream, chunk, use) => this.#deliver(stream, chunk, use);
    this.#pumps.push(new OutputPump('stdout', stdio.stdout, deliver));
    if (stdio.stderr !== '') this.#pumps.push(new OutputPump('stderr', stdio.stderr, deliver));
  }

  /** Undefined when nobody needs us to wait, which is the usual case. */
  #deliver(stream: OutputStream, chunk: Buffer, use: BufferUse): Promise<unknown> | undefined {
    let waits: Promise<void>[] | undefined;
    const logged = this.#log?.write(stream, chunk);
    if (logged !== undefined) waits = [logged];
    for (const attachment of this.#attachments) {
      const sent = attachment.send(stream, chunk, use);
      if (sent === undefined) continue;
      waits ??= [];
      waits.push(sent);
    }
    return waits === undefined ? undefined : Promise.all(waits);
  }

  #input(): { write(chunk: Buffer): Promise<void> | undefined; end(): boolean } | undefined {
    const stdin = this.#stdin;
    if (stdin === undefined) return undefined;
    return {
      write: (chunk) => stdin.write(chunk),
      end: () => {
        const endsInput = this.#options.stdinOnce && !this.#options.terminal;
        if (endsInput) stdin.end();
        // Compat: where its half-close does not end the input, it ends the client's whole attachment.
        return !endsInput;
      },
    };
  }

  async #drain(): Promise<void> {
    for (const pump of this.#pumps) pump.touch();
    const ended = Promise.all(this.#pumps.map((pump) => pump.ended));
    let isEnded = false;
    void ended.then(() => {
      isEnded = true;
    });
    for (;;) {
      const { promise, resolve } = Promise.withResolvers<void>();
      const timer = setTimeout(resolve, DRAIN_CHECK_MS);
      await Promise.race([ended, promise]);
      clearTimeout(timer);
      if (isEnded) return;
      const idle = Math.min(...this.#pumps.filter((pump) => !pump.isEnded).map((pump) => pump.idleMs()));
      const isHeld = this.#pumps.some((pump) => pump.isHeld);
      if (idle >= (isHeld ? DRAIN_HELD_MS : DRAIN_IDLE_MS)) return;
    }
  }

  #release(): void {
    this.#isOver = true;
    for (const descriptor of this.#keepers.splice(0)) closeSync(descriptor);
    for (const pump of this.#pumps.splice(0)) pump.stop();
    this.#stdin?.close();
    for (const attachment of this.#attachments) attachment.processEnded();
  }
}

type Deliver = (stream: OutputStream, chunk: Buffer, use: BufferUse) => Promise<unknown> | undefined;

/** Reads one FIFO and hands its chunks on, one at a time. */
class OutputPump {
  readonly ended: Promise<void>;
  isEnded = false;
  isHeld = false;
  readonly #reader: Socket;
  #lastProgress = performance.now();

  constructor(stream: OutputStream, path: string, deliver: Deliver) {
    const { promise, resolve } = Promise.withResolvers<void>();
    this.ended = promise;
    const onEnd = (): void => {
      this.isEnded = true;
      resolve();
    };
    this.#reader = openFifoReader(path, {
      buffer: takeBuffer,
      callback: (count, buffer) => {
        this.#receive(stream, buffer as Buffer, count, deliver);
        return true;
      },
    });
    this.#reader.on('error', onEnd);
    this.#reader.on('end', onEnd);
    this.#reader.on('close', onEnd);
  }

  #receive(stream: OutputStream, buffer: Buffer, count: number, deliver: Deliver): void {
    this.#lastProgress = performance.now();
    const use = new BufferUse(buffer);
    const busy = deliver(stream, buffer.subarray(0, count), use);
    if (busy === undefined) {
      use.release();
      return;
    }
    this.isHeld = true;
    this.#reader.pause();
    const proceed = (): void => {
      use.release();
      this.isHeld = false;
      this.#lastProgress = performance.now();
      this.#reader.resume();
    };
    // A log that fails must not stop the process; its sink reports the failure itself.
    busy.then(proceed, proceed);
  }

  /** Time since output last moved. */
  idleMs(): number {
    return performance.now() - this.#lastProgress;
  }

  /** Starts the idle time anew: a long-silent process still gets its drain. */
  touch(): void {
    this.#lastProgress = performance.now();
  }

  stop(): void {
    this.#reader.destroy();
  }
}
