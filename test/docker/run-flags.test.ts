/** `docker run` and its flags, as seen from inside the container. */
import assert from 'node:assert/strict';
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, before, describe, test } from 'node:test';
import { startDaemon, type TestDaemon } from '../harness/daemon.ts';

describe('docker run', () => {
  let daemon: TestDaemon;
  let scratch: string;
  before(async () => {
    scratch = mkdtempSync(join(tmpdir(), 'gantry-flags-'));
    daemon = await startDaemon();
  });
  after(async () => {
    await daemon?.[Symbol.asyncDispose]();
    rmSync(scratch, { recursive: true, force: true });
  });

  /** Runs without a network (quicker), requiring success. */
  const inside = (flags: string[], ...command: string[]): Promise<string> =>
    daemon.ok('run', '--rm', '--net', 'none', ...flags, 'busybox', ...command);

  test('prints what the command prints', async () => {
    assert.equal(await daemon.ok('run', '--rm', 'busybox', 'echo', 'hello world'), 'hello world');
  });

  test('keeps standard output and standard error apart', async () => {
    const result = await daemon.docker([
      'run',
      '--rm',
      '--net',
      'none',
      'busybox',
      'sh',
      '-c',
      'echo out; echo err >&2',
    ]);
    assert.deepEqual([result.code, result.stdout, result.stderr], [0, 'out\n', 'err\n']);
  });

  test('runs the image command when none is given', async () => {
    const result = await daemon.docker(['run', '-i', '--rm', '--net', 'none', 'busybox'], { input: 'echo from-sh\n' });
    assert.deepEqual([result.code, result.stdout], [0, 'from-sh\n']);
  });

  test('-d prints the full container ID', async () => {
    const id = await daemon.ok('run', '-d', '--name', daemon.name('d'), 'busybox', 'true');
    assert.match(id, /^[0-9a-f]{64}$/);
  });

  test('-e sets, -e with a bare name passes on, and later values win', async () => {
    const result = await daemon.docker(
      ['run', '--rm', '--net', 'none', '-e', 'A=1', '-e', 'A=2', '-e', 'PASSED', '-e', 'ABSENT', 'busybox', 'env'],
      { env: { PASSED: 'on' } },
    );
    const lines = result.stdout.trim().split('\n');
    assert.ok(lines.includes('A=2') && !lines.includes('A=1'), result.stdout);
    assert.ok(lines.includes('PASSED=on'));
    assert.ok(!lines.some((line) => line.startsWith('ABSENT')));
  });

  test('the environment holds PATH, HOSTNAME and HOME, and TERM with a terminal', async () => {
    const plain = await inside(['-h', 'box'], 'env');
    assert.match(plain, /^PATH=\/usr\/local\/sbin:/m);
    assert.match(plain, /^HOSTNAME=box$/m);
    assert.match(plain, /^HOME=\/root$/m);
    assert.doesNotMatch(plain, /^TERM=/m);
    assert.match(await inside(['-t'], 'env'), /^TERM=xterm\r$/m);
  });

  test('--env-file reads variables, comments and bare names', async () => {
    const file = join(scratch, 'env');
    writeFileSync(file, '# comment\nFROM_FILE=yes and no\n\nEMPTY=\n');
    const out = await inside(['--env-file', file], 'env');
    assert.match(out, /^FROM_FILE=yes and no$/m);
    assert.match(out, /^EMPTY=$/m);
  });

  test('-w creates and enters the working directory', async () => {
    assert.equal(await inside(['-w', '/made/here'], 'pwd'), '/made/here');
  });

  test('-u takes names, numbers and groups', async () => {
    assert.equal(await inside(['-u', 'nobody'], 'id', '-u'), '65534');
    assert.equal(await inside(['-u', '12:34'], 'sh', '-c', 'id -u; id -g'), '12\n34');
    assert.equal(await inside(['-u', 'nobody:root'], 'sh', '-c', 'id -u; id -g'), '65534\n0');
    assert.match(await inside(['-u', 'nobody'], 'id', '-G'), /\b1234\b/);
  });

  test('--group-add adds groups by name and number', async () => {
    const groups = (await inside(['--group-add', 'extra', '--group-add', '777'], 'id', '-G')).split(' ');
    assert.ok(groups.includes('1234') && groups.includes('777'), groups.join(' '));
  });

  test('-h and --domainname name the host', async () => {
    assert.equal(await inside(['-h', 'web1', '--domainname', 'example.org'], 'hostname'), 'web1');
    assert.equal(await inside(['-h', 'web1'], 'cat', '/etc/hostname'), 'web1');
    assert.match(
      await inside(['--domainname', 'example.org', '-h', 'web1'], 'cat', '/proc/sys/kernel/domainname'),
      /example\.org/,
    );
  });

  test('--entrypoint replaces the entry point and drops the image command', async () => {
    assert.equal(await inside(['--entrypoint', 'echo'], 'a', 'b'), 'a b');
    assert.equal(await inside(['--entrypoint', 'echo']), '');
  });

  test('--cidfile is written once and refuses to be overwritten', async () => {
    const file = join(scratch, 'cid');
    await inside(['--cidfile', file], 'true');
    assert.match(readFileSync(file, 'utf8'), /^[0-9a-f]{64}$/);
    const again = await daemon.docker(['run', '--rm', '--cidfile', file, 'busybox', 'true']);
    assert.equal(again.code, 125);
    assert.match(again.stderr, /container ID file found/);
  });

  test('--init puts an init at PID 1 that reaps', async () => {
    assert.match(await inside(['--init'], 'cat', '/proc/1/cmdline'), /init/);
  });

  test('--read-only makes the root read-only but leaves tmpfs writable', async () => {
    const out = await inside(
      ['--read-only', '--tmpfs', '/scratch'],
      'sh',
      '-c',
      'touch /x 2>&1; touch /scratch/x && echo ok',
    );
    assert.match(out, /Read-only file system/);
    assert.match(out, /ok$/);
  });

  test('--tmpfs takes size and mode', async () => {
    const out = await inside(['--tmpfs', '/t:size=1m,mode=0700'], 'sh', '-c', 'mount | grep " /t "; stat -c %a /t');
    assert.match(out, /size=1024k/);
    assert.match(out, /700$/);
  });

  test('--shm-size sets the size of /dev/shm, 64 MiB by default', async () => {
    assert.match(await inside([], 'sh', '-c', 'df -k /dev/shm | tail -1'), /\b65536\b/);
    assert.match(await inside(['--shm-size', '8m'], 'sh', '-c', 'df -k /dev/shm | tail -1'), /\b8192\b/);
  });

  test('--ulimit sets soft and hard limits', async () => {
    assert.equal(await inside(['--ulimit', 'nofile=100:200'], 'sh', '-c', 'ulimit -Sn; ulimit -Hn'), '100\n200');
  });

  test('--sysctl sets a namespaced value', async () => {
    assert.equal(await inside(['--sysctl', 'net.ipv4.ip_forward=1'], 'cat', '/proc/sys/net/ipv4/ip_forward'), '1');
  });

  test('--pid host, --ipc host and --uts host share the namespaces of the host', async () => {
    for (const [flag, kind] of [
      ['--pid', 'pid'],
      ['--ipc', 'ipc'],
      ['--uts', 'uts'],
    ] as const) {
      const own = await inside([], 'readlink', `/proc/self/ns/${kind}`);
      const shared = await inside([flag, 'host'], 'readlink', `/proc/self/ns/${kind}`);
      assert.notEqual(own, shared, kind);
      if (!daemon.foreign) {
        const { readlinkSync } = await import('node:fs');
        assert.equal(shared, readlinkSync(`/proc/self/ns/${kind}`));
      }
    }
  });

  test('--pid container: sees the processes of another container', async () => {
    const name = daemon.name('pidns');
    await daemon.ok('run', '-d', '--net', 'none', '--name', name, 'busybox', 'sleep', '1234');
    assert.match(await inside(['--pid', `container:${name}`], 'ps'), /sleep 1234/);
    await daemon.ok('rm', '-f', name);
  });

  test('--ipc shareable can be joined by another container', async () => {
    const name = daemon.name('ipc');
    await daemon.ok(
      'run',
      '-d',
      '--net',
      'none',
      '--ipc',
      'shareable',
      '--name',
      name,
      'busybox',
      'sh',
      '-c',
      'echo hi >/dev/shm/f; sleep 1000',
    );
    await daemon.ok('exec', name, 'sh', '-c', 'until [ -s /dev/shm/f ]; do sleep 0.05; done');
    assert.equal(await inside(['--ipc', `container:${name}`], 'cat', '/dev/shm/f'), 'hi');
    await daemon.ok('rm', '-f', name);
  });

  test('--rm removes the container and its anonymous volumes', async () => {
    const name = daemon.name('gone');
    await daemon.ok(
      'run',
      '--rm',
      '--net',
      'none',
      '--name',
      name,
      '-v',
      '/anonymous',
      'busybox',
      'touch',
      '/anonymous/x',
    );
    const result = await daemon.docker(['inspect', name]);
    assert.equal(result.code, 1);
    if (!daemon.foreign) assert.equal(await daemon.ok('volume', 'ls', '-q'), '');
  });

  test('--annotation and --label are kept', async () => {
    const name = daemon.name('labels');
    await daemon.ok('create', '--name', name, '--label', 'a=1', '-l', 'bare', '--annotation', 'x=y', 'busybox');
    assert.equal(
      await daemon.inspect(name, '{{json .Config.Labels}} {{json .HostConfig.Annotations}}'),
      '{"a":"1","bare":""} {"x":"y"}',
    );
  });

  test('-t gives a terminal and -i -t answers what is typed', async () => {
    assert.equal(await inside(['-t'], 'sh', '-c', 'test -t 0 && test -t 1 && echo terminal'), 'terminal\r');
    const shell = daemon.dockerInTerminal(['run', '--rm', '-it', '--net', 'none', 'busybox', 'sh']);
    await shell.shows(/# /);
    shell.type('echo $((40+2)); exit 7\n');
    const result = await shell.done;
    assert.match(result.stdout, /42/);
    assert.equal(result.code, 7);
  });

  test('a missing image is an error when it may not be pulled', async () => {
    const result = await daemon.docker(['run', '--pull', 'never', 'no-such-image-here', 'true']);
    assert.equal(result.code, 125);
    assert.match(result.stderr, /No such image: no-such-image-here:latest/);
  });

  test('gantry run does the same', async (context) => {
    if (daemon.foreign) return context.skip('our own CLI is tested against our own daemon');
    const result = await daemon.gantry([
      'run',
      '--rm',
      '--net',
      'none',
      '-e',
      'A=1',
      'busybox',
      'sh',
      '-c',
      'echo $A; echo err >&2; exit 3',
    ]);
    assert.deepEqual([result.code, result.stdout, result.stderr], [3, '1\n', 'err\n']);
  });
});
