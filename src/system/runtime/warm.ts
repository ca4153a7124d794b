/**
 * One idle shim kept ready. `Create` carries the container's ID and bundle, so a shim started under
 * another ID serves any container; only the default runc shim without grouping is prepared.
 *
 * Invariant: each warm shim has a directory here from before its start until it is gone. Whatever an
 * earlier daemon left is told to shut down at `open`; a shim that has a task ignores that, so telling
 * is always safe.
 */
import { randomBytes } from 'node:crypto';
import { existsSync, mkdirSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { setTimeout as delay } from 'node:timers/promises';
import type { ShimStartOptions } from './contract.ts';
import { removeDeadSocket, type TaskShim } from './shim.ts';
import { killStrayShims } from './stray.ts';

const WARM_SHIM = 'io.containerd.runc.v2';
/** A replacement is started this long after one was taken, out of the way of the container's own start. */
const REFILL_DELAY_MS = 150;
/** Directories of earlier daemons looked at on start; more would mean something else is wrong. */
const MAX_LEFTOVERS = 10_000;

/** From a shim's answer to Shutdown until its process is gone. */
const END_GRACE_MS = 500;
const GONE_CHECK_MS = 20;

interface WarmShimsDependencies {
  launch(options: ShimStartOptions): Promise<TaskShim>;
  connect(address: string): Promise<TaskShim>;
  readonly namespace: string;
}

/** Holds at most one idle shim. */
export class WarmShims implements AsyncDisposable {
  readonly #directory: string;
  readonly #dependencies: WarmShimsDependencies;
  readonly #stop = new AbortController();
  #enabled = false;
  #idle: TaskShim | undefined;
  #refill: Promise<void> = Promise.resolve();
  /** Directories of ended shims being removed. */
  #removals: Promise<unknown> = Promise.resolve();

  constructor(directory: string, dependencies: WarmShimsDependencies) {
    this.#directory = directory;
    this.#dependencies = dependencies;
  }

  /** Clears what an earlier daemon left and starts the first shim in the background. */
  async open(): Promise<void> {
    this.#enabled = true;
    mkdirSync(this.#directory, { recursive: true, mode: 0o700 });
    const leftovers = readdirSync(this.#directory).slice(0, MAX_LEFTOVERS);
    // In the background: shims with a task make us wait for nothing.
    this.#removals = Promise.all(leftovers.map((name) => this.#clearLeftover(name)));
    this.#refill = this.#prepare();
  }

  /** The idle shim if it fits `options`; a replacement follows a little later. */
  async take(options: ShimStartOptions): Promise<TaskShim | undefined> {
    const fits = options.shim === WARM_SHIM && !options.debug && options.namespace === this.#dependencies.namespace;
    if (!this.#enabled || !fits || isGrouped(options.bundle)) return undefined;
    const shim = this.#idle;
    this.#idle = undefined;
    this.#scheduleRefill();
    return shim;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.#enabled = false;
    this.#stop.abort();
    await this.#refill;
    const shim = this.#idle;
    this.#idle = undefined;
    if (shim !== undefined) {
      await shim.shutdown('');
      await shim[Symbol.asyncDispose]();
    }
    await this.#removals;
  }

  #scheduleRefill(): void {
    this.#refill = this.#refill.then(async () => {
      const waited = await delay(REFILL_DELAY_MS, true, { signal: this.#stop.signal, ref: false }).catch(() => false);
      if (waited && this.#idle === undefined) await this.#prepare();
    });
  }

  async #prepare(): Promise<void> {
    const id = `warm-${randomBytes(8).toString('hex')}`;
    const bundle = join(this.#directory, id);
    const { namespace } = this.#dependencies;
    try {
      mkdirSync(bundle, { mode: 0o700 });
      // The start helper reads the annotations of a config.json in its working directory.
      writeFileSync(join(bundle, 'config.json'), '{}');
      const shim = await this.#dependencies.launch({ id, namespace, bundle, shim: WARM_SHIM, debug: false });
      writeFileSync(join(bundle, 'gantry-address'), shim.address);
      this.#idle = shim;
      void shim.closed.then(() => {
        if (this.#idle === shim) this.#idle = undefined;
        this.#removals = Promise.all([this.#removals, removeWhenGone(bundle, shim.pid)]);
      });
    } catch {
      // Not being warm only costs time: the next start launches its own shim and reports what is wrong.
      killStrayShims(bundle, 'idle');
      rmSync(bundle, { recursive: true, force: true });
    }
  }

  async #clearLeftover(name: string): Promise<void> {
    const bundle = join(this.#directory, name);
    try {
      const shim = await this.#dependencies.connect(leftoverAddress(bundle));
      await shim.shutdown('');
      const isEnding = await Promise.race([shim.closed.then(() => true), delay(END_GRACE_MS, false)]);
      await shim[Symbol.asyncDispose]();
      if (isEnding) await removeWhenGone(bundle, shim.pid);
    } catch {
      // Its start may have been cut off before it could answer, or even had an address.
      killStrayShims(bundle, 'idle');
      await removeDeadSocket(bundle);
      rmSync(bundle, { recursive: true, force: true });
    }
  }
}

/** The shim's own `address` file covers a crash between its start and our note. */
function leftoverAddress(bundle: string): string {
  try {
    return readFileSync(join(bundle, 'gantry-address'), 'utf8');
  } catch {
    return readFileSync(join(bundle, 'address'), 'utf8').trim();
  }
}

/**
 * Removes a shim's directory once its process is gone. A lost connection is not yet a dead shim: it closes
 * its connections first, or serves on while this daemon leaves; then the next `open` sees to it.
 */
async function removeWhenGone(bundle: string, pid: number): Promise<void> {
  for (let waitedMs = 0; existsSync(`/proc/${pid}/cwd/gantry-address`); waitedMs += GONE_CHECK_MS) {
    if (waitedMs >= END_GRACE_MS) return;
    await delay(GONE_CHECK_MS);
  }
  rmSync(bundle, { recursive: true, force: true });
}

/** Whether the container asks to share a shim with others. */
export function isGrouped(bundle: string): boolean {
  try {
    return /"io\.(?:containerd\.runc\.v2\.group|kubernetes\.cri\.sandbox-id)"/.test(
      readFileSync(join(bundle, 'config.json'), 'utf8'),
    );
  } catch {
    return true;
  }
}
