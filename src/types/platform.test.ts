import assert from 'node:assert/strict';
import { test } from 'node:test';
import { formatPlatform, matchesPlatform, parsePlatform } from './platform.ts';

test('platforms normalise', () => {
  assert.equal(formatPlatform(parsePlatform('linux/x86_64')), 'linux/amd64');
  assert.equal(formatPlatform(parsePlatform('linux/aarch64/v8')), 'linux/arm64');
  assert.equal(formatPlatform(parsePlatform('linux/arm/7')), 'linux/arm/v7');
  assert.equal(formatPlatform(parsePlatform('linux/armel')), 'linux/arm/v6');
  assert.equal(formatPlatform(parsePlatform('arm64')), 'linux/arm64');
});

test('bad platforms are refused', () => {
  assert.throws(() => parsePlatform('nonsense'), /unknown operating system or architecture/);
  assert.throws(() => parsePlatform('a/b/c/d'), /cannot parse platform specifier/);
  assert.throws(() => parsePlatform('linux/$x'), /is an invalid component/);
});

test('a variant matters only when asked for', () => {
  assert.ok(matchesPlatform(parsePlatform('linux/arm64'), { os: 'linux', architecture: 'arm64', variant: 'v8' }));
  assert.ok(!matchesPlatform(parsePlatform('linux/arm/v6'), { os: 'linux', architecture: 'arm', variant: 'v7' }));
  assert.ok(!matchesPlatform(parsePlatform('linux/amd64'), { os: 'linux', architecture: 'arm64' }));
});
