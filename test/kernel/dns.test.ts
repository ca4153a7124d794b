/** The resolver over real sockets: namespaces, port 53, upstream servers that are slow, silent or lie. */
import assert from 'node:assert/strict';
import { execFileSync } from 'node:child_process';
import { createSocket } from 'node:dgram';
import { test } from 'node:test';
import fc from 'fast-check';
import type { Resolver } from '#services/dns/contract.ts';
import { DNS_TYPE, dnsQuery, dnsRecord, dnsResponse } from '#services/dns/fake-messages.ts';
import { openResolver } from '#services/dns/resolver.ts';
import { frame } from '#system/dns/frames.ts';
import { socketTransport } from '#system/dns/transport.ts';
import { closeSocket, localPort } from '#system/kernel/socket.ts';
import { newId } from '#types/ids.ts';
import { eventually } from '../harness/processes.ts';
import {
  askByTcp,
  boundSocket,
  connectInside,
  descriptorCount,
  TestClient,
  TestNamespace,
  TestServer,
  viewOf,
} from './dns-fixture.ts';

const a = (text: string, ttl = 0): Buffer => dnsRecord('@', DNS_TYPE.A, ttl, Buffer.from(text.split('.').map(Number)));
const answering =
  (text: string, ttl = 0) =>
  (query: Buffer) =>
    dnsResponse(query, { answers: [a(text, ttl)] });

function open(warnings: string[] = []): Resolver {
  return openResolver({ transport: socketTransport, warn: (message) => warnings.push(message) });
}

test('names are answered at 127.0.0.11:53 by UDP and TCP, and a change of the view is seen at once', async () => {
  using namespace = new TestNamespace();
  await using resolver = open();
  using client = new TestClient(namespace.path);
  let view = viewOf({ web: '10.0.0.2' });
  await resolver.attach(namespace.path, newId(), () => view);
  const texts = async (name: string): Promise<string[]> => (await client.ask(name)).answers.map(({ text }) => text);
  assert.deepEqual(await texts('web'), ['10.0.0.2']);
  assert.deepEqual(await texts('WEB.net'), ['10.0.0.2']);
  const pointer = await client.ask('2.0.0.10.in-addr.arpa', { type: DNS_TYPE.PTR });
  assert.deepEqual(
    pointer.answers.map(({ text }) => text),
    ['web.net'],
  );
  const byTcp = await askByTcp(namespace.path, [dnsQuery('web', { id: 1 }), dnsQuery('web', { id: 2, type: 28 })]);
  assert.deepEqual(
    byTcp.map(({ id, code, answers }) => [id, code, answers.length]),
    [
      [1, 0, 1],
      [2, 0, 0],
    ],
  );
  view = viewOf({ web: '10.0.0.9', api: '10.0.0.3' });
  assert.deepEqual(await texts('web'), ['10.0.0.9']);
  assert.deepEqual(await texts('api'), ['10.0.0.3']);
  view = viewOf({});
  assert.equal((await client.ask('web')).code, 2, 'unknown, and nobody to ask');
  assert.deepEqual(client.strangers, []);
});

test('port 53 is the container’s: any address but the resolver’s reaches its own server', async () => {
  using namespace = new TestNamespace();
  await using resolver = open();
  await resolver.attach(namespace.path, newId(), () => viewOf({ web: '10.0.0.2' }));
  closeSocket(boundSocket(namespace.path, 'tcp', '0.0.0.0', 53));
  const fd = boundSocket(namespace.path, 'udp', '0.0.0.0', 53);
  try {
    using client = new TestClient(namespace.path);
    assert.equal((await client.ask('web')).answers.length, 1, 'although the container has port 53 too');
  } finally {
    closeSocket(fd);
  }
});

test('the container’s own firewall sees port 53 both ways, and its connection tracking is not confused', async () => {
  using namespace = new TestNamespace();
  const nft = (...args: string[]): string =>
    execFileSync('nsenter', [`--net=${namespace.path}`, 'nft', ...args], { encoding: 'utf8' });
  nft(`table inet own {
    chain out {
      type filter hook output priority 0; policy drop
      ip daddr 127.0.0.11 udp dport 53 accept
      ip daddr 127.0.0.11 tcp dport 53 accept
      ip saddr 127.0.0.11 udp sport 53 accept
      ip saddr 127.0.0.11 tcp sport 53 accept
    }
    chain in {
      type filter hook input priority 0; policy drop
      ct state invalid drop
      udp dport 53 accept
      tcp dport 53 accept
      ct state established accept
    }
  }`);
  await using resolver = open();
  await resolver.attach(namespace.path, newId(), () => viewOf({ web: '10.0.0.2' }));
  using client = new TestClient(namespace.path);
  assert.equal((await client.ask('web')).answers.length, 1);
  assert.equal((await askByTcp(namespace.path, [dnsQuery('web')])).length, 1);
});

test('a new resolver takes over a namespace that an earlier one served, also after its rules were lost', async () => {
  using namespace = new TestNamespace();
  const rules = (): string =>
    execFileSync('nsenter', [`--net=${namespace.path}`, 'nft', 'list', 'ruleset'], { encoding: 'utf8' });
  using client = new TestClient(namespace.path);
  const serve = async (address: string): Promise<void> => {
    await using resolver = open();
    await resolver.attach(namespace.path, newId(), () => viewOf({ web: address }));
    assert.equal((await client.ask('web')).answers[0]?.text, address);
    assert.equal((await askByTcp(namespace.path, [dnsQuery('web')]))[0]?.answers[0]?.text, address);
  };
  await serve('10.0.0.1');
  const first = rules();
  await serve('10.0.0.2');
  assert.equal(rules(), first, 'the same port, the same rules');
  const port = Number(/dport set (\d+)/.exec(first)?.[1]);
  const fd = boundSocket(namespace.path, 'udp', '0.0.0.0', port);
  await serve('10.0.0.3');
  closeSocket(fd);
  assert.notEqual(rules(), first, 'the port was taken meanwhile');
  execFileSync('nsenter', [`--net=${namespace.path}`, 'nft', 'flush', 'ruleset']);
  await serve('10.0.0.4');
});

test('detaching closes everything; the namespace ends with its last name', async () => {
  const before = descriptorCount();
  {
    using namespace = new TestNamespace();
    await using silent = new TestServer(undefined, () => undefined);
    await using resolver = open();
    using client = new TestClient(namespace.path);
    const id = newId();
    await resolver.attach(namespace.path, id, () => viewOf({}, [silent.upstream]));
    client.send(dnsQuery('a.test'));
    await eventually(() => silent.queries.length === 1, { what: 'the server to be asked' });
    await resolver.detach(id);
    await resolver.detach(id);
    using again = new TestClient(namespace.path);
    const none = await Promise.race([
      again.exchange(dnsQuery('a.test')).then(
        () => 'answer',
        () => 'none',
      ),
      new Promise((resolve) => setTimeout(resolve, 200, 'none')),
    ]);
    assert.equal(none, 'none');
  }
  await eventually(() => descriptorCount() <= before, {
    what: () => `${descriptorCount()} descriptors, not ${before}`,
  });
});

test('unknown names are forwarded from the namespace the server belongs to', async () => {
  using namespace = new TestNamespace();
  await using outside = new TestServer(undefined, answering('1.1.1.1'));
  await using within = new TestServer(namespace.path, answering('2.2.2.2'));
  await using resolver = open();
  using client = new TestClient(namespace.path);
  let view = viewOf({ web: '10.0.0.2' }, [outside.upstream]);
  await resolver.attach(namespace.path, newId(), () => view);
  assert.equal((await client.ask('a.test')).answers[0]?.text, '1.1.1.1');
  assert.equal((await askByTcp(namespace.path, [dnsQuery('a.test')]))[0]?.answers[0]?.text, '1.1.1.1');
  view = viewOf({}, [within.upstream]);
  assert.equal((await client.ask('a.test')).answers[0]?.text, '2.2.2.2');
  assert.equal((await askByTcp(namespace.path, [dnsQuery('a.test')]))[0]?.answers[0]?.text, '2.2.2.2');
  assert.deepEqual(
    within.queries.map(({ protocol }) => protocol),
    ['udp', 'tcp'],
  );
  view = { ...viewOf({}, [outside.upstream, within.upstream]), external: false };
  assert.equal((await client.ask('a.test')).answers[0]?.text, '2.2.2.2', 'without a way out only its own');
  assert.equal(outside.queries.length, 2);
});

test('servers are asked over IPv6 too', async () => {
  using namespace = new TestNamespace();
  const server = createSocket('udp6');
  try {
    server.on('message', (query, from) => server.send(answering('1.1.1.1')(query), from.port, from.address));
    const fd = boundSocket(namespace.path, 'udp', '::1', 0);
    const port = localPort(fd);
    server.bind({ fd });
    await using resolver = open();
    using client = new TestClient(namespace.path);
    await resolver.attach(namespace.path, newId(), () => viewOf({}, [{ address: '::1', port, fromHost: false }]));
    assert.equal((await client.ask('a.test')).answers[0]?.text, '1.1.1.1');
  } finally {
    server.close();
  }
});

test('EDNS is passed on, IDs and source ports are new each time', async () => {
  using namespace = new TestNamespace();
  await using server = new TestServer(undefined, answering('1.1.1.1'));
  await using resolver = open();
  using client = new TestClient(namespace.path);
  await resolver.attach(namespace.path, newId(), () => viewOf({}, [server.upstream]));
  const cookie = Buffer.from('000a00080102030405060708', 'hex');
  for (let round = 0; round < 20; round += 1) await client.ask('a.test', { ednsBytes: 1400, ednsOptions: cookie });
  const first = server.queries[0]?.bytes ?? Buffer.alloc(0);
  assert.deepEqual(first.subarray(2), dnsQuery('a.test', { ednsBytes: 1400, ednsOptions: cookie }).subarray(2));
  assert.ok(new Set(server.queries.map(({ bytes }) => bytes.readUInt16BE(0))).size > 15);
  assert.ok(new Set(server.queries.map(({ port }) => port)).size > 15);
});

test('a truncated answer makes the client ask by TCP, and so do we', async () => {
  using namespace = new TestNamespace();
  const answers = Array.from({ length: 300 }, (_, index) => a(`10.1.${index >> 8}.${index & 255}`));
  await using server = new TestServer(undefined, (query, protocol) =>
    protocol === 'udp' ? dnsResponse(query, { truncated: true }) : dnsResponse(query, { answers }),
  );
  await using resolver = open();
  using client = new TestClient(namespace.path);
  await resolver.attach(namespace.path, newId(), () => viewOf({}, [server.upstream]));
  assert.ok((await client.ask('big.test')).truncated);
  assert.equal((await askByTcp(namespace.path, [dnsQuery('big.test')]))[0]?.answers.length, 300);
});

test('a dead, a failing and a lying server hand over to the next', async () => {
  using namespace = new TestNamespace();
  await using failing = new TestServer(undefined, (query) => dnsResponse(query, { code: 2 }));
  await using lying = new TestServer(undefined, (query) => {
    const otherId = dnsResponse(query, { answers: [a('6.6.6.6')] });
    otherId.writeUInt16BE((otherId.readUInt16BE(0) + 1) & 0xffff);
    const otherName = dnsResponse(dnsQuery('bank.test', { id: query.readUInt16BE(0) }), { answers: [a('6.6.6.6')] });
    return [otherId, otherName, Buffer.alloc(3), query, otherName, otherId, ...Array<Buffer>(20).fill(otherId)];
  });
  await using good = new TestServer(undefined, answering('1.1.1.1'));
  await using resolver = open();
  using client = new TestClient(namespace.path);
  const closed = { address: '127.0.0.1', port: 1, fromHost: false };
  for (const first of [closed, failing.upstream, lying.upstream]) {
    await resolver.attach(namespace.path, newId(), () => viewOf({}, [first, good.upstream]));
    assert.deepEqual(
      (await client.ask('a.test')).answers.map(({ text }) => text),
      ['1.1.1.1'],
    );
  }
});

test('one silent server costs a moment, and nobody is waited for without end', async () => {
  using namespace = new TestNamespace();
  await using silent = new TestServer(undefined, () => undefined);
  await using good = new TestServer(undefined, answering('1.1.1.1'));
  await using resolver = open();
  using client = new TestClient(namespace.path);
  await resolver.attach(namespace.path, newId(), () => viewOf({}, [silent.upstream, good.upstream]));
  assert.equal((await client.ask('a.test')).answers[0]?.text, '1.1.1.1');
  const server = { address: '127.0.0.1', port: silent.port, namespacePath: undefined };
  const message = dnsQuery('a.test');
  for (const protocol of ['udp', 'tcp'] as const) {
    const exchange = { server, protocol, message, accept: () => true, timeoutMs: 50 };
    await assert.rejects(socketTransport.ask(exchange, new AbortController().signal), /silent/);
  }
});

test('nonsense is refused or ignored, and a good query still answered', async () => {
  using namespace = new TestNamespace();
  const warnings: string[] = [];
  await using resolver = open(warnings);
  using client = new TestClient(namespace.path);
  await resolver.attach(namespace.path, newId(), () => viewOf({ web: '10.0.0.2' }));
  await fc.assert(
    fc.asyncProperty(
      fc.array(fc.uint8Array({ maxLength: 300 }), { minLength: 1, maxLength: 20 }),
      async (datagrams) => {
        for (const datagram of datagrams) client.send(Buffer.from(datagram));
        assert.equal((await client.ask('web')).answers.length, 1);
      },
    ),
    { numRuns: 50 },
  );
  for (const bytes of [Buffer.alloc(40_000), frame(Buffer.alloc(0)), Buffer.from('ffff00', 'hex')]) {
    const socket = connectInside(namespace.path);
    socket.on('error', () => undefined);
    socket.end(bytes);
    socket.resume();
  }
  assert.equal((await askByTcp(namespace.path, [dnsQuery('web')])).length, 1);
  assert.deepEqual(warnings, []);
});

test('a view that fails is the failure of one query', async () => {
  using namespace = new TestNamespace();
  const warnings: string[] = [];
  await using resolver = open(warnings);
  using client = new TestClient(namespace.path);
  await resolver.attach(namespace.path, newId(), () => {
    throw new RangeError('secret.name.test');
  });
  assert.equal((await client.ask('a.test')).code, 2);
  assert.match(warnings.join(), /RangeError/);
  assert.doesNotMatch(warnings.join(), /secret/);
});

test('many connections at a time are bounded, and 100 queries on one are all answered', async () => {
  using namespace = new TestNamespace();
  await using resolver = open();
  await resolver.attach(namespace.path, newId(), () => viewOf({ web: '10.0.0.2' }));
  const before = descriptorCount();
  const sockets = Array.from({ length: 100 }, () => connectInside(namespace.path));
  for (const socket of sockets) socket.on('error', () => undefined);
  await eventually(() => sockets.filter(({ destroyed }) => destroyed).length >= 36, {
    what: 'connections to be refused',
  });
  assert.ok(descriptorCount() - before <= 100 + 64);
  for (const socket of sockets) socket.destroy();
  const queries = Array.from({ length: 100 }, (_, id) => dnsQuery('web', { id }));
  const all = (): Promise<number> =>
    askByTcp(namespace.path, queries).then(
      ({ length }) => length,
      () => 0,
    );
  await eventually(async () => (await all()) === 100, { what: 'all answers' });
});

test('20,000 forwarded queries leave no socket behind', async () => {
  using namespace = new TestNamespace();
  await using server = new TestServer(undefined, answering('1.1.1.1'));
  await using resolver = open();
  using client = new TestClient(namespace.path);
  await resolver.attach(namespace.path, newId(), () => viewOf({}, [server.upstream]));
  await client.ask('warm.test');
  const before = descriptorCount();
  let next = 0;
  let answered = 0;
  let peak = 0;
  const worker = async (): Promise<void> => {
    while (next < 20_000) {
      const name = `n${next}.test`;
      next += 1;
      if ((await client.ask(name)).answers.length === 1) answered += 1;
      if (next % 500 === 0) peak = Math.max(peak, descriptorCount());
    }
  };
  await Promise.all(Array.from({ length: 50 }, worker));
  assert.equal(answered, 20_000);
  assert.equal(server.queries.length, 20_001, 'nothing came from the cache');
  assert.ok(peak - before <= 60, `${peak - before} descriptors more`);
  await eventually(() => descriptorCount() <= before, {
    what: () => `${descriptorCount()} descriptors, not ${before}`,
  });
});
