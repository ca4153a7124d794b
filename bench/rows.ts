/** What is compared: each row measures one thing on one engine and says how much of dockerd's is the limit. */

import { run } from '../test/harness/processes.ts';
import { type Engine, proportionalMemory } from './engines.ts';

const STEP_TIMEOUT_MS = 300_000;
const CONTAINERS = 30;
const AT_ONCE = 8;
const LOG_LINES = 1_000_000;
const STREAM_MEBIBYTES = 1024;
/** Containers whose memory is averaged. */
const MEMORY_CONTAINERS = 10;

export interface Row {
  readonly name: string;
  /** Highest ratio to dockerd that is good enough. */
  readonly limit: number;
  readonly unit: 'ms' | 'KiB';
  readonly rounds: number;
  readonly quickRounds: number;
  measure(engine: Engine): Promise<number>;
  /** Highest resident memory of our daemon in this row, where there is a limit for it. */
  readonly peakMemory?: { readonly limitKiB: number; kiB(): number };
}

/** Runs the docker CLI, requiring success. */
export async function docker(engine: Engine, ...args: string[]): Promise<string> {
  const result = await run('docker', args, { env: engine.environment, timeoutMs: STEP_TIMEOUT_MS });
  if (result.code !== 0) throw new Error(`${engine.name}: docker ${args.join(' ')}: ${result.stderr}`);
  return result.stdout.trim();
}

/** Milliseconds something takes. */
export async function timed(work: () => Promise<unknown>): Promise<number> {
  const begun = performance.now();
  await work();
  return performance.now() - begun;
}

function runRow(name: string, limit: number, flags: readonly string[]): Row {
  return {
    name,
    limit,
    unit: 'ms',
    rounds: 15,
    quickRounds: 5,
    measure: (engine) => timed(() => docker(engine, 'run', '--rm', ...flags, 'busybox', 'true')),
  };
}

async function startMany(engine: Engine): Promise<string[]> {
  const names = Array.from({ length: CONTAINERS }, (_, index) => `many-${index}`);
  const queue = [...names];
  const worker = async (): Promise<void> => {
    for (let name = queue.shift(); name !== undefined; name = queue.shift()) {
      await docker(engine, 'run', '-d', '--name', name, 'busybox', 'sleep', '1000');
    }
  };
  await Promise.all(Array.from({ length: AT_ONCE }, worker));
  return names;
}

/** Through a shell pipe into wc, as a user would: our own process must not be the slow reader. */
function drain(engine: Engine, command: string): Promise<unknown> {
  return run('sh', ['-c', `${command} | wc -c`], { env: engine.environment, timeoutMs: STEP_TIMEOUT_MS });
}

async function memoryOfContainers(engine: Engine): Promise<number> {
  const all = (): number => proportionalMemory([...engine.daemonPids(), ...engine.shimPids()]);
  const before = all();
  const names = Array.from({ length: MEMORY_CONTAINERS }, (_, index) => `memory-${index}`);
  for (const name of names) await docker(engine, 'run', '-d', '--name', name, 'busybox', 'sleep', '1000');
  const after = all();
  await docker(engine, 'rm', '-f', ...names);
  return Math.max(0, after - before) / MEMORY_CONTAINERS;
}

/** All rows, cheapest first; the idle memory comes before the daemons have worked. */
export const ROWS: readonly Row[] = [
  {
    name: 'idle-memory',
    limit: 0.7,
    unit: 'KiB',
    rounds: 1,
    quickRounds: 1,
    measure: async (engine) => proportionalMemory(engine.daemonPids()),
  },
  runRow('run-bridge', 0.4, []),
  runRow('run-none', 0.4, ['--net', 'none']),
  runRow('run-host', 0.65, ['--net', 'host']),
  {
    name: 'exec',
    limit: 1,
    unit: 'ms',
    rounds: 20,
    quickRounds: 6,
    measure: async (engine) => {
      const name = 'exec-target';
      await run('docker', ['run', '-d', '--name', name, '--net', 'none', 'busybox', 'sleep', '100000'], {
        env: engine.environment,
      });
      return timed(() => docker(engine, 'exec', name, 'true'));
    },
  },
  {
    name: 'start-30',
    limit: 0.4,
    unit: 'ms',
    rounds: 3,
    quickRounds: 1,
    measure: async (engine) => {
      let names: string[] = [];
      const taken = await timed(async () => {
        names = await startMany(engine);
      });
      await docker(engine, 'rm', '-f', ...names);
      return taken;
    },
  },
  {
    name: 'remove-30',
    limit: 0.4,
    unit: 'ms',
    rounds: 3,
    quickRounds: 1,
    measure: async (engine) => {
      const names = await startMany(engine);
      return timed(() => docker(engine, 'rm', '-f', ...names));
    },
  },
  { name: 'container-memory', limit: 1, unit: 'KiB', rounds: 1, quickRounds: 1, measure: memoryOfContainers },
  {
    name: 'stream-1GiB',
    limit: 1,
    unit: 'ms',
    rounds: 3,
    quickRounds: 1,
    measure: (engine) =>
      timed(() =>
        drain(
          engine,
          `docker run --rm --log-driver none --net none busybox dd if=/dev/zero bs=1M count=${STREAM_MEBIBYTES}`,
        ),
      ),
  },
  {
    name: 'log-1M-lines',
    limit: 1,
    unit: 'ms',
    rounds: 3,
    quickRounds: 1,
    measure: (engine) => timed(() => drain(engine, `docker run --rm --net none busybox seq 1 ${LOG_LINES}`)),
  },
];
