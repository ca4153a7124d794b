/**
 * Finds and runs the test files: unit tests beside the source and everything under test/.
 * Arguments are filters: parts of a path. The last line of output and the exit code tell the result.
 */
import { spawn } from 'node:child_process';
import { globSync } from 'node:fs';
import { availableParallelism } from 'node:os';

/** Two at a time: the machine also runs the daemons and containers under test. */
const MAX_CONCURRENCY = 2;
/** A single test that takes longer is stuck. */
const TEST_TIMEOUT_MS = 180_000;

const filters = process.argv.slice(2).filter((argument) => !argument.startsWith('--'));
const flags = process.argv.slice(2).filter((argument) => argument.startsWith('--'));
const files = globSync(['src/**/*.test.ts', 'test/**/*.test.ts', 'dev-tools/**/*.test.ts'])
  .filter((file) => filters.length === 0 || filters.some((filter) => file.includes(filter.replace(/^\.\//, ''))))
  .toSorted();

if (files.length === 0) {
  process.stdout.write(`no test file matches ${filters.join(' ')}\n0 passed, 0 failed, 0 skipped\n`);
  process.exit(1);
}

const child = spawn(
  process.execPath,
  [
    '--test',
    `--test-concurrency=${Math.min(MAX_CONCURRENCY, availableParallelism())}`,
    `--test-timeout=${TEST_TIMEOUT_MS}`,
    '--test-reporter=./dev-tools/reporter.ts',
    '--test-reporter-destination=stdout',
    ...flags,
    ...files,
  ],
  { stdio: ['ignore', 'inherit', 'inherit'] },
);
for (const signal of ['SIGINT', 'SIGTERM'] as const) process.on(signal, () => child.kill(signal));
child.on('exit', (code, signal) => process.exit(signal === null ? (code ?? 1) : 1));
