/** A network driver in another process: the plugin protocol against a plugin that plugs containers into a bridge. */
import assert from 'node:assert/strict';
import { closeSync, openSync } from 'node:fs';
import { createServer, type Server } from 'node:http';
import { join } from 'node:path';
import { after, test } from 'node:test';
import { CLONE_NEWNET, unshare } from '#system/kernel/namespaces.ts';
import { addAddress, addBridge, addVeth, deleteLink, setLink } from '#system/netlink/route.ts';
import { NetlinkSocket } from '#system/netlink/socket.ts';
import { joined, networkSpec, openInstance, publish, serve, talk, temporaryDirectory } from './network-fixture.ts';

unshare(CLONE_NEWNET);
const host = NetlinkSocket.open();
host.request(setLink(1, { up: true }));
after(() => host[Symbol.dispose]());

type Body = Record<string, unknown> & { Interface?: { MacAddress?: string }; EndpointID?: string };

/** The plugin: a veth a container, on a bridge of its own. Records the calls. */
function startPlugin(socketPath: string, calls: string[], fails: () => string): Promise<Server> {
  host.request(addBridge('plug0'));
  const bridge = host.link('plug0')?.index ?? 0;
  const answers: Record<string, (body: Body) => object> = {
    'Plugin.Activate': () => ({ Implements: ['NetworkDriver'] }),
    'NetworkDriver.GetCapabilities': () => ({ Scope: 'local' }),
    'NetworkDriver.CreateNetwork': (body) => {
      const [{ Gateway = '' } = {}] = body['IPv4Data'] as { Gateway?: string }[];
      const [address = '', length = ''] = Gateway.split('/');
      host.request(addAddress(bridge, address, Number(length)));
      return {};
    },
    'NetworkDriver.CreateEndpoint': () => ({ Interface: { MacAddress: '02:00:00:00:00:42' } }),
    'NetworkDriver.Join': (body) => {
      const end = String(body.EndpointID).slice(0, 6);
      const namespaceFd = openSync('/proc/thread-self/ns/net', 'r');
      const peer = { name: `in${end}`, address: '02:00:00:00:00:01', namespaceFd };
      host.request(addVeth({ name: `out${end}`, master: bridge, mtu: 1500, peer }));
      closeSync(namespaceFd);
      return {
        InterfaceName: { SrcName: peer.name, DstPrefix: 'eth' },
        Gateway: '10.90.0.1',
        StaticRoutes: [{ Destination: '10.91.0.0/24', RouteType: 1 }],
      };
    },
  };
  const server = createServer((request, response) => {
    let text = '';
    request.on('data', (chunk) => {
      text += chunk;
    });
    request.on('end', () => {
      const method = (request.url ?? '').slice(1);
      calls.push(method.replace('NetworkDriver.', ''));
      const problem = fails();
      const answer =
        method.endsWith(problem) && problem !== '' ? { Err: 'no more' } : answers[method]?.(JSON.parse(text));
      response.end(JSON.stringify(answer ?? {}));
    });
  });
  return new Promise((resolve) => server.listen(socketPath, () => resolve(server)));
}

test('containers join, talk over and leave a network of a plugin', async () => {
  using directory = temporaryDirectory();
  const calls: string[] = [];
  let failing = '';
  const server = await startPlugin(join(directory.path, 'weave.sock'), calls, () => failing);
  after(() => server.close());
  const plugins = { sockets: [directory.path], specs: [] };
  {
    await using instance = await openInstance(directory.path, { name: 'gpl-br' }, new Set(), plugins);
    const { networks } = instance;
    await assert.rejects(networks.create(networkSpec('x', { driver: 'nosuch' })), {
      kind: 'notFound',
      message: 'plugin "nosuch" not found',
    });
    const pools = [{ subnet: '10.90.0.0/24' }];
    const spec = networkSpec('plugged', { driver: 'weave', ipam: { driver: 'default', options: null, pools } });
    await networks.create(spec);
    const served = await joined(networks, { network: 'plugged', publish: [publish(80, 18900)] });
    assert.deepEqual(
      [served.endpoint.ipAddress, served.endpoint.gateway, served.endpoint.macAddress],
      ['10.90.0.2', '10.90.0.1', '02:00:00:00:00:42'],
    );
    await using _running = await serve(served.sandbox, 80);
    assert.match(await talk(undefined, '10.90.0.2', 80), /^hello 10\.90\.0\.1 /);
    failing = 'Join';
    await assert.rejects(joined(networks, { network: 'plugged' }), { message: 'remote: no more' });
    failing = '';
    const again = await joined(networks, { network: 'plugged' });
    assert.equal(again.endpoint.ipAddress, '10.90.0.3', 'the address of the failed one is free again');
    await networks.disconnect(again.id, again.endpoint.networkId);
    assert.deepEqual(Object.keys(networks.statistics(again.sandbox)), []);
    for (const { id } of [served, again]) await networks.removeSandbox(id);
  }
  await using instance = await openInstance(directory.path, { name: 'gpl-br' }, new Set(), plugins);
  await instance.networks.remove(instance.networks.find('plugged').id);
  host.request(deleteLink('plug0'));
  const endpoint = ['CreateEndpoint', 'Join'];
  const gone = ['Leave', 'DeleteEndpoint'];
  assert.deepEqual(
    calls.filter((call) => call !== 'Plugin.Activate'),
    [
      ...['GetCapabilities', 'CreateNetwork', ...endpoint, 'ProgramExternalConnectivity'],
      ...[...endpoint, 'DeleteEndpoint'],
      ...[...endpoint, ...gone],
      ...['RevokeExternalConnectivity', ...gone, 'DeleteNetwork'],
    ],
  );
});
