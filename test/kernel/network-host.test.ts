/** The networks service on the host's own network namespace, beside whatever else runs there. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import {
  joined,
  kernelState,
  openInstance,
  publish,
  serve,
  settled,
  talk,
  temporaryDirectory,
} from './network-fixture.ts';

test('a bridge on the host picks a subnet of its own, publishes a port and leaves nothing behind', async () => {
  using directory = temporaryDirectory();
  const name = `gbt${process.pid.toString(36)}`;
  const addresses = kernelState(/ \d+\.\d+\.\d+\.\d+$/);
  let veth = /^$/;
  {
    await using instance = await openInstance(directory.path, { name, ipForward: false });
    const { id, sandbox, endpoint } = await joined(instance.networks, { publish: [publish(80, 0)] });
    const port = endpoint.ports[0]?.hostPort ?? 0;
    assert.ok(!addresses.some((line) => line.endsWith(` ${endpoint.gateway}`)), 'the subnet was free');
    await using _running = await serve(sandbox, 80);
    for (const host of ['127.0.0.1', '::1', endpoint.gateway])
      assert.match(await talk(undefined, host, port), /^hello/);
    assert.equal(
      kernelState().filter((line) => line.includes(name) || line.endsWith(`gantry-test${name.slice(-6)}`)).length,
      3,
    );
    const record = instance.database.get('SELECT record FROM network_endpoints');
    veth = new RegExp(`^${(JSON.parse(String(record?.['record'])) as { hostInterface: string }).hostInterface}$`);
    assert.equal(kernelState(veth).length, 1);
    await instance.networks.removeSandbox(id);
  }
  assert.deepEqual(await settled([], veth), []);
  assert.deepEqual(
    kernelState().filter((line) => line.includes(name)),
    [],
  );
});
