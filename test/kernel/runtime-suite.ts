/** What every runtime must do, run on the real shim and on the fake alike. */
import assert from 'node:assert/strict';
import { it } from 'node:test';
import type { Shim, ShimEvent, ShimLauncher } from '#system/runtime/contract.ts';

export interface RuntimeUnderTest {
  launcher(): ShimLauncher;
  /** A started shim with a created, not yet started task that sleeps; `quick` ends with 7 at once. */
  task(kind: 'sleep' | 'quick'): Promise<{ id: string; shim: Shim }>;
}

const NO_STDIO = { stdin: '', stdout: '', stderr: '', terminal: false };
const PROCESS = { cwd: '/', args: ['/bin/sleep', '1000'], env: ['PATH=/bin'], user: { uid: 0, gid: 0 } };
const EVENT_TIMEOUT_MS = 5000;

/** Declares the tests; call inside a `describe`. */
export function runtimeSuite(runtime: RuntimeUnderTest): void {
  it('takes a task from created over running to its exit, and forgets it when deleted', async () => {
    const exitEvent = Promise.withResolvers<ShimEvent>();
    const { id, shim } = await runtime.task('quick');
    using _subscription = runtime.launcher().subscribe((event) => {
      if (event.containerId === id) exitEvent.resolve(event);
    });
    assert.equal((await shim.state(id)).status, 'created');
    const waiting = shim.wait(id);
    const { pid } = await shim.start(id);
    assert.ok(pid > 1);
    assert.equal((await waiting).exitStatus, 7);
    const state = await shim.state(id);
    assert.equal(state.status, 'stopped');
    assert.equal(state.exitStatus, 7);
    assert.equal((await shim.wait(id)).exitStatus, 7);
    await assert.rejects(shim.kill(id, 9), { kind: 'notFound', message: /: not found$/ });
    const timeout = setTimeout(() => exitEvent.reject(new Error('no exit event')), EVENT_TIMEOUT_MS);
    const event = await exitEvent.promise;
    clearTimeout(timeout);
    assert.ok(event.type === 'exit');
    assert.deepEqual(
      { execId: event.execId, pid: event.pid, status: event.exit.exitStatus },
      { execId: '', pid, status: 7 },
    );
    assert.equal((await shim.delete(id)).exitStatus, 7);
    await assert.rejects(shim.state(id), { kind: 'notFound' });
    await shim.shutdown(id);
    await shim.closed;
  });

  it('keeps a shim with a task although it is told to shut down', async () => {
    const { id, shim } = await runtime.task('sleep');
    await shim.start(id);
    await shim.shutdown(id);
    assert.equal((await shim.state(id)).status, 'running');
    const again = await runtime.launcher().connect(shim.address);
    assert.equal((await again.state(id)).status, 'running');
    await again.kill(id, 9);
    assert.equal((await again.wait(id)).exitStatus, 137);
    await again.delete(id);
    await again.shutdown(id);
    await shim.closed;
    await assert.rejects(runtime.launcher().connect(shim.address), { kind: 'unavailable' });
    await assert.rejects(shim.state(id), { kind: 'unavailable' });
  });

  it('runs further processes beside the first', async () => {
    const { id, shim } = await runtime.task('sleep');
    await shim.start(id);
    await shim.exec({ id, execId: 'more', stdio: NO_STDIO, process: PROCESS });
    const { pid } = await shim.start(id, 'more');
    assert.ok((await shim.pids(id)).includes(pid));
    await assert.rejects(shim.wait(id, 'more', AbortSignal.timeout(20)), { kind: 'cancelled' });
    await shim.kill(id, 15, { execId: 'more' });
    assert.equal((await shim.wait(id, 'more')).exitStatus, 143);
    await shim.delete(id, 'more');
    await assert.rejects(shim.state(id, 'more'), { kind: 'notFound' });
    await shim.pause(id);
    assert.equal((await shim.state(id)).status, 'paused');
    await shim.resume(id);
    await shim.kill(id, 9);
    await shim.wait(id);
    await shim.delete(id);
    await shim.shutdown(id);
    await shim.closed;
  });
}
