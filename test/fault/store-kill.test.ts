/**
 * SIGKILL of the daemon while images that share layers are loaded, committed, untagged, removed and pruned. After each
 * restart the store is whole to its last byte, nothing in it is nobody's, and what was acknowledged is as it was told.
 * The seed is printed; GANTRY_TEST_SEED repeats a run, GANTRY_TEST_KILLS sets its length.
 */
import assert from 'node:assert/strict';
import { mkdirSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { test } from 'node:test';
import { setTimeout as delay } from 'node:timers/promises';
import { startDaemon, type TestDaemon } from '../harness/daemon.ts';
import { run } from '../harness/processes.ts';
import { randomNumbers } from '../harness/random.ts';

const foreign = process.env['GANTRY_TEST_HOST'] !== undefined;
const options = foreign ? { skip: 'needs a daemon process of our own; GANTRY_TEST_HOST names another engine' } : {};
const KILLS = Number(process.env['GANTRY_TEST_KILLS'] ?? 4);
const MAX_KILL_DELAY_MS = 900;

/** Names that must be there; a name whose command was cut off is in neither set. */
interface Promised {
  readonly present: Set<string>;
  readonly absent: Set<string>;
}

async function work(
  daemon: TestDaemon,
  promised: Promised,
  { archive, lane, random }: { archive: string; lane: string; random: () => number },
): Promise<void> {
  const attempt = async (...args: string[]): Promise<boolean> => (await daemon.docker(args)).code === 0;
  for (let step = 0; ; step += 1) {
    const name = `${lane}-${step}:v`;
    if (!(await attempt('load', '-q', '-i', archive))) return;
    promised.absent.delete(name);
    if (!(await attempt('tag', 'shared:2', name))) return;
    promised.present.add(name);
    if (random() < 0.3 && !(await attempt('image', 'prune', '-f'))) return;
    if (random() < 0.7) {
      promised.present.delete(name);
      if (!(await attempt('rmi', name))) return;
      promised.absent.add(name);
    }
    if (random() < 0.4) {
      promised.present.delete('shared:1');
      promised.present.delete('shared:2');
      // The other lane may have been first.
      await attempt('rmi', '-f', 'shared:1', 'shared:2');
    }
  }
}

test('the store is whole after each kill', options, async (t) => {
  const seed = Number(process.env['GANTRY_TEST_SEED'] ?? Date.now() % 1_000_000);
  t.diagnostic(`GANTRY_TEST_SEED=${seed}`);
  const random = randomNumbers(seed);
  await using daemon = await startDaemon({ bridge: false });
  const source = join(daemon.directory, 'source');
  mkdirSync(source);
  for (let file = 0; file < 200; file += 1) writeFileSync(join(source, `f${file}`), `${file}`.repeat(file * 10));
  await run('tar', ['-C', source, '-cf', `${source}.tar`, '.']);
  await daemon.ok('import', `${source}.tar`, 'shared:1');
  writeFileSync(join(source, 'Dockerfile'), 'FROM shared:1\nCOPY f1 /one\nCOPY f2 /two\nCMD ["x"]\n');
  await daemon.ok('build', '-q', '-t', 'shared:2', source);
  const archive = join(daemon.directory, 'shared.tar');
  await daemon.ok('save', '-o', archive, 'shared:1', 'shared:2');
  const promised: Promised = { present: new Set(), absent: new Set() };
  for (let round = 0; round < KILLS; round += 1) {
    const context = `seed ${seed}, round ${round}`;
    const lanes = [1, 2].map((lane) => work(daemon, promised, { archive, lane: `r${round}l${lane}`, random }));
    await delay(100 + random() * MAX_KILL_DELAY_MS);
    await daemon.kill();
    await Promise.all(lanes);
    await daemon.start();
    const checked = await daemon.gantry(['system', 'fsck', '--deep']);
    assert.equal(checked.code, 0, `${context}: ${checked.stdout}${checked.stderr}`);
    const names = new Set((await daemon.ok('images', '--format', '{{.Repository}}:{{.Tag}}')).split('\n'));
    for (const name of promised.present) assert.ok(names.has(name), `${name} is gone; ${context}`);
    for (const name of promised.absent) assert.ok(!names.has(name), `${name} is there again; ${context}`);
  }
  await daemon.ok('image', 'prune', '-af');
  assert.equal(await daemon.ok('images', '-aq'), '');
  assert.equal((await daemon.gantry(['system', 'fsck', '--deep'])).code, 0);
});
