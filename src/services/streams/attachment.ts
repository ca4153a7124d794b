/**
 * One attached client: output to it, input from it.
 *
 * Invariant: at most ATTACH_BUFFER_BYTES (plus one chunk a stream) wait for the client; `send` says when
 * the limit is reached by returning a promise that resolves once there is room or the client has left.
 */
import type { Duplex } from 'node:stream';
import { frameHeader } from '#types/stream-frame.ts';
import type { AttachEnd, AttachOptions, OutputStream } from './contract.ts';
import { DetachScanner } from './detach-keys.ts';
import type { BufferUse } from './read-buffers.ts';

/** Output waiting for one client before the process is slowed; dockerd's pipe holds as much. */
export const ATTACH_BUFFER_BYTES: number = 1024 * 1024;

/** Where a client's input goes. */
export interface InputTarget {
  /** Resolves when more may be written. */
  write(chunk: Buffer): Promise<void> | undefined;
  /** The client ended its input; true when that ends the attachment too. */
  end(): boolean;
}

/** A client attached to a process's streams. */
export class Attachment {
  /** Resolves when the attachment is over. */
  readonly ended: Promise<AttachEnd>;
  readonly #client: Duplex;
  readonly #options: AttachOptions;
  readonly #resolveEnded: (end: AttachEnd) => void;
  #isOver = false;
  /** Output that came while the preamble is being sent; undefined afterwards. */
  #early: { readonly stream: OutputStream; readonly chunk: Buffer }[] | undefined;
  #earlyBytes = 0;
  #room: PromiseWithResolvers<void> | undefined;

  constructor(client: Duplex, options: AttachOptions, input: InputTarget | undefined) {
    this.#client = client;
    this.#options = options;
    const { promise, resolve } = Promise.withResolvers<AttachEnd>();
    this.ended = promise;
    this.#resolveEnded = resolve;
    client.on('error', () => this.#over('client-gone'));
    client.on('close', () => this.#over('client-gone'));
    client.on('drain', () => this.#freeRoom());
    if (input !== undefined && options.stdin) this.#readInput(input);
    // Without stdin the client is read only to notice that it left; its half-close means nothing.
    else client.resume();
    if (options.preamble !== undefined) {
      this.#early = [];
      void this.#sendPreamble(options.preamble);
    }
  }

  /** Gives output to the client; holds `use` until the bytes have left. */
  send(stream: OutputStream, chunk: Buffer, use: BufferUse): Promise<void> | undefined {
    if (this.#isOver || !this.#options[stream]) return undefined;
    if (this.#early !== undefined) {
      // Copied: it may wait for as long as the preamble takes.
      this.#early.push({ stream, chunk: Buffer.from(chunk) });
      this.#earlyBytes += chunk.length;
      return this.#earlyBytes >= ATTACH_BUFFER_BYTES ? this.#waitForRoom() : undefined;
    }
    use.hold();
    this.#write(stream, chunk, use.release);
    return this.#client.writableLength >= ATTACH_BUFFER_BYTES ? this.#waitForRoom() : undefined;
  }

  /** The process is over: what is buffered still goes to the client, then its connection is ended. */
  processEnded(): void {
    if (this.#isOver) return;
    if (this.#early !== undefined) {
      // The preamble ends the client once everything before is sent.
      this.#endAfterPreamble = true;
      return;
    }
    this.#finishClient();
  }

  /** Leaves the client alone and reports that it has been detached from. */
  detach(): void {
    this.#over('detached');
  }

  #endAfterPreamble = false;

  #finishClient(): void {
    this.#client.end(() => this.#over('process-ended'));
  }

  #write(stream: OutputStream, chunk: Buffer, onSent?: () => void): void {
    // A stream calls back for every write, also when it fails or is destroyed.
    if (!this.#options.multiplexed) {
      this.#client.write(chunk, onSent);
      return;
    }
    // Corked, header and chunk leave in one writev without being copied together.
    this.#client.cork();
    this.#client.write(frameHeader(stream, chunk.length));
    this.#client.write(chunk, onSent);
    this.#client.uncork();
  }

  async #sendPreamble(preamble: AsyncIterable<Buffer>): Promise<void> {
    try {
      for await (const chunk of preamble) {
        if (this.#isOver) return;
        if (!this.#client.write(chunk)) await this.#waitForRoom();
      }
    } catch {
      // Past logs that cannot be read do not keep the client from live output.
    }
    const early = this.#early ?? [];
    this.#early = undefined;
    if (this.#isOver) return;
    for (const { stream, chunk } of early) this.#write(stream, chunk);
    if (!this.#client.writableNeedDrain) this.#freeRoom();
    if (this.#endAfterPreamble) this.#finishClient();
  }

  #waitForRoom(): Promise<void> {
    this.#room ??= Promise.withResolvers<void>();
    return this.#room.promise;
  }

  #freeRoom(): void {
    const room = this.#room;
    this.#room = undefined;
    room?.resolve();
  }

  #readInput(input: InputTarget): void {
    const client = this.#client;
    const scanner = new DetachScanner(this.#options.detachKeys);
    client.on('data', (chunk: Buffer) => {
      if (this.#isOver) return;
      const { data, detached } = scanner.push(chunk);
      const busy = data.length > 0 ? input.write(data) : undefined;
      if (detached) {
        this.detach();
        return;
      }
      if (busy === undefined) return;
      client.pause();
      void busy.then(() => client.resume());
    });
    client.on('end', () => {
      if (this.#isOver) return;
      if (input.end()) this.#over('client-gone');
    });
  }

  #over(end: AttachEnd): void {
    if (this.#isOver) return;
    this.#isOver = true;
    this.#early = undefined;
    this.#freeRoom();
    this.#resolveEnded(end);
  }
}
