/** Which propagations a source's mount allows. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { checkPropagation } from './propagation.ts';

const MOUNTS = [
  '20 1 8:1 / / rw,relatime - ext4 /dev/a rw',
  '21 20 8:2 / /data rw,relatime shared:5 - ext4 /dev/b rw',
  '22 20 8:3 / /with\\040space rw,relatime master:7 - ext4 /dev/c rw',
].join('\n');

test('a private mount takes neither shared nor slave', () => {
  assert.throws(() => checkPropagation(MOUNTS, '/database', 'shared'), {
    message: 'path /database is mounted on / but it is not a shared mount',
  });
  assert.throws(() => checkPropagation(MOUNTS, '/home', 'rslave'), {
    message: 'path /home is mounted on / but it is not a shared or slave mount',
  });
});

test('a shared mount takes both, a slave mount only slave', () => {
  checkPropagation(MOUNTS, '/data/x', 'rshared');
  checkPropagation(MOUNTS, '/data', 'slave');
  checkPropagation(MOUNTS, '/with space/x', 'rslave');
  assert.throws(() => checkPropagation(MOUNTS, '/with space/x', 'shared'), /is mounted on \/with space but/);
});

test('private propagation asks nothing of the source', () => {
  checkPropagation(MOUNTS, '/home', 'rprivate');
});
