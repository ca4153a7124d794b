import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import { internetAddress } from './exchange.ts';
import { FrameReader, frame } from './frames.ts';
import { listedPort } from './redirect.ts';

test('messages come out of a stream as they went in, however it is cut', () => {
  const messages = fc.array(fc.uint8Array({ maxLength: 300 }), { maxLength: 10 });
  fc.assert(
    fc.property(messages, fc.array(fc.integer({ min: 1, max: 400 })), (sent, cuts) => {
      let stream = Buffer.concat(sent.map((message) => frame(Buffer.from(message))));
      const reader = new FrameReader();
      const received: Buffer[] = [];
      for (const cut of [...cuts, stream.length]) {
        reader.push(stream.subarray(0, cut));
        stream = stream.subarray(cut);
        for (let message = reader.next(); message !== undefined; message = reader.next()) received.push(message);
      }
      assert.deepEqual(
        received.map((message) => message.toString('hex')),
        sent.map((message) => Buffer.from(message).toString('hex')),
      );
    }),
  );
});

test('socket addresses, with a zone where one is given', () => {
  assert.equal(internetAddress('10.1.2.3', 53).toString('hex'), '020000350a0102030000000000000000');
  const zoned = internetAddress('fe80::1%7', 53);
  assert.equal(zoned.length, 28);
  assert.equal(zoned.toString('hex', 8, 24), 'fe800000000000000000000000000001');
  assert.equal(zoned.readUInt32LE(24), 7);
  assert.equal(internetAddress('fe80::1%lo', 53).readUInt32LE(24), 1);
  assert.throws(() => internetAddress('fe80::1%no-such-link', 53), { code: 'ENODEV' });
});

test('only rules that are whole tell a port', () => {
  const rule = (value: unknown): object => ({ rule: { expr: [{ match: {} }, { mangle: { key: {}, value } }] } });
  const listing = (...values: unknown[]): object => ({
    nftables: [{ metainfo: {} }, { table: {} }, ...values.map(rule)],
  });
  assert.equal(listedPort(listing(40_000, 40_000, 53, 53)), 40_000);
  for (const damaged of [
    listing(40_000, 40_000, 53),
    listing(40_000, 40_001, 53, 53),
    listing(40_000, 40_000, 53, 54),
    listing('x', 'x', 53, 53),
    listing(),
    {},
  ]) {
    assert.equal(listedPort(damaged), undefined, JSON.stringify(damaged));
  }
});
