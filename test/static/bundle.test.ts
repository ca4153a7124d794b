/** The release bundle has all it needs, also what is loaded late. */
import assert from 'node:assert/strict';
import { mkdtempSync, readdirSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { test } from 'node:test';
import { bundle } from '../../dev-tools/bundle.ts';
import { run } from '../harness/processes.ts';

test('the HTTP client of registries is a chunk of its own that can be loaded', async () => {
  const directory = mkdtempSync(join(tmpdir(), 'gantry-bundle-'));
  try {
    await bundle(directory);
    const chunk = readdirSync(join(directory, 'dist/chunks')).find((name) => name.startsWith('undici-'));
    assert.ok(chunk !== undefined);
    const program = join(directory, 'load.mjs');
    writeFileSync(program, `console.log(typeof (await import('./dist/chunks/${chunk}')).default.Agent);\n`);
    const loaded = await run(process.execPath, [program]);
    assert.equal(loaded.stdout, 'function\n', loaded.stderr);
  } finally {
    rmSync(directory, { recursive: true });
  }
});
