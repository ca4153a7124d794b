import assert from 'node:assert/strict';
import { test } from 'node:test';
import type { ContainerRecord } from '#services/containers/container.ts';
import type { LiveContainer } from '#services/containers/live.ts';
import type { RestartPolicy } from '#wire/engine.ts';
import { decideRestart, startsWithDaemon } from './restart-policy.ts';

const SECOND_NS = 1_000_000_000n;
const open = { stopping: new AbortController().signal };

function container(policy: RestartPolicy): LiveContainer {
  const record = { hostConfig: { RestartPolicy: policy } };
  return { record, restarts: { count: 0, delayMs: 0 }, stopRequested: false } as unknown as LiveContainer;
}

/** Delays of exits in a row; undefined: no restart. */
function delays(
  one: LiveContainer,
  exits: readonly (readonly [code: number, seconds: bigint])[],
): (number | undefined)[] {
  return exits.map(([code, seconds]) => {
    const decision = decideRestart(open, one, code, seconds * SECOND_NS);
    return decision.restart ? decision.delayMs : undefined;
  });
}

test('the back-off doubles from 100 ms to a minute', () => {
  const exits = Array.from({ length: 12 }, () => [1, 0n] as const);
  assert.deepEqual(
    delays(container({ Name: 'always' }), exits),
    [100, 200, 400, 800, 1600, 3200, 6400, 12_800, 25_600, 51_200, 60_000, 60_000],
  );
});

test('a run of ten seconds starts the back-off anew', () => {
  assert.deepEqual(
    delays(container({ Name: 'always' }), [
      [1, 0n],
      [1, 9n],
      [1, 10n],
      [1, 0n],
    ]),
    [100, 200, 100, 200],
  );
});

test('on-failure ends with success or with its number of retries', () => {
  assert.deepEqual(
    delays(container({ Name: 'on-failure' }), [
      [1, 0n],
      [0, 0n],
    ]),
    [100, undefined],
  );
  const limited = container({ Name: 'on-failure', MaximumRetryCount: 2 });
  assert.deepEqual(
    delays(limited, [
      [1, 0n],
      [1, 0n],
      [1, 0n],
    ]),
    [100, 200, undefined],
  );
});

test('a wish to stop, a removal or no policy means no restart', () => {
  for (const change of [{ stopRequested: true }, { removalInProgress: true }]) {
    assert.deepEqual(delays(Object.assign(container({ Name: 'always' }), change), [[1, 0n]]), [undefined]);
  }
  assert.deepEqual(delays(container({ Name: 'no' }), [[1, 0n]]), [undefined]);
  assert.deepEqual(delays(container({ Name: 'unless-stopped' }), [[0, 0n]]), [100]);
});

const STARTS: readonly (readonly [string, string, object, boolean])[] = [
  ['always, after a manual stop', 'always', { hasBeenManuallyStopped: true }, true],
  ['always, never started', 'always', { hasBeenStartedBefore: false }, false],
  ['unless-stopped', 'unless-stopped', {}, true],
  ['unless-stopped, after a manual stop', 'unless-stopped', { hasBeenManuallyStopped: true }, false],
  ['on-failure, failed', 'on-failure', {}, true],
  ['on-failure, succeeded', 'on-failure', { state: { status: 'exited', exitCode: 0 } }, false],
  ['on-failure, retries used up', 'on-failure', { restartCount: 3 }, false],
  ['no policy', '', {}, false],
  ['one that runs already', 'always', { state: { status: 'running' } }, false],
  ['one marked for removal', 'always', { state: { status: 'dead', exitCode: 1 } }, false],
];
for (const [name, policy, change, expected] of STARTS) {
  test(`a starting daemon ${expected ? 'starts' : 'leaves'} ${name}`, () => {
    const record = {
      hostConfig: { RestartPolicy: { Name: policy, MaximumRetryCount: policy === 'on-failure' ? 3 : 0 } },
      state: { status: 'exited', exitCode: 1 },
      hasBeenStartedBefore: true,
      hasBeenManuallyStopped: false,
      restartCount: 0,
      ...change,
    } as unknown as ContainerRecord;
    assert.equal(startsWithDaemon(record), expected);
  });
}
