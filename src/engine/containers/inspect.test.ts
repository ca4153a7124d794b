/** What inspect and the list show of stored records, where docker shows something other than what was asked. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import type { Services } from '../services.ts';
import { type FakeServices, fakeServices } from './fake-services.ts';
import { inspectContainer } from './inspect.ts';
import { listContainers } from './list.ts';

const EVERYTHING = { all: true, limit: 0, size: true, since: '', before: '', filters: new Map() };

/** The fakes with what only inspect and the list ask for. */
function readable(fake: FakeServices): Services {
  const { services } = fake;
  Object.assign(services.snapshots, {
    driver: 'overlay2',
    graphDriverData: () => ({}),
    usage: async () => ({ sizeBytes: 0 }),
  });
  Object.assign(services, {
    images: { get: () => ({ sizeBytes: 7 }), resolve: () => ({ id: '' }) },
    logs: { path: () => '/log' },
  });
  return services;
}

test('links show as paths below the container, and the linked one has that name too', async () => {
  await using fake = fakeServices();
  const services = readable(fake);
  const child = fake.add({ name: 'child' });
  const parent = fake.add({ name: 'parent', hostConfig: { Links: ['child:db'] } });
  const shown = await inspectContainer(services, parent.id, { size: false });
  assert.deepEqual(shown.HostConfig?.Links, ['/child:/parent/db']);
  const row = (await listContainers(services, EVERYTHING)).find(({ Id }) => Id === child.id);
  assert.deepEqual(row?.Names, ['/parent/db', '/child']);
});

test('a container never started has no log path', async () => {
  await using fake = fakeServices();
  const services = readable(fake);
  const fresh = fake.add({ hasBeenStartedBefore: false });
  assert.equal((await inspectContainer(services, fresh.id, { size: false })).LogPath, '');
  const used = fake.add({ name: 'used', hasBeenStartedBefore: true });
  assert.equal((await inspectContainer(services, used.id, { size: false })).LogPath, '/log');
});

test('the MAC address asked for shows in Config and, on the bridge, in NetworkSettings before the start', async () => {
  await using fake = fakeServices();
  const services = readable(fake);
  const MacAddress = '02:42:ac:11:00:99';
  const container = fake.add({ hostConfig: { NetworkMode: 'bridge' }, networks: { bridge: { MacAddress } } });
  const shown = await inspectContainer(services, container.id, { size: false });
  assert.equal((shown.Config as { MacAddress?: string }).MacAddress, MacAddress);
  assert.equal((shown.NetworkSettings as { MacAddress?: string }).MacAddress, MacAddress);
});

test('a list leaves out the size of a container that wrote nothing', async () => {
  await using fake = fakeServices();
  fake.add();
  const [row] = await listContainers(readable(fake), EVERYTHING);
  assert.deepEqual([row !== undefined && 'SizeRw' in row, row?.SizeRootFs], [false, 7]);
});
