import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import { decodeAttributes, decodeMessages, encodeMessage, NetlinkFormatError, text, u32 } from './message.ts';
import { addAddress, addressBytes, addressText, addVeth, parseAddress, parseLink, parseRoute } from './route.ts';

test('messages and attributes come back as they were encoded', () => {
  fc.assert(
    fc.property(
      fc.nat(65535),
      fc.nat(65535),
      fc.array(fc.tuple(fc.integer({ min: 0, max: 0x3fff }), fc.uint8Array({ maxLength: 50 }))),
      (type, flags, list) => {
        const attributes = list.map(([kind, value]) => [kind, Buffer.from(value)] as const);
        const bytes = encodeMessage({ type, flags, sequence: 7 }, Buffer.alloc(16), attributes);
        const [message, ...rest] = decodeMessages(Buffer.concat([bytes, bytes]));
        assert.equal(rest.length, 1);
        assert.deepEqual([message?.type, message?.flags, message?.sequence], [type, flags, 7]);
        assert.deepEqual(decodeAttributes(message?.payload.subarray(16) ?? Buffer.alloc(0)), new Map(attributes));
      },
    ),
  );
});

test('any bytes are either parsed or refused, never read past their end', () => {
  const parsers = [parseLink, parseAddress, parseRoute];
  fc.assert(
    fc.property(fc.uint8Array({ maxLength: 200 }), fc.boolean(), (bytes, framed) => {
      const body = Buffer.from(bytes);
      const datagram = framed ? encodeMessage({ type: 16, flags: 0, sequence: 1 }, body) : body;
      try {
        for (const message of decodeMessages(datagram)) for (const parse of parsers) parse(message);
      } catch (error) {
        assert.ok(error instanceof NetlinkFormatError, String(error));
      }
    }),
    { numRuns: 3000 },
  );
});

test('IP addresses keep their value between text and bytes', () => {
  fc.assert(fc.property(fc.ipV4(), (address) => assert.equal(addressText(addressBytes(address)), address)));
  fc.assert(
    fc.property(fc.uint8Array({ minLength: 16, maxLength: 16 }), (bytes) => {
      assert.deepEqual(addressBytes(addressText(Buffer.from(bytes))), Buffer.from(bytes));
    }),
  );
  assert.equal(addressBytes('fe80::1').toString('hex'), 'fe800000000000000000000000000001');
  assert.equal(addressBytes('::').toString('hex'), '0'.repeat(32));
});

test('requests hold what the kernel expects', () => {
  const request = addAddress(3, '10.1.0.1', 16);
  assert.equal(
    request.attributes.find(([type]) => type === 4)?.[1].toString(),
    Buffer.from([10, 1, 255, 255]).toString(),
  );
  const veth = addVeth({
    name: 'veth0000001',
    master: 9,
    mtu: 1400,
    peer: { name: 'eth0', address: '02:42:0a:01:00:02', namespaceFd: 5 },
  });
  const attributes = decodeAttributes(
    encodeMessage({ type: 1, flags: 0, sequence: 1 }, Buffer.alloc(0), veth.attributes).subarray(16),
  );
  assert.deepEqual(
    [attributes.get(3), attributes.get(10), attributes.get(4)],
    [text('veth0000001'), u32(9), u32(1400)],
  );
});
