/** The default bridge, published ports, host and none, and the files that name hosts. */
import assert from 'node:assert/strict';
import { createSocket } from 'node:dgram';
import { after, before, describe, test } from 'node:test';
import { startDaemon, type TestDaemon } from '../harness/daemon.ts';
import { eventually, run } from '../harness/processes.ts';

describe('networking', () => {
  let daemon: TestDaemon;
  before(async () => {
    daemon = await startDaemon();
  });
  after(() => daemon?.[Symbol.asyncDispose]());

  /** Starts a container in the background; returns its name. */
  const start = async (purpose: string, flags: string[], ...command: string[]): Promise<string> => {
    const name = daemon.name(purpose);
    await daemon.ok('run', '-d', '--name', name, ...flags, 'busybox', ...command);
    return name;
  };

  const server = ['httpd', '-f', '-p', '8080', '-h', '/etc'];
  /** Fetches /hostname of the little server. */
  const fetchPage = async (address: string, port: string | number): Promise<string> => {
    let text = '';
    await eventually(
      async () => {
        const result = await run('curl', ['-s', '-m', '2', `http://${address}:${port}/hostname`]);
        text = result.stdout.trim();
        return result.code === 0;
      },
      { what: `http://${address}:${port}` },
    );
    return text;
  };
  const portOf = async (name: string, port: string): Promise<string> =>
    (await daemon.ok('port', name, port)).split('\n')[0]?.split(':').at(-1) ?? '';

  test('a container has an address on the bridge, a gateway and a default route', async () => {
    const name = await start('address', [], 'sleep', '1000');
    const [address, gateway] = (
      await daemon.inspect(
        name,
        '{{.NetworkSettings.Networks.bridge.IPAddress}} {{.NetworkSettings.Networks.bridge.Gateway}}',
      )
    ).split(' ');
    assert.match(await daemon.ok('exec', name, 'ip', '-4', 'addr', 'show', 'eth0'), new RegExp(`inet ${address}/`));
    assert.match(await daemon.ok('exec', name, 'ip', 'route'), new RegExp(`default via ${gateway} dev eth0`));
    assert.match(await daemon.ok('exec', name, 'ping', '-c', '1', '-W', '2', gateway ?? ''), /1 packets received/);
  });

  test('two containers reach each other by address', async () => {
    const name = await start('peer', ['-h', 'peer'], ...server);
    const address = await daemon.inspect(name, '{{.NetworkSettings.Networks.bridge.IPAddress}}');
    assert.equal(
      await daemon.ok('run', '--rm', 'busybox', 'wget', '-q', '-O', '-', `http://${address}:8080/hostname`),
      'peer',
    );
  });

  test('-p publishes a port on loopback and the other addresses of the host', async () => {
    const name = await start('publish', ['-h', 'published', '-p', '0:8080'], ...server);
    const port = await portOf(name, '8080');
    assert.equal(await fetchPage('127.0.0.1', port), 'published');
    const gateway = await daemon.inspect(name, '{{.NetworkSettings.Networks.bridge.Gateway}}');
    assert.equal(await fetchPage(gateway, port), 'published');
  });

  test('a published port answers other containers at the gateway address', async () => {
    const name = await start('hairpin', ['-h', 'hairpin', '-p', '0:8080'], ...server);
    const gateway = await daemon.inspect(name, '{{.NetworkSettings.Networks.bridge.Gateway}}');
    const port = await portOf(name, '8080');
    assert.equal(
      await daemon.ok('run', '--rm', 'busybox', 'wget', '-q', '-O', '-', `http://${gateway}:${port}/hostname`),
      'hairpin',
    );
  });

  test('-p with a host address binds that address only', async () => {
    const name = await start('loopback', ['-h', 'local', '-p', '127.0.0.1::8080'], ...server);
    const port = await portOf(name, '8080');
    assert.match(await daemon.ok('port', name), /^8080\/tcp -> 127\.0\.0\.1:\d+$/);
    assert.equal(await fetchPage('127.0.0.1', port), 'local');
  });

  test('-P publishes what is exposed', async () => {
    const name = await start('all', ['-P', '--expose', '8080', '--expose', '9000-9001/udp'], ...server);
    const ports = JSON.parse(await daemon.inspect(name, '{{json .NetworkSettings.Ports}}'));
    assert.deepEqual(Object.keys(ports).toSorted(), ['8080/tcp', '9000/udp', '9001/udp']);
    assert.match(ports['8080/tcp'][0].HostPort, /^\d+$/);
  });

  test('a udp port carries datagrams both ways', async (context) => {
    if (daemon.foreign)
      return context.skip('needs the files of this host at their own paths; the other engine has its own root');
    // busybox has no UDP server: Node of this host answers, in the network of the container.
    const echo =
      's=require("dgram").createSocket("udp4");s.on("message",(m,r)=>s.send(m,r.port,r.address));s.bind(9000)';
    const name = await start(
      'udp',
      ['-p', '127.0.0.1::9000/udp', '-v', '/:/host:ro'],
      'chroot',
      '/host',
      process.execPath,
      '-e',
      echo,
    );
    const port = Number(await portOf(name, '9000/udp'));
    const socket = createSocket('udp4');
    let reply = '';
    socket.on('message', (message) => {
      reply = message.toString();
    });
    try {
      await eventually(
        () => {
          socket.send('ping', port, '127.0.0.1');
          return reply === 'ping';
        },
        { what: 'a datagram to come back' },
      );
    } finally {
      socket.close();
    }
  });

  test('a port that is taken is refused and nothing stays behind', async () => {
    const first = await start('holder', ['-p', '0:8080'], ...server);
    const port = await portOf(first, '8080');
    const name = daemon.name('refused');
    const result = await daemon.docker(['run', '-d', '--name', name, '-p', `${port}:8080`, 'busybox', 'sleep', '1000']);
    assert.equal(result.code, 125);
    assert.match(
      result.stderr,
      new RegExp(`Bind for (0\\.0\\.0\\.0|:::|\\[::\\]):${port} failed: port is already allocated`),
    );
    assert.equal(await daemon.inspect(name, '{{.State.Status}}'), 'created');
    await daemon.ok('rm', name);
    await daemon.ok('rm', '-f', first);
    const again = await start('after', ['-h', 'after', '-p', `${port}:8080`], ...server);
    assert.equal(await fetchPage('127.0.0.1', port), 'after');
    await daemon.ok('rm', '-f', again);
  });

  test('a port stops answering when its container stops and answers after restart', async () => {
    const name = await start('cycle', ['-h', 'cycle', '-p', '127.0.0.1:0:8080'], ...server);
    assert.equal(await fetchPage('127.0.0.1', await portOf(name, '8080')), 'cycle');
    const port = await portOf(name, '8080');
    await daemon.ok('stop', '-t', '0', name);
    assert.notEqual((await run('curl', ['-s', '-m', '1', `http://127.0.0.1:${port}/`])).code, 0);
    await daemon.ok('start', name);
    assert.equal(await fetchPage('127.0.0.1', await portOf(name, '8080')), 'cycle');
  });

  test('--net none has loopback only, --net host has the devices of the host', async () => {
    assert.equal(
      await daemon.ok('run', '--rm', '--net', 'none', 'busybox', 'ls', '/sys/class/net'),
      await daemon.ok('run', '--rm', '--net', 'none', 'busybox', 'ls', '/sys/class/net'),
    );
    assert.doesNotMatch(await daemon.ok('run', '--rm', '--net', 'none', 'busybox', 'ip', 'addr'), /eth0/);
    const host = (await run('ip', ['-o', 'link'])).stdout;
    const seen = await daemon.ok('run', '--rm', '--net', 'host', 'busybox', 'ip', '-o', 'link');
    assert.ok(seen.includes(host.split(': ')[1] ?? 'lo'));
  });

  test('--net container: shares the addresses of another container', async () => {
    const name = await start('shared', ['-h', 'shared'], ...server);
    assert.equal(
      await daemon.ok(
        'run',
        '--rm',
        '--net',
        `container:${name}`,
        'busybox',
        'wget',
        '-q',
        '-O',
        '-',
        'http://127.0.0.1:8080/hostname',
      ),
      'shared',
    );
  });

  test('conflicting network options are refused', async () => {
    const name = await start('base', [], 'sleep', '1000');
    const hostname = await daemon.docker(['run', '--rm', '-h', 'x', '--net', `container:${name}`, 'busybox', 'true']);
    assert.match(hostname.stderr, /conflicting options: hostname and the network mode/);
    const ports = await daemon.docker(['run', '--rm', '-p', '80', '--net', `container:${name}`, 'busybox', 'true']);
    assert.match(ports.stderr, /conflicting options: port publishing and the container type network mode/);
    const network = await daemon.docker(['run', '--rm', '--net', 'no-such-net', 'busybox', 'true']);
    assert.match(network.stderr, /network no-such-net not found/);
  });

  test('/etc/hosts names the container and what --add-host gives', async () => {
    const hosts = await daemon.ok(
      'run',
      '--rm',
      '-h',
      'myself',
      '--add-host',
      'db:10.9.8.7',
      '--add-host',
      'gw=host-gateway',
      'busybox',
      'cat',
      '/etc/hosts',
    );
    assert.match(hosts, /^127\.0\.0\.1\tlocalhost$/m);
    assert.match(hosts, /^10\.9\.8\.7\tdb$/m);
    assert.match(hosts, /^\d+\.\d+\.\d+\.\d+\tgw$/m);
    assert.match(hosts, /^\d+\.\d+\.\d+\.\d+\tmyself$/m);
  });

  test('/etc/resolv.conf follows the --dns flags', async () => {
    const text = await daemon.ok(
      'run',
      '--rm',
      '--dns',
      '192.0.2.53',
      '--dns-search',
      'example.org',
      '--dns-option',
      'ndots:3',
      'busybox',
      'cat',
      '/etc/resolv.conf',
    );
    assert.match(text, /^nameserver 192\.0\.2\.53$/m);
    assert.match(text, /^search example\.org$/m);
    assert.match(text, /^options ndots:3$/m);
  });

  test('--mac-address is the address of the interface', async () => {
    assert.equal(
      await daemon.ok(
        'run',
        '--rm',
        '--mac-address',
        '02:42:ac:11:aa:bb',
        'busybox',
        'cat',
        '/sys/class/net/eth0/address',
      ),
      '02:42:ac:11:aa:bb',
    );
  });

  test('--link puts the other container into /etc/hosts under its alias', async () => {
    const name = await start('linked', [], 'sleep', '1000');
    const address = await daemon.inspect(name, '{{.NetworkSettings.Networks.bridge.IPAddress}}');
    const hosts = await daemon.ok('run', '--rm', '--link', `${name}:database`, 'busybox', 'cat', '/etc/hosts');
    assert.match(hosts, new RegExp(`^${address}\\tdatabase `, 'm'));
  });

  test('addresses are given back', async () => {
    const seen = new Set<string>();
    for (let round = 0; round < 3; round += 1) {
      const name = await start('ipam', [], 'sleep', '1000');
      seen.add(await daemon.inspect(name, '{{.NetworkSettings.Networks.bridge.IPAddress}}'));
      await daemon.ok('rm', '-f', name);
    }
    assert.ok(seen.size >= 1 && !seen.has(''));
  });
});
