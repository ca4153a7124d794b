/** Streams and logs with the real shim between them and the process: needs root, the runc shim, runc and busybox. */
import assert from 'node:assert/strict';
import { randomBytes } from 'node:crypto';
import { once } from 'node:events';
import { copyFileSync, existsSync, mkdirSync, mkdtempSync, rmSync, symlinkSync, writeFileSync } from 'node:fs';
import { connect, createServer, type Socket } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, before, describe, it } from 'node:test';
import type { LogInfo } from '#services/logs/contract.ts';
import { FileLogDrivers } from '#services/logs/drivers.ts';
import { FifoProcessStreams } from '#services/streams/process-streams.ts';
import type { ShimLauncher } from '#system/runtime/contract.ts';
import { openShimLauncher } from '#system/runtime/launcher.ts';

const SHIM = 'io.containerd.runc.v2';

function missing(): string | false {
  if (process.getuid?.() !== 0) return 'root is missing';
  const paths = ['/usr/bin/containerd-shim-runc-v2', '/usr/sbin/runc', '/bin/busybox'];
  const absent = paths.find((path) => !existsSync(path));
  return absent === undefined ? false : `${absent} is missing`;
}

describe('streams through the real shim', { skip: missing() }, () => {
  let root: string;
  let launcher: ShimLauncher;
  const logs = new FileLogDrivers((text) => assert.fail(text));

  before(async () => {
    root = mkdtempSync(join(tmpdir(), 'gantry-streams-shim-'));
    mkdirSync(join(root, 'rootfs/bin'), { recursive: true });
    mkdirSync(join(root, 'rootfs/proc'));
    copyFileSync('/bin/busybox', join(root, 'rootfs/bin/busybox'));
    for (const name of ['sh', 'cat', 'sleep']) symlinkSync('busybox', join(root, 'rootfs/bin', name));
    launcher = await openShimLauncher({ directory: root, namespace: 'gantry-test' });
  });

  after(async () => {
    await launcher[Symbol.asyncDispose]();
    rmSync(root, { recursive: true, force: true });
  });

  async function client(): Promise<{ near: Socket; far: Socket }> {
    const path = join(root, randomBytes(6).toString('hex'));
    const server = createServer({ allowHalfOpen: true }).listen(path);
    await once(server, 'listening');
    const accepted = once(server, 'connection');
    const far = connect({ path, allowHalfOpen: true });
    const [near] = (await accepted) as [Socket];
    server.close();
    return { near, far };
  }

  async function text(socket: Socket): Promise<string> {
    let whole = '';
    for await (const chunk of socket) whole += (chunk as Buffer).toString('latin1');
    return whole;
  }

  async function run(
    command: string,
    options: { terminal: boolean; input: string },
  ): Promise<{ output: string; logged: string; code: number }> {
    const id = randomBytes(32).toString('hex');
    const bundle = join(root, 'bundles', id);
    mkdirSync(bundle, { recursive: true });
    const config = {
      ociVersion: '1.0.2',
      process: {
        terminal: options.terminal,
        cwd: '/',
        args: ['/bin/sh', '-c', command],
        env: ['PATH=/bin'],
        user: { uid: 0, gid: 0 },
      },
      root: { path: join(root, 'rootfs') },
      mounts: [
        { destination: '/proc', type: 'proc', source: 'proc' },
        { destination: '/dev', type: 'tmpfs', source: 'tmpfs' },
        { destination: '/dev/pts', type: 'devpts', source: 'devpts', options: ['newinstance', 'ptmxmode=0666'] },
      ],
      linux: { namespaces: [{ type: 'pid' }, { type: 'mount' }], cgroupsPath: `/gantry-test-${id}` },
    };
    writeFileSync(join(bundle, 'config.json'), JSON.stringify(config));
    const shim = await launcher.start({ id, namespace: 'gantry-test', bundle, shim: SHIM, debug: false });
    const info = { containerId: id, directory: bundle, driver: 'json-file', options: {}, labels: {}, env: [] };
    const log = { ...info, containerName: 'x', imageId: '', imageName: '' } as unknown as LogInfo;
    const streams = new FifoProcessStreams({
      openStdin: true,
      stdinOnce: true,
      terminal: options.terminal,
      closeStdin: () => shim.closeStdin(id),
    });
    const { near, far } = await client();
    const ended = streams.attach(near, {
      stdin: true,
      stdout: true,
      stderr: true,
      multiplexed: false,
      detachKeys: Buffer.alloc(0),
    });
    const output = text(far);
    if (options.terminal) far.write(options.input);
    else far.end(options.input);
    const stdio = await streams.open(bundle, await logs.open(log));
    await shim.create({ id, bundle, stdio, runc: { root: join(root, 'runc') } });
    streams.connected();
    const exited = shim.wait(id);
    await shim.start(id);
    const { exitStatus } = await exited;
    await streams.finish();
    far.end();
    await ended;
    await shim.delete(id);
    await shim.shutdown(id);
    let logged = '';
    const all = { stdout: true, stderr: true, sinceNs: undefined, untilNs: undefined, tail: undefined, follow: false };
    for await (const record of logs.read(log, all, new AbortController().signal)) logged += record.line.toString();
    near.destroy();
    return { output: await output, logged, code: exitStatus };
  }

  it('carries early input, its end, all output, and the log', async () => {
    const result = await run('cat; echo done; exit 4', { terminal: false, input: 'typed early\n' });
    assert.deepEqual(result, { output: 'typed early\ndone\n', logged: 'typed early\ndone\n', code: 4 });
  });

  it('loses nothing of output written just before the exit', async () => {
    const size = 300_000;
    const result = await run(`busybox head -c ${size} /bin/busybox | busybox od -An -v -tx1 | busybox tr -d ' \\n'`, {
      terminal: false,
      input: '',
    });
    assert.equal(result.output.length, 2 * size);
    assert.equal(result.logged, result.output);
  });

  it('serves a terminal', async () => {
    const result = await run('read line; echo "got $line"', { terminal: true, input: 'word\n' });
    assert.equal(result.code, 0);
    assert.match(result.output, /got word\r\n$/);
  });
});
