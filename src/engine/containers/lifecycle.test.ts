/** The life cycle of containers on a fake runtime: what is undone, what is told, and what races lead to. */
import assert from 'node:assert/strict';
import { existsSync } from 'node:fs';
import { test } from 'node:test';
import { setTimeout as sleep } from 'node:timers/promises';
import type { LiveContainer } from '#services/containers/live.ts';
import { type FakeServices, fakeServices } from './fake-services.ts';
import { killContainer } from './kill.ts';
import { watchOutOfMemory } from './out-of-memory.ts';
import { pauseContainer } from './pause.ts';
import { removeContainer } from './remove.ts';
import { restartContainer } from './restart.ts';
import { startContainer } from './start.ts';
import { stopContainer } from './stop.ts';
import { settle, waitForCondition } from './wait.ts';

const SIGTERM = 15;
const VOLUME = { Type: 'volume', Name: 'data', Destination: '/data', RW: true } as const;
const FORCE = { force: true, removeVolumes: false, link: false };

/** Waits for something that follows soon by itself. */
async function until(condition: () => boolean): Promise<void> {
  for (let turn = 0; turn < 500 && !condition(); turn += 1) await sleep(5);
  assert.ok(condition(), `never came true: ${condition}`);
}

async function ended(container: LiveContainer): Promise<void> {
  assert.ok(await settle(container, AbortSignal.timeout(5_000)));
}

/** A running container. */
async function running(fake: FakeServices, ...change: Parameters<FakeServices['add']>): Promise<LiveContainer> {
  const container = fake.add(...change);
  await startContainer(fake.services, container.id);
  return container;
}

test('a run takes and releases everything, and tells of it', async () => {
  await using fake = fakeServices();
  const container = await running(fake, { mounts: [VOLUME] });
  assert.deepEqual(fake.steps, ['snapshot mount', 'volume mount data', 'sandbox create', 'log open', 'streams open']);
  fake.steps.length = 0;
  fake.shim(container).exit(container.id, '', 3);
  await ended(container);
  assert.deepEqual(fake.steps.toSorted(), [
    'sandbox remove',
    'snapshot unmount',
    'streams finish',
    'volume unmount data',
  ]);
  assert.deepEqual(fake.actions(), ['start', 'die']);
  const die = fake.seen.find((event) => event.Action === 'die');
  assert.deepEqual(
    { ...die?.Actor.Attributes },
    { purpose: 'test', image: 'busybox', name: container.record.name, exitCode: '3', execDuration: '0' },
  );
  assert.deepEqual([container.state.status, 'exitCode' in container.state && container.state.exitCode], ['exited', 3]);
  assert.ok(!existsSync(fake.services.settings.paths.bundle(container.id)));
  assert.equal(fake.launcher.shims.size, 0);
});

/** Step that fails → releases that follow, in order. */
const UNDONE: readonly (readonly [string, readonly string[]])[] = [
  ['snapshot mount', []],
  ['volume mount data', ['snapshot unmount']],
  ['sandbox create', ['volume unmount data', 'snapshot unmount']],
  ['log open', ['sandbox remove', 'volume unmount data', 'snapshot unmount']],
  ['streams open', ['streams finish', 'sandbox remove', 'volume unmount data', 'snapshot unmount']],
];
for (const [failing, releases] of UNDONE) {
  test(`a start that fails at ${failing} is undone backwards`, async () => {
    await using fake = fakeServices();
    fake.failing.add(failing);
    const container = fake.add({ mounts: [VOLUME] });
    await assert.rejects(startContainer(fake.services, container.id), new RegExp(`${failing} failed`));
    assert.deepEqual(fake.steps.slice(fake.steps.indexOf(failing) + 1), releases);
    const { state } = container;
    assert.ok(state.status === 'created' && state.exitCode === 128 && state.error.includes('failed'), state.status);
    assert.ok(!existsSync(fake.services.settings.paths.bundle(container.id)));
    fake.failing.clear();
    await startContainer(fake.services, container.id);
    assert.equal(container.state.status, 'running');
  });
}

test('a command the runtime cannot find leaves exit code 127 and no shim', async () => {
  await using fake = fakeServices({
    onCreate: () => {
      throw new Error('OCI runtime create failed: exec: "nope": executable file not found in $PATH: unknown');
    },
  });
  const container = fake.add({});
  await assert.rejects(startContainer(fake.services, container.id), {
    kind: 'invalid',
    message: /^failed to create task for container: failed to create shim task: OCI runtime create failed/,
  });
  assert.ok('exitCode' in container.state && container.state.exitCode === 127);
  assert.equal(fake.launcher.shims.size, 0);
});

test('a start that fails with --rm removes the container', async () => {
  await using fake = fakeServices();
  fake.failing.add('sandbox create');
  const container = fake.add({ hostConfig: { AutoRemove: true, NetworkMode: 'none', Runtime: 'runc' } });
  const removed = waitForCondition(container, 'removed', new AbortController().signal);
  await assert.rejects(startContainer(fake.services, container.id));
  assert.match((await removed).error, /^$/);
  assert.equal(fake.services.containers.size, 0);
});

test('starting twice is no change, and starting a paused one is refused', async () => {
  await using fake = fakeServices();
  const container = await running(fake);
  await assert.rejects(startContainer(fake.services, container.id), { kind: 'notModified' });
  await pauseContainer(fake.services, container.id);
  await assert.rejects(startContainer(fake.services, container.id), {
    message: 'cannot start a paused container, try unpause instead',
  });
});

test('stop sends the stop signal, and SIGKILL only after the timeout', async () => {
  await using fake = fakeServices({ ignoredSignals: [SIGTERM] });
  const container = await running(fake);
  const began = performance.now();
  await stopContainer(fake.services, container.id, { signal: '', timeoutSeconds: 0.2 });
  assert.ok(performance.now() - began >= 190);
  assert.deepEqual(fake.actions(), ['start', 'kill', 'kill', 'die', 'stop']);
  assert.ok('exitCode' in container.state && container.state.exitCode === 137);
  await assert.rejects(stopContainer(fake.services, container.id, { signal: '', timeoutSeconds: 0 }), {
    kind: 'notModified',
  });
});

test('stop takes the configured signal and does not wait longer than the process lives', async () => {
  await using fake = fakeServices();
  const container = await running(fake, { config: { StopSignal: 'SIGINT', Hostname: 'box' } });
  await stopContainer(fake.services, container.id, { signal: '', timeoutSeconds: -1 });
  assert.ok('exitCode' in container.state && container.state.exitCode === 130);
});

test('kill of a stopped container is a conflict; an unknown signal is refused', async () => {
  await using fake = fakeServices();
  const container = fake.add({ name: 'still' });
  await assert.rejects(killContainer(fake.services, 'still', ''), {
    kind: 'conflict',
    message: `cannot kill container: still: container ${container.id} is not running`,
  });
  await assert.rejects(killContainer(fake.services, 'still', 'NOPE'), { kind: 'invalid' });
});

test('a signal that is not the stop signal leaves the restart policy in force', async () => {
  await using fake = fakeServices();
  const hostConfig = { NetworkMode: 'none', Runtime: 'runc', RestartPolicy: { Name: 'always' } } as const;
  const container = await running(fake, { hostConfig, config: { StopSignal: 'SIGINT', Hostname: 'box' } });
  await killContainer(fake.services, container.id, 'TERM');
  await until(() => container.state.status === 'running' && container.record.restartCount === 1);
  await killContainer(fake.services, container.id, 'KILL');
  assert.equal(container.state.status, 'exited');
});

test('SIGKILL reaches a paused container', async () => {
  await using fake = fakeServices({ ignoredSignals: [] });
  const container = await running(fake);
  await pauseContainer(fake.services, container.id);
  await killContainer(fake.services, container.id, '');
  assert.ok(['exited'].includes(container.state.status), container.state.status);
});

const ALWAYS = { NetworkMode: 'none', Runtime: 'runc', RestartPolicy: { Name: 'always' } } as const;

test('stop during the back-off ends it', async () => {
  await using fake = fakeServices({ onStart: () => 1 });
  const container = await running(fake, { hostConfig: ALWAYS });
  await until(() => container.state.status === 'restarting');
  await stopContainer(fake.services, container.id, { signal: '', timeoutSeconds: 1 });
  assert.equal(container.state.status, 'exited');
  const starts = fake.actions().filter((action) => action === 'start').length;
  await sleep(300);
  assert.equal(fake.actions().filter((action) => action === 'start').length, starts);
});

test('stop of a restart that has begun stops what it starts', async () => {
  let runs = 0;
  await using fake = fakeServices({
    onStart: () => {
      runs += 1;
      return runs === 1 ? 1 : undefined;
    },
  });
  const container = await running(fake, { hostConfig: ALWAYS });
  const gate = Promise.withResolvers<void>();
  const { snapshots } = fake.services;
  const mount = snapshots.mount.bind(snapshots);
  snapshots.mount = async (key, target) => {
    await gate.promise;
    await mount(key, target);
  };
  await until(() => container.state.status === 'restarting');
  await until(() => container.pendingRestart === undefined);
  const stopped = stopContainer(fake.services, container.id, { signal: '', timeoutSeconds: 1 });
  gate.resolve();
  await stopped;
  assert.equal(container.state.status, 'exited');
  assert.equal(runs, 2);
});

test('restart of a container in back-off starts it once', async () => {
  let runs = 0;
  await using fake = fakeServices({
    onStart: () => {
      runs += 1;
      return runs === 1 ? 1 : undefined;
    },
  });
  const container = await running(fake, { hostConfig: ALWAYS });
  await until(() => container.state.status === 'restarting');
  await restartContainer(fake.services, container.id, { signal: '', timeoutSeconds: 1 });
  assert.equal(container.state.status, 'running');
  await sleep(200);
  assert.equal(runs, 2);
});

test('a stopping daemon restarts nothing', async () => {
  await using fake = fakeServices();
  const container = await running(fake, { hostConfig: ALWAYS });
  fake.beginStop();
  fake.shim(container).exit(container.id, '', 1);
  await ended(container);
  assert.equal(container.state.status, 'exited');
});

test('forced removal of a restarting container removes it for good', async () => {
  await using fake = fakeServices({ onStart: () => 1 });
  const container = await running(fake, { hostConfig: ALWAYS });
  await until(() => container.state.status === 'restarting');
  await assert.rejects(removeContainer(fake.services, container.id, { ...FORCE, force: false }), { kind: 'conflict' });
  await removeContainer(fake.services, container.id, FORCE);
  await sleep(200);
  assert.equal(fake.services.containers.size, 0);
  assert.equal(fake.actions().at(-1), 'destroy');
});

test('of two removals at once one is told that the other is at work', async () => {
  await using fake = fakeServices();
  const container = await running(fake);
  const results = await Promise.allSettled([
    removeContainer(fake.services, container.id, FORCE),
    removeContainer(fake.services, container.id, FORCE),
  ]);
  assert.equal(results[0].status, 'fulfilled');
  assert.ok(results[1].status === 'rejected' && /is already in progress/.test(String(results[1].reason)));
});

test('a removal that fails leaves a dead container that can be removed again', async () => {
  await using fake = fakeServices();
  const container = fake.add();
  fake.failing.add('snapshot remove');
  await assert.rejects(removeContainer(fake.services, container.id, { ...FORCE, force: false }), {
    message: `unable to remove filesystem for ${container.id}: snapshot remove failed`,
  });
  assert.equal(container.state.status, 'dead');
  fake.failing.clear();
  await removeContainer(fake.services, container.id, FORCE);
  assert.equal(fake.services.containers.size, 0);
});

test('--rm removes after the exit, and both waits learn the exit code', async () => {
  await using fake = fakeServices();
  const container = await running(fake, { hostConfig: { AutoRemove: true, NetworkMode: 'none', Runtime: 'runc' } });
  const { signal } = new AbortController();
  const exit = waitForCondition(container, 'next-exit', signal);
  const removal = waitForCondition(container, 'removed', signal);
  fake.shim(container).exit(container.id, '', 7);
  assert.deepEqual([(await exit).exitCode, (await removal).exitCode], [7, 7]);
  assert.deepEqual(fake.actions(), ['start', 'die', 'destroy']);
});

test('wait answers at once for a container at rest, and its abort leaves nothing behind', async () => {
  await using fake = fakeServices();
  const container = fake.add();
  const open = new AbortController();
  assert.deepEqual(await waitForCondition(container, 'not-running', open.signal), { exitCode: 0, error: '' });
  const next = waitForCondition(container, 'next-exit', open.signal);
  open.abort(new Error('client left'));
  await assert.rejects(next, /client left/);
  container.notifyExit({ exitCode: 1, error: '' });
});

test('a shim that dies counts as an exit with an unknown code', async () => {
  await using fake = fakeServices();
  const container = await running(fake);
  fake.shim(container).die();
  await ended(container);
  assert.ok(container.state.status === 'exited' && container.state.exitCode !== 0);
});

test('a container whose shim has just gone is removed, stopped and killed as one that ends by itself', async () => {
  await using fake = fakeServices();
  const [removed, stopped, killed] = [await running(fake), await running(fake), await running(fake)];
  for (const container of [removed, stopped, killed]) fake.shim(container).die();
  await Promise.all([
    removeContainer(fake.services, removed.id, FORCE),
    stopContainer(fake.services, stopped.id, { signal: '', timeoutSeconds: 5 }),
    assert.rejects(killContainer(fake.services, killed.id, 'KILL'), { kind: 'conflict' }),
  ]);
  assert.equal(fake.services.containers.get(removed.id), undefined);
  assert.equal(stopped.state.status, 'exited');
});

test('an out-of-memory kill is told and shown', async () => {
  await using fake = fakeServices();
  using _watch = watchOutOfMemory(fake.services);
  const container = await running(fake);
  const shim = fake.shim(container);
  shim.oom(container.id);
  shim.exit(container.id, '', 137);
  await ended(container);
  assert.ok('oomKilled' in container.state && container.state.oomKilled);
  assert.deepEqual(fake.actions(), ['start', 'oom', 'die']);
});
