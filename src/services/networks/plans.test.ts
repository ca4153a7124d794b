import assert from 'node:assert/strict';
import { test } from 'node:test';
import { formatIp, formatPrefix, macOf, parseCidr, parseIp, tryParseCidr, tryParseIp } from './address.ts';
import { planBridge } from './bridge-device.ts';
import {
  addElements,
  type BridgeRules,
  deleteBridge,
  deleteElements,
  foreignForwardDrops,
  replaceTable,
} from './firewall.ts';
import { AddressBook, chooseSubnet, lowestFree, poolsOf } from './ipam.ts';
import { listedPorts, parseNatPort, parsePublishRequests, portMap } from './ports.ts';
import { containerResolvConf } from './resolv-conf.ts';

test('ports are parsed as docker writes them', () => {
  assert.deepEqual(parseNatPort('80'), { first: 80, last: 80, protocol: 'tcp' });
  assert.deepEqual(parseNatPort('8000-8010/udp'), { first: 8000, last: 8010, protocol: 'udp' });
  for (const bad of ['', '/tcp', '80/', '65536', '9-8', '80/icmp', '80/tcp/x', '-1', ' 80']) {
    if (bad === '80/') continue;
    assert.throws(() => parseNatPort(bad), { kind: 'invalid' }, bad);
  }
});

test('bindings become requests, fixed ports first; PublishAllPorts adds the rest once', () => {
  const requests = parsePublishRequests(
    { '80/tcp': {}, '53/udp': {} },
    {
      PortBindings: {
        '80/tcp': [{ HostIp: '', HostPort: '8000-8002' }],
        '90/tcp': [{ HostIp: '::1', HostPort: '90' }],
      },
      PublishAllPorts: true,
    },
  );
  assert.deepEqual(
    requests.map((each) =>
      [each.containerPort, each.protocol, each.hostAddress, each.hostPortFirst, each.hostPortLast].join(' '),
    ),
    ['90 tcp ::1 90 90', '80 tcp  8000 8002', '53 udp  0 0'],
  );
  assert.throws(
    () => parsePublishRequests({}, { PortBindings: { '80/tcp': [{ HostIp: 'x', HostPort: '' }] } }),
    /invalid IP address/,
  );
  assert.throws(
    () => parsePublishRequests({}, { PortBindings: { '80/tcp': [{ HostIp: '', HostPort: '70000' }] } }),
    /invalid port/,
  );
});

test('published and merely exposed ports are shown', () => {
  const published = [{ protocol: 'tcp', containerPort: 80, hostAddress: '0.0.0.0', hostPort: 8080 }] as const;
  assert.deepEqual(portMap({ '80/tcp': {}, '81/tcp': {} }, published, true), {
    '80/tcp': [{ HostIp: '0.0.0.0', HostPort: '8080' }],
    '81/tcp': null,
  });
  assert.deepEqual(portMap({ '80/tcp': {} }, published, false), {});
  assert.deepEqual(listedPorts({ '81/tcp': {} }, published, true), [
    { PrivatePort: 81, Type: 'tcp' },
    { IP: '0.0.0.0', PrivatePort: 80, PublicPort: 8080, Type: 'tcp' },
  ]);
});

test('addresses of both families are read and written in their canonical form', () => {
  for (const [text, canonical] of [
    ['10.0.0.1', '10.0.0.1'],
    ['255.255.255.255', '255.255.255.255'],
    ['::', '::'],
    ['::1', '::1'],
    ['FD00:0:0::0001', 'fd00::1'],
    ['1:0:2:0:0:3:0:0', '1:0:2::3:0:0'],
    ['1:2:3:4:5:6:7:0', '1:2:3:4:5:6:7:0'],
    ['::ffff:1.2.3.4', '::ffff:102:304'],
  ] as const)
    assert.equal(formatIp(parseIp(text)), canonical, text);
  for (const bad of ['', '10.0.0', 'fe80::1%eth0', 'x', '10.0.0.256']) assert.equal(tryParseIp(bad), undefined, bad);
  for (const bad of ['10.0.0.0', '10.0.0.0/33', 'fd00::/129', '10.0.0.0/08', '10.0.0.0/8/8', '10.0.0.0/-1'])
    assert.equal(tryParseCidr(bad), undefined, bad);
  assert.equal(formatPrefix(parseCidr('fd00:1:2:3:4::9/48').subnet), 'fd00:1:2::/48');
  assert.equal(macOf(parseIp('172.17.0.2')), '02:42:ac:11:00:02');
});

test('addresses are given lowest first and never the network, broadcast or a used one', () => {
  const { subnet } = parseCidr('10.0.0.0/29');
  const used = new Set([parseIp('10.0.0.1').value]);
  const given: string[] = [];
  for (;;) {
    const next = lowestFree({ subnet, range: subnet }, used);
    if (next === undefined) break;
    used.add(next);
    given.push(formatIp({ family: 4, value: next }));
  }
  assert.deepEqual(given, ['10.0.0.2', '10.0.0.3', '10.0.0.4', '10.0.0.5', '10.0.0.6']);
});

test('an address asked for is given once, inside the subnet only; an exhausted network says so', () => {
  const book = new AddressBook();
  const network = { id: 'i', name: 'small' };
  const { subnet } = parseCidr('10.0.0.0/30');
  const take = (wanted?: string): string =>
    formatIp(
      book.take(network, [{ subnet, range: subnet }], wanted === undefined ? undefined : parseIp(wanted)).address,
    );
  assert.equal(take('10.0.0.2'), '10.0.0.2');
  assert.throws(() => take('10.0.0.2'), { kind: 'forbidden', message: 'Address already in use' });
  for (const outside of ['10.0.0.0', '10.0.0.3', '10.0.1.1'])
    assert.throws(() => take(outside), { kind: 'invalid', message: 'requested address is out of range' });
  assert.equal(take(), '10.0.0.1');
  assert.throws(() => take(), {
    kind: 'unavailable',
    message: "no available IPv4 addresses on this network's address pools: small (i)",
  });
  book.release('i', parseIp('10.0.0.1'));
  assert.equal(take(), '10.0.0.1');
});

test('the built-in pools are split so that thousands of networks fit, the first ones as large as docker makes them', () => {
  const pools = poolsOf([], 'identity');
  const taken = [parseCidr('172.17.0.0/16').subnet];
  const sizes = new Map<number, number>();
  for (let count = 0; count < 2500; count += 1) {
    const next = chooseSubnet(pools, taken);
    taken.push(next);
    sizes.set(next.length, (sizes.get(next.length) ?? 0) + 1);
  }
  assert.equal(formatPrefix(taken[1] ?? parseCidr('0.0.0.0/0').subnet), '172.18.0.0/16');
  assert.deepEqual([...sizes.keys()], [16, 20, 24, 28]);
  assert.ok((sizes.get(16) ?? 0) >= 7 && (sizes.get(24) ?? 0) >= 1000, JSON.stringify([...sizes]));
  const sorted = taken.toSorted((a, b) => (a.base < b.base ? -1 : 1));
  for (const [index, subnet] of sorted.entries()) {
    const next = sorted[index + 1];
    assert.ok(next === undefined || subnet.base + (1n << BigInt(32 - subnet.length)) <= next.base, 'none overlap');
  }
});

test('configured pools are cut exactly as configured, and IPv6 networks come from a unique local prefix', () => {
  const pools = poolsOf([{ base: '10.9.0.0/22', size: 24 }], 'identity');
  const taken = [parseCidr('10.9.1.128/25').subnet];
  const given: string[] = [];
  for (let count = 0; count < 3; count += 1) {
    const next = chooseSubnet(pools, taken);
    taken.push(next);
    given.push(formatPrefix(next));
  }
  assert.deepEqual(given, ['10.9.0.0/24', '10.9.2.0/24', '10.9.3.0/24']);
  assert.throws(() => chooseSubnet(pools, taken), {
    kind: 'invalid',
    message: 'all predefined address pools have been fully subnetted',
  });
  const first = chooseSubnet(pools, taken, 6);
  assert.match(formatPrefix(first), /^fd[0-9a-f]{2}:[0-9a-f:]+::\/64$/);
  const second = chooseSubnet(pools, [...taken, first], 6);
  assert.equal(second.base, first.base + (1n << 64n));
  const own = poolsOf([{ base: 'fd12::/60', size: 62 }], 'identity');
  assert.equal(formatPrefix(chooseSubnet(own, [], 6)), 'fd12::/62');
});

test('the bridge takes the first subnet no route overlaps, or what it is told', () => {
  const routes = [parseCidr('172.17.0.0/16').subnet, parseCidr('172.18.5.0/24').subnet];
  const none = { existing: undefined, remembered: undefined, routes };
  assert.equal(formatIp(planBridge({ name: 'b' }, none).address), '172.19.0.1');
  assert.equal(formatIp(planBridge({ name: 'b' }, { ...none, remembered: '172.20.0.1/16' }).address), '172.20.0.1');
  assert.equal(formatIp(planBridge({ name: 'b' }, { ...none, remembered: '172.17.0.1/16' }).address), '172.19.0.1');
  assert.equal(formatIp(planBridge({ name: 'b' }, { ...none, existing: '10.5.0.9/24' }).address), '10.5.0.9');
  const plan = planBridge(
    { name: 'b', bip: '10.9.0.1/16', fixedCidr: '10.9.4.0/24', defaultGateway: '10.9.0.254' },
    none,
  );
  assert.deepEqual([formatPrefix(plan.range), formatIp(plan.gateway)], ['10.9.4.0/24', '10.9.0.254']);
  assert.throws(() => planBridge({ name: 'b', bip: '10.9.0.1/16', fixedCidr: '10.8.0.0/24' }, none), /fixed-cidr/);
  assert.throws(() => planBridge({ name: 'b', bip: '10.9.0.0/16' }, none), { kind: 'invalid' });
  assert.throws(
    () => chooseSubnet(poolsOf([{ base: '10.0.0.0/24', size: 24 }], ''), [parseCidr('10.0.0.0/8').subnet]),
    /fully subnetted/,
  );
});

test('rules name only their own table and every added element is deleted again', () => {
  const ports = [
    { port: { protocol: 'tcp', containerPort: 80, hostAddress: '0.0.0.0', hostPort: 1 }, containerAddress: '10.0.0.2' },
    {
      port: { protocol: 'udp', containerPort: 80, hostAddress: '127.0.0.1', hostPort: 2 },
      containerAddress: '10.0.0.2',
    },
    { port: { protocol: 'tcp', containerPort: 80, hostAddress: '::', hostPort: 1 }, containerAddress: '10.0.0.2' },
  ] as const;
  const elements = { ports, links: [{ from: '10.0.0.2', to: '10.0.0.3', protocol: 'tcp', port: 5 } as const] };
  assert.deepEqual(addElements('t', elements).split('\n'), [
    'add element inet t published_any { tcp . 1 : 10.0.0.2 . 80 }',
    'add element inet t published { 127.0.0.1 . udp . 2 : 10.0.0.2 . 80 }',
    'add element inet t links { 10.0.0.2 . 10.0.0.3 . tcp . 5 }',
  ]);
  assert.deepEqual(deleteElements('t', elements).split('\n'), [
    'delete element inet t published_any { tcp . 1 }',
    'delete element inet t published { 127.0.0.1 . udp . 2 }',
    'delete element inet t links { 10.0.0.2 . 10.0.0.3 . tcp . 5 }',
  ]);
  const bridge: BridgeRules = {
    name: 'b0',
    icc: false,
    internal: false,
    trusted: ['eth9'],
    subnets: [
      { subnet: '10.0.0.0/8', mode: 'nat', masquerade: false, source: '' },
      { subnet: 'fd00::/64', mode: 'routed', masquerade: true, source: '' },
    ],
  };
  const whole = replaceTable('t', [bridge], elements);
  assert.match(whole, /^add table ip t\ndelete table ip t\nadd table inet t\ndelete table inet t\ntable inet t \{/);
  assert.match(whole, /same \{ "b0" \. "b0" : drop \}/);
  assert.doesNotMatch(whole, /masqueraded6? \{ (10|fd)/);
  assert.deepEqual(deleteBridge('t', bridge).split('\n'), [
    'delete element inet t bridges { "b0" }',
    'delete element inet t same { "b0" . "b0" }',
    'delete element inet t trusted { "eth9" . "b0" }',
    'delete element inet t inside { "b0" . 10.0.0.0/8 }',
    'delete element inet t inside6 { "b0" . fd00::/64 }',
    'delete element inet t routed { "b0" . ipv6 }',
  ]);
});

test('foreign chains that drop forwarded packets are found', () => {
  const chain = { family: 'ip', table: 'filter', name: 'FORWARD', hook: 'forward', policy: 'drop' };
  const listing = {
    nftables: [
      { metainfo: {} },
      { chain },
      { chain: { ...chain, table: 'mine' } },
      { chain: { ...chain, policy: 'accept' } },
    ],
  };
  assert.deepEqual(foreignForwardDrops(listing, 'mine'), ['ip filter FORWARD']);
  assert.deepEqual(foreignForwardDrops(null, 'mine'), []);
});

test('resolv.conf leaves out loopback servers on a bridge and keeps the file on the host network', () => {
  const host = '# c\nnameserver 127.0.0.1\nnameserver 10.0.0.53\nnameserver fd00::1\nsearch a b\noptions ndots:2\n';
  const none = { servers: [], search: [], options: [] };
  assert.equal(containerResolvConf(host, { mode: 'host', ...none }), host);
  assert.equal(
    containerResolvConf(host, { mode: 'bridge', ...none }),
    'nameserver 10.0.0.53\nsearch a b\noptions ndots:2\n',
  );
  assert.equal(
    containerResolvConf('nameserver ::1\n', { mode: 'bridge', ...none }),
    'nameserver 8.8.8.8\nnameserver 8.8.4.4\n',
  );
  assert.equal(
    containerResolvConf(host, { mode: 'bridge', servers: ['127.0.0.1'], search: ['.'], options: ['x'] }),
    'nameserver 127.0.0.1\noptions x\n',
  );
});
