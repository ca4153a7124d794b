/**
 * Keeps streams of large buffers from piling up dead ones. A buffer's bytes lie outside the JavaScript heap, so the
 * collector sees little reason to run until about 64 MiB are dead, in every thread; collecting the youngest objects
 * alone takes a millisecond and frees them.
 */
import { setFlagsFromString } from 'node:v8';
import { runInNewContext } from 'node:vm';

/** Bytes passed on between two collections. */
const COLLECT_AFTER_BYTES = 8 * 1024 * 1024;

type Collect = (options: { type: 'minor' }) => void;

let collect: Collect | undefined;
let passedBytes = 0;

/** Counts bytes of short-lived buffers that this thread has passed on. */
export function passBytes(length: number): void {
  passedBytes += length;
  if (passedBytes < COLLECT_AFTER_BYTES) return;
  passedBytes = 0;
  if (collect === undefined) {
    setFlagsFromString('--expose-gc');
    collect = runInNewContext('gc') as Collect;
  }
  collect({ type: 'minor' });
}
