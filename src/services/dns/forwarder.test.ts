import assert from 'node:assert/strict';
import { mock, test } from 'node:test';
import { setImmediate } from 'node:timers/promises';
import type { DnsTransport, Exchange } from '#system/dns/contract.ts';
import type { Upstream } from './contract.ts';
import { dnsQuery, dnsRecord, dnsResponse, readDns, soaRecord } from './fake-messages.ts';
import { type Forward, Forwarder } from './forwarder.ts';
import { type Query, receiveQuery } from './message.ts';

interface Asked extends Exchange {
  answer(response: Buffer): void;
  fail(): void;
  readonly aborted: () => boolean;
}

/** Servers that answer when the test says so. */
class FakeServers implements DnsTransport {
  readonly asked: Asked[] = [];

  listen(): never {
    throw new Error('not used');
  }

  ask(exchange: Exchange, signal: AbortSignal): Promise<Buffer> {
    return new Promise((resolve, reject) => {
      signal.addEventListener('abort', () => reject(new Error('aborted')));
      this.asked.push({
        ...exchange,
        answer: (response) => {
          if (exchange.accept(response)) resolve(response);
        },
        fail: () => reject(new Error('refused')),
        aborted: () => signal.aborted,
      });
    });
  }

  get addresses(): string[] {
    return this.asked.map(({ server }) => server.address);
  }

  /** The exchange at `index`, which must be there. */
  at(index: number): Asked {
    const asked = this.asked[index];
    assert.ok(asked, `exchange ${index} was not begun`);
    return asked;
  }
}

const upstreams: readonly Upstream[] = ['1.1.1.1', '2.2.2.2', '3.3.3.3'].map((address) => ({
  address,
  fromHost: true,
}));

function forward(name: string, options: Partial<Forward> & { id?: number; ednsBytes?: number } = {}): Forward {
  const { id = 1, ednsBytes, ...rest } = options;
  const received = receiveQuery(dnsQuery(name, { id, ...(ednsBytes === undefined ? {} : { ednsBytes }) }));
  const query = (received as { query: Query }).query;
  return { query, protocol: 'udp', upstreams, client: 'client', namespacePath: '/ns', ...rest };
}

function good(asked: Asked, ttl = 60, count = 1): Buffer {
  const answers = Array.from({ length: count }, (_, last) => dnsRecord('@', 1, ttl, Buffer.from([10, 0, 0, last])));
  return dnsResponse(asked.message, { answers });
}

function setUp(): { servers: FakeServers; forwarder: Forwarder; limited: string[]; clock: { ms: number } } {
  const servers = new FakeServers();
  const clock = { ms: 1000 };
  const limited: string[] = [];
  const now = (): number => clock.ms;
  const forwarder = new Forwarder({ transport: servers, now, limited: (client) => limited.push(client) });
  return { servers, forwarder, limited, clock };
}

const live: AbortSignal = new AbortController().signal;

async function codeOf(reply: Promise<Buffer | undefined>): Promise<number> {
  return readDns((await reply) ?? Buffer.alloc(12)).code;
}

test('the first server is asked under an ID of our own; its answer comes back under the client’s', async () => {
  const { servers, forwarder } = setUp();
  const ids = new Set<number>();
  for (let round = 0; round < 5; round += 1) {
    const reply = forwarder.forward(forward(`a${round}.test`, { id: 77 }), live);
    await setImmediate();
    const asked = servers.at(round);
    ids.add(asked.message.readUInt16BE(0));
    asked.answer(good(asked));
    assert.equal(readDns((await reply) ?? Buffer.alloc(12)).id, 77);
  }
  assert.deepEqual(new Set(servers.addresses), new Set(['1.1.1.1']));
  assert.ok(ids.size > 1, 'IDs are random');
});

test('a server that fails hands over at once; when all fail the client is told', async () => {
  const { servers, forwarder } = setUp();
  const reply = codeOf(forwarder.forward(forward('a.test'), live));
  await setImmediate();
  servers.at(0).answer(dnsResponse(servers.at(0).message, { code: 2 }));
  await setImmediate();
  servers.at(1).answer(dnsResponse(servers.at(1).message, { code: 5 }));
  await setImmediate();
  servers.at(2).fail();
  assert.equal(await reply, 2);
  assert.deepEqual(servers.addresses, ['1.1.1.1', '2.2.2.2', '3.3.3.3']);
});

test('a name that does not exist is an answer', async () => {
  const { servers, forwarder } = setUp();
  const reply = codeOf(forwarder.forward(forward('a.test'), live));
  await setImmediate();
  servers.at(0).answer(dnsResponse(servers.at(0).message, { code: 3 }));
  assert.equal(await reply, 3);
  assert.equal(servers.asked.length, 1);
});

test('a silent server is joined by the next, and both asked at once the next time', async () => {
  mock.timers.enable({ apis: ['setTimeout'] });
  try {
    const { servers, forwarder, clock } = setUp();
    const first = forwarder.forward(forward('a.test'), live);
    await setImmediate();
    mock.timers.tick(399);
    assert.equal(servers.asked.length, 1);
    clock.ms += 400;
    mock.timers.tick(1);
    assert.deepEqual(servers.addresses, ['1.1.1.1', '2.2.2.2']);
    servers.at(1).answer(good(servers.at(1)));
    await first;
    assert.ok(servers.at(0).aborted(), 'nobody waits for the first any more');
    const second = forwarder.forward(forward('b.test'), live);
    await setImmediate();
    mock.timers.tick(0);
    assert.deepEqual(servers.addresses.slice(2), ['1.1.1.1', '2.2.2.2']);
    servers.at(2).answer(good(servers.at(2)));
    await second;
    void forwarder.forward(forward('c.test'), live);
    await setImmediate();
    mock.timers.tick(0);
    assert.equal(servers.asked.length, 5, 'it answered, so it is trusted again');
  } finally {
    mock.timers.reset();
  }
});

test('an answer to something else is not taken', async () => {
  const { servers, forwarder } = setUp();
  const reply = forwarder.forward(forward('a.test'), live);
  await setImmediate();
  const asked = servers.at(0);
  const lie = good(asked);
  lie.writeUInt16BE(asked.message.readUInt16BE(0) ^ 1, 0);
  asked.answer(lie);
  asked.answer(dnsResponse(dnsQuery('evil.test', { id: asked.message.readUInt16BE(0) })));
  asked.answer(good(asked, 60, 3));
  assert.equal(readDns((await reply) ?? Buffer.alloc(12)).answers.length, 3);
});

test('answers are kept for their TTL, by question and by who may share them', async () => {
  const { servers, forwarder, clock } = setUp();
  const first = forwarder.forward(forward('a.test'), live);
  await setImmediate();
  servers.at(0).answer(good(servers.at(0), 60));
  await first;
  clock.ms += 20_000;
  const kept = readDns(
    (await forwarder.forward(forward('A.test', { id: 9, client: 'other' }), live)) ?? Buffer.alloc(12),
  );
  assert.deepEqual([kept.id, kept.answers[0]?.ttl], [9, 40]);
  assert.equal(servers.asked.length, 1);
  const inside = upstreams.map((upstream) => ({ ...upstream, fromHost: false }));
  void forwarder.forward(forward('a.test', { upstreams: inside }), live);
  await setImmediate();
  assert.equal(servers.at(1).server.namespacePath, '/ns', 'asked from inside: not the same answer');
  clock.ms += 40_000;
  void forwarder.forward(forward('a.test'), live);
  await setImmediate();
  assert.equal(servers.asked.length, 3, 'too old');
});

test('failures, truncated and negative answers without SOA are not kept; negative ones with SOA shortly', async () => {
  const { servers, forwarder, clock } = setUp();
  const round = async (name: string, options: Parameters<typeof dnsResponse>[1]): Promise<void> => {
    const reply = forwarder.forward(forward(name), live);
    await setImmediate();
    servers.asked.at(-1)?.answer(dnsResponse(servers.asked.at(-1)?.message ?? Buffer.alloc(0), options));
    await reply;
  };
  for (const options of [{ code: 3 }, { truncated: true }, { code: 1 }]) {
    const before = servers.asked.length;
    await round('a.test', options);
    await round('a.test', options);
    assert.equal(servers.asked.length, before + 2, JSON.stringify(options));
  }
  const before = servers.asked.length;
  await round('b.test', { code: 3, authority: [soaRecord('test', 9000, 9000)] });
  assert.equal(await codeOf(forwarder.forward(forward('b.test'), live)), 3);
  assert.equal(servers.asked.length, before + 1);
  clock.ms += 60_000;
  void forwarder.forward(forward('b.test'), live);
  await setImmediate();
  assert.equal(servers.asked.length, before + 2);
});

test('a kept answer too large for the client comes truncated, so that it asks by TCP', async () => {
  const { servers, forwarder } = setUp();
  const first = forwarder.forward(forward('a.test', { ednsBytes: 4096 }), live);
  await setImmediate();
  servers.at(0).answer(good(servers.at(0), 60, 100));
  await first;
  const small = readDns((await forwarder.forward(forward('a.test', { ednsBytes: 512 }), live)) ?? Buffer.alloc(12));
  assert.ok(small.truncated && small.sizeBytes <= 512);
  const tcp = await forwarder.forward(forward('a.test', { ednsBytes: 512, protocol: 'tcp' }), live);
  assert.equal(readDns(tcp ?? Buffer.alloc(12)).answers.length, 100);
  assert.equal(servers.asked.length, 1);
});

test('equal questions at a time are asked once', async () => {
  const { servers, forwarder } = setUp();
  const replies = [1, 2, 3].map((id) => forwarder.forward(forward('a.test', { id }), live));
  await setImmediate();
  assert.equal(servers.asked.length, 1);
  servers.at(0).answer(good(servers.at(0)));
  assert.deepEqual(
    (await Promise.all(replies)).map((reply) => reply?.readUInt16BE(0)),
    [1, 2, 3],
  );
});

test('one container cannot take all turns; what waits too long is refused', async () => {
  mock.timers.enable({ apis: ['setTimeout'] });
  try {
    const { servers, forwarder, limited } = setUp();
    const flood = Array.from({ length: 1300 }, (_, index) =>
      codeOf(forwarder.forward(forward(`n${index}.test`), live)),
    );
    await setImmediate();
    assert.equal(servers.asked.length, 128);
    assert.deepEqual(await Promise.all(flood.slice(128 + 1024)), Array(148).fill(5), 'beyond the queue at once');
    const other = codeOf(forwarder.forward(forward('other.test', { client: 'other' }), live));
    await setImmediate();
    servers.asked.at(-1)?.answer(good(servers.asked.at(-1) as Asked));
    assert.equal(await other, 0, 'another container is served');
    servers.at(0).answer(good(servers.at(0)));
    await flood[0];
    await setImmediate();
    assert.equal(servers.asked.length, 130, 'a free turn goes to the next');
    mock.timers.tick(4000);
    assert.deepEqual(await Promise.all(flood.slice(129, 1152)), Array(1023).fill(5));
    assert.ok(limited.includes('client') && !limited.includes('other'));
  } finally {
    mock.timers.reset();
  }
});

test('when its container goes, a query is dropped and its sockets with it', async () => {
  const { servers, forwarder } = setUp();
  const ended = new AbortController();
  const reply = forwarder.forward(forward('a.test'), ended.signal);
  await setImmediate();
  ended.abort();
  assert.equal(await reply, undefined);
  assert.ok(servers.at(0).aborted());
  void forwarder.forward(forward('a.test'), live);
  await setImmediate();
  assert.equal(servers.asked.length, 2, 'the question can be asked again');
});
