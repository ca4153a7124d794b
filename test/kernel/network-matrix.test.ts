/**
 * Who reaches whom: {driver and its options} × {same network, other network, host, published} × {IPv4, IPv6} ×
 * {tcp, udp}, with real traffic, in a network namespace of its own. And what a flushed rule set does to it.
 */
import assert from 'node:assert/strict';
import { execFileSync } from 'node:child_process';
import { after, before, describe, test } from 'node:test';
import { setTimeout as delay } from 'node:timers/promises';
import type { NetworkSpec } from '#services/networks/contract.ts';
import { CLONE_NEWNET, unshare } from '#system/kernel/namespaces.ts';
import { addAddress, addBridge, setLink } from '#system/netlink/route.ts';
import { NetlinkSocket } from '#system/netlink/socket.ts';
import {
  type Instance,
  joined,
  kernelState,
  networkSpec,
  openInstance,
  probe,
  publish,
  serve,
  talk,
  temporaryDirectory,
} from './network-fixture.ts';

unshare(CLONE_NEWNET);
const CARD = { ipv4: '192.0.2.77', ipv6: '2001:db8::77' };
const hostLink = NetlinkSocket.open();
hostLink.request(setLink(1, { up: true }));
// Stands for the host's own network card.
hostLink.request(addBridge('card0'));
const card = hostLink.link('card0')?.index ?? 0;
hostLink.request(addAddress(card, CARD.ipv4, 24));
hostLink.request(addAddress(card, CARD.ipv6, 64));
after(() => hostLink[Symbol.dispose]());

type Joined = Awaited<ReturnType<typeof joined>>;

/** Whether each path works, as `same other host published loopback outward`, for TCP; UDP must agree. */
interface Expected {
  readonly name: string;
  readonly spec: Partial<NetworkSpec>;
  readonly ipv4: string;
  readonly ipv6: string;
}

const BRIDGE = 'com.docker.network.bridge.';

/** `+` reachable, `-` not. Columns: same network, other network, from the host, published on the card, on loopback. */
const MATRIX: readonly Expected[] = [
  { name: 'nat', spec: {}, ipv4: '+ - + + +', ipv6: '+ - + + +' },
  { name: 'icc off', spec: { options: { [`${BRIDGE}enable_icc`]: 'false' } }, ipv4: '- - + + +', ipv6: '- - + + +' },
  { name: 'internal', spec: { internal: true }, ipv4: '+ - + - -', ipv6: '+ - + - -' },
  {
    name: 'nat-unprotected',
    spec: {
      options: { [`${BRIDGE}gateway_mode_ipv4`]: 'nat-unprotected', [`${BRIDGE}gateway_mode_ipv6`]: 'nat-unprotected' },
    },
    ipv4: '+ + + + +',
    ipv6: '+ + + + +',
  },
  {
    // Publishing opens the container's own port.
    name: 'routed',
    spec: { options: { [`${BRIDGE}gateway_mode_ipv4`]: 'routed', [`${BRIDGE}gateway_mode_ipv6`]: 'routed' } },
    ipv4: '+ + + - -',
    ipv6: '+ + + - -',
  },
  {
    name: 'isolated',
    spec: {
      internal: true,
      options: { [`${BRIDGE}gateway_mode_ipv4`]: 'isolated', [`${BRIDGE}gateway_mode_ipv6`]: 'isolated' },
    },
    ipv4: '+ - - - -',
    ipv6: '+ - - - -',
  },
  { name: 'macvlan', spec: { driver: 'macvlan', options: { parent: 'card0' } }, ipv4: '+ - - - -', ipv6: '+ - - - -' },
  { name: 'macvlan without a parent', spec: { driver: 'macvlan' }, ipv4: '+ - - - -', ipv6: '+ - - - -' },
  {
    name: 'macvlan private',
    spec: { driver: 'macvlan', options: { parent: 'card0', macvlan_mode: 'private' } },
    ipv4: '- - - - -',
    ipv6: '- - - - -',
  },
  { name: 'ipvlan', spec: { driver: 'ipvlan', options: { parent: 'card0' } }, ipv4: '+ - - - -', ipv6: '+ - - - -' },
];

describe('reachability', () => {
  const directory = temporaryDirectory();
  let instance: Instance;
  let stranger: Joined;
  before(async () => {
    instance = await openInstance(directory.path, { name: 'gmx-br' });
    await instance.networks.create(networkSpec('other', { ipv6: true }));
    stranger = await joined(instance.networks, { network: 'other' });
  });
  after(async () => {
    await instance.networks.removeSandbox(stranger.id);
    await instance[Symbol.asyncDispose]();
    directory[Symbol.dispose]();
  });

  /** Makes the network, measures every path of both families and protocols, and removes it. */
  async function measure(row: Expected, port: number): Promise<Record<string, string>> {
    const { networks } = instance;
    await networks.create(networkSpec(row.name, { ipv6: true, ...row.spec }));
    const server = await joined(networks, {
      network: row.name,
      publish: [publish(80, port), publish(80, port, { protocol: 'udp' })],
    });
    const near = await joined(networks, { network: row.name });
    const kinds = (['ipv4', 'ipv6'] as const).flatMap((family) =>
      (['tcp', 'udp'] as const).map((protocol) => ({ family, protocol })),
    );
    await using _running = await serve(server.sandbox, 80);
    await using _closed = await serve(server.sandbox, 81);
    const own = { ipv4: server.endpoint.ipAddress, ipv6: server.endpoint.ipv6Address };
    const loopback = { ipv4: '127.0.0.1', ipv6: '::1' };
    const direct = kinds.map(({ family, protocol }) => ({ protocol, host: own[family], port: 80 }));
    const unpublished = { protocol: 'tcp', host: own.ipv4, port: 81 } as const;
    const onCard = kinds.map(({ family, protocol }) => ({ protocol, host: CARD[family], port }));
    const onLoopback = kinds.map(({ family, protocol }) => ({ protocol, host: loopback[family], port }));
    const [fromNear, fromStranger, fromHost] = await Promise.all([
      probe(near.sandbox, direct),
      probe(stranger.sandbox, [...direct, ...onCard, unpublished]),
      probe(undefined, [...direct, ...onLoopback]),
    ]);
    for (const { id } of [server, near]) await networks.removeSandbox(id);
    await networks.remove(networks.find(row.name).id);
    const sign = (reached: boolean | undefined): string => (reached === true ? '+' : '-');
    return Object.fromEntries([
      ...kinds.map(({ family, protocol }, index) => [
        `${family} ${protocol}`,
        [
          fromNear[index],
          fromStranger[index],
          fromHost[index],
          fromStranger[kinds.length + index],
          fromHost[kinds.length + index],
        ]
          .map(sign)
          .join(' '),
      ]),
      ['unpublished', sign(fromStranger.at(-1))],
    ]);
  }

  for (const [index, row] of MATRIX.entries()) {
    test(row.name, async (context) => {
      if (row.spec.driver === 'ipvlan' && !hasKernel('ipvlan')) return context.skip('this kernel has no ipvlan');
      const { ipv4, ipv6 } = row;
      assert.deepEqual(await measure(row, 18700 + index), {
        'ipv4 tcp': ipv4,
        'ipv4 udp': ipv4,
        'ipv6 tcp': ipv6,
        'ipv6 udp': ipv6,
        unpublished: row.name === 'nat-unprotected' ? '+' : '-',
      });
    });
  }

  test('a published port shows the container who asks', async () => {
    const server = await joined(instance.networks, { publish: [publish(80, 18801)] });
    await using _running = await serve(server.sandbox, 80);
    const [mine, theirs] = [stranger.endpoint.ipAddress, await talk(stranger.sandbox, CARD.ipv4, 18801)];
    assert.equal(theirs, `hello ${mine} 3`);
    await instance.networks.removeSandbox(server.id);
  });

  test('a flushed rule set is back within two seconds, and at once for the next change', async () => {
    const server = await joined(instance.networks, { publish: [publish(80, 18802)] });
    await using _running = await serve(server.sandbox, 80);
    const tables = (): string[] => kernelState(/^table inet gantry/);
    const rules = (): string => execFileSync('nft', ['list', 'ruleset'], { encoding: 'utf8' });
    const before = rules();
    assert.equal(tables().length, 1);
    execFileSync('nft', ['flush', 'ruleset']);
    assert.deepEqual(tables(), []);
    const begun = performance.now();
    while (tables().length === 0 && performance.now() - begun < 10_000) await delay(20);
    // A second and a turn; far more on a loaded machine would still be a wrong interval.
    assert.ok(performance.now() - begun < 2000, `${performance.now() - begun} ms`);
    assert.equal(rules(), before);
    assert.match(await talk(stranger.sandbox, CARD.ipv4, 18802), /^hello/);
    execFileSync('nft', ['flush', 'ruleset']);
    const next = await joined(instance.networks, { publish: [publish(80, 18803)] });
    assert.match(await talk(stranger.sandbox, CARD.ipv4, 18802), /^hello/);
    assert.equal(instance.warnings.filter((warning) => /rules were removed/.test(warning)).length, 2);
    for (const { id } of [server, next]) await instance.networks.removeSandbox(id);
  });
});

test('published ports can be made to pass the input rules of the host', async () => {
  using directory = temporaryDirectory();
  const chain = 'add table inet denies; add chain inet denies input { type filter hook input priority 0; }';
  const isDenied = async (respectHostFirewall: boolean, port: number): Promise<boolean> => {
    await using instance = await openInstance(directory.path, { name: 'gmz-br', respectHostFirewall });
    const server = await joined(instance.networks, { publish: [publish(80, port)] });
    const client = await joined(instance.networks);
    await using _running = await serve(server.sandbox, 80);
    assert.match(await talk(client.sandbox, CARD.ipv4, port), /^hello/);
    execFileSync('nft', [`${chain}; add rule inet denies input tcp dport ${port} drop`]);
    const answer = await talk(client.sandbox, CARD.ipv4, port);
    execFileSync('nft', ['delete', 'table', 'inet', 'denies']);
    for (const { id } of [server, client]) await instance.networks.removeSandbox(id);
    return answer === 'timeout';
  };
  assert.equal(await isDenied(false, 18805), false);
  assert.equal(await isDenied(true, 18806), true);
});

test('200 networks are made, used, and found again by the next daemon; removed ones leave nothing', async (context) => {
  using directory = temporaryDirectory();
  const count = 200;
  const bridges = (): number => kernelState(/^br-[0-9a-f]{12}$/).length;
  const before = bridges();
  const begun = performance.now();
  {
    await using instance = await openInstance(directory.path, { name: 'gmy-br' });
    for (let number = 0; number < count; number += 1) await instance.networks.create(networkSpec(`n${number}`));
    context.diagnostic(`${((performance.now() - begun) / count).toFixed(1)} ms a network`);
    const last = await joined(instance.networks, { network: `n${count - 1}`, publish: [publish(80, 18804)] });
    await using _running = await serve(last.sandbox, 80);
    assert.match(await talk(undefined, CARD.ipv4, 18804), /^hello/);
    await instance.networks.removeSandbox(last.id);
  }
  await using instance = await openInstance(directory.path, { name: 'gmy-br' });
  assert.deepEqual([instance.networks.list().length, bridges() - before], [count + 3, count]);
  // Removing a bridge takes the kernel a grace period; the others go with this namespace.
  for (let number = 0; number < 20; number += 1) {
    await instance.networks.remove(instance.networks.find(`n${number}`).id);
  }
  assert.equal(bridges() - before, count - 20);
  assert.deepEqual(instance.warnings, []);
});

/** Whether the kernel makes devices of a kind. */
function hasKernel(kind: string): boolean {
  try {
    execFileSync('ip', ['link', 'add', 'probe0', 'link', 'card0', 'type', kind], { stdio: 'ignore' });
  } catch {
    return false;
  }
  execFileSync('ip', ['link', 'del', 'probe0']);
  return true;
}
