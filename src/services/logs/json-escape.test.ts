import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import { escapeBinary, escapeBytes, isBinary } from './json-escape.ts';

test('binary output is escaped as text is, line feeds included', () => {
  fc.assert(
    fc.property(fc.array(fc.integer({ min: 0, max: 127 })), fc.nat(40), (bytes, run) => {
      const content = Buffer.from([...bytes, ...Array<number>(run).fill(0), 10]);
      const asText = escapeBytes(content).replaceAll('\n', '\\n');
      assert.equal(escapeBinary(content).toString('latin1'), asText);
      assert.equal(JSON.parse(`"${asText}"`), content.toString('latin1'));
    }),
  );
});

test('zeros are binary, words and UTF-8 are not', () => {
  assert.equal(isBinary(Buffer.alloc(100)), true);
  assert.equal(isBinary(Buffer.from('an ordinary line of "text"')), false);
  assert.equal(isBinary(Buffer.from('\0\0\0\0é')), false);
});
