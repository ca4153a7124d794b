import assert from 'node:assert/strict';
import { test } from 'node:test';
import { FREE_SPACE_STEP_BYTES, isBelowReserve, withinFreeSpace } from './free-space.ts';

const MEBIBYTE = 1024 * 1024;
const SMALL = 256 * 1024;

async function* zeros(sizeBytes: number): AsyncGenerator<Buffer> {
  const chunk = Buffer.alloc(SMALL);
  for (let left = sizeBytes; left > 0; left -= chunk.length) yield chunk;
}

test('the reserve is a hundredth of a small disk and 256 MiB of a large one', () => {
  const at = (totalBytes: number, freeBytes: number): boolean => isBelowReserve({ totalBytes, freeBytes });
  assert.equal(at(1000 * MEBIBYTE, 9 * MEBIBYTE), true);
  assert.equal(at(1000 * MEBIBYTE, 11 * MEBIBYTE), false);
  assert.equal(at(2 ** 42, 255 * MEBIBYTE), true);
  assert.equal(at(2 ** 42, 257 * MEBIBYTE), false);
});

test('unpacking without end stops at the reserve, and a little is never refused', async () => {
  let passed = 0;
  const space = (): { totalBytes: number; freeBytes: number } => ({
    totalBytes: 200 * MEBIBYTE,
    freeBytes: 200 * MEBIBYTE - passed,
  });
  const take = async (sizeBytes: number): Promise<void> => {
    for await (const chunk of withinFreeSpace(zeros(sizeBytes), '/', space)) passed += chunk.length;
  };
  await assert.rejects(take(2 ** 40), (error: Error) => {
    assert.match(error.message, /^no space left on device: unpacking stopped with \d+ bytes free$/);
    assert.equal((error.cause as NodeJS.ErrnoException).code, 'ENOSPC');
    return true;
  });
  assert.ok(passed <= 200 * MEBIBYTE, `${passed} bytes were passed on`);
  passed = 199 * MEBIBYTE;
  await take(FREE_SPACE_STEP_BYTES - SMALL);
});
