import assert from 'node:assert/strict';
import { test } from 'node:test';
import { matchesGlob } from './glob.ts';

for (const [pattern, name, expected] of [
  ['app', 'app', true],
  ['app', 'apps', false],
  ['*', 'app', true],
  ['*', 'team/app', false],
  ['**', 'team/app', true],
  ['team/*', 'team/app', true],
  ['team/*', 'team/a/b', false],
  ['team/**', 'team/a/b', true],
  ['team/**', 'team', false],
  ['*/app', 'team/app', true],
  ['*a*b*', 'xxaxxbxx', true],
  ['*a*b*', 'xxbxxaxx', false],
  ['a.b', 'axb', false],
  ['team/*', 'team/', true],
  ['', '', true],
] as const) {
  test(`${pattern} ${expected ? 'matches' : 'does not match'} ${name}`, () => {
    assert.equal(matchesGlob(pattern, name), expected);
  });
}

test('a pattern of many stars takes linear time', () => {
  const begun = performance.now();
  assert.equal(matchesGlob(`${'*a'.repeat(100)}b`, 'a'.repeat(255)), false);
  assert.ok(performance.now() - begun < 2_000);
});
