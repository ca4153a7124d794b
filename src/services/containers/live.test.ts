/** When a live container's record is written. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { type ContainerRecord, NEVER_STARTED } from './container.ts';
import { LiveContainer } from './live.ts';

test('an update that changes nothing is not written', () => {
  const saved: ContainerRecord[] = [];
  const record = { restartCount: 0, hasBeenManuallyStopped: false, state: NEVER_STARTED } as ContainerRecord;
  const container = new LiveContainer(record, (next) => saved.push(next));
  container.update({ restartCount: 0, hasBeenManuallyStopped: false });
  assert.deepEqual(saved, []);
  container.update({ restartCount: 0, hasBeenManuallyStopped: true });
  assert.deepEqual(saved, [{ ...record, hasBeenManuallyStopped: true }]);
  assert.equal(container.record.hasBeenManuallyStopped, true);
});
