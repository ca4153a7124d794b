import assert from 'node:assert/strict';
import { test } from 'node:test';
import { goDurationNs, parseTimestamp } from './timestamp.ts';

const NOW_MS = Date.UTC(2026, 0, 2, 3, 4, 5);

const CASES: readonly (readonly [string, string])[] = [
  ['1136073845', '1136073845000000000'],
  ['1136073845.000000001', '1136073845000000001'],
  ['1136073845.5', '1136073845500000000'],
  ['2006-01-02T15:04:05Z', '1136214245000000000'],
  ['2006-01-02T15:04:05.999999999Z', '1136214245999999999'],
  ['2006-01-02T15:04:05+02:00', '1136207045000000000'],
  ['2006-01-02T15:04:05', '1136214245000000000'],
  ['2006-01-02T15:04', '1136214240000000000'],
  ['2006-01-02T15', '1136214000000000000'],
  ['2006-01-02', '1136160000000000000'],
  ['10m', String(BigInt(NOW_MS - 600_000) * 1_000_000n)],
  ['1h30m', String(BigInt(NOW_MS - 5_400_000) * 1_000_000n)],
  ['-1.5s', String(BigInt(NOW_MS + 1_500) * 1_000_000n)],
];
for (const [text, expected] of CASES) {
  test(`${text} is a time`, () => assert.equal(String(parseTimestamp(text, NOW_MS)), expected));
}

for (const text of ['', 'yesterday', '2006-13-45', '12:30', '1.2.3', '2006-01-02T', '1x']) {
  test(`"${text}" is no time`, () => assert.throws(() => parseTimestamp(text, NOW_MS), { kind: 'invalid' }));
}

test('Go durations add up their parts', () => {
  assert.equal(goDurationNs('1h2m3s'), 3_723e9);
  assert.equal(goDurationNs('1.5ms'), 1.5e6);
  assert.equal(goDurationNs('0'), 0);
  assert.ok(Number.isNaN(goDurationNs('5')));
  assert.ok(Number.isNaN(goDurationNs('1h x')));
});
