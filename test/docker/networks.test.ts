/** User-defined networks as a user makes them: their commands, what containers on them see, and refusals. */
import assert from 'node:assert/strict';
import { after, before, describe, test } from 'node:test';
import { startDaemon, type TestDaemon } from '../harness/daemon.ts';
import { eventually } from '../harness/processes.ts';

const SERVER = ['httpd', '-f', '-p', '8080', '-h', '/etc'];

describe('user-defined networks', () => {
  let daemon: TestDaemon;
  before(async () => {
    daemon = await startDaemon({ ownNetwork: true });
  });
  after(() => daemon?.[Symbol.asyncDispose]());

  const network = async (purpose: string, ...flags: string[]): Promise<string> => {
    const name = daemon.name(purpose);
    await daemon.ok('network', 'create', ...flags, name);
    return name;
  };
  const start = async (purpose: string, flags: string[], ...command: string[]): Promise<string> => {
    const name = daemon.name(purpose);
    await daemon.ok('run', '-d', '--name', name, '-h', purpose, ...flags, 'busybox', ...command);
    return name;
  };
  const addressOn = (container: string, name: string): Promise<string> =>
    daemon.inspect(container, `{{(index .NetworkSettings.Networks "${name}").IPAddress}}`);
  const fetches = async (from: string, address: string): Promise<string> => {
    const result = await daemon.docker([
      'exec',
      from,
      'timeout',
      '3',
      'wget',
      '-q',
      '-O',
      '-',
      `http://${address}:8080/hostname`,
    ]);
    return result.code === 0 ? result.stdout.trim() : '';
  };
  const refused = async (args: string[]): Promise<string> => {
    const result = await daemon.docker(args);
    assert.notEqual(result.code, 0, `docker ${args.join(' ')} succeeded`);
    return result.stderr.replace(/^.*Error response from daemon: /s, '').trim();
  };

  test('a network is made, listed, inspected and removed, with its events', async () => {
    const since = String(Math.floor(Date.now() / 1000) - 1);
    const name = await network('plain', '--label', 'a=b', '-o', 'com.docker.network.driver.mtu=1400');
    const [shown] = JSON.parse(await daemon.ok('network', 'inspect', name));
    assert.equal(shown.Driver, 'bridge');
    assert.deepEqual(shown.Labels, { a: 'b' });
    assert.deepEqual(shown.Options, { 'com.docker.network.driver.mtu': '1400' });
    assert.match(shown.IPAM.Config[0].Gateway, /\.1$/);
    assert.equal(await daemon.ok('network', 'ls', '-q', '--no-trunc', '--filter', `name=${name}`), shown.Id);
    assert.equal(await daemon.ok('network', 'ls', '-q', '--filter', 'label=a=b', '--filter', 'type=builtin'), '');
    assert.match((await daemon.onHost('ip', 'link', 'show', `br-${shown.Id.slice(0, 12)}`)).stdout, /mtu 1400/);
    const container = await start('mtu', ['--network', name], 'sleep', '1000');
    assert.equal(await daemon.ok('exec', container, 'cat', '/sys/class/net/eth0/mtu'), '1400');
    assert.match(
      await refused(['network', 'rm', name]),
      /error while removing network: network \S+ has active endpoints \(name:"\S+" id:"[0-9a-f]{12}"\)/,
    );
    await daemon.ok('rm', '-f', container);
    await daemon.ok('network', 'rm', name);
    assert.equal((await daemon.onHost('ip', 'link', 'show', `br-${shown.Id.slice(0, 12)}`)).code, 1);
    assert.equal(await refused(['network', 'rm', name]), `network ${name} not found\nexit status 1`);
    const events = await daemon.ok(
      ...['events', '--since', since, '--until', String(Math.ceil(Date.now() / 1000) + 1), '--filter', 'type=network'],
      ...['--format', '{{.Action}} {{.Actor.Attributes.name}} {{.Actor.Attributes.type}}'],
    );
    assert.deepEqual(
      events.split('\n').filter((line) => line.includes(name)),
      ['create', 'connect', 'disconnect', 'destroy'].map((action) => `${action} ${name} bridge`),
    );
  });

  test('bad input gets the messages of docker, and nothing stays', async () => {
    const name = daemon.name('bad');
    const taken = await network('taken', '--subnet', '10.97.0.0/24');
    for (const [flags, message] of [
      [['--subnet', '10.97.0.128/25'], 'invalid pool request: Pool overlaps with other one on this address space'],
      [['--subnet', '10.98.0.1/24'], 'invalid network config:\ninvalid subnet 10.98.0.1/24: it should be 10.98.0.0/24'],
      [['--subnet', 'x'], 'invalid network config:\ninvalid subnet x: invalid CIDR block notation'],
      [['--subnet', '10.98.0.0/24', '--gateway', '10.97.0.1'], 'no matching subnet for gateway 10.97.0.1'],
      [['--subnet', '10.98.0.0/24', '--subnet', '10.99.0.0/24'], "bridge driver doesn't support multiple subnets"],
      [['-d', 'nosuch'], 'plugin "nosuch" not found'],
      [['-d', 'host'], 'only one instance of "host" network is allowed'],
      [
        ['-o', 'com.docker.network.bridge.enable_icc=maybe'],
        'failed to parse com.docker.network.bridge.enable_icc value: maybe (strconv.ParseBool: parsing "maybe": invalid syntax)',
      ],
      [
        ['-o', 'com.docker.network.bridge.gateway_mode_ipv4=isolated'],
        "gateway mode 'isolated' can only be used for an internal network",
      ],
      [['--config-from', 'nosuch'], 'configuration network "nosuch" does not exist'],
    ] as const)
      assert.equal((await refused(['network', 'create', ...flags, name])).replace(/\nexit status 1$/, ''), message);
    assert.match(await refused(['network', 'create', taken]), /^network with name \S+ already exists/);
    assert.match(
      await refused(['network', 'create', 'bridge']),
      /^operation is not permitted on predefined bridge network/,
    );
    assert.match(await refused(['network', 'rm', 'none']), /^none is a pre-defined network and cannot be removed/);
    assert.equal(await daemon.ok('network', 'ls', '-q', '--filter', `name=${name}`), '');
    await daemon.ok('network', 'rm', taken);
  });

  test('containers of one network reach each other, those of different ones only by published ports', async () => {
    const [left, right] = [await network('left'), await network('right')];
    const server = await start('server', ['--network', left, '-p', '8099:8080'], ...SERVER);
    const near = await start('near', ['--network', left], 'sleep', '1000');
    const far = await start('far', ['--network', right], 'sleep', '1000');
    const address = await addressOn(server, left);
    await eventually(async () => (await fetches(near, address)) === 'server', { what: 'the server to answer' });
    assert.equal(await fetches(far, address), '');
    const gateway = await daemon.inspect(far, `{{(index .NetworkSettings.Networks "${right}").Gateway}}`);
    const published = await daemon.docker([
      'exec',
      far,
      'timeout',
      '3',
      'wget',
      '-q',
      '-O',
      '-',
      `http://${gateway}:8099/hostname`,
    ]);
    assert.equal(published.stdout.trim(), 'server');
    assert.equal(
      (await daemon.onHost('curl', '-s', '-m', '2', 'http://127.0.0.1:8099/hostname')).stdout.trim(),
      'server',
    );
    await daemon.ok('rm', '-f', server, near, far);
    await daemon.ok('network', 'rm', left, right);
  });

  test('a running container joins and leaves networks; its routes, ports and hosts file follow', async () => {
    const first = await network('m-first', '--subnet', '10.96.1.0/24');
    const second = await network('a-second', '--subnet', '10.96.2.0/24');
    const name = await start('mover', ['--network', first, '--ip', '10.96.1.9', '-p', '8098:8080'], ...SERVER);
    const answers = (): Promise<boolean> =>
      daemon
        .onHost('curl', '-s', '-m', '2', 'http://127.0.0.1:8098/hostname')
        .then(({ stdout }) => stdout.trim() === 'mover');
    const hosts = (): Promise<string> => daemon.ok('exec', name, 'cat', '/etc/hosts');
    await eventually(answers, { what: 'the published port to answer' });
    assert.match(await daemon.ok('exec', name, 'ip', 'route'), /default via 10\.96\.1\.1 dev eth0/);
    await daemon.ok('exec', name, 'sh', '-c', 'echo 192.0.2.1 kept >> /etc/hosts');
    await daemon.ok('network', 'connect', '--alias', 'other', '--gw-priority', '1', second, name);
    // The network of the highest priority gives the default route, and publishes.
    assert.match(await daemon.ok('exec', name, 'ip', 'route'), /default via 10\.96\.2\.1 dev eth1/);
    assert.ok(await answers());
    assert.match(await hosts(), /^10\.96\.1\.9\tmover\n192\.0\.2\.1 kept\n10\.96\.2\.2\tmover$/m);
    const settings = JSON.parse(await daemon.inspect(name, '{{json .NetworkSettings}}'));
    assert.deepEqual(settings.Networks[second].Aliases, ['other']);
    assert.deepEqual(settings.Networks[second].DNSNames.slice(0, 2), [name, 'other']);
    assert.equal(settings.Ports['8080/tcp'][0].HostPort, '8098');
    assert.match(
      await refused(['network', 'connect', second, name]),
      /^endpoint with name \S+ already exists in network \S+$/,
    );
    await daemon.ok('network', 'disconnect', second, name);
    assert.match(await daemon.ok('exec', name, 'ip', 'route'), /default via 10\.96\.1\.1 dev eth0/);
    assert.ok(await answers());
    assert.doesNotMatch(await hosts(), /10\.96\.2\.2/);
    await daemon.ok('network', 'disconnect', first, name);
    assert.equal(await answers(), false);
    assert.equal(await daemon.inspect(name, '{{json .NetworkSettings.Networks}}'), '{}');
    assert.match(await refused(['network', 'disconnect', first, name]), /is not connected to network/);
    await daemon.ok('stop', '-t', '0', name);
    await daemon.ok('network', 'connect', '--ip', '10.96.2.77', second, name);
    await daemon.ok('start', name);
    assert.equal(await addressOn(name, second), '10.96.2.77');
    await eventually(answers, { what: 'the published port to answer again' });
    await daemon.ok('rm', '-f', name);
    await daemon.ok('network', 'rm', first, second);
  });

  test('several networks at the start, addresses, MAC address, priority and interface name', async () => {
    const one = await network(
      'one',
      '--subnet',
      '10.95.1.0/24',
      '--ip-range',
      '10.95.1.128/25',
      '--aux-address',
      'x=10.95.1.129',
    );
    const two = await network('two', '--subnet', '10.95.2.0/24');
    const output = await daemon.ok(
      ...['run', '--rm', '--network', `name=${one},mac-address=02:42:0a:00:00:99`],
      ...['--network', `name=${two},ip=10.95.2.50,gw-priority=7,driver-opt=com.docker.network.endpoint.ifname=up0`],
      ...['busybox', 'sh', '-c', 'ip -o -4 addr; ip route; cat /sys/class/net/eth0/address'],
    );
    assert.match(output, /eth0 +inet 10\.95\.1\.130\/24/);
    assert.match(output, /up0 +inet 10\.95\.2\.50\/24/);
    assert.match(output, /default via 10\.95\.2\.1 dev up0/);
    assert.match(output, /02:42:0a:00:00:99/);
    const holder = await start('holder', ['--network', two, '--ip', '10.95.2.60'], 'sleep', '1000');
    assert.match(
      await refused(['run', '--rm', '--network', two, '--ip', '10.95.2.60', 'busybox', 'true']),
      /^failed to set up container networking: Address already in use/,
    );
    assert.match(
      await refused(['run', '--rm', '--network', two, '--ip', '10.9.9.9', 'busybox', 'true']),
      /no configured subnet or ip-range contain the IP address 10\.9\.9\.9/,
    );
    await daemon.ok('rm', '-f', holder);
    await daemon.ok('network', 'rm', one, two);
  });

  test('a small network is exhausted with a clear error', async () => {
    const name = await network('tiny', '--subnet', '10.94.0.0/30');
    const holder = await start('only', ['--network', name], 'sleep', '1000');
    assert.match(
      await refused(['run', '--rm', '--network', name, 'busybox', 'true']),
      /no available IPv4 addresses on this network's address pools: \S+ \([0-9a-f]{64}\)/,
    );
    await daemon.ok('rm', '-f', holder);
    await daemon.ok('network', 'rm', name);
  });

  test('an internal network leads nowhere, and configuration networks lend their settings', async () => {
    const inner = await network('inner', '--internal');
    const routes = await daemon.ok('run', '--rm', '--network', inner, 'busybox', 'ip', 'route');
    assert.doesNotMatch(routes, /default/);
    const settings = await network('settings', '--config-only', '--subnet', '10.93.0.0/24', '--label', 'from=settings');
    const user = await network('user', '--config-from', settings);
    const [shown] = JSON.parse(await daemon.ok('network', 'inspect', user));
    assert.deepEqual(
      [shown.IPAM.Config[0].Subnet, shown.Labels, shown.ConfigFrom],
      ['10.93.0.0/24', { from: 'settings' }, { Network: settings }],
    );
    assert.match(await refused(['network', 'rm', settings]), /configuration network "\S+" is in use/);
    const pruned = await daemon.ok('network', 'prune', '-f');
    assert.ok(pruned.includes(user) && pruned.includes(inner) && !pruned.includes(settings));
    await daemon.ok('network', 'rm', settings);
  });

  test('networks and what is connected to them survive kill -9 of the daemon', async (context) => {
    if (daemon.foreign) return context.skip('needs a daemon process of ours');
    const name = await network('survivor', '--ipv6');
    const server = await start('steady', ['--network', name, '-p', '8097:8080'], ...SERVER);
    const address = await addressOn(server, name);
    await daemon.kill();
    await daemon.start();
    assert.equal(await addressOn(server, name), address);
    const client = await start('client', ['--network', name], 'sleep', '1000');
    await eventually(async () => (await fetches(client, address)) === 'steady', { what: 'the server to answer' });
    for (const host of ['127.0.0.1', '[::1]'])
      assert.equal(
        (await daemon.onHost('curl', '-s', '-m', '2', `http://${host}:8097/hostname`)).stdout.trim(),
        'steady',
        host,
      );
    await daemon.ok('network', 'disconnect', name, client);
    await daemon.ok('rm', '-f', server, client);
    await daemon.ok('network', 'rm', name);
    await eventually(async () => !/veth|br-/.test((await daemon.onHost('ip', '-o', 'link')).stdout), {
      what: 'no interface to be left',
    });
  });
});
