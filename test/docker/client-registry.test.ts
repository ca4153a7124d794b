/** The typed client's operations on images in registries, on volumes and on networks, with a real daemon. */
import assert from 'node:assert/strict';
import { after, before, describe, test } from 'node:test';
import { Client } from '#client/client.ts';
import { completed } from '#client/images.ts';
import { errorKind } from '#types/errors.ts';
import { startDaemon, type TestDaemon } from '../harness/daemon.ts';
import { startRegistry, type TestRegistry } from '../harness/registry.ts';

const USER = { username: 'bob', password: 'secret' };

describe('the client', () => {
  let daemon: TestDaemon;
  let registry: TestRegistry;
  let client: Client;
  before(async () => {
    registry = await startRegistry({ htpasswd: USER });
    daemon = await startDaemon({ bridge: false });
    client = new Client({ host: daemon.host });
  });
  after(async () => {
    client?.[Symbol.dispose]();
    await daemon?.[Symbol.asyncDispose]();
    await registry?.[Symbol.asyncDispose]();
  });
  const failure = (promise: Promise<unknown>): Promise<Error> =>
    promise.then(
      () => assert.fail('nothing was thrown'),
      (error: Error) => error,
    );

  test('logs in, pushes, asks about, pulls and removes an image', async () => {
    const auth = { ...USER, serveraddress: registry.host };
    assert.equal((await client.system.authenticate(auth)).Status, 'Login Succeeded');
    const refused = await failure(client.system.authenticate({ ...auth, password: 'wrong' }));
    assert.match(refused.message, /401 Unauthorized/);

    const name = `${registry.host}/made`;
    await client.images.tag('busybox', { repo: name, tag: 'one' });
    await client.images.tag('busybox', { repo: name, tag: 'two' });
    const denied = await failure(completed(client.images.push(name, { tag: 'one' })));
    assert.match(denied.message, /no basic auth credentials/);
    const [pushed] = (await completed(client.images.push(name, { tag: 'one', auth }))) as {
      Tag: string;
      Digest: string;
    }[];
    assert.equal(pushed?.Tag, 'one');
    await completed(client.images.push(name, { auth }));

    const told = await client.images.distribution(`${name}:one`, { auth });
    assert.equal(told.Descriptor?.digest, pushed?.Digest);
    assert.equal(told.Platforms?.[0]?.os, 'linux');
    const found = await client.images.search(`${registry.host}/ma`, { auth });
    assert.deepEqual(
      found.map((result) => result.name),
      [name],
    );

    for (const tag of ['one', 'two']) await client.images.remove(`${name}:${tag}`);
    await completed(client.images.pull({ name }, { auth }));
    const { RepoTags = [] } = await client.images.inspect(`${name}:two`);
    assert.ok(RepoTags.includes(`${name}:one`) && RepoTags.includes(`${name}:two`), String(RepoTags));
    assert.equal((await client.images.history(`${name}:one`)).length > 0, true);
    await client.images.remove(`${name}:one`, { noPrune: true });
    await client.images.remove(`${name}:two`);
    const absent = await failure(completed(client.images.pull({ name, tag: 'absent' }, { auth })));
    assert.match(absent.message, /manifest unknown|not found/);
  });

  test('makes, lists, inspects and removes volumes', async () => {
    const name = daemon.name('volume');
    const made = await client.volumes.create({ Name: name, Labels: { purpose: name } });
    assert.equal(made.Driver, 'local');
    const { Volumes } = await client.volumes.list({ filters: { label: [`purpose=${name}`] } });
    assert.deepEqual(
      Volumes?.map((volume) => volume.Name),
      [name],
    );
    assert.equal((await client.volumes.inspect(name)).Labels?.['purpose'], name);
    const pruned = await client.volumes.prune({ all: ['1'], label: [`purpose=${name}`] });
    assert.deepEqual(pruned.VolumesDeleted, [name]);
    assert.equal(errorKind(await failure(client.volumes.remove(name))), 'notFound');
    await client.volumes.remove(name, { force: true });
  });

  test('lists and inspects networks', async () => {
    const [host] = await client.networks.list({ filters: { driver: ['host'] } });
    assert.equal(host?.Name, 'host');
    assert.equal((await client.networks.inspect('none')).Driver, 'null');
    assert.equal(errorKind(await failure(client.networks.inspect('absent'))), 'notFound');
  });

  test('checks the store', async (context) => {
    if (daemon.foreign) return context.skip('needs our own daemon');
    const messages = [];
    for await (const message of client.system.checkStore()) messages.push(message);
    assert.ok(messages.at(-1)?.summary !== undefined, JSON.stringify(messages));
    assert.deepEqual(messages.slice(0, -1), []);
  });
});
