import assert from 'node:assert/strict';
import { test } from 'node:test';
import type { OciSeccomp } from '#types/oci.ts';
import type { HostConfig } from '#wire/engine.ts';
import { buildSpec, cgroupsPath, containerEnvironment, execProcess, type SpecInput } from './build-spec.ts';
import { availableCapabilities, containerCapabilities, DEFAULT_CAPABILITIES } from './capabilities.ts';
import { deviceRule } from './devices.ts';
import { mergeTmpfsOptions } from './mounts.ts';
import { updateResources } from './resources.ts';
import { kernelAtLeast } from './seccomp.ts';
import { parseSecurityOptions } from './security.ts';
import { resolveUser } from './user.ts';

const ALL = availableCapabilities('CapBnd:\t000001ffffffffff');

function input(hostConfig: HostConfig = {}, change: Partial<SpecInput> = {}): SpecInput {
  return {
    id: 'abc',
    config: { Hostname: 'box', Env: ['A=1'] },
    hostConfig: {
      NetworkMode: 'bridge',
      IpcMode: 'private',
      ShmSize: 67108864,
      CgroupnsMode: 'private',
      ...hostConfig,
    },
    args: ['true'],
    rootfs: '/rootfs',
    user: { user: { uid: 0, gid: 0, additionalGids: [0] }, home: '/root' },
    mounts: [],
    namespaces: { network: '/run/ns' },
    linkedEnv: [],
    host: {
      architecture: 'amd64',
      kernelRelease: '6.1.0',
      capabilities: ALL,
      appArmor: false,
      seccomp: true,
      recursiveReadOnly: true,
      sysctls: ['net.ipv4.ping_group_range', 'net.ipv4.ip_unprivileged_port_start'],
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
    ...change,
  };
}

test('an ordinary container gets docker’s namespaces, capabilities, sysctls and default mounts', () => {
  const spec = buildSpec(input());
  assert.deepEqual(spec.linux.namespaces, [
    { type: 'mount' },
    { type: 'network', path: '/run/ns' },
    { type: 'uts' },
    { type: 'pid' },
    { type: 'ipc' },
    { type: 'cgroup' },
  ]);
  assert.deepEqual(spec.process.capabilities.bounding, DEFAULT_CAPABILITIES);
  assert.equal(spec.linux.sysctl['net.ipv4.ip_unprivileged_port_start'], '0');
  assert.deepEqual(
    spec.mounts.map((mount) => mount.destination),
    ['/proc', '/dev', '/dev/pts', '/sys', '/sys/fs/cgroup', '/dev/mqueue', '/dev/shm'],
  );
  assert.ok(spec.mounts.at(-1)?.options.includes('size=67108864'));
  assert.equal(spec.linux.cgroupsPath, '/docker/abc');
  assert.deepEqual(spec.process.env, [
    'PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin',
    'HOSTNAME=box',
    'A=1',
    'HOME=/root',
  ]);
});

test('the default seccomp profile is filtered by architecture and capabilities', () => {
  const plain = buildSpec(input()).linux.seccomp;
  assert.deepEqual(plain?.architectures, ['SCMP_ARCH_X86_64', 'SCMP_ARCH_X86', 'SCMP_ARCH_X32']);
  const names = (spec: OciSeccomp | undefined): string[] =>
    ((spec?.syscalls ?? []) as { names: string[]; args?: unknown }[])
      .filter((call) => call.args === undefined)
      .flatMap((call) => call.names);
  assert.ok(names(plain).includes('read'));
  assert.ok(!names(plain).includes('mount'));
  assert.ok(names(buildSpec(input({ CapAdd: ['SYS_ADMIN'] })).linux.seccomp).includes('mount'));
  assert.equal(buildSpec(input({ SecurityOpt: ['seccomp=unconfined'] })).linux.seccomp, undefined);
  assert.equal(buildSpec(input({ Privileged: true })).linux.seccomp, undefined);
});

test('privileged never asks for a capability that the daemon does not have', () => {
  const limited = ALL.filter((name) => name !== 'CAP_SYS_RESOURCE');
  const base = input({ Privileged: true });
  const spec = buildSpec({ ...base, host: { ...base.host, capabilities: limited } });
  assert.deepEqual(spec.process.capabilities.bounding, limited);
  assert.equal(spec.linux.maskedPaths, undefined);
  const options = (path: string): readonly string[] =>
    spec.mounts.find((mount) => mount.destination === path)?.options ?? [];
  assert.ok(!options('/sys').includes('ro'));
  assert.ok(!options('/sys/fs/cgroup').includes('ro'));
  assert.deepEqual(spec.linux.resources.devices, [{ allow: true, access: 'rwm' }]);
});

test('host modes drop their namespaces', () => {
  const spec = buildSpec(
    input({ NetworkMode: 'host', PidMode: 'host', IpcMode: 'host', UTSMode: 'host', CgroupnsMode: 'host' }),
  );
  assert.deepEqual(spec.linux.namespaces, [{ type: 'mount' }]);
  assert.equal(spec.hostname, undefined);
  assert.deepEqual(spec.linux.sysctl, {});
});

test('a container mode without the other’s namespace is an error, not a new namespace', () => {
  assert.throws(() => buildSpec(input({ PidMode: 'container:x' })), /pid namespace/);
});

test('user mounts replace defaults and are ordered by depth', () => {
  const bind = (destination: string, writable = true) => ({
    source: '/s',
    destination,
    writable,
    propagation: 'rprivate',
  });
  const spec = buildSpec(input({}, { mounts: [bind('/a/b/c', false), bind('/a'), bind('/dev')] }));
  const destinations = spec.mounts.map((mount) => mount.destination);
  assert.ok(!destinations.includes('/dev/pts'));
  assert.deepEqual(destinations.slice(-3), ['/a', '/dev', '/a/b/c']);
  assert.deepEqual(spec.mounts.at(-1)?.options, ['rbind', 'rro', 'rprivate']);
});

test('a read-only root keeps what must stay writable', () => {
  const spec = buildSpec(input({ ReadonlyRootfs: true }));
  assert.equal(spec.root.readonly, true);
  assert.ok(!spec.mounts.find((mount) => mount.destination === '/dev/shm')?.options.includes('ro'));
});

test('tmpfs options: later wins, unknown is refused', () => {
  assert.deepEqual(mergeTmpfsOptions(['noexec', 'nosuid', 'exec', 'size=1m', 'size=2m']), [
    'nosuid',
    'exec',
    'size=2m',
  ]);
  assert.throws(() => mergeTmpfsOptions(['bogus']), { message: 'invalid tmpfs option "bogus"' });
});

test('init is put in front only in a private PID namespace, and its absence is an error', () => {
  const base = input({ Init: true });
  assert.throws(() => buildSpec(base), /docker-init/);
  const spec = buildSpec({ ...base, defaults: { ...base.defaults, initPath: '/usr/bin/tini' } });
  assert.deepEqual(spec.process.args, ['/sbin/docker-init', '--', 'true']);
  assert.equal(spec.mounts.at(-1)?.source, '/usr/bin/tini');
  assert.deepEqual(buildSpec(input({ Init: true, PidMode: 'host' })).process.args, ['true']);
});

test('an unlimited ulimit survives JSON as the largest unsigned number', () => {
  const spec = buildSpec(input({ Ulimits: [{ Name: 'core', Soft: -1, Hard: -1 }] }));
  assert.match(JSON.stringify(spec), /"RLIMIT_CORE","soft":18446744073709551615,"hard":18446744073709551615/);
});

test('the container’s ulimits win over the daemon’s', () => {
  const base = input({ Ulimits: [{ Name: 'nofile', Soft: 1, Hard: 2 }] });
  const spec = buildSpec({
    ...base,
    defaults: {
      ...base.defaults,
      ulimits: [
        { Name: 'nofile', Soft: 5, Hard: 5 },
        { Name: 'nproc', Soft: 3, Hard: 3 },
      ],
    },
  });
  assert.deepEqual(spec.process.rlimits, [
    { type: 'RLIMIT_NOFILE', soft: 1, hard: 2 },
    { type: 'RLIMIT_NPROC', soft: 3, hard: 3 },
  ]);
});

test('cgroup parents cannot climb out', () => {
  assert.equal(cgroupsPath('x', '../../etc', 'cgroupfs'), '/etc/x');
  assert.equal(cgroupsPath('x', '', 'systemd'), 'system.slice:docker:x');
});

test('capability arithmetic', () => {
  const caps = (add: string[], drop: string[]): string[] =>
    containerCapabilities({ add, drop, privileged: false, available: ALL });
  assert.deepEqual(
    caps(['all'], ['sys_admin']),
    ALL.filter((name) => name !== 'CAP_SYS_ADMIN'),
  );
  assert.deepEqual(caps(['net_admin'], ['ALL']), ['CAP_NET_ADMIN']);
  assert.ok(!caps([], ['CAP_CHOWN']).includes('CAP_CHOWN'));
  assert.throws(() => caps(['NOPE'], []), { message: 'unknown capability: "CAP_NOPE"' });
});

test('--cpus becomes quota and period; pids 0 means unlimited', () => {
  assert.deepEqual(updateResources({ NanoCpus: 1_500_000_000, PidsLimit: 0 }), {
    cpu: { period: 100000, quota: 150000 },
    pids: { limit: -1 },
  });
});

test('device rules', () => {
  assert.deepEqual(deviceRule('c 1:* rwm'), { allow: true, type: 'c', major: 1, minor: -1, access: 'rwm' });
  assert.throws(() => deviceRule('x 1:2 rwm'), { message: "invalid device cgroup rule format: 'x 1:2 rwm'" });
});

test('a GPU request is refused with docker’s text', () => {
  assert.throws(() => buildSpec(input({ DeviceRequests: [{ Driver: '', Count: -1, Capabilities: [['gpu']] }] })), {
    message: 'could not select device driver "" with capabilities: [[gpu]]',
  });
});

test('security options', () => {
  const parsed = parseSecurityOptions(['no-new-privileges', 'seccomp=unconfined', 'label:disable'], false);
  assert.equal(parsed.noNewPrivileges, true);
  assert.deepEqual(parsed.labels, ['disable']);
  assert.throws(() => parseSecurityOptions(['foo=bar'], false), { message: 'invalid --security-opt 2: "foo=bar"' });
  assert.throws(() => parseSecurityOptions(['foo'], false), { message: 'invalid --security-opt 1: "foo"' });
});

test('kernel releases compare by major and minor', () => {
  assert.ok(kernelAtLeast('6.1.0-13-amd64', '4.8'));
  assert.ok(!kernelAtLeast('4.7.9', '4.8'));
});

const FILES: Readonly<Record<string, string>> = {
  '/etc/passwd': 'root:x:0:0:root:/root:/bin/sh\nbob:x:1000:100:Bob:/home/bob:/bin/sh\n',
  '/etc/group': 'root:x:0:\nusers:x:100:\nwheel:x:10:bob\naudio:x:29:\n',
};
const read = (path: string): Buffer | undefined => (FILES[path] === undefined ? undefined : Buffer.from(FILES[path]));

test('users by name, number and group', () => {
  assert.deepEqual(resolveUser('bob', ['audio'], read), {
    user: { uid: 1000, gid: 100, additionalGids: [100, 10, 29] },
    home: '/home/bob',
  });
  assert.deepEqual(resolveUser('1000:wheel', [], read).user, { uid: 1000, gid: 10, additionalGids: [10] });
  assert.deepEqual(resolveUser('4242', [], read), { user: { uid: 4242, gid: 0, additionalGids: [0] }, home: '/' });
  assert.throws(() => resolveUser('eve', [], read), {
    message: 'unable to find user eve: no matching entries in passwd file',
  });
  assert.throws(() => resolveUser('bob:none', [], read), {
    message: 'unable to find group none: no matching entries in group file',
  });
  assert.throws(() => resolveUser('root', ['none'], read), {
    message: 'unable to find group none: no matching entries in group file',
  });
});

test('an environment entry without a value removes a default', () => {
  const env = containerEnvironment({ Hostname: 'h', Env: ['PATH', 'HOME=/x'] }, [], '/root');
  assert.deepEqual(env, ['HOSTNAME=h', 'HOME=/x']);
});

test('an exec keeps the container’s environment and takes its own user and terminal', () => {
  const spec = buildSpec(input());
  const user = { user: { uid: 1, gid: 1 }, home: '/one' };
  const made = execProcess({ exec: { Cmd: ['sh'], Tty: true, User: '1', Env: ['B=2'] }, spec, user, available: ALL });
  assert.deepEqual(made.args, ['sh']);
  assert.equal(made.terminal, true);
  assert.ok(
    made.env.includes('B=2') &&
      made.env.includes('A=1') &&
      made.env.includes('HOME=/one') &&
      made.env.includes('TERM=xterm'),
  );
  const privileged = execProcess({ exec: { Cmd: ['sh'], Privileged: true }, spec, user, available: ALL });
  assert.deepEqual(privileged.capabilities.effective, ALL);
});
