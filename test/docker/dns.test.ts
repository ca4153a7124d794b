/** Names on user-defined networks, as containers see them: the resolver at 127.0.0.11. */
import assert from 'node:assert/strict';
import { createSocket } from 'node:dgram';
import { once } from 'node:events';
import { existsSync } from 'node:fs';
import { after, before, describe, test } from 'node:test';
import { DNS_TYPE, dnsRecord, dnsResponse } from '#services/dns/fake-messages.ts';
import { startDaemon, type TestDaemon } from '../harness/daemon.ts';
import { eventually } from '../harness/processes.ts';

describe('names on user-defined networks', () => {
  let daemon: TestDaemon;
  const networks: string[] = [];
  before(async () => {
    daemon = await startDaemon();
  });
  after(async () => {
    const listed = await daemon.ok('ps', '-aq', '--filter', `name=^/${daemon.bridge}-`);
    if (listed !== '') await daemon.ok('rm', '-fv', ...listed.split('\n'));
    for (const network of networks) await daemon.docker(['network', 'rm', network]);
    await daemon[Symbol.asyncDispose]();
  });

  let count = 0;
  /** A network with a small subnet of its own, beside those of other tests. */
  const network = async (purpose: string, ...flags: string[]): Promise<string> => {
    const name = daemon.name(purpose);
    count += 1;
    const slot = (process.pid * 13 + count * 7919) % 16_384;
    const subnet = `10.${64 + (slot >> 8)}.${slot & 255}.0/27`;
    await daemon.ok('network', 'create', '--subnet', subnet, ...flags, name);
    networks.push(name);
    return name;
  };
  const start = async (purpose: string, ...flags: string[]): Promise<string> => {
    const name = daemon.name(purpose);
    await daemon.ok('run', '-d', '--init', '--name', name, ...flags, 'busybox', 'sleep', '1000');
    return name;
  };
  const addressOf = (name: string, on: string): Promise<string> =>
    daemon.inspect(name, `{{(index .NetworkSettings.Networks "${on}").IPAddress}}`);

  /** What a container's own lookup says: its addresses in order, or none. */
  const lookup = async (from: string, name: string): Promise<string[]> => {
    const { stdout } = await daemon.docker(['exec', from, 'nslookup', '-type=a', name, '127.0.0.11']);
    const [, answer = ''] = stdout.split(/\n\s*\n/, 2).length > 1 ? [0, stdout.slice(stdout.search(/\n\s*\n/))] : [];
    return [...answer.matchAll(/^Address(?: \d+)?:\s*([\d.]+)\s*$/gm)].map(([, text = '']) => text).sort();
  };

  test('name, alias, short ID, hostname and name with network lead to a container; its address leads back', async () => {
    const net = await network('names');
    const web = await start('web', '--network', net, '--network-alias', 'www', '--network-alias', 'w3', '-h', 'box');
    const asker = await start('asker', '--network', net);
    const address = await addressOf(web, net);
    const id = (await daemon.inspect(web, '{{.Id}}')).slice(0, 12);
    for (const name of [web, web.toUpperCase(), 'www', 'w3', 'box', id, `www.${net}`, `${web}.${net}`]) {
      assert.deepEqual(await lookup(asker, name), [address], name);
    }
    assert.match(await daemon.ok('exec', asker, 'ping', '-c', '1', '-W', '2', 'www'), new RegExp(`\\(${address}\\)`));
    const pointer = await daemon.ok('exec', asker, 'nslookup', address, '127.0.0.11');
    assert.match(pointer, new RegExp(`name = ${web}\\.${net}`));
    const file = await daemon.ok('exec', asker, 'cat', '/etc/resolv.conf');
    assert.match(file, /^nameserver 127\.0\.0\.11$/m);
    assert.match(file, /^options .*\bndots:\d+/m);
  });

  test('an alias that several containers have gives the addresses of all that run', async () => {
    const net = await network('many');
    const asker = await start('many-asker', '--network', net);
    const workers = [];
    for (const purpose of ['w1', 'w2', 'w3']) {
      workers.push(await start(purpose, '--network', net, '--network-alias', 'workers'));
    }
    const addresses = await Promise.all(workers.map((name) => addressOf(name, net)));
    assert.deepEqual(await lookup(asker, 'workers'), addresses.toSorted());
    await daemon.ok('stop', '-t', '1', workers[0] ?? '');
    assert.deepEqual(await lookup(asker, 'workers'), addresses.slice(1).toSorted());
  });

  test('names are known only on the network they belong to', async () => {
    const [one, two] = [await network('one'), await network('two')];
    const web = await start('scoped', '--network', one);
    const outsider = await start('outsider', '--network', two);
    assert.deepEqual(await lookup(outsider, web), []);
    await daemon.ok('network', 'connect', '--alias', 'late', two, web);
    const address = await addressOf(web, two);
    assert.deepEqual(await lookup(outsider, web), [address]);
    assert.deepEqual(await lookup(outsider, 'late'), [address]);
    assert.deepEqual(await lookup(web, outsider), [await addressOf(outsider, two)]);
    await daemon.ok('network', 'disconnect', two, web);
    assert.deepEqual(await lookup(outsider, web), []);
    assert.deepEqual(await lookup(web, outsider), []);
  });

  test('a restarted container is found at its new address, a renamed one by its new name', async () => {
    const net = await network('restart');
    const web = await start('again', '--network', net);
    const asker = await start('again-asker', '--network', net);
    const before = await addressOf(web, net);
    await daemon.ok('stop', '-t', '1', web);
    assert.deepEqual(await lookup(asker, web), []);
    await start('again-thief', '--network', net, '--ip', before);
    await daemon.ok('start', web);
    const address = await addressOf(web, net);
    assert.notEqual(address, before);
    assert.deepEqual(await lookup(asker, web), [address]);
    const renamed = daemon.name('renamed');
    await daemon.ok('rename', web, renamed);
    assert.deepEqual(await lookup(asker, renamed), [address]);
    assert.deepEqual(await lookup(asker, web), []);
  });

  test('IPv6 addresses are answered and lead back', async () => {
    const group = (0x1000 + (Date.now() % 0xe000)).toString(16);
    const prefix = `fd${(process.pid & 255).toString(16).padStart(2, '0')}:${group}:53::`;
    // In a network namespace of its own: such a network turns on the forwarding of IPv6 for the whole host.
    await using own = await startDaemon({ ownNetwork: true });
    const [net, web, asker] = [own.name('six'), own.name('six-web'), own.name('six-asker')];
    await using stack = new AsyncDisposableStack();
    await own.ok('network', 'create', '--ipv6', '--subnet', `${prefix}/64`, net);
    stack.defer(async () => {
      await own.docker(['rm', '-f', web, asker]);
      await own.ok('network', 'rm', net);
    });
    await own.ok(
      'run',
      '-d',
      '--init',
      '--name',
      web,
      '--network',
      net,
      '--ip6',
      `${prefix}53`,
      'busybox',
      'sleep',
      '1000',
    );
    await own.ok('run', '-d', '--init', '--name', asker, '--network', net, 'busybox', 'sleep', '1000');
    const answer = await own.ok('exec', asker, 'nslookup', '-type=aaaa', web, '127.0.0.11');
    assert.match(answer, new RegExp(`Address: ${prefix}53$`, 'm'));
    const pointer = await own.ok('exec', asker, 'nslookup', `${prefix}53`, '127.0.0.11');
    assert.match(pointer, new RegExp(`name = ${web}\\.${net}`));
  });

  test('on an internal network names of others are not forwarded through the host', async () => {
    const net = await network('internal', '--internal');
    const web = await start('internal-web', '--network', net);
    const asker = await start('internal-asker', '--network', net);
    assert.deepEqual(await lookup(asker, web), [await addressOf(web, net)]);
    const { stdout, stderr } = await daemon.docker([
      'exec',
      asker,
      'nslookup',
      '-type=a',
      'example.test',
      '127.0.0.11',
    ]);
    assert.match(stdout + stderr, /SERVFAIL/);
  });

  test('links are names for the linking container alone', async () => {
    const net = await network('links');
    const store = await start('store', '--network', net);
    const linking = await start('linking', '--network', net, '--link', `${store}:db`);
    const other = await start('other', '--network', net);
    assert.deepEqual(await lookup(linking, 'db'), [await addressOf(store, net)]);
    assert.deepEqual(await lookup(other, 'db'), []);
  });

  test('the default bridge has no resolver, until the container joins a network that has', async () => {
    const net = await network('later');
    const web = await start('later-web', '--network', net);
    const plain = await start('plain', '--dns', '127.0.0.1');
    assert.doesNotMatch(await daemon.ok('exec', plain, 'cat', '/etc/resolv.conf'), /127\.0\.0\.11/);
    await daemon.ok('network', 'connect', net, plain);
    assert.match(await daemon.ok('exec', plain, 'cat', '/etc/resolv.conf'), /127\.0\.0\.11/);
    assert.deepEqual(await lookup(plain, web), [await addressOf(web, net)]);
    await daemon.ok('network', 'disconnect', net, plain);
    const { stdout, stderr } = await daemon.docker(['exec', plain, 'nslookup', '-type=a', web, '127.0.0.11']);
    assert.match(stdout + stderr, /SERVFAIL/, 'the resolver is still there, for its file still names it');
  });

  test('a container may serve port 53 itself', async () => {
    const net = await network('port53');
    const web = await start('dns-web', '--network', net);
    const server = daemon.name('dns-server');
    const script = 'nc -l -p 53 & until netstat -ltn | grep :53; do sleep 0.1; done; wait';
    await daemon.ok('run', '-d', '--init', '--name', server, '--network', net, 'busybox', 'sh', '-c', script);
    await eventually(async () => /:53\b/.test((await daemon.docker(['logs', server])).stdout), {
      what: 'the container to listen on port 53',
    });
    assert.deepEqual(await lookup(server, web), [await addressOf(web, net)]);
  });

  test('other names are forwarded to the servers given with --dns, from inside the container', async () => {
    const net = await network('forward');
    // A server on the network's gateway, which only the container's own route reaches.
    const socket = createSocket('udp4');
    const clients: string[] = [];
    socket.on('message', (query, from) => {
      clients.push(from.address);
      const answers = [dnsRecord('@', DNS_TYPE.A, 60, Buffer.from([9, 9, 9, 9]))];
      const isAddress = query.readUInt16BE(query.length - 4) === DNS_TYPE.A;
      socket.send(dnsResponse(query, { answers: isAddress ? answers : [] }), from.port, from.address);
    });
    const first = await start('forward-first', '--network', net);
    const gateway = await daemon.inspect(first, `{{(index .NetworkSettings.Networks "${net}").Gateway}}`);
    socket.bind(53, gateway);
    await once(socket, 'listening');
    try {
      const asker = await start('forward', '--network', net, '--dns', gateway, '--dns-search', 'corp.test');
      assert.deepEqual(await lookup(asker, 'www.example.test'), ['9.9.9.9']);
      assert.deepEqual(await lookup(asker, 'www.example.test'), ['9.9.9.9']);
      assert.deepEqual(new Set(clients), new Set([await addressOf(asker, net)]));
      if (!daemon.foreign) assert.equal(clients.length, 1, 'asked once, then kept');
      assert.deepEqual(await lookup(asker, first), [await addressOf(first, net)]);
      assert.match(await daemon.ok('exec', asker, 'cat', '/etc/resolv.conf'), /^search corp\.test$/m);
    } finally {
      socket.close();
    }
  });

  test('the resolver is back after the daemon was killed and started again', async (context) => {
    if (daemon.foreign) return context.skip('needs a daemon of ours');
    const net = await network('survive');
    const web = await start('survivor', '--network', net);
    const asker = await start('survivor-asker', '--network', net);
    const address = await addressOf(web, net);
    assert.deepEqual(await lookup(asker, web), [address]);
    await daemon.kill();
    await daemon.start();
    assert.deepEqual(await lookup(asker, web), [address]);
    const newcomer = await start('newcomer', '--network', net);
    assert.deepEqual(await lookup(asker, newcomer), [await addressOf(newcomer, net)]);
    const key = await daemon.inspect(web, '{{.NetworkSettings.SandboxKey}}');
    await daemon.ok('rm', '-f', web);
    await eventually(() => !existsSync(key), { what: 'the namespace to go' });
  });
});
