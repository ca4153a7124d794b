import assert from 'node:assert/strict';
import { test } from 'node:test';
import type { LiveContainer } from '#services/containers/live.ts';
import type { Id } from '#types/ids.ts';
import { collectEnded, EXECS_PER_CONTAINER_LIMIT } from '../exec/exec.ts';
import { portTest } from './list.ts';

test('port filters compare ranges and do not count them out', () => {
  const select = portTest<string[]>('publish', ['80', '8000-8010/udp'], (ports) => ports);
  assert.ok(select(['80/tcp']));
  assert.ok(select(['1/tcp', '8010/udp']));
  assert.ok(!select(['80/udp', '8011/udp', '8000/tcp']));
  const started = performance.now();
  const all = portTest<string[]>('expose', Array<string>(1000).fill('0-65535/sctp'), (ports) => ports);
  assert.ok(!all(['80/tcp']));
  assert.ok(performance.now() - started < 2000);
  assert.throws(() => portTest('publish', ['1-x'], () => []), {
    kind: 'system',
    message: 'error while looking up for publish 1-x: strconv.ParseUint: parsing "x": invalid syntax',
  });
});

test('execs that never started are limited, ended ones make room', () => {
  const execs = new Map<string, { endedAtMs: number | undefined }>();
  const container = { id: 'c', execs } as unknown as LiveContainer;
  const services = {
    containers: { removeExec: (_: LiveContainer, id: Id) => execs.delete(id) },
  } as unknown as Parameters<typeof collectEnded>[0];
  for (let index = 0; index < EXECS_PER_CONTAINER_LIMIT; index += 1) execs.set(`${index}`, { endedAtMs: undefined });
  assert.throws(() => collectEnded(services, container), { kind: 'conflict', message: /have not ended/ });
  execs.set('7', { endedAtMs: Date.now() });
  collectEnded(services, container);
  assert.equal(execs.size, EXECS_PER_CONTAINER_LIMIT - 1);
});
