/** Generated specs run under the real runc. Needs root, runc and busybox-static; skipped by name of what is missing. */
import assert from 'node:assert/strict';
import { spawnSync } from 'node:child_process';
import {
  copyFileSync,
  existsSync,
  mkdirSync,
  mkdtempSync,
  readFileSync,
  rmSync,
  symlinkSync,
  writeFileSync,
} from 'node:fs';
import { release, tmpdir } from 'node:os';
import { join } from 'node:path';
import { test } from 'node:test';
import { buildSpec } from '#services/spec/build-spec.ts';
import { availableCapabilities } from '#services/spec/capabilities.ts';
import { resolveUser } from '#services/spec/user.ts';
import { removeCgroup } from '#system/cgroup/leftovers.ts';
import { newId } from '#types/ids.ts';
import type { HostConfig } from '#wire/engine.ts';

const BUSYBOX = ['/bin/busybox', '/usr/bin/busybox'].find((path) => existsSync(path));
const RUNC = ['/usr/sbin/runc', '/usr/bin/runc', '/usr/local/sbin/runc'].find((path) => existsSync(path));
const missing =
  process.getuid?.() !== 0
    ? 'root'
    : RUNC === undefined
      ? 'runc'
      : BUSYBOX === undefined
        ? 'busybox-static'
        : undefined;
const options = missing === undefined ? {} : { skip: `${missing} is missing` };

/** Runs a shell line in a container made from `hostConfig`. */
function run(
  script: string,
  hostConfig: HostConfig,
): { readonly status: number | null; readonly output: string; readonly id: string } {
  const directory = mkdtempSync(join(tmpdir(), 'spec-'));
  const id = newId();
  const parent = `/gantry-test-${id.slice(0, 12)}`;
  try {
    const rootfs = join(directory, 'rootfs');
    for (const name of ['bin', 'proc', 'dev', 'sys', 'etc', 'tmp']) mkdirSync(join(rootfs, name), { recursive: true });
    copyFileSync(BUSYBOX ?? '', join(rootfs, 'bin', 'busybox'));
    for (const name of ['sh', 'cat', 'id', 'grep', 'mount', 'ls', 'hostname'])
      symlinkSync('busybox', join(rootfs, 'bin', name));
    writeFileSync(join(rootfs, 'etc', 'passwd'), 'bob:x:1000:100::/home/bob:/bin/sh\n');
    const read = (path: string): Buffer | undefined =>
      path === '/etc/passwd' ? readFileSync(join(rootfs, 'etc', 'passwd')) : undefined;
    const spec = buildSpec({
      id,
      config: { Hostname: 'spec-box' },
      hostConfig: {
        NetworkMode: 'none',
        IpcMode: 'private',
        ShmSize: 1 << 20,
        CgroupnsMode: 'private',
        MaskedPaths: ['/proc/kcore'],
        ReadonlyPaths: ['/proc/sys'],
        CgroupParent: parent,
        ...hostConfig,
      },
      args: ['sh', '-c', script],
      rootfs,
      user: resolveUser('', [], read),
      mounts: [],
      namespaces: {},
      linkedEnv: [],
      host: {
        architecture: process.arch === 'arm64' ? 'arm64' : 'amd64',
        kernelRelease: release(),
        capabilities: availableCapabilities(readFileSync('/proc/self/status', 'utf8')),
        appArmor: false,
        seccomp: true,
        recursiveReadOnly: true,
        sysctls: ['net.ipv4.ip_unprivileged_port_start'],
      },
      defaults: {
        ulimits: [],
        cgroupDriver: 'cgroupfs',
        cgroupParent: '',
        noNewPrivileges: false,
        seccompProfile: '',
        init: false,
        initPath: undefined,
      },
    });
    writeFileSync(join(directory, 'config.json'), JSON.stringify(spec));
    const result = spawnSync(RUNC ?? '', ['--root', join(directory, 'state'), 'run', '--bundle', directory, id], {
      encoding: 'utf8',
      timeout: 30_000,
    });
    return { status: result.status, output: result.stdout + result.stderr, id };
  } finally {
    spawnSync(RUNC ?? '', ['--root', join(directory, 'state'), 'delete', '--force', id]);
    removeCgroup(parent);
    rmSync(directory, { recursive: true, force: true });
  }
}

test('an ordinary container runs confined: hostname, capabilities, seccomp, sysctl, ulimit', options, () => {
  const { status, output } = run(
    'hostname; grep -E "^(CapEff|Seccomp):" /proc/self/status; cat /proc/sys/net/ipv4/ip_unprivileged_port_start; grep "core file" /proc/self/limits',
    { Ulimits: [{ Name: 'core', Soft: 0, Hard: 0 }], Memory: 64 << 20, PidsLimit: 50, NanoCpus: 5e8 },
  );
  assert.equal(status, 0, output);
  assert.match(output, /^spec-box$/m);
  assert.match(output, /CapEff:\s+00000000a80425fb/);
  assert.match(output, /Seccomp:\s+2/);
  assert.match(output, /^0$/m);
});

test('a privileged container runs with what this daemon may hand out', options, () => {
  const { status, output } = run('grep CapEff /proc/self/status', { Privileged: true, CgroupnsMode: 'host' });
  assert.equal(status, 0, output);
  const own = /CapBnd:\s+(\w+)/.exec(readFileSync('/proc/self/status', 'utf8'))?.[1];
  assert.match(output, new RegExp(`CapEff:\\s+${own}`));
});

test('a read-only root with a tmpfs, devices and rules', options, () => {
  const { status, output } = run('echo x > /file; echo y > /dev/shm/file && cat /dev/shm/file; ls /dev/mine', {
    ReadonlyRootfs: true,
    Devices: [{ PathOnHost: '/dev/null', PathInContainer: '/dev/mine', CgroupPermissions: 'rwm' }],
    DeviceCgroupRules: ['c 42:* rwm'],
  });
  assert.equal(status, 0, output);
  assert.match(output, /Read-only file system/);
  assert.match(output, /^y$/m);
});

test('no cgroup of a container is left behind', options, () => {
  const { id } = run('true', {});
  const name = `gantry-test-${id.slice(0, 12)}`;
  for (const controller of ['memory', 'pids', 'cpu', 'unified', '.']) {
    assert.equal(existsSync(join('/sys/fs/cgroup', controller, name)), false);
  }
});
