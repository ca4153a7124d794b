/** A worker that compares passwords with bcrypt hashes, so that tens of milliseconds a guess stay off the main thread. */
import { parentPort } from 'node:worker_threads';
import { compareSync } from 'bcryptjs';

interface Comparison {
  readonly id: number;
  readonly password: string;
  readonly hash: string;
}

parentPort?.on('message', ({ id, password, hash }: Comparison) => {
  let isEqual = false;
  try {
    isEqual = compareSync(password, hash);
  } catch {
    // A malformed hash matches nothing.
  }
  parentPort?.postMessage({ id, isEqual });
});
