import assert from 'node:assert/strict';
import { test } from 'node:test';
import { LinearRegExp } from './linear-regexp.ts';

const matches = (pattern: string, text: string): boolean => new LinearRegExp(pattern).test(text);

test('patterns match as JavaScript matches them where both know the syntax', () => {
  const patterns = [
    '',
    'web',
    '^web',
    'web$',
    '^/?web[0-9]*$',
    'a|b',
    '^(a|bc)+$',
    '(?:x|y){2,3}',
    'a{2}',
    'a{2,}$',
    'w.b',
    '[^a-z]',
    '\\d+',
    '\\W',
    '\\bweb\\b',
    '\\Bb',
    '^$',
    'a*?b',
    '(a*)*$',
    '[\\w-]+',
    '[]',
    'x{',
    'a{,2}',
    '(|a)b',
    'é',
    '^.$',
  ];
  const texts = [
    '',
    'web',
    '/web',
    'web1',
    '/web-1',
    'aab',
    'xyx',
    'bc',
    'bcbc',
    'a b',
    'A',
    '12',
    'x{',
    'a{,2}',
    'é',
    '\n',
  ];
  for (const pattern of patterns.filter((one) => one !== '[]')) {
    for (const text of texts) {
      assert.equal(matches(pattern, text), new RegExp(pattern).test(text), `${pattern} on ${JSON.stringify(text)}`);
    }
  }
});

test('syntax of RE2 that JavaScript does not have', () => {
  assert.ok(matches('(?i)WEB', 'web'));
  assert.ok(!matches('(?i:W)EB', 'web'));
  assert.ok(matches('(?s)a.b', 'a\nb'));
  assert.ok(matches('(?m)^b$', 'a\nb'));
  assert.ok(matches('^[[:alpha:]]+$', 'web') && !matches('^[[:^alpha:]]+$', 'web'));
  assert.ok(matches('\\Aweb\\z', 'web'));
  assert.ok(matches('^\\Qa.b\\E$', 'a.b') && !matches('^\\Qa.b\\E$', 'axb'));
  assert.ok(matches('^\\p{Greek}\\pL$', 'αb') && !matches('\\PL', 'a'));
  assert.ok(matches('^(?P<n>\\x{1F600}|\\x61)$', '😀'));
  assert.ok(matches('^.$', '😀'));
});

test('what RE2 refuses is refused', () => {
  for (const pattern of [
    '(',
    ')',
    '[',
    'a**',
    '*a',
    '(a)\\1',
    '(?=a)',
    '(?!a)',
    '(?<=a)b',
    'a{1001}',
    'a{3,2}',
    '\\',
    '(?P<n',
    '[b-a]',
  ]) {
    assert.throws(() => new LinearRegExp(pattern), { kind: 'invalid', message: /^error parsing regexp: / }, pattern);
  }
  assert.throws(() => new LinearRegExp('((a{1000}){1000}){1000}'), { message: /too large/ });
  assert.throws(() => new LinearRegExp('((){1000}){1000}'), { message: /too large/ });
  assert.throws(() => new LinearRegExp('('.repeat(5000)), { message: /too deeply/ });
});

test('patterns that stop a backtracking engine for ever are quick', () => {
  const begin = performance.now();
  const text = `${'a'.repeat(2000)}!`;
  for (const pattern of [
    '^(a+)+$',
    '^(a|aa)+$',
    '^(a|a)*$',
    '^(.*a){50}$',
    '^([a-z]*)*$',
    `^${'a?'.repeat(500)}${'a'.repeat(500)}$`,
  ]) {
    assert.equal(matches(pattern, text), false, pattern);
  }
  assert.ok(performance.now() - begin < 5000);
});
