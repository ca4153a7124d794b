/** What merging leaves when container and image both have nothing. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { mergeImage } from './merge-image.ts';

const EMPTY = { Env: [], Volumes: {}, Cmd: ['true'] };

test('Env and Volumes that neither side has are null, as in the image', () => {
  const merged = mergeImage(EMPTY, {});
  assert.equal(merged.Env, null);
  assert.equal(merged.Volumes, null);
});

test('empty Env and Volumes of the image stay empty', () => {
  const merged = mergeImage(EMPTY, { Env: [], Volumes: {} });
  assert.deepEqual([merged.Env, merged.Volumes], [[], {}]);
});

test('what the container or the image sets is kept', () => {
  const merged = mergeImage({ ...EMPTY, Volumes: { '/a': {} } }, { Env: ['A=1'], Volumes: { '/b': {} } });
  assert.deepEqual([merged.Env, merged.Volumes], [['A=1'], { '/b': {}, '/a': {} }]);
});
