/**
 * `./dev soak [minutes]`: starts, uses and removes containers over and over, and fails when the daemon's memory or
 * descriptors keep growing or anything is left on the host.
 */
import { readdirSync } from 'node:fs';
import { proportionalMemory } from '../bench/engines.ts';
import { startDaemon } from '../test/harness/daemon.ts';
import { leftovers, readHostState } from '../test/harness/leaks.ts';

const DEFAULT_MINUTES = 10;
/** The first part only warms caches up. */
const WARM_UP_ROUNDS = 20;
const MAX_GROWTH_KIB = 40_000;
const REPORT_EVERY_ROUNDS = 20;

const minutes = Number(process.argv[2] ?? DEFAULT_MINUTES);
const end = performance.now() + minutes * 60_000;
await using daemon = await startDaemon();

async function round(): Promise<void> {
  await daemon.ok(
    'run',
    '-d',
    '--name',
    'soak',
    '-p',
    '127.0.0.1::80',
    '-v',
    '/v',
    'busybox',
    'sh',
    '-c',
    'seq 1 1000; sleep 1000',
  );
  await daemon.ok('exec', 'soak', 'true');
  await daemon.ok('logs', 'soak');
  await daemon.ok('restart', '-t', '0', 'soak');
  await daemon.ok('rm', '-fv', 'soak');
  await daemon.docker(['run', '--rm', 'busybox', 'no-such-command']);
}

for (let index = 0; index < WARM_UP_ROUNDS; index += 1) await round();
const before = await readHostState(daemon);
const memoryBefore = proportionalMemory([daemon.pid]);
for (let rounds = 1; performance.now() < end; rounds += 1) {
  await round();
  if (rounds % REPORT_EVERY_ROUNDS !== 0) continue;
  const descriptors = readdirSync(`/proc/${daemon.pid}/fd`).length;
  process.stdout.write(`${rounds} rounds, ${proportionalMemory([daemon.pid])} KiB, ${descriptors} descriptors\n`);
}
const growth = proportionalMemory([daemon.pid]) - memoryBefore;
const left = leftovers(before, await readHostState(daemon));
process.stdout.write(
  `memory grew by ${growth} KiB; left behind: ${left.length === 0 ? 'nothing' : `\n${left.join('\n')}`}\n`,
);
process.exitCode = growth > MAX_GROWTH_KIB || left.length > 0 ? 1 : 0;
