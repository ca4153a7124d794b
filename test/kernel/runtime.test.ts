/** The real shim and runc under the launcher: needs root, containerd-shim-runc-v2, runc and a static busybox. */
import assert from 'node:assert/strict';
import { execFileSync } from 'node:child_process';
import { randomBytes } from 'node:crypto';
import {
  copyFileSync,
  existsSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  rmSync,
  symlinkSync,
  writeFileSync,
} from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, before, describe, it } from 'node:test';
import { setTimeout as delay } from 'node:timers/promises';
import type { Shim, ShimEvent, ShimLauncher } from '#system/runtime/contract.ts';
import { removeDeadSockets } from '#system/runtime/direct.ts';
import { drainFifo, makeFifo } from '#system/runtime/fifo.ts';
import { openShimLauncher } from '#system/runtime/launcher.ts';
import { runtimeSuite } from './runtime-suite.ts';

const SHIM = 'io.containerd.runc.v2';
const NO_STDIO = { stdin: '', stdout: '', stderr: '', terminal: false };

function missing(): string | false {
  if (process.getuid?.() !== 0) return 'root is missing';
  for (const path of ['/usr/bin/containerd-shim-runc-v2', '/usr/sbin/runc', '/bin/busybox']) {
    if (!existsSync(path)) return `${path} is missing`;
  }
  return false;
}

describe('the real shim', { skip: missing() }, () => {
  let root: string;
  let launcher: ShimLauncher;
  const events: ShimEvent[] = [];
  const shimPids: number[] = [];

  before(async () => {
    root = mkdtempSync(join(tmpdir(), 'gantry-runtime-'));
    mkdirSync(join(root, 'rootfs/bin'), { recursive: true });
    copyFileSync('/bin/busybox', join(root, 'rootfs/bin/busybox'));
    for (const name of ['sh', 'sleep', 'true', 'cat', 'echo']) {
      execFileSync('ln', ['-sf', 'busybox', join(root, 'rootfs/bin', name)]);
    }
    launcher = await openShimLauncher({ directory: root, namespace: 'gantry-test', warmShims: 0 });
    launcher.subscribe((event) => events.push(event));
  });

  after(async () => {
    await launcher[Symbol.asyncDispose]();
    for (const pid of shimPids) if (isOurs(pid, root)) process.kill(pid, 'SIGKILL');
    rmSync(root, { recursive: true, force: true });
  });

  function bundle(args: string[]): { id: string; path: string } {
    const id = randomBytes(16).toString('hex');
    const path = join(root, 'bundles', id);
    mkdirSync(path, { recursive: true });
    const config = {
      ociVersion: '1.0.2',
      process: { cwd: '/', args, env: ['PATH=/bin'], user: { uid: 0, gid: 0 } },
      root: { path: join(root, 'rootfs') },
      mounts: [{ destination: '/proc', type: 'proc', source: 'proc' }],
      linux: { namespaces: [{ type: 'pid' }, { type: 'mount' }], cgroupsPath: `/gantry-test-${id}` },
    };
    mkdirSync(join(root, 'rootfs/proc'), { recursive: true });
    writeFileSync(join(path, 'config.json'), JSON.stringify(config));
    return { id, path };
  }

  async function startShim(
    args: string[],
    from: ShimLauncher = launcher,
    name = SHIM,
  ): Promise<{ id: string; path: string; shim: Shim }> {
    const made = bundle(args);
    const options = { id: made.id, namespace: 'gantry-test', bundle: made.path, shim: name, debug: false };
    const shim = await from.start(options);
    shimPids.push(shim.pid);
    return { ...made, shim };
  }

  const runc = (): { root: string } => ({ root: join(root, 'runc') });

  runtimeSuite({
    launcher: () => launcher,
    task: async (kind) => {
      const made = await startShim(kind === 'quick' ? ['/bin/sh', '-c', 'exit 7'] : ['/bin/sleep', '1000']);
      await made.shim.create({ id: made.id, bundle: made.path, stdio: NO_STDIO, runc: runc() });
      return made;
    },
  });

  it('runs a process, reports its exit by Wait and by event, and ends', async () => {
    const { id, path, shim } = await startShim(['/bin/sh', '-c', 'exit 7']);
    assert.ok(shim.pid > 1);
    const { pid } = await shim.create({ id, bundle: path, stdio: NO_STDIO, runc: runc() });
    assert.ok(pid > 1);
    const exited = shim.wait(id);
    await shim.start(id);
    assert.equal((await exited).exitStatus, 7);
    assert.equal((await shim.wait(id)).exitStatus, 7);
    const deleted = await shim.delete(id);
    assert.equal(deleted.exitStatus, 7);
    assert.match(deleted.exitedAt, /^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d{1,9})?Z$/);
    await shim.shutdown(id);
    await shim.closed;
    for (let tries = 0; tries < 100 && !events.some((event) => event.containerId === id); tries += 1) await delay(20);
    const event = events.find((candidate) => candidate.containerId === id);
    assert.ok(event?.type === 'exit');
    assert.equal(event.execId, '');
    assert.equal(event.exit.exitStatus, 7);
    await assert.rejects(shim.state(id), { kind: 'unavailable' });
  });

  const parentOf = (pid: number): number =>
    Number(/^PPid:\s+(\d+)/m.exec(readFileSync(`/proc/${pid}/status`, 'utf8'))?.[1]);
  const sockets = (): string[] => (existsSync(join(root, 's')) ? readdirSync(join(root, 's')) : []);

  it('starts the shim it knows without a helper, which leaves no socket', async () => {
    const { id, path, shim } = await startShim(['/bin/sh', '-c', 'exit 7']);
    // Another version may be installed, which is started as any other shim.
    if (/Version:\s+1\./.test(execFileSync('/usr/bin/containerd-shim-runc-v2', ['-v'], { encoding: 'utf8' }))) {
      assert.equal(parentOf(shim.pid), process.pid);
      assert.equal(sockets().length, 1);
    }
    await shim.create({ id, bundle: path, stdio: NO_STDIO, runc: runc() });
    const exited = shim.wait(id);
    await shim.start(id);
    assert.equal((await exited).exitStatus, 7);
    await shim.delete(id);
    await shim.shutdown(id);
    await shim.closed;
    for (let tries = 0; tries < 100 && sockets().length > 0; tries += 1) await delay(20);
    assert.deepEqual(sockets(), []);
  });

  it('removes sockets that killed shims left, and no other', async () => {
    const { shim } = await startShim(['/bin/sleep', '1000']);
    process.kill(shim.pid, 'SIGKILL');
    await shim.closed;
    const { shim: alive } = await startShim(['/bin/sleep', '1000']);
    const before = sockets().length;
    await removeDeadSockets(join(root, 's'));
    assert.ok(sockets().length < before || before === 0);
    await alive.shutdown('');
    await alive.closed;
  });

  it('starts any other shim by the official protocol', async () => {
    const other = join(root, 'containerd-shim-other-v2');
    symlinkSync('/usr/bin/containerd-shim-runc-v2', other);
    const { id, path, shim } = await startShim(['/bin/sh', '-c', 'exit 7'], launcher, other);
    assert.notEqual(parentOf(shim.pid), process.pid);
    await shim.create({ id, bundle: path, stdio: NO_STDIO, runc: runc() });
    const exited = shim.wait(id);
    await shim.start(id);
    assert.equal((await exited).exitStatus, 7);
    await shim.delete(id);
    await shim.shutdown(id);
    await shim.closed;
  });

  it('gives the text of runc when the executable is missing', async () => {
    const { id, path, shim } = await startShim(['nope']);
    await assert.rejects(shim.create({ id, bundle: path, stdio: NO_STDIO, runc: runc() }), (error: Error) => {
      assert.match(
        error.message,
        /^OCI runtime create failed: runc create failed: unable to start container process: exec: "nope": executable file not found in \$PATH: unknown$/,
      );
      return true;
    });
    await shim.shutdown(id);
    await shim.closed;
  });

  it('executes, lists, pauses, updates, kills; reconnects by address', async () => {
    const { id, path, shim } = await startShim(['/bin/sleep', '1000']);
    await shim.create({ id, bundle: path, stdio: NO_STDIO, runc: runc() });
    assert.equal((await shim.state(id)).status, 'created');
    await shim.start(id);
    assert.equal((await shim.state(id)).status, 'running');
    const process = { cwd: '/', args: ['/bin/sh', '-c', 'exit 3'], env: ['PATH=/bin'], user: { uid: 0, gid: 0 } };
    await shim.exec({ id, execId: 'one', stdio: NO_STDIO, process });
    await shim.start(id, 'one');
    assert.equal((await shim.wait(id, 'one')).exitStatus, 3);
    assert.equal((await shim.delete(id, 'one')).exitStatus, 3);
    assert.equal((await shim.pids(id)).length, 1);
    await shim.pause(id);
    assert.equal((await shim.state(id)).status, 'paused');
    await shim.resume(id);
    await shim.update(id, { cpu: { shares: 512 } });

    await shim[Symbol.asyncDispose]();
    const again = await launcher.connect(shim.address);
    assert.equal(again.pid, shim.pid);
    const exited = again.wait(id);
    await again.kill(id, 9, { all: true });
    assert.equal((await exited).exitStatus, 137);
    await assert.rejects(again.kill(id, 9), { kind: 'notFound', message: /not found$/ });
    await again.delete(id);
    await again.shutdown(id);
    await again.closed;
    await assert.rejects(launcher.connect(shim.address), { kind: 'unavailable' });
  });

  it('fails pending calls as unavailable when the shim is killed, and cleans up after it', async () => {
    const { id, path, shim } = await startShim(['/bin/sleep', '1000']);
    const created = await shim.create({ id, bundle: path, stdio: NO_STDIO, runc: runc() });
    await shim.start(id);
    const waiting = assert.rejects(shim.wait(id), { kind: 'unavailable' });
    process.kill(shim.pid, 'SIGKILL');
    await shim.closed;
    await waiting;
    const socket = shim.address.replace('unix://', '');
    assert.ok(existsSync(socket));
    await launcher.cleanup({ id, namespace: 'gantry-test', bundle: path, shim: SHIM, debug: false });
    for (let tries = 0; tries < 100 && existsSync(`/proc/${created.pid}`); tries += 1) await delay(20);
    assert.ok(!isAlive(created.pid));
    assert.ok(!existsSync(socket));
    assert.deepEqual(existsSync(join(root, 'runc', id)), false);
  });

  it('cancels a waiting call by its signal without harm to the connection', async () => {
    const { id, path, shim } = await startShim(['/bin/sleep', '1000']);
    await shim.create({ id, bundle: path, stdio: NO_STDIO, runc: runc() });
    await shim.start(id);
    await assert.rejects(shim.wait(id, '', AbortSignal.timeout(30)), { kind: 'cancelled' });
    await shim.kill(id, 9);
    await shim.wait(id);
    await shim.delete(id);
    await shim.shutdown(id);
  });

  it('carries output through FIFOs', async () => {
    const { id, path, shim } = await startShim(['/bin/echo', 'hello']);
    const stdout = join(path, 'out');
    makeFifo(stdout);
    let text = '';
    using _drain = drainFifo(stdout, (part) => {
      text += part;
    });
    // The shim wants both outputs or none.
    const stderr = join(path, 'err');
    makeFifo(stderr);
    using _drainError = drainFifo(stderr, () => {});
    await shim.create({ id, bundle: path, stdio: { ...NO_STDIO, stdout, stderr }, runc: runc() });
    await shim.start(id);
    await shim.wait(id);
    await shim.delete(id);
    await shim.shutdown(id);
    for (let tries = 0; tries < 100 && text === ''; tries += 1) await delay(10);
    assert.equal(text, 'hello\n');
  });

  it('serves a container from a warm shim, replaces it, and leaves none behind', async () => {
    const directory = join(root, 'w');
    mkdirSync(directory);
    const warm = await openShimLauncher({ directory, namespace: 'gantry-test', warmShims: 1 });
    const idle = async (): Promise<void> => {
      for (let tries = 0; tries < 200 && idleCount(directory) === 0; tries += 1) await delay(20);
      assert.equal(idleCount(directory), 1);
    };
    await idle();
    const { id, path, shim } = await startShim(['/bin/sh', '-c', 'exit 5'], warm);
    assert.match(readFileSync(`/proc/${shim.pid}/cmdline`, 'utf8'), /warm-/);
    await shim.create({ id, bundle: path, stdio: NO_STDIO, runc: runc() });
    await shim.start(id);
    assert.equal((await shim.wait(id)).exitStatus, 5);
    await shim.delete(id);
    await shim.shutdown(id);
    await shim.closed;
    await delay(100);
    await idle();
    await warm[Symbol.asyncDispose]();
    await delay(200);
    assert.deepEqual(readdirSync(join(directory, 'warm')), []);
  });

  it('ends the warm shim an earlier daemon left, but not one that serves', async () => {
    const directory = join(root, 'v');
    mkdirSync(directory);
    const open = (warmShims: 0 | 1): Promise<ShimLauncher> =>
      openShimLauncher({ directory, namespace: 'gantry-test', warmShims });
    const left = await open(1);
    const ready = async (count: number): Promise<void> => {
      for (let tries = 0; tries < 200 && idleCount(directory) !== count; tries += 1) await delay(20);
      assert.equal(idleCount(directory), count);
    };
    await ready(1);
    const { id, path, shim } = await startShim(['/bin/sleep', '1000'], left);
    await shim.create({ id, bundle: path, stdio: NO_STDIO, runc: runc() });
    await shim.start(id);
    await ready(2);
    // `left` is not disposed: it stands for a daemon that was killed.
    const next = await open(1);
    await ready(2);
    const served = await next.connect(shim.address);
    assert.equal((await served.state(id)).status, 'running');
    await next[Symbol.asyncDispose]();
    await ready(1);
    await served.kill(id, 9);
    await served.wait(id);
    await served.delete(id);
    await served.shutdown(id);
    await served.closed;
    await left[Symbol.asyncDispose]();
    await ready(0);
  });
});

function idleCount(directory: string): number {
  const warm = join(directory, 'warm');
  return readdirSync(warm).filter((name) => existsSync(join(warm, name, 'gantry-address'))).length;
}

/** Whether a shim of a failed test is still there. */
function isOurs(pid: number, root: string): boolean {
  try {
    return readFileSync(`/proc/${pid}/cmdline`, 'utf8').includes(root);
  } catch {
    return false;
  }
}

function isAlive(pid: number): boolean {
  try {
    return !/^State:\s+Z/m.test(readFileSync(`/proc/${pid}/status`, 'utf8'));
  } catch {
    return false;
  }
}
