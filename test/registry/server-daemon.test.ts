import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { existsSync, mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join, resolve } from 'node:path';
import { test } from 'node:test';
import { startDaemon, type TestDaemon } from '../harness/daemon.ts';
import { eventually } from '../harness/processes.ts';

const isForeign = process.env['GANTRY_TEST_HOST'] !== undefined && 'needs a daemon process of our own';

function addressIn(daemon: TestDaemon): string {
  return (
    daemon.log
      .match(/Registry listens" address=(127\.0\.0\.1:\d+)/g)
      ?.at(-1)
      ?.replace(/.*=/, '') ?? ''
  );
}

/** Registry processes of this data root. */
function registryProcesses(daemon: TestDaemon): number[] {
  return readdirSync('/proc')
    .filter((name) => /^\d+$/.test(name))
    .map(Number)
    .filter((pid) => {
      try {
        const command = readFileSync(`/proc/${pid}/cmdline`, 'utf8');
        return command.includes('registry/main.ts') && command.includes(daemon.dataRoot);
      } catch {
        return false;
      }
    });
}

async function isUp(address: string): Promise<boolean> {
  return await fetch(`http://${address}/v2/`).then(
    (answer) => answer.status === 200,
    () => false,
  );
}

test('a daemon serves a registry, starts it again when it fails, and takes it along', { skip: isForeign }, async () => {
  await using daemon = await startDaemon({
    bridge: false,
    busybox: false,
    flags: ['--registry-listen', '127.0.0.1:0'],
  });
  const first = addressIn(daemon);
  assert.ok(await isUp(first));
  assert.ok(existsSync(join(daemon.dataRoot, 'registry/registry.db')));
  const [pid = 0] = registryProcesses(daemon);
  process.kill(pid, 'SIGKILL');
  await eventually(async () => addressIn(daemon) !== first && (await isUp(addressIn(daemon))), {
    what: 'a new registry process',
  });
  assert.match(daemon.log, /the registry ended; it is started again/);
  await daemon.kill();
  await eventually(() => registryProcesses(daemon).length === 0, { what: 'the registry to end with its daemon' });
  await daemon.start();
  assert.equal(registryProcesses(daemon).length, 1);
  assert.equal(await daemon.stop(), 0);
  assert.deepEqual(registryProcesses(daemon), []);
});

test('an image pushed to the registry of its daemon comes back the same', { skip: isForeign }, async () => {
  await using daemon = await startDaemon({ bridge: false, flags: ['--registry-listen', '127.0.0.1:0'] });
  const name = `${addressIn(daemon)}/team/busybox:v1`;
  await daemon.ok('tag', 'busybox', name);
  const pushed = await daemon.ok('push', name);
  const digest = /v1: digest: (sha256:[0-9a-f]{64})/.exec(pushed)?.[1] ?? '';
  const id = await daemon.ok('image', 'inspect', '-f', '{{.Id}}', name);
  assert.match(await daemon.ok('push', name), /Layer already exists/);
  await daemon.ok('rmi', '-f', id);
  assert.match(await daemon.ok('pull', name), new RegExp(`Digest: ${digest}`));
  assert.equal(await daemon.ok('image', 'inspect', '-f', '{{.Id}}', name), id);
  assert.equal(await daemon.ok('run', '--rm', '--net', 'none', name, 'echo', 'same'), 'same');
});

test('a daemon whose registry cannot start says so and ends', { skip: isForeign }, async () => {
  const directory = mkdtempSync(join(tmpdir(), 'gantry-own-registry-'));
  try {
    const config = join(directory, 'registry.json');
    writeFileSync(config, '{"nonsense": true}');
    const places = [
      '--data-root',
      join(directory, 'data'),
      '--exec-root',
      join(directory, 'exec'),
      '-H',
      `unix://${directory}/socket`,
      '-p',
      join(directory, 'pid'),
      '-b',
      'none',
    ];
    const child = spawn(resolve(import.meta.dirname, '../../bin/gantryd'), [
      ...places,
      '--registry-listen',
      '127.0.0.1:0',
      '--registry-config',
      config,
    ]);
    let output = '';
    child.stderr.on('data', (chunk) => {
      output += String(chunk);
    });
    const [code] = await once(child, 'close');
    assert.equal(code, 1);
    assert.match(output, /there is no option "nonsense"/);
    assert.match(output, /the registry of --registry-listen did not start/);
  } finally {
    rmSync(directory, { recursive: true, force: true });
  }
});
