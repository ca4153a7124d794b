/**
 * Keeps an idle daemon small: after a while without requests the heap is collected and program pages that were
 * only needed to get here are let go. Work in progress is never interrupted: a tick that finds some does nothing.
 */
import { setFlagsFromString } from 'node:v8';
import { runInNewContext } from 'node:vm';
import { releaseFilePages } from '#system/kernel/memory.ts';

/** Soon after the start most pages are dead weight; later, after bursts of work. */
const FIRST_TICK_MS = 2_000;
const TICK_MS = 15_000;

/** Watches for idleness; disposing ends it. `requestCount` only ever grows. */
export function trimWhenIdle(server: { readonly requestCount: number }): Disposable {
  setFlagsFromString('--expose-gc');
  const collect = runInNewContext('gc') as () => void;
  let trimmedAt = -1;
  let seen = server.requestCount;
  const trim = (): void => {
    trimmedAt = server.requestCount;
    collect();
    releaseFilePages();
  };
  const tick = (): void => {
    const quiet = server.requestCount === seen;
    seen = server.requestCount;
    // Long-lived streams (events, logs -f, attach) count as active but cost nothing while they are silent.
    if (quiet && trimmedAt !== server.requestCount) trim();
  };
  const first = setTimeout(tick, FIRST_TICK_MS);
  const timer = setInterval(tick, TICK_MS);
  for (const handle of [first, timer]) handle.unref();
  return {
    [Symbol.dispose]: () => {
      clearTimeout(first);
      clearInterval(timer);
    },
  };
}
