/**
 * `gantry system fsck`: checks that the store is whole and, when asked, repairs it. Runs beside everything else:
 * what is in flight (held, leased, being made or removed) is not looked at as damage. One run at a time.
 */
import { setTimeout as delay } from 'node:timers/promises';
import type { Digest } from '#types/digest.ts';
import { errorMessage, GantryError } from '#types/errors.ts';
import { shortId } from '#types/ids.ts';
import { imageAttributes } from '../images/remove.ts';
import { damageChecks, orphanChecks } from './fsck/checks.ts';
import { type Checked, type Finding, type FsckContext, imageName, type Problem, type Run } from './fsck/finding.ts';

export interface FsckOptions {
  /** Compare every extracted layer with its archive, byte by byte. */
  readonly deep: boolean;
  readonly repair: boolean;
  /** Remove images that cannot be repaired. */
  readonly drop: boolean;
}

/** The end of a run. */
export interface FsckSummary extends Checked {
  readonly findings: number;
  readonly repaired: number;
  /** Findings that are still true. */
  readonly remaining: number;
}

/** Something found orphaned must still be so after this time: a thing changes hands in less. */
const ORPHAN_GRACE_MS = 1000;
const running = new WeakSet<object>();

/** Checks everything; findings are told as they are made. */
export async function checkStore(
  context: FsckContext,
  options: FsckOptions,
  tell: (finding: Finding) => Promise<void> | void,
  signal: AbortSignal,
): Promise<FsckSummary> {
  if (options.drop && !options.repair) throw new GantryError('invalid', 'drop needs repair');
  if (running.has(context.images)) throw new GantryError('conflict', 'a check of the store is already running');
  running.add(context.images);
  try {
    const run: Run = {
      context,
      deep: options.deep,
      signal,
      checked: { images: 0, layers: 0, blobs: 0, bytes: 0, containers: 0 },
      badBlobs: new Set(),
    };
    return await new Check(run, options, tell).run();
  } finally {
    running.delete(context.images);
  }
}

class Check {
  readonly #run: Run;
  readonly #options: FsckOptions;
  readonly #tell: (finding: Finding) => Promise<void> | void;
  readonly #broken = new Map<Digest, string>();
  #findings = 0;
  #repaired = 0;

  constructor(run: Run, options: FsckOptions, tell: (finding: Finding) => Promise<void> | void) {
    this.#run = run;
    this.#options = options;
    this.#tell = tell;
  }

  async run(): Promise<FsckSummary> {
    for await (const problem of damageChecks(this.#run)) await this.#settle(problem);
    for (const problem of await this.#orphans()) await this.#settle(problem);
    if (this.#options.drop) await this.#dropBroken();
    const { checked } = this.#run;
    return {
      ...checked,
      findings: this.#findings,
      repaired: this.#repaired,
      remaining: this.#findings - this.#repaired,
    };
  }

  /** What two looks, some time apart, both found to be nobody's. */
  async #orphans(): Promise<Problem[]> {
    const candidates = await Array.fromAsync(orphanChecks(this.#run));
    if (candidates.length === 0) return [];
    await delay(ORPHAN_GRACE_MS, undefined, { signal: this.#run.signal });
    const still = new Set<string>();
    for await (const { finding } of orphanChecks(this.#run)) still.add(`${finding.object} ${finding.id}`);
    return candidates.filter(({ finding }) => still.has(`${finding.object} ${finding.id}`));
  }

  async #settle(problem: Problem): Promise<void> {
    this.#findings += 1;
    if (!this.#options.repair) return this.#tell(problem.finding);
    const failed = async (result: string): Promise<void> => {
      for (const id of problem.broken ?? []) this.#broken.set(id, problem.finding.detail);
      await this.#tell({ ...problem.finding, outcome: 'failed', result });
    };
    if (problem.fix === undefined) return failed('nothing can undo it');
    let result: string;
    try {
      result = await problem.fix(this.#run.signal);
    } catch (error) {
      this.#run.signal.throwIfAborted();
      return failed(errorMessage(error));
    }
    this.#repaired += 1;
    await this.#tell({ ...problem.finding, outcome: 'repaired', result });
  }

  /** Removes images that stayed broken, unless a container needs them. */
  async #dropBroken(): Promise<void> {
    const { images, containers, emit } = this.#run.context;
    for (const [id, detail] of this.#broken) {
      const about = { object: 'image', id, kind: 'corrupt', detail: `it is broken: ${detail}` } as const;
      const name = imageName(images, id);
      const user = containers.all().find(({ record }) => record.imageId === id);
      if (user !== undefined) {
        const result = `container ${shortId(user.id)} uses it`;
        await this.#tell({ ...about, images: [name], outcome: 'failed', result });
        continue;
      }
      const image = images.get(id);
      if (image === undefined) images.audit().dropDamaged(id);
      else {
        await images.remove(id);
        emit('image', 'delete', id, imageAttributes(image, id));
      }
      await this.#tell({ ...about, images: [name], outcome: 'repaired', result: 'the image was removed' });
    }
    // What a damaged image kept, too.
    if (this.#broken.size > 0) await images.collection.collect();
  }
}
