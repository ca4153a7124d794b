import assert from 'node:assert/strict';
import { test } from 'node:test';
import { chooseSubnet, formatIpv4, lowestFree, macOf, parseCidr, parseIpv4 } from './address.ts';
import { planBridge } from './bridge-device.ts';
import { addElements, deleteElements, foreignForwardDrops, replaceTable } from './firewall.ts';
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

test('addresses are given lowest first and never the network, broadcast or a used one', () => {
  const { subnet } = parseCidr('10.0.0.0/29');
  const used = new Set([parseIpv4('10.0.0.1')]);
  const given: string[] = [];
  for (;;) {
    const next = lowestFree(subnet, subnet, used);
    if (next === undefined) break;
    used.add(next);
    given.push(formatIpv4(next));
  }
  assert.deepEqual(given, ['10.0.0.2', '10.0.0.3', '10.0.0.4', '10.0.0.5', '10.0.0.6']);
  assert.equal(macOf(parseIpv4('172.17.0.2')), '02:42:ac:11:00:02');
});

test('the bridge takes the first subnet no route overlaps, or what it is told', () => {
  const routes = [parseCidr('172.17.0.0/16').subnet, parseCidr('172.18.5.0/24').subnet];
  const none = { existing: undefined, remembered: undefined, routes };
  assert.equal(formatIpv4(planBridge({ name: 'b' }, none).address), '172.19.0.1');
  assert.equal(formatIpv4(planBridge({ name: 'b' }, { ...none, remembered: '172.20.0.1/16' }).address), '172.20.0.1');
  assert.equal(formatIpv4(planBridge({ name: 'b' }, { ...none, remembered: '172.17.0.1/16' }).address), '172.19.0.1');
  assert.equal(formatIpv4(planBridge({ name: 'b' }, { ...none, existing: '10.5.0.9/24' }).address), '10.5.0.9');
  const plan = planBridge(
    { name: 'b', bip: '10.9.0.1/16', fixedCidr: '10.9.4.0/24', defaultGateway: '10.9.0.254' },
    none,
  );
  assert.deepEqual([formatIpv4(plan.range.base), formatIpv4(plan.gateway)], ['10.9.4.0', '10.9.0.254']);
  assert.throws(() => planBridge({ name: 'b', bip: '10.9.0.1/16', fixedCidr: '10.8.0.0/24' }, none), /fixed-cidr/);
  assert.throws(() => planBridge({ name: 'b', bip: '10.9.0.0/16' }, none), { kind: 'invalid' });
  assert.throws(
    () => chooseSubnet([{ base: '10.0.0.0/24', size: 24 }], [parseCidr('10.0.0.0/8').subnet]),
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
    'add element ip t published_any { tcp . 1 : 10.0.0.2 . 80 }',
    'add element ip t published { 127.0.0.1 . udp . 2 : 10.0.0.2 . 80 }',
    'add element ip t links { 10.0.0.2 . 10.0.0.3 . tcp . 5 }',
  ]);
  assert.deepEqual(deleteElements('t', elements).split('\n'), [
    'delete element ip t published_any { tcp . 1 }',
    'delete element ip t published { 127.0.0.1 . udp . 2 }',
    'delete element ip t links { 10.0.0.2 . 10.0.0.3 . tcp . 5 }',
  ]);
  const whole = replaceTable('t', [{ name: 'b0', subnet: '10.0.0.0/8', icc: false, masquerade: false }], elements);
  assert.match(whole, /^add table ip t\ndelete table ip t\ntable ip t \{/);
  assert.match(whole, /same \{ "b0" \. "b0" : drop \}/);
  assert.doesNotMatch(whole, /masqueraded \{ 10/);
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
