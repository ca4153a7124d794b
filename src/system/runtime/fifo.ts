/**
 * FIFOs: made by mkfifo(3), opened without blocking the event loop.
 *
 * Invariant: `openFifoKeeper` opens for reading and writing, which on Linux neither blocks nor sees
 * end-of-file, so a FIFO survives until both sides are there (fifo(7)).
 */
import { closeSync, constants, lstatSync, openSync } from 'node:fs';
import { type OnReadOpts, Socket } from 'node:net';
import { type Library, openLibrary, type Signatures } from '#system/kernel/ffi.ts';
import { GantryError } from '#types/errors.ts';

const LIBC = { mkfifo: { returns: 'i32', arguments: ['string', 'u32'] } } as const satisfies Signatures;

let libc: Library<typeof LIBC> | undefined;

/** Creates a FIFO; one that exists already is kept, anything else at that path is an error. */
export function makeFifo(path: string, mode = 0o700): void {
  libc ??= openLibrary('libc.so.6', LIBC);
  if (libc.calls.mkfifo(path, mode) === 0) return;
  const found = lstatSync(path, { throwIfNoEntry: false });
  if (found?.isFIFO() === true) return;
  throw new GantryError('system', `mkfifo ${path}: ${found === undefined ? 'failed' : 'file exists'}`);
}

/** Opens a FIFO for both directions: never blocks, never reads end-of-file while open. */
export function openFifoKeeper(path: string): number {
  return openSync(path, constants.O_RDWR | constants.O_NONBLOCK | constants.O_NOFOLLOW);
}

/** Opens the reading end as a stream; the descriptor belongs to the stream. Data goes to `onread`. */
export function openFifoReader(path: string, onread: OnReadOpts): Socket {
  const descriptor = openSync(path, constants.O_RDONLY | constants.O_NONBLOCK | constants.O_NOFOLLOW);
  return socketOf(descriptor, { readable: true, writable: false, onread });
}

/** Drains a FIFO line by line into `onText` for as long as the returned handle lives. */
export function drainFifo(path: string, onText: (text: string) => void): Disposable {
  const reader = socketOf(openFifoKeeper(path), { readable: true, writable: false });
  reader.on('data', (chunk: Buffer) => onText(chunk.toString('utf8')));
  reader.on('error', () => {});
  reader.unref();
  return { [Symbol.dispose]: () => void reader.destroy() };
}

function socketOf(fd: number, sides: { readable: boolean; writable: boolean; onread?: OnReadOpts }): Socket {
  try {
    return new Socket({ fd, ...sides });
  } catch (error) {
    closeSync(fd);
    throw error;
  }
}
