import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import { DNS_TYPE, dnsQuery, dnsRecord, dnsResponse, readDns, soaRecord, wireName } from './fake-messages.ts';
import {
  buildReply,
  encodeName,
  nameEnd,
  type Query,
  questionKey,
  readResponse,
  receiveQuery,
  replyFromKept,
  replyLimit,
} from './message.ts';

function query(bytes: Buffer): Query {
  const received = receiveQuery(bytes);
  assert.equal(received.kind, 'query');
  return (received as { query: Query }).query;
}

function rejection(bytes: Buffer): number | undefined {
  const received = receiveQuery(bytes);
  return received.kind === 'rejected' ? readDns(received.reply).code : undefined;
}

const address = (last: number): Buffer => Buffer.from([10, 0, 0, last]);
const a = (last: number, ttl = 60): Buffer => dnsRecord('@', DNS_TYPE.A, ttl, address(last));

test('a query is read: name in lower case, type, EDNS', () => {
  const read = query(dnsQuery('Web.Example', { type: 28, ednsBytes: 1400 }));
  assert.equal(read.name, 'web.example');
  assert.equal(read.type, 28);
  assert.deepEqual(read.edns, { version: 0, udpBytes: 1400, dnssecOk: false, hasOptions: false });
  assert.equal(replyLimit(read, 'udp'), 1400);
  assert.equal(replyLimit(query(dnsQuery('a')), 'udp'), 512);
  assert.equal(replyLimit(query(dnsQuery('a', { ednsBytes: 100 })), 'udp'), 512);
  assert.equal(replyLimit(read, 'tcp'), 65_535);
});

test('a dot inside a label is not the end of one', () => {
  const bytes = Buffer.concat([dnsQuery('').subarray(0, 12), Buffer.from('\x03a.b\x00\x00\x01\x00\x01', 'latin1')]);
  assert.equal(query(bytes).name, 'a\\046b');
});

test('what is no query is ignored, what is a bad one is refused', () => {
  assert.equal(receiveQuery(Buffer.alloc(11)).kind, 'ignored');
  assert.equal(receiveQuery(dnsQuery('a', { flags: 0x8100 })).kind, 'ignored', 'a response');
  assert.equal(rejection(dnsQuery('a', { flags: 0x2000 })), 4, 'NOTIFY is not implemented');
  const twoQuestions = dnsQuery('a');
  twoQuestions.writeUInt16BE(2, 4);
  assert.equal(rejection(twoQuestions), 1);
  assert.equal(rejection(dnsQuery('a').subarray(0, 14)), 1, 'cut short');
  const loop = Buffer.concat([dnsQuery('').subarray(0, 12), Buffer.from('c00c00010001', 'hex')]);
  assert.equal(rejection(loop), 1, 'a name that points to itself');
  const forward = Buffer.concat([dnsQuery('').subarray(0, 12), Buffer.from('c00e0000010001', 'hex')]);
  assert.equal(rejection(forward), 1, 'a pointer forward');
  assert.equal(rejection(dnsQuery(Array(5).fill('a'.repeat(63)).join('.'))), 1, 'a name of more than 255 bytes');
  const longLabel = Buffer.concat([dnsQuery('').subarray(0, 12), Buffer.from([64]), Buffer.alloc(70)]);
  assert.equal(rejection(longLabel), 1, 'a label of 64 bytes');
  const twoOpts = Buffer.concat([
    dnsQuery('a', { ednsBytes: 512 }),
    dnsRecord('', DNS_TYPE.OPT, 0, Buffer.alloc(0), 512),
  ]);
  twoOpts.writeUInt16BE(2, 10);
  assert.equal(rejection(twoOpts), 1);
});

test('a reply repeats the question, points to it, and answers EDNS with EDNS', () => {
  const asked = query(dnsQuery('Web', { id: 7, ednsBytes: 1232 }));
  const reply = readDns(buildReply(asked, { answers: [{ type: 1, ttlSeconds: 600, data: address(2) }] }));
  assert.equal(reply.id, 7);
  assert.equal(reply.flags, 0x8180);
  assert.equal(reply.question, 'Web 1', 'in the spelling it was asked in');
  assert.deepEqual(
    reply.answers.map(({ name, text, ttl }) => [name, text, ttl]),
    [['Web', '10.0.0.2', 600]],
  );
  assert.deepEqual(
    reply.additional.map(({ type }) => type),
    [DNS_TYPE.OPT],
  );
  assert.equal(readDns(buildReply(asked, { code: 16 })).additional[0]?.ttl, 1 << 24, 'the upper bits of BADVERS');
});

test('answers that do not fit are left out and the reply is marked', () => {
  const answers = Array.from({ length: 100 }, (_, index) => ({ type: 1, ttlSeconds: 1, data: address(index) }));
  const small = readDns(buildReply(query(dnsQuery('web', { ednsBytes: 512 })), { answers, limitBytes: 512 }));
  assert.ok(small.truncated && small.sizeBytes <= 512 && small.answers.length === Math.floor((512 - 21 - 11) / 16));
  const whole = readDns(buildReply(query(dnsQuery('web')), { answers, limitBytes: 65_535 }));
  assert.ok(!whole.truncated && whole.answers.length === 100);
});

test('a response is taken only for its own question', () => {
  const sent = dnsQuery('example.com', { id: 99 });
  const asked = query(sent);
  const good = dnsResponse(sent, { answers: [a(1)] });
  assert.equal(readResponse(asked, 99, good)?.keepSeconds, 60);
  assert.equal(readResponse(asked, 98, good), undefined, 'other ID');
  assert.equal(readResponse(asked, 99, sent), undefined, 'a query');
  assert.equal(readResponse(asked, 99, dnsResponse(dnsQuery('example.org', { id: 99 }))), undefined);
  assert.equal(readResponse(asked, 99, dnsResponse(dnsQuery('example.com', { id: 99, type: 28 }))), undefined);
  assert.notEqual(readResponse(asked, 99, dnsResponse(dnsQuery('EXAMPLE.com', { id: 99 }))), undefined);
  assert.equal(readResponse(asked, 99, good.subarray(0, -1)), undefined, 'cut short');
  const bare = dnsResponse(sent, { code: 5 }).subarray(0, 12);
  bare.writeUInt16BE(0, 4);
  assert.equal(readResponse(asked, 99, bare)?.code, 5, 'a bare refusal');
  assert.equal(readDns(readResponse(asked, 99, bare)?.bytes ?? sent).question, 'example.com 1');
  bare.writeUInt16BE(0x8180, 2);
  assert.equal(readResponse(asked, 99, bare), undefined, 'a bare success');
});

test('records with bad names in them are not passed on', () => {
  const sent = dnsQuery('example.com');
  const self = (response: Buffer): number => response.length;
  const head = dnsResponse(sent);
  const pointer = Buffer.alloc(2);
  pointer.writeUInt16BE(0xc000 | (self(head) + 12));
  const endless = dnsResponse(sent, { answers: [dnsRecord('@', DNS_TYPE.CNAME, 60, pointer)] });
  assert.equal(readResponse(query(sent), 4660, endless), undefined, 'a CNAME that points to itself');
  const short = dnsResponse(sent, { answers: [dnsRecord('@', DNS_TYPE.CNAME, 60, Buffer.from('\x05ab'))] });
  assert.equal(readResponse(query(sent), 4660, short), undefined);
});

test('a chain of pointers is given up after as many jumps as a name has labels', () => {
  const bytes = Buffer.alloc(4000);
  for (let at = 14; at < 4000; at += 2) bytes.writeUInt16BE(0xc000 | (at - 2), at);
  assert.equal(nameEnd(bytes, 14 + 2 * 100), 14 + 2 * 100 + 2);
  assert.equal(nameEnd(bytes, 14 + 2 * 200), undefined);
});

test('how long a response may be kept', () => {
  const sent = dnsQuery('example.com', { ednsBytes: 1232 });
  const keep = (options: Parameters<typeof dnsResponse>[1]): number | undefined =>
    readResponse(query(sent), 4660, dnsResponse(sent, options))?.keepSeconds;
  const opt = dnsRecord('', DNS_TYPE.OPT, 0, Buffer.alloc(0), 1232);
  assert.equal(keep({ answers: [a(1, 300), a(2, 30)], additional: [opt] }), 30, 'the shortest; OPT does not count');
  assert.equal(keep({ answers: [a(1, 0x8000_0000)] }), 0, 'a TTL below zero');
  assert.equal(keep({ code: 3, authority: [soaRecord('com', 900, 40)] }), 40);
  assert.equal(keep({ code: 3, authority: [soaRecord('com', 20, 40)] }), 20);
  assert.equal(keep({ authority: [soaRecord('com', 900, 50)] }), 50, 'no data');
  assert.equal(keep({ code: 3 }), 0, 'a negative answer without SOA');
  assert.equal(keep({ code: 2, authority: [soaRecord('com', 900, 50)] }), 0, 'a failure');
});

test('a kept response answers a later query under its ID and spelling, with aged TTLs', () => {
  const sent = dnsQuery('example.com');
  const kept = readResponse(query(sent), 4660, dnsResponse(sent, { answers: [a(1, 50), a(2, 5)] }));
  const later = query(dnsQuery('eXample.COM', { id: 1 }));
  assert.equal(questionKey(later), questionKey(query(sent)));
  const reply = readDns(replyFromKept(kept?.bytes ?? sent, later, 10));
  assert.equal(reply.id, 1);
  assert.equal(reply.question, 'eXample.COM 1');
  assert.deepEqual(
    reply.answers.map(({ ttl }) => ttl),
    [40, 0],
  );
});

test('questions are equal only when their answers must be', () => {
  const key = (...values: Parameters<typeof dnsQuery>): string | undefined => questionKey(query(dnsQuery(...values)));
  const keys = [
    key('a'),
    key('b'),
    key('a', { type: 28 }),
    key('a', { class: 3 }),
    key('a', { flags: 0 }),
    key('a', { flags: 0x0110 }),
    key('a', { ednsBytes: 1232 }),
  ];
  assert.equal(new Set(keys).size, keys.length);
  assert.equal(key('a', { ednsBytes: 1232 }), key('A', { ednsBytes: 4096 }));
  assert.equal(key('a', { ednsBytes: 512, ednsOptions: Buffer.from('000a0000', 'hex') }), undefined);
});

test('names that DNS cannot carry are found out', () => {
  assert.deepEqual(encodeName('web.net'), wireName('web.net'));
  for (const bad of ['', 'a..b', `${'a'.repeat(64)}.x`, 'ü€', Array(130).fill('a').join('.')]) {
    assert.equal(encodeName(bad), undefined, bad);
  }
});

test('no bytes make the reader throw or hang, and every reply can be read', () => {
  const anyQuery = fc.uint8Array({ minLength: 0, maxLength: 600 });
  const nearQuery = fc
    .tuple(fc.domain(), fc.array(fc.tuple(fc.nat(80), fc.nat(255)), { maxLength: 6 }))
    .map(([name, changes]) => {
      const bytes = dnsQuery(name, { ednsBytes: 1232 });
      for (const [at, value] of changes) if (at < bytes.length) bytes[at] = value;
      return new Uint8Array(bytes);
    });
  fc.assert(
    fc.property(fc.oneof(anyQuery, nearQuery), (values) => {
      const received = receiveQuery(Buffer.from(values));
      if (received.kind === 'rejected') readDns(received.reply);
      if (received.kind === 'query') {
        const answers = [{ type: 1, ttlSeconds: 1, data: address(1) }];
        const reply = readDns(buildReply(received.query, { answers }));
        assert.ok(reply.truncated || reply.answers.length === 1);
      }
    }),
    { numRuns: 2000 },
  );
});

test('no bytes of a server make the reader throw or hang, and what is accepted is well-formed', () => {
  const sent = dnsQuery('host.example.com', { ednsBytes: 1232 });
  const asked = query(sent);
  const base = dnsResponse(sent, {
    answers: [dnsRecord('@', DNS_TYPE.CNAME, 60, wireName('other.example.com')), a(1)],
    authority: [soaRecord('example.com', 60, 60)],
    additional: [dnsRecord('', DNS_TYPE.OPT, 0, Buffer.alloc(0), 1232)],
  });
  fc.assert(
    fc.property(
      fc.array(fc.tuple(fc.nat(base.length - 1), fc.nat(255)), { maxLength: 5 }),
      fc.nat(4),
      (changes, cut) => {
        const bytes = Buffer.from(base.subarray(0, base.length - cut));
        for (const [at, value] of changes) if (at < bytes.length) bytes[at] = value;
        const response = readResponse(asked, 4660, bytes);
        if (response === undefined) return;
        readDns(response.bytes);
        readDns(replyFromKept(response.bytes, asked, 3));
      },
    ),
    { numRuns: 3000 },
  );
});
