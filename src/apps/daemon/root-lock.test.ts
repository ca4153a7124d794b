/** The locks that keep two daemons off the same roots. */
import assert from 'node:assert/strict';
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { test } from 'node:test';
import { lockRoots } from './root-lock.ts';

test('a root in use is refused by name, and is free again afterwards', () => {
  const directory = mkdtempSync(join(tmpdir(), 'gantry-lock-'));
  try {
    const dataRoot = join(directory, 'data');
    const first = lockRoots({ dataRoot, execRoot: join(directory, 'exec') });
    const otherExec = join(directory, 'exec2');
    assert.throws(() => lockRoots({ dataRoot, execRoot: otherExec }), { message: new RegExp(`using ${dataRoot}:`) });
    assert.throws(() => lockRoots({ dataRoot: join(directory, 'data2'), execRoot: join(directory, 'exec') }), {
      message: /--exec-root/,
    });
    lockRoots({ dataRoot: join(directory, 'data2'), execRoot: otherExec })[Symbol.dispose]();
    first[Symbol.dispose]();
    lockRoots({ dataRoot, execRoot: otherExec })[Symbol.dispose]();
  } finally {
    rmSync(directory, { recursive: true, force: true });
  }
});
