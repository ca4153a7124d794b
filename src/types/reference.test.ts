import assert from 'node:assert/strict';
import { test } from 'node:test';
import {
  canonicalString,
  familiarString,
  parseAnyReference,
  parseReference,
  storedString,
  withDefaultTag,
  withTag,
} from './reference.ts';

const HEX = 'a'.repeat(64);

test('a bare name means the official repository on docker.io with tag latest', () => {
  const reference = withDefaultTag(parseReference('busybox'));
  assert.equal(canonicalString(reference), 'docker.io/library/busybox:latest');
  assert.equal(familiarString(reference), 'busybox:latest');
});

test('names normalise and become familiar again', () => {
  for (const [input, canonical, familiar] of [
    ['me/app:1', 'docker.io/me/app:1', 'me/app:1'],
    ['index.docker.io/me/app', 'docker.io/me/app', 'me/app'],
    ['localhost/x', 'localhost/x', 'localhost/x'],
    ['localhost:5000/x/y:z', 'localhost:5000/x/y:z', 'localhost:5000/x/y:z'],
    ['Example/x', 'Example/x', 'Example/x'],
    ['[::1]:5000/x', '[::1]:5000/x', '[::1]:5000/x'],
    [`busybox@sha256:${HEX}`, `docker.io/library/busybox@sha256:${HEX}`, `busybox@sha256:${HEX}`],
    ['docker.io/library/a__b-c.d', 'docker.io/library/a__b-c.d', 'a__b-c.d'],
  ] as const) {
    const reference = parseReference(input);
    assert.equal(canonicalString(reference), canonical);
    assert.equal(familiarString(reference), familiar);
  }
});

test('bad references give docker texts', () => {
  for (const [input, text] of [
    ['', 'invalid reference format'],
    ['a b', 'invalid reference format'],
    ['-x', 'invalid reference format'],
    ['x:', 'invalid reference format'],
    ['Uppercase', 'invalid reference format: repository name (library/Uppercase) must be lowercase'],
    ['a/B:c', 'invalid reference format: repository name (a/B) must be lowercase'],
    [HEX, `invalid repository name (${HEX}), cannot specify 64-byte hexadecimal strings`],
    [`x@sha256:${'a'.repeat(40)}`, 'invalid checksum digest length'],
    [`x@md5:${'a'.repeat(32)}`, 'unsupported digest algorithm'],
    ['a'.repeat(256), 'repository name must not be more than 255 characters'],
  ] as const) {
    assert.throws(() => parseReference(input), { message: text, kind: 'invalid' }, input);
  }
  assert.throws(() => withTag(parseReference('x'), 'b@d'), { message: 'invalid tag format' });
});

test('digests alone and 64 hex digits are image IDs, and a tag beside a digest is not part of the key', () => {
  assert.deepEqual(parseAnyReference(HEX), { kind: 'digest', digest: `sha256:${HEX}` });
  assert.deepEqual(parseAnyReference(`sha256:${HEX}`), { kind: 'digest', digest: `sha256:${HEX}` });
  assert.equal(parseAnyReference('sha256:abcd').kind, 'named');
  assert.equal(storedString(parseReference(`x:1@sha256:${HEX}`)), `docker.io/library/x@sha256:${HEX}`);
});
