/**
 * The daemon's end of a process's stdin FIFO.
 *
 * Invariant: input given before the FIFO exists or is read is kept (up to a limit, then the client waits)
 * and delivered later; end of input reaches the process after all input, and not before the task exists.
 */
import { Socket } from 'node:net';
import { openFifoKeeper } from '#system/runtime/fifo.ts';

/** Input kept while nobody reads it; above it the client is not read any more. */
const STDIN_BUFFER_BYTES = 64 * 1024;

/** Writes to one stdin. */
export class ProcessStdin {
  readonly #closeRemote: () => Promise<void> | void;
  #socket: Socket | undefined;
  #early: Buffer[] = [];
  #earlyBytes = 0;
  #room: PromiseWithResolvers<void> | undefined;
  #isConnected = false;
  #isEnding = false;
  #isClosed = false;

  /** `closeRemote` makes the shim close its own writing end (CloseIO). */
  constructor(closeRemote: () => Promise<void> | void) {
    this.#closeRemote = closeRemote;
  }

  /** Opens the FIFO; early input goes into it. */
  open(path: string): void {
    // Open for both directions: neither waits for the shim nor fails when it is not there yet.
    this.#socket = new Socket({ fd: openFifoKeeper(path), readable: false, writable: true });
    this.#socket.on('error', () => this.close());
    this.#socket.on('drain', () => this.#freeRoom());
    for (const chunk of this.#early) this.#socket.write(chunk);
    this.#early = [];
    this.#earlyBytes = 0;
    if (!this.#socket.writableNeedDrain) this.#freeRoom();
    this.#endIfPossible();
  }

  /** The shim holds its end: end of input may be passed on. */
  connected(): void {
    this.#isConnected = true;
    this.#endIfPossible();
  }

  write(chunk: Buffer): Promise<void> | undefined {
    if (this.#isClosed || this.#isEnding) return undefined;
    if (this.#socket === undefined) {
      this.#early.push(chunk);
      this.#earlyBytes += chunk.length;
      return this.#earlyBytes >= STDIN_BUFFER_BYTES ? this.#waitForRoom() : undefined;
    }
    return this.#socket.write(chunk) ? undefined : this.#waitForRoom();
  }

  /** End of input. */
  end(): void {
    this.#isEnding = true;
    this.#endIfPossible();
  }

  /** Gives up what is not delivered and closes the FIFO. */
  close(): void {
    this.#isClosed = true;
    this.#socket?.destroy();
    this.#early = [];
    this.#freeRoom();
  }

  #endIfPossible(): void {
    const socket = this.#socket;
    if (!this.#isEnding || !this.#isConnected || this.#isClosed || socket === undefined) return;
    // An empty write's callback comes after everything before it is in the FIFO; shutdown(2) does not know FIFOs.
    socket.write(Buffer.alloc(0), () => {
      if (this.#isClosed) return;
      this.close();
      Promise.resolve(this.#closeRemote()).catch(() => {
        // The process has gone; it needs no end of input.
      });
    });
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
}
