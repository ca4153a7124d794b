/** What isolates a container by default, and the flags that change it. */
import assert from 'node:assert/strict';
import { readlinkSync, statSync } from 'node:fs';
import { after, before, describe, test } from 'node:test';
import { startDaemon, type TestDaemon } from '../harness/daemon.ts';

describe('isolation', () => {
  let daemon: TestDaemon;
  before(async () => {
    daemon = await startDaemon();
  });
  after(() => daemon?.[Symbol.asyncDispose]());

  /** Starts a container without a network in the background; returns its name. */
  const start = async (purpose: string, flags: string[], ...command: string[]): Promise<string> => {
    const name = daemon.name(purpose);
    await daemon.ok('run', '-d', '--net', 'none', '--name', name, ...flags, 'busybox', ...command);
    return name;
  };

  const inside = (flags: string[], ...command: string[]): Promise<string> =>
    daemon.ok('run', '--rm', '--net', 'none', ...flags, 'busybox', ...command);
  const capabilities = (...flags: string[]): Promise<string> =>
    inside(flags, 'sed', '-n', 's/^CapEff:.//p', '/proc/self/status');

  test('the default capability set is the usual fourteen', async () => {
    assert.equal(await capabilities(), '00000000a80425fb');
  });

  test('--cap-drop and --cap-add change it, ALL included', async () => {
    assert.equal(await capabilities('--cap-drop', 'ALL'), '0000000000000000');
    assert.equal(await capabilities('--cap-drop', 'ALL', '--cap-add', 'CHOWN'), '0000000000000001');
    assert.equal(await capabilities('--cap-drop', 'cap_net_raw'), '00000000a80405fb');
    assert.equal(await capabilities('--cap-add', 'NET_ADMIN'), '00000000a80435fb');
  });

  test('a user other than root has no effective capabilities', async () => {
    assert.equal(await capabilities('-u', '1000'), '0000000000000000');
  });

  test('the seccomp filter is on, and unconfined turns it off', async () => {
    const mode = (...flags: string[]): Promise<string> =>
      inside(flags, 'sed', '-n', 's/^Seccomp:.//p', '/proc/self/status');
    assert.equal(await mode(), '2');
    assert.equal(await mode('--security-opt', 'seccomp=unconfined'), '0');
    assert.equal(await mode('--privileged'), '0');
  });

  test('system calls outside the profile fail', async () => {
    assert.match(await inside([], 'sh', '-c', 'unshare -U true 2>&1 || true'), /Operation not permitted/);
    assert.match(
      await inside([], 'sh', '-c', 'mount -t tmpfs x /tmp 2>&1 || true'),
      /permission denied|Operation not permitted/,
    );
  });

  test('no-new-privileges is set when asked for', async () => {
    const flag = (...flags: string[]): Promise<string> =>
      inside(flags, 'sed', '-n', 's/^NoNewPrivs:.//p', '/proc/self/status');
    assert.equal(await flag(), '0');
    assert.equal(await flag('--security-opt', 'no-new-privileges'), '1');
  });

  test('kernel paths are masked or read-only', async () => {
    assert.equal(await inside([], 'sh', '-c', 'cat /proc/timer_list /proc/keys 2>/dev/null || true'), '');
    assert.equal(await inside([], 'ls', '/proc/acpi'), '');
    assert.match(
      await inside([], 'sh', '-c', '(echo 1 >/proc/sys/kernel/printk) 2>&1 || true'),
      /Read-only file system/,
    );
    assert.match(await inside([], 'sh', '-c', 'mkdir /sys/kernel/x 2>&1 || true'), /Read-only file system/);
  });

  test('only the usual devices are there, and --device adds one', async () => {
    const devices = (await inside([], 'ls', '/dev')).split('\n');
    for (const name of [
      'null',
      'zero',
      'full',
      'random',
      'urandom',
      'tty',
      'ptmx',
      'pts',
      'shm',
      'mqueue',
      'fd',
      'stdin',
    ])
      assert.ok(devices.includes(name), name);
    assert.ok(!devices.includes('kmsg') && !devices.includes('mem'));
    assert.match(await inside(['--device', '/dev/null:/dev/added:r'], 'ls', '-l', '/dev/added'), /^crw/);
    const missing = await daemon.docker(['run', '--rm', '--device', '/dev/no-such-device', 'busybox', 'true']);
    // Compat: the client reads "no such file or directory" as a missing command.
    assert.equal(missing.code, 127);
    assert.match(
      missing.stderr,
      /error gathering device information while adding custom device "\/dev\/no-such-device": no such file or directory/,
    );
  });

  test('device rules hold: a node made inside cannot be opened', async () => {
    assert.match(
      await inside([], 'sh', '-c', 'mknod /k c 1 11 && head -c1 /k 2>&1 || true'),
      /Operation not permitted/,
    );
  });

  test('--privileged gives all devices, capabilities and a writable /sys', async () => {
    assert.match(await inside(['--privileged'], 'ls', '/dev'), /^kmsg$/m);
    assert.match(await inside(['--privileged'], 'sh', '-c', 'mount -t tmpfs x /tmp && echo mounted'), /mounted/);
  });

  test('the container has namespaces of its own', async () => {
    const name = await start('namespaces', [], 'sleep', '1000');
    const pid = await daemon.inspect(name, '{{.State.Pid}}');
    for (const kind of ['mnt', 'pid', 'ipc', 'uts', 'net']) {
      assert.notEqual(readlinkSync(`/proc/${pid}/ns/${kind}`), readlinkSync(`/proc/self/ns/${kind}`), kind);
    }
  });

  test('other users of the host reach no files of containers', () => {
    if (daemon.foreign) return;
    assert.equal(statSync(daemon.execRoot).mode & 0o7777, 0o700);
    assert.equal(statSync(daemon.dataRoot).mode & 0o7777, 0o710);
  });

  test('a filter that would keep a backtracking engine busy for ever is answered', async () => {
    const name = `${'a'.repeat(60)}b`;
    await daemon.ok('create', '--name', name, 'busybox');
    assert.equal(await daemon.ok('ps', '-aq', '--filter', 'name=^/?(a+)+$'), '');
    assert.equal(await daemon.ok('ps', '-a', '--filter', 'name=^/?(a+)+b$', '--format', '{{.Names}}'), name);
  });

  test('a security option nobody knows is refused', async () => {
    const result = await daemon.docker(['create', '--security-opt', 'magic=on', 'busybox']);
    assert.equal(result.code, 1);
    assert.match(result.stderr, /invalid --security-opt|Invalid --security-opt/);
  });
});
