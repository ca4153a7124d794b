/**
 * The node:test reporter of `./dev test`: one line a file, failures and skip reasons in full, and as the very last
 * line `N passed, N failed, N skipped`. A test counts once; suites count only when they fail on their own.
 */
import { relative } from 'node:path';
import type { TestEvent } from 'node:test/reporters';
import { inspect } from 'node:util';

interface FileTally {
  passed: number;
  failed: number;
  skipped: number;
  milliseconds: number;
}

interface Outcome {
  readonly name: string;
  readonly file: string;
  readonly failed: boolean;
  readonly skip: string | undefined;
  readonly milliseconds: number;
  readonly error: unknown;
  readonly suite: boolean;
}

function readOutcome(event: TestEvent): Outcome | undefined {
  if (event.type !== 'test:pass' && event.type !== 'test:fail') return undefined;
  const data = event.data;
  const details = data.details as { duration_ms: number; type?: string; error?: unknown };
  const skip = data.skip ?? data.todo;
  return {
    name: data.name,
    file: data.file ?? '',
    failed: event.type === 'test:fail',
    skip: skip === undefined || skip === false ? undefined : skip === true ? '' : String(skip),
    milliseconds: details.duration_ms,
    error: details.error,
    suite: details.type === 'suite',
  };
}

/** A parent that fails only because a test inside it failed. */
function failedThroughChildren(error: unknown): boolean {
  return (error as { failureType?: string } | undefined)?.failureType === 'subtestsFailed';
}

function cancelled(error: unknown): boolean {
  return (error as { failureType?: string } | undefined)?.failureType === 'cancelledByParent';
}

/** An error of `await using` names neither the disposal's error nor the one that came first: both, last one first. */
function unfold(error: unknown): unknown[] {
  if (!(error instanceof Error) || error.name !== 'SuppressedError') return [error];
  const { error: last, suppressed } = error as SuppressedError;
  return [...unfold(last), ...unfold(suppressed)];
}

function describeFailure(outcome: Outcome): string {
  const cause = (outcome.error as { cause?: unknown } | undefined)?.cause ?? outcome.error;
  const text = unfold(cause)
    .map((error) => inspect(error, { depth: 4, breakLength: 120, maxStringLength: 8_000 }))
    .join('\nand before it:\n')
    .replaceAll('\n', '\n    ');
  return `  FAIL ${outcome.name}\n    ${text}\n`;
}

/** The reporter: events in, text out. */
export default async function* report(events: AsyncIterable<TestEvent>): AsyncGenerator<string> {
  const files = new Map<string, FileTally>();
  const skips: string[] = [];
  const total: FileTally = { passed: 0, failed: 0, skipped: 0, milliseconds: 0 };
  for await (const event of events) {
    if (event.type === 'test:summary' && event.data.file !== undefined) {
      const path = relative(process.cwd(), event.data.file);
      const tally = files.get(event.data.file);
      yield `${fileLine(path, tally, event.data.duration_ms)}\n`;
      continue;
    }
    const outcome = readOutcome(event);
    if (outcome === undefined) continue;
    if (failedThroughChildren(outcome.error) || (outcome.suite && !outcome.failed)) continue;
    // A file that passed as a whole is not a test of its own.
    if (!outcome.failed && outcome.name.endsWith('.test.ts')) continue;
    const tally = files.get(outcome.file) ?? { passed: 0, failed: 0, skipped: 0, milliseconds: 0 };
    files.set(outcome.file, tally);
    for (const counts of [tally, total]) {
      if (outcome.failed) counts.failed += 1;
      else if (outcome.skip !== undefined) counts.skipped += 1;
      else counts.passed += 1;
    }
    // A suite whose set-up failed says so once; its cancelled tests count but need no text.
    if (outcome.failed && cancelled(outcome.error)) continue;
    if (outcome.failed) yield `${relative(process.cwd(), outcome.file)}\n${describeFailure(outcome)}`;
    else if (outcome.skip !== undefined) skips.push(`${outcome.name}: ${outcome.skip || 'NO REASON GIVEN'}`);
  }
  if (skips.length > 0) yield `\nskipped:\n${skips.map((line) => `  ${line}\n`).join('')}`;
  yield `\n${total.passed} passed, ${total.failed} failed, ${total.skipped} skipped\n`;
}

function fileLine(path: string, tally: FileTally | undefined, milliseconds: number): string {
  const seconds = (milliseconds / 1000).toFixed(1).padStart(6);
  if (tally === undefined) return `${seconds} s  ${path}  (no tests)`;
  const parts = [`${tally.passed} passed`];
  if (tally.failed > 0) parts.push(`${tally.failed} FAILED`);
  if (tally.skipped > 0) parts.push(`${tally.skipped} skipped`);
  return `${seconds} s  ${path}  ${parts.join(', ')}`;
}
