/**
 * SIGKILL of the daemon at random moments while clients work on it. After each restart: what was acknowledged is
 * there, the host holds nothing that no container accounts for, and the next round works. The seed is printed;
 * GANTRY_TEST_SEED repeats a run, GANTRY_TEST_KILLS sets its length.
 */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { setTimeout as delay } from 'node:timers/promises';
import { startDaemon, type TestDaemon } from '../harness/daemon.ts';
import { orphans } from '../harness/orphans.ts';
import { eventually } from '../harness/processes.ts';
import { randomNumbers } from '../harness/random.ts';

const foreign = process.env['GANTRY_TEST_HOST'] !== undefined;
const options = foreign ? { skip: 'needs a daemon process of our own; GANTRY_TEST_HOST names another engine' } : {};
const KILLS = Number(process.env['GANTRY_TEST_KILLS'] ?? 12);
const MAX_KILL_DELAY_MS = 700;

/** What the client was told; only acknowledged facts go in. */
interface Promised {
  readonly containers: Set<string>;
  readonly running: Set<string>;
  readonly images: Set<string>;
}

/** Works until the daemon goes away. A container whose command was cut off may be in any state, so it is forgotten. */
async function work(daemon: TestDaemon, promised: Promised, round: number): Promise<void> {
  const attempt = async (...args: string[]): Promise<boolean> => (await daemon.docker(args)).code === 0;
  for (let step = 0; ; step += 1) {
    const name = `c${round}-${step}`;
    if (!(await attempt('create', '--name', name, '-p', '127.0.0.1::80', 'busybox', 'sleep', '1000'))) return;
    promised.containers.add(name);
    if (!(await attempt('start', name))) return;
    promised.running.add(name);
    if (!(await attempt('commit', '-p=false', name, `image-${name}`))) return;
    promised.images.add(`image-${name}`);
    promised.running.delete(name);
    if (!(await attempt('stop', '-t', '0', name))) return;
    if (step % 2 === 0) continue;
    promised.containers.delete(name);
    if (!(await attempt('rm', name))) return;
  }
}

test(
  'nothing acknowledged is lost and nothing leaks when the daemon is killed at random moments',
  options,
  async (t) => {
    const seed = Number(process.env['GANTRY_TEST_SEED'] ?? Date.now() % 1_000_000);
    t.diagnostic(`GANTRY_TEST_SEED=${seed}`);
    const random = randomNumbers(seed);
    await using daemon = await startDaemon();
    const promised: Promised = { containers: new Set(), running: new Set(), images: new Set() };
    await daemon.ok('run', '-d', '--name', 'witness', 'busybox', 'sleep', '10000');
    const witness = await daemon.inspect('witness', '{{.State.Pid}}');
    for (let round = 0; round < KILLS; round += 1) {
      const working = work(daemon, promised, round);
      await delay(random() * MAX_KILL_DELAY_MS);
      await daemon.kill();
      await working;
      await daemon.start();
      const context = `seed ${seed}, round ${round}`;
      assert.equal(await daemon.inspect('witness', '{{.State.Pid}} {{.State.Running}}'), `${witness} true`, context);
      const states = new Map(
        (await daemon.ok('ps', '-a', '--format', '{{.Names}} {{.State}}'))
          .split('\n')
          .map((line) => line.split(' ') as [string, string]),
      );
      for (const name of promised.containers) assert.ok(states.has(name), `${name} is gone; ${context}`);
      for (const name of promised.running) assert.equal(states.get(name), 'running', `${name}; ${context}`);
      for (const image of promised.images) await daemon.ok('image', 'inspect', image);
      const stale = [...states.keys()].filter((name) => name !== 'witness' && name !== '');
      if (stale.length > 0) await daemon.ok('rm', '-f', ...stale);
      promised.containers.clear();
      promised.running.clear();
      let left: string[] = [];
      await eventually(
        async () => {
          left = await orphans(daemon);
          return left.length === 0;
        },
        { what: () => `nothing orphaned (${context}):\n${left.join('\n')}\n${daemon.log.slice(-4_000)}` },
      );
    }
    const exec = await daemon.ok('exec', 'witness', 'echo', 'alive');
    assert.equal(exec, 'alive');
  },
);

test('a daemon killed during docker load keeps no half of the image', options, async (t) => {
  const seed = Number(process.env['GANTRY_TEST_SEED'] ?? Date.now() % 1_000_000);
  t.diagnostic(`GANTRY_TEST_SEED=${seed}`);
  const random = randomNumbers(seed);
  await using daemon = await startDaemon({ bridge: false });
  const archive = `${daemon.directory}/image.tar`;
  await daemon.ok('save', '-o', archive, 'busybox:latest');
  await daemon.ok('rmi', 'busybox:latest');
  for (let round = 0; round < 5; round += 1) {
    const loading = daemon.docker(['load', '-i', archive]);
    await delay(random() * 150);
    await daemon.kill();
    const acknowledged = (await loading).code === 0;
    await daemon.start();
    const present = (await daemon.docker(['image', 'inspect', 'busybox:latest'])).code === 0;
    assert.ok(present || !acknowledged, `an acknowledged image is gone; seed ${seed}, round ${round}`);
    if (present) {
      assert.equal(await daemon.ok('run', '--rm', '--net', 'none', 'busybox', 'echo', 'whole'), 'whole');
      await daemon.ok('rmi', 'busybox:latest');
    }
    // Compat: an image is there before its name is; one cut off in between is whole and dangling.
    await daemon.ok('image', 'prune', '-f');
    assert.equal(await daemon.ok('images', '-aq'), '', `images are left; seed ${seed}, round ${round}`);
  }
  await daemon.ok('load', '-i', archive);
});
