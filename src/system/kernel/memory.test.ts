import assert from 'node:assert/strict';
import { readFileSync } from 'node:fs';
import { test } from 'node:test';
import { droppableMappings, releaseFilePages } from './memory.ts';

const SMAPS = `55d0-55e0 r--p 00000000 fe:00 12 /usr/bin/node
Rss: 4 kB
Anonymous:             0 kB
55e0-55f0 r-xp 00010000 fe:00 12 /usr/bin/node
Anonymous:             0 kB
55f0-5600 r--p 00020000 fe:00 12 /usr/bin/node
Anonymous:             8 kB
5600-5610 rw-p 00030000 fe:00 12 /usr/bin/node
Anonymous:             0 kB
7f00-7f10 r-xp 00000000 00:00 0 [vdso]
Anonymous:             0 kB
`;

test('only clean read-only mappings of files are let go', () => {
  assert.deepEqual(droppableMappings(SMAPS), [
    { start: 0x55d0n, end: 0x55e0n },
    { start: 0x55e0n, end: 0x55f0n },
  ]);
});

test('a process that let its pages go runs on with fewer resident', () => {
  const residentFileKiB = (): number => Number(/RssFile:\s+(\d+)/.exec(readFileSync('/proc/self/status', 'utf8'))?.[1]);
  const before = residentFileKiB();
  releaseFilePages();
  const after = residentFileKiB();
  assert.ok(after < before, `${after} KiB of file pages after, ${before} before`);
  assert.equal(JSON.stringify({ a: [1, 2, /x/.test('x')] }), '{"a":[1,2,true]}');
});
