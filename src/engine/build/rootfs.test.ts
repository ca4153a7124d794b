import assert from 'node:assert/strict';
import { mkdirSync, readdirSync, rmSync, symlinkSync, truncateSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { test } from 'node:test';
import type { Snapshotter } from '#services/snapshots/contract.ts';
import { RootView } from './rootfs.ts';

function filledBy(fill: (root: string) => void): Snapshotter {
  return {
    prepare: async () => {},
    remove: async () => {},
    mount: async (_: string, target: string) => fill(target),
    unmount: async (_: string, target: string) => {
      for (const name of readdirSync(target)) rmSync(join(target, name), { recursive: true });
    },
  } as unknown as Snapshotter;
}

test('user files of an image are read inside its root, and not when they are huge', async () => {
  const snapshots = filledBy((root) => {
    mkdirSync(join(root, 'etc'));
    writeFileSync(join(root, 'etc/real'), 'me:x:7:8\n');
    symlinkSync('/../../etc/real', join(root, 'etc/passwd'));
    writeFileSync(join(root, 'etc/group'), '');
    truncateSync(join(root, 'etc/group'), 8 << 20);
  });
  await using view = await RootView.open(snapshots, undefined);
  assert.equal(await view.text('/etc/passwd'), 'me:x:7:8\n');
  assert.equal(await view.text('/etc/shadow'), '');
  await assert.rejects(view.text('/etc/group'), { code: 'EFBIG' });
  assert.deepEqual(
    (await view.entries('etc'))
      .map(({ entry }) => entry.path)
      .sort()
      .slice(0, 2),
    ['etc', 'etc/group'],
  );
});
