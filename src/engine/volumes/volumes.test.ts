/** Volume use-cases on a real database and a directory of their own. */
import assert from 'node:assert/strict';
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { type TestContext, test } from 'node:test';
import { Events } from '#services/events/events.ts';
import { StoredVolumes } from '#services/volumes/volumes.ts';
import { Database } from '#system/database/database.ts';
import { newId } from '#types/ids.ts';
import type { Services } from '../services.ts';
import { createVolume, listVolumes, pruneVolumes, removeVolume } from './volumes.ts';

type Fixture = Pick<Services, 'events' | 'logger' | 'volumes'>;

function fixture(context: TestContext): Fixture {
  const root = mkdtempSync(join(tmpdir(), 'gantry-volumes-'));
  const database = new Database(join(root, 'db'));
  context.after(() => {
    database[Symbol.dispose]();
    rmSync(root, { recursive: true });
  });
  const silent = (): void => {};
  return {
    events: new Events(() => BigInt(Date.now()) * 1_000_000n),
    logger: { debug: silent, info: silent, warn: silent, error: silent },
    volumes: new StoredVolumes(database, join(root, 'volumes')),
  };
}

const filters = (pairs: Record<string, string[]>): ReadonlyMap<string, readonly string[]> =>
  new Map(Object.entries(pairs));

test('filters select volumes by part of the name, labels and use', async (context) => {
  const services = fixture(context);
  await createVolume(services, { Name: 'first', Labels: { kind: 'a' } });
  await createVolume(services, { Name: 'second' });
  services.volumes.addReference('second', newId());
  const names = (wanted: Record<string, string[]>): string[] =>
    listVolumes(services, filters(wanted)).map(({ Name }) => Name);
  assert.deepEqual(names({}), ['first', 'second']);
  assert.deepEqual(names({ name: ['irs'] }), ['first']);
  assert.deepEqual(names({ label: ['kind=a'] }), ['first']);
  assert.deepEqual(names({ dangling: ['true'] }), ['first']);
  assert.deepEqual(names({ dangling: ['0'] }), ['second']);
  assert.deepEqual(names({ driver: ['other'] }), []);
  assert.throws(() => names({ dangling: ['x'] }), { message: "invalid filter 'dangling=[x]'" });
});

test('prune removes unused anonymous volumes, named ones only when asked for all', async (context) => {
  const services = fixture(context);
  const { Name: anonymous } = await createVolume(services, {});
  await createVolume(services, { Name: 'named' });
  await createVolume(services, { Name: 'used' });
  services.volumes.addReference('used', newId());
  assert.deepEqual((await pruneVolumes(services, filters({}), false)).VolumesDeleted, [anonymous]);
  assert.deepEqual((await pruneVolumes(services, filters({ all: ['1'] }), false)).VolumesDeleted, ['named']);
  assert.deepEqual((await pruneVolumes(services, filters({}), true)).VolumesDeleted, []);
});

test('removing a missing volume fails unless forced', async (context) => {
  const services = fixture(context);
  await assert.rejects(removeVolume(services, 'gone', false), { message: 'get gone: no such volume' });
  await removeVolume(services, 'gone', true);
});
