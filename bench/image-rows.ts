/**
 * Rows about whole images: load, save, push, pull, rmi of one of about 300 MB. Each round has an image of its own, and
 * nothing is removed before the last row: ext4 makes files slowly for minutes after many were deleted, which would
 * measure the round before. Peak memory of our daemon's process is taken beside.
 */
import { type ChildProcess, spawn } from 'node:child_process';
import { once } from 'node:events';
import { closeSync, existsSync, mkdirSync, mkdtempSync, openSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { eventually, run } from '../test/harness/processes.ts';
import type { Engine } from './engines.ts';
import { writeBenchImage } from './image.ts';
import { docker, type Row, timed } from './rows.ts';

const STEP_TIMEOUT_MS = 300_000;
const START_TIMEOUT_MS = 20_000;
const ROUNDS = 3;
/** The daemon must stay below this in every row. */
const PEAK_LIMIT_KIB = 200 * 1024;

async function ok(file: string, args: readonly string[]): Promise<void> {
  const done = await run(file, args, { timeoutMs: STEP_TIMEOUT_MS });
  if (done.code !== 0) throw new Error(`${file} ${args.join(' ')}: ${done.stderr}`);
}

/** A registry in an engine's network; all of them serve the same store. */
class BenchRegistry {
  readonly host: string;
  readonly #child: ChildProcess;

  private constructor(host: string, child: ChildProcess) {
    this.host = host;
    this.#child = child;
  }

  static async start(directory: string, name: string, command: readonly string[]): Promise<BenchRegistry> {
    const config = join(directory, `${name}.json`);
    const storage = { filesystem: { rootdirectory: join(directory, 'registry') } };
    const http = { addr: '127.0.0.1:0', secret: 'bench' };
    writeFileSync(config, JSON.stringify({ version: 0.1, log: { level: 'info' }, storage, http }));
    const logFile = join(directory, `${name}.log`);
    const log = openSync(logFile, 'a');
    const [file = '', ...args] = [...command, 'docker-registry', 'serve', config];
    const child = spawn(file, args, { stdio: ['ignore', log, log] });
    closeSync(log);
    let host = '';
    await eventually(
      () => {
        if (child.exitCode !== null) throw new Error(`docker-registry ended:\n${readFileSync(logFile, 'utf8')}`);
        host = /listening on [^ ]*?(127\.0\.0\.1:\d+)/.exec(readFileSync(logFile, 'utf8'))?.[1] ?? '';
        return host !== '';
      },
      { timeoutMs: START_TIMEOUT_MS, what: () => `docker-registry to listen:\n${readFileSync(logFile, 'utf8')}` },
    );
    return new BenchRegistry(host, child);
  }

  async stop(): Promise<void> {
    if (this.#child.exitCode !== null) return;
    const exited = once(this.#child, 'exit');
    this.#child.kill('SIGTERM');
    await exited;
  }
}

/** The archives, registries and counters of the image rows. Disposing removes them. */
export class ImageBench implements AsyncDisposable {
  #directory: string | undefined;
  readonly #registries = new Map<Engine, Promise<BenchRegistry>>();
  readonly #served = new Map<number, Promise<void>>();
  readonly #loaded = new Map<Engine, Set<number>>();

  get directory(): string {
    this.#directory ??= mkdtempSync(join(tmpdir(), 'gantry-bench-images-'));
    return this.#directory;
  }

  /** The archive of one round's image. */
  archive(seed: number): string {
    const file = join(this.directory, `${seed}.tar`);
    if (!existsSync(file)) writeBenchImage(file, this.name(seed), seed);
    return file;
  }

  name(seed: number): string {
    return `bench/image:${seed}`;
  }

  async load(engine: Engine, seed: number): Promise<void> {
    await docker(engine, 'load', '-q', '-i', this.archive(seed));
    this.#loadedOf(engine).add(seed);
  }

  async ensureLoaded(engine: Engine, seed: number): Promise<void> {
    if (!this.#loadedOf(engine).has(seed)) await this.load(engine, seed);
  }

  #loadedOf(engine: Engine): Set<number> {
    const known = this.#loaded.get(engine) ?? new Set();
    this.#loaded.set(engine, known);
    return known;
  }

  async registry(engine: Engine): Promise<string> {
    let started = this.#registries.get(engine);
    if (started === undefined) {
      mkdirSync(join(this.directory, 'registry'), { recursive: true });
      started = BenchRegistry.start(this.directory, engine.name, ['nsenter', ...engine.networkNamespace]);
      this.#registries.set(engine, started);
    }
    return (await started).host;
  }

  /** Puts an image into the registries' store with a third program; only once for all engines. */
  serve(engine: Engine, seed: number): Promise<void> {
    const known = this.#served.get(seed);
    if (known !== undefined) return known;
    const serving = (async () => {
      const target = `docker://${await this.registry(engine)}/bench/served:${seed}`;
      const source = `docker-archive:${this.archive(seed)}`;
      await ok('nsenter', [...engine.networkNamespace, 'skopeo', 'copy', '--dest-tls-verify=false', source, target]);
    })();
    this.#served.set(seed, serving);
    return serving;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    for (const registry of this.#registries.values()) await (await registry).stop();
    if (this.#directory !== undefined) rmSync(this.#directory, { recursive: true, force: true });
  }
}

/** What plain tools take for the same work, as text. */
export async function imageFloors(bench: ImageBench): Promise<string> {
  const archive = bench.archive(1);
  const at = (name: string): string => join(bench.directory, name);
  mkdirSync(at('floor'));
  await ok('sh', ['-c', `cd ${at('floor')} && tar -xf ${archive} && mkdir root`]);
  const unpack = await timed(() =>
    ok('sh', ['-c', `cd ${at('floor')} && for layer in layer*.tar; do tar -xf $layer -C root; done`]),
  );
  await ok('sh', ['-c', `gzip -1 -c ${archive} > ${at('floor.gz')}`]);
  const gunzip = await timed(() => ok('sh', ['-c', `gzip -dc ${at('floor.gz')} > /dev/null`]));
  const hash = await timed(() => ok('sha256sum', [archive]));
  rmSync(at('floor.gz'));
  return `floors of the image: tar -x ${Math.round(unpack)} ms, gzip -dc ${Math.round(gunzip)} ms, sha256sum ${Math.round(hash)} ms`;
}

interface ImageStep {
  readonly name: string;
  readonly limit: number;
  /** Images of this row: seeds from here on. */
  readonly seeds: number;
  prepare(engine: Engine, seed: number): Promise<unknown>;
  work(engine: Engine, seed: number): Promise<unknown>;
}

/** Highest resident memory of a process since the last call, in KiB. */
function resetPeak(pid: number): number {
  const peak = Number(/^VmHWM:\s+(\d+)/m.exec(readFileSync(`/proc/${pid}/status`, 'utf8'))?.[1] ?? 0);
  writeFileSync(`/proc/${pid}/clear_refs`, '5');
  return peak;
}

function imageRow(step: ImageStep): Row {
  const rounds = new Map<Engine, number>();
  let peakKiB = 0;
  return {
    name: step.name,
    limit: step.limit,
    unit: 'ms',
    rounds: ROUNDS,
    quickRounds: 1,
    peakMemory: { limitKiB: PEAK_LIMIT_KIB, kiB: () => peakKiB },
    measure: async (engine) => {
      const round = rounds.get(engine) ?? 0;
      rounds.set(engine, round + 1);
      const seed = step.seeds + round;
      await step.prepare(engine, seed);
      await ok('sync', []);
      const [pid = 0] = engine.daemonPids();
      resetPeak(pid);
      const taken = await timed(() => step.work(engine, seed));
      const peak = resetPeak(pid);
      if (engine.name === 'gantry') peakKiB = Math.max(peakKiB, peak);
      return taken;
    },
  };
}

/** The rows, in the order they must run. */
export function imageRows(bench: ImageBench): readonly Row[] {
  const pushed = async (engine: Engine, seed: number): Promise<string> =>
    `${await bench.registry(engine)}/bench/pushed-${engine.name}:${seed}`;
  return [
    {
      name: 'image-load',
      limit: 0.6,
      seeds: 1,
      prepare: async (_engine: Engine, seed: number) => bench.archive(seed),
      work: (engine: Engine, seed: number) => bench.load(engine, seed),
    },
    {
      name: 'image-save',
      limit: 0.4,
      seeds: 1,
      prepare: (engine: Engine, seed: number) => bench.ensureLoaded(engine, seed),
      work: (engine: Engine, seed: number) =>
        docker(engine, 'save', '-o', join(bench.directory, `${engine.name}.saved.tar`), bench.name(seed)),
    },
    {
      name: 'image-push',
      limit: 0.8,
      seeds: 1,
      prepare: async (engine: Engine, seed: number) => {
        await bench.ensureLoaded(engine, seed);
        await docker(engine, 'tag', bench.name(seed), await pushed(engine, seed));
      },
      work: async (engine: Engine, seed: number) => docker(engine, 'push', '-q', await pushed(engine, seed)),
    },
    {
      name: 'image-pull',
      limit: 0.6,
      // Others than were loaded: their layers are not here.
      seeds: 1 + ROUNDS,
      prepare: (engine: Engine, seed: number) => bench.serve(engine, seed),
      work: async (engine: Engine, seed: number) =>
        docker(engine, 'pull', '-q', `${await bench.registry(engine)}/bench/served:${seed}`),
    },
    {
      name: 'image-rmi',
      limit: 0.5,
      seeds: 1,
      prepare: (engine: Engine, seed: number) => bench.ensureLoaded(engine, seed),
      work: async (engine: Engine, seed: number) => {
        const id = await docker(engine, 'image', 'inspect', '-f', '{{.Id}}', bench.name(seed));
        await docker(engine, 'rmi', '-f', id);
      },
    },
  ].map(imageRow);
}
