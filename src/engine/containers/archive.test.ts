import assert from 'node:assert/strict';
import { test } from 'node:test';
import type { Services } from '../services.ts';
import { archiveStat } from './archive.ts';

test('the root of a process that is no longer the container is closed unread', async () => {
  let closed = 0;
  let read = 0;
  let now = { status: 'running', pid: 12 };
  const container = {
    id: 'c',
    record: {},
    state: { status: 'running', pid: 12 },
    task: { shim: { state: async () => now } },
  };
  const view = {
    [Symbol.dispose]: () => {
      closed += 1;
    },
  };
  const services = {
    containers: { find: () => container },
    archives: {
      openRunning: () => view,
      stat: () => {
        read += 1;
      },
    },
  } as unknown as Services;
  await archiveStat(services, 'c', '/');
  assert.deepEqual([read, closed], [1, 1]);
  for (const other of [
    { status: 'stopped', pid: 12 },
    { status: 'running', pid: 13 },
  ]) {
    now = other;
    await assert.rejects(archiveStat(services, 'c', '/'), { kind: 'conflict' });
  }
  assert.deepEqual([read, closed], [1, 3]);
});
