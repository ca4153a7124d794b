/**
 * Runs the rows on both engines in turn (A, B, A, B …), so that a slow moment of the machine hits both, and prints
 * medians, the ratio, and the floors: what the docker CLI and a bare runc take by themselves.
 */
import { execFileSync } from 'node:child_process';
import { mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { busyboxTar } from '../test/harness/busybox.ts';
import { run } from '../test/harness/processes.ts';
import { type Engine, startDockerd, startGantry } from './engines.ts';
import { ImageBench, imageFloors, imageRows } from './image-rows.ts';
import { makeRelease } from './release.ts';
import { ROWS, type Row, timed } from './rows.ts';

const FLOOR_ROUNDS = 9;
const CLI_ROUNDS = 25;
/** Our CLI may take this much of an empty Node program's start. */
const CLI_LIMIT = 1.5;

export interface BenchOptions {
  readonly quick: boolean;
  readonly only: readonly string[];
}

function median(values: readonly number[]): number {
  const sorted = values.toSorted((left, right) => left - right);
  return sorted[Math.floor(sorted.length / 2)] ?? Number.NaN;
}

async function medianTime(file: string, args: readonly string[], env: Record<string, string> = {}): Promise<number> {
  const times: number[] = [];
  for (let round = 0; round < FLOOR_ROUNDS; round += 1) times.push(await timed(() => run(file, args, { env })));
  return median(times);
}

/** A bare `runc run` of busybox with runc's own default bundle. */
async function runcFloor(): Promise<number> {
  const bundle = mkdtempSync(join(tmpdir(), 'gantry-floor-'));
  try {
    mkdirSync(join(bundle, 'rootfs'));
    execFileSync('tar', ['-C', join(bundle, 'rootfs'), '-xf', await busyboxTar()]);
    execFileSync('runc', ['spec'], { cwd: bundle });
    const file = join(bundle, 'config.json');
    const spec = JSON.parse(readFileSync(file, 'utf8'));
    spec.process.terminal = false;
    spec.process.args = ['true'];
    delete spec.process.rlimits;
    writeFileSync(file, JSON.stringify(spec));
    const times: number[] = [];
    for (let round = 0; round < FLOOR_ROUNDS; round += 1) {
      const args = ['--root', join(bundle, 'state'), 'run', '-b', bundle, `floor-${process.pid}-${round}`];
      times.push(
        await timed(async () => {
          const done = await run('runc', args);
          if (done.code !== 0) throw new Error(`runc run: ${done.stderr}`);
        }),
      );
    }
    return median(times);
  } finally {
    rmSync(bundle, { recursive: true, force: true });
  }
}

const show = (value: number, unit: string): string => `${value < 100 ? value.toFixed(1) : Math.round(value)} ${unit}`;

async function compare(row: Row, engines: readonly Engine[], rounds: number): Promise<boolean> {
  const values = engines.map((): number[] => []);
  for (let round = 0; round < rounds; round += 1) {
    for (const [index, engine] of engines.entries()) values[index]?.push(await row.measure(engine));
  }
  const [ours = Number.NaN, theirs = Number.NaN] = values.map(median);
  const ratio = ours / theirs;
  const spread =
    (values[0] ?? []).length < 2
      ? ''
      : `  (${values.map((all) => `${Math.min(...all).toFixed(0)}–${Math.max(...all).toFixed(0)}`).join(', ')})`;
  const peak = row.peakMemory;
  const fits = peak === undefined || peak.kiB() <= peak.limitKiB;
  const good = (Number.isNaN(ratio) || ratio <= row.limit) && fits;
  const columns = [row.name.padEnd(18), show(ours, row.unit).padStart(12)];
  if (!Number.isNaN(theirs)) {
    columns.push(
      show(theirs, row.unit).padStart(12),
      ratio.toFixed(2).padStart(7),
      `≤ ${row.limit.toFixed(2)}`.padStart(8),
    );
    columns.push(good ? '  ok' : '  MISSED');
  }
  if (peak !== undefined) columns.push(` peak ${Math.round(peak.kiB() / 1024)} MiB${fits ? '' : ' TOO MUCH'}`);
  process.stdout.write(`${columns.join(' ')}${spread}\n`);
  return good;
}

async function printFloors(): Promise<void> {
  const cli = await medianTime('docker', ['--version']);
  process.stdout.write(`floor: docker --version ${show(cli, 'ms')}, runc run ${show(await runcFloor(), 'ms')}\n\n`);
}

/** Our own CLI asking the daemon, in turn with an empty Node program. */
async function compareCli(release: string, gantry: Engine): Promise<boolean> {
  const own: number[] = [];
  const bare: number[] = [];
  const cache = join(release, 'compile-cache');
  const env = { ...gantry.environment, NODE_OPTIONS: '', NODE_COMPILE_CACHE: cache };
  // One more round than counted: the first fills the compile cache.
  for (let round = 0; round <= CLI_ROUNDS; round += 1) {
    const times = [
      await timed(() => run(join(release, 'bin/gantry'), ['version'], { env })),
      await timed(() => run(process.execPath, ['-e', '0'], { env: { NODE_OPTIONS: '' } })),
    ] as const;
    if (round === 0) continue;
    own.push(times[0]);
    bare.push(times[1]);
  }
  const ratio = median(own) / median(bare);
  const good = ratio <= CLI_LIMIT;
  process.stdout.write(
    `gantry version ${show(median(own), 'ms')} (least ${show(Math.min(...own), 'ms')}), empty Node ${show(median(bare), 'ms')} (least ${show(Math.min(...bare), 'ms')}): ${ratio.toFixed(2)} (≤ ${CLI_LIMIT.toFixed(2)}) ${good ? 'ok' : 'MISSED'}\n`,
  );
  return good;
}

/** Returns the exit code: 1 when a limit was missed. */
export async function runBench(options: BenchOptions): Promise<number> {
  await using images = new ImageBench();
  const all = [...ROWS, ...imageRows(images)];
  const rows = all.filter((row) => options.only.length === 0 || options.only.some((word) => row.name.includes(word)));
  if (rows.length === 0) {
    process.stderr.write(`no such row; there are: ${all.map((row) => row.name).join(', ')}\n`);
    return 2;
  }
  await printFloors();
  if (rows.some(({ name }) => name.startsWith('image-'))) process.stdout.write(`${await imageFloors(images)}\n\n`);
  using release = await makeRelease();
  await using gantry = await startGantry(release.directory);
  const dockerd = await startDockerd();
  await using stack = new AsyncDisposableStack();
  if (dockerd === undefined)
    process.stdout.write('dockerd is not installed (apt-get install docker.io): no comparison\n');
  else stack.use(dockerd);
  const engines = dockerd === undefined ? [gantry] : [gantry, dockerd];
  let missed = 0;
  if (options.only.length === 0 && !(await compareCli(release.directory, gantry))) missed += 1;
  process.stdout.write(
    `${'row'.padEnd(18)} ${'gantry'.padStart(12)} ${'dockerd'.padStart(12)} ${'ratio'.padStart(7)}    limit\n`,
  );
  for (const row of rows) {
    if (!(await compare(row, engines, options.quick ? row.quickRounds : row.rounds))) missed += 1;
  }
  return missed === 0 ? 0 : 1;
}
