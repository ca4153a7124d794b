import assert from 'node:assert/strict';
import { test } from 'node:test';
import { ResponseCache } from './cache.ts';

const response = (sizeBytes: number, keepSeconds = 60): { bytes: Buffer; keepSeconds: number; negative: boolean } => ({
  bytes: Buffer.alloc(sizeBytes),
  keepSeconds,
  negative: false,
});

test('entries and bytes are bounded; what was unused for longest goes first', () => {
  const cache = new ResponseCache(() => 0);
  for (let index = 0; index < 4096; index += 1) cache.keep('s', `q${index}`, response(50));
  assert.ok(cache.get('s', 'q0'));
  for (let index = 4096; index < 4200; index += 1) cache.keep('s', `q${index}`, response(50));
  assert.equal(cache.size, 4096);
  assert.ok(cache.get('s', 'q0'), 'used lately');
  assert.equal(cache.get('s', 'q1'), undefined);
  for (let index = 0; index < 2000; index += 1) cache.keep('s', `big${index}`, response(8000));
  assert.ok(cache.sizeBytes <= 4 * 1024 * 1024);
  cache.keep('s', 'huge', response(8193));
  assert.equal(cache.get('s', 'huge'), undefined);
});

test('a scope is forgotten alone, and the count goes back to nothing', () => {
  const cache = new ResponseCache(() => 0);
  cache.keep('one 1.1.1.1', 'q', response(50));
  cache.keep('one 1.1.1.1', 'q', response(70));
  cache.keep('two 1.1.1.1', 'q', response(50));
  cache.forget('one');
  assert.equal(cache.get('one 1.1.1.1', 'q'), undefined);
  assert.ok(cache.get('two 1.1.1.1', 'q'));
  cache.forget('two');
  assert.deepEqual([cache.size, cache.sizeBytes], [0, 0]);
});

test('long TTLs are cut', () => {
  let ms = 0;
  const cache = new ResponseCache(() => ms);
  cache.keep('s', 'long', response(50, 1_000_000));
  cache.keep('s', 'negative', { ...response(50, 1_000_000), negative: true });
  ms = 60_000;
  assert.equal(cache.get('s', 'negative'), undefined);
  ms = 3_599_000;
  assert.ok(cache.get('s', 'long'));
  ms = 3_600_000;
  assert.equal(cache.get('s', 'long'), undefined);
});
