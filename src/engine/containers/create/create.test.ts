import assert from 'node:assert/strict';
import { test } from 'node:test';
import { availableCapabilities } from '#services/spec/capabilities.ts';
import type { CgroupSupport } from '#system/cgroup/support.ts';
import type { ContainerCreateRequest, Mount } from '#wire/engine.ts';
import { planUpdate } from '../update-resources.ts';
import { mergeImage } from './merge-image.ts';
import { parseBind, parseVolumesFrom, tmpfsData } from './mount-specs.ts';
import { parseContainerName, randomName } from './names.ts';
import { type CreateContext, checkRequest, type NormalisedContainer, normaliseRequest } from './normalise.ts';

const CGROUP: CgroupSupport = {
  version: 1,
  memoryLimit: true,
  swapLimit: true,
  memoryReservation: true,
  memorySwappiness: true,
  oomKillDisable: true,
  kernelMemory: true,
  kernelMemoryTcp: true,
  cpuShares: true,
  cpuCfs: true,
  cpuRealtime: false,
  cpuset: true,
  cpus: '0-1',
  memoryNodes: '0',
  blkioWeight: true,
  blkioWeightDevice: true,
  blkioReadBps: true,
  blkioWriteBps: true,
  blkioReadIops: true,
  blkioWriteIops: true,
  pidsLimit: true,
  devices: true,
  warnings: [],
};

function context(minor = 51, cgroup: Partial<CgroupSupport> = {}): CreateContext {
  return {
    version: { atLeast: (wanted) => minor >= wanted },
    defaults: {
      ulimits: [],
      shmSizeBytes: 67108864,
      ipcMode: 'private',
      cgroupnsMode: 'private',
      cgroupParent: '',
      init: false,
      initPath: '',
      defaultRuntime: 'runc',
      logDriver: 'json-file',
      logOptions: { 'max-size': '1m' },
      noNewPrivileges: false,
      seccompProfile: '',
      dns: [],
      dnsOptions: [],
      dnsSearch: [],
    },
    machine: {
      cgroup: { ...CGROUP, ...cgroup },
      cgroupDriver: 'cgroupfs',
      cpuCount: 2,
      hostName: 'host',
      ipv4Forwarding: true,
      cgroupNamespaces: true,
      capabilities: availableCapabilities('CapBnd:\t000001fffeffffff'),
      thermalThrottlePaths: [],
      platform: 'linux/amd64',
    },
    runtimes: ['runc'],
    pathExists: (path) => path !== '/missing',
    endpointMistakes: () => [],
    containerId: (reference) => (reference === 'web' ? 'f'.repeat(64) : undefined),
  };
}

function create(request: ContainerCreateRequest, minor = 51, cgroup: Partial<CgroupSupport> = {}): NormalisedContainer {
  const where = context(minor, cgroup);
  const checked = checkRequest({ Cmd: ['true'], ...request }, where);
  return normaliseRequest(checked, undefined, { ...where, id: 'ab'.repeat(32), validateLog: () => undefined });
}

const GB = 2 ** 30;
const mount = (change: Mount): ContainerCreateRequest => ({ HostConfig: { Mounts: [{ Target: '/t', ...change }] } });
const host = (HostConfig: NonNullable<ContainerCreateRequest['HostConfig']>): ContainerCreateRequest => ({
  HostConfig,
});

const REFUSED: readonly (readonly [ContainerCreateRequest, string])[] = [
  [{ WorkingDir: 'x' }, "the working directory 'x' is invalid, it needs to be an absolute path"],
  [{ StopSignal: 'FOO' }, 'invalid signal: FOO'],
  [{ Env: ['=x'] }, 'invalid environment variable: =x'],
  [{ Healthcheck: { Interval: 5 } }, 'Interval in Healthcheck cannot be less than 1ms'],
  [{ Healthcheck: { Retries: -1 } }, 'Retries in Healthcheck cannot be negative'],
  [
    host({ AutoRemove: true, RestartPolicy: { Name: 'always' } }),
    "can't create 'AutoRemove' container with restart policy",
  ],
  [
    host({ RestartPolicy: { Name: 'on-failure', MaximumRetryCount: -1 } }),
    'invalid restart policy: maximum retry count cannot be negative',
  ],
  [host({ CapAdd: ['foo'] }), 'invalid CapAdd: unknown capability: "CAP_FOO"'],
  [host({ CapDrop: ['foo'] }), 'invalid CapDrop: unknown capability: "CAP_FOO"'],
  [
    host({ CapAdd: ['sys_resource'] }),
    'invalid CapAdd: capability not supported by your kernel or not available in the current environment: "CAP_SYS_RESOURCE"',
  ],
  [host({ Annotations: { '': 'x' } }), 'invalid Annotations: the empty string is not permitted as an annotation key'],
  [host({ Runtime: 'nope' }), 'unknown or invalid runtime name: nope'],
  [host({ IpcMode: 'x' }), 'invalid IPC mode: x'],
  [host({ PidMode: 'x' }), 'invalid PID mode: x'],
  [host({ UTSMode: 'x' }), 'invalid UTS mode: x'],
  [host({ Isolation: 'hyperv' }), "invalid isolation (hyperv): linux only supports 'default'"],
  [host({ ShmSize: -1 }), 'SHM size can not be less than 0'],
  [host({ OomScoreAdj: 1001 }), 'Invalid value 1001, range for oom score adj is [-1000, 1000]'],
  [host({ SecurityOpt: ['foo=bar'] }), 'invalid --security-opt 2: "foo=bar"'],
  [host({ PortBindings: { '80/tcp': [{ HostPort: 'x' }] } }), 'invalid port specification: "x"'],
  [host({ Memory: 1 }), 'Minimum memory limit allowed is 6MB'],
  [host({ MemoryReservation: 1 }), 'Minimum memory reservation allowed is 6MB'],
  [host({ Memory: GB, MemorySwap: GB / 2 }), 'Minimum memoryswap limit should be larger than memory limit, see usage'],
  [host({ MemorySwap: GB }), 'You should always set the Memory limit when using Memoryswap limit, see usage'],
  [
    host({ Memory: GB, MemoryReservation: 2 * GB }),
    'Minimum memory limit can not be less than memory reservation limit, see usage',
  ],
  [host({ MemorySwappiness: 101 }), 'Invalid value: 101, valid memory swappiness range is 0-100'],
  [host({ NanoCpus: 1e9, CpuPeriod: 1000 }), 'Conflicting options: Nano CPUs and CPU Period cannot both be set'],
  [host({ NanoCpus: 1e9, CpuQuota: 1000 }), 'Conflicting options: Nano CPUs and CPU Quota cannot both be set'],
  [host({ NanoCpus: 3e9 }), 'range of CPUs is from 0.01 to 2.00, as there are only 2 CPUs available'],
  [host({ CpuPeriod: 10 }), 'CPU cfs period can not be less than 1ms (i.e. 1000) or larger than 1s (i.e. 1000000)'],
  [host({ CpuQuota: 10 }), 'CPU cfs quota can not be less than 1ms (i.e. 1000)'],
  [host({ CpuShares: -1 }), 'invalid CPU shares (-1): value must be a positive integer'],
  [host({ CpusetCpus: '0-7' }), 'Requested CPUs are not available - requested 0-7, available: 0-1'],
  [host({ CpusetMems: '3' }), 'Requested memory nodes are not available - requested 3, available: 0'],
  [
    host({ CpusetCpus: '0-99999999999' }),
    'Invalid value 0-99999999999 for cpuset cpus: value of out range, maximum is 8192',
  ],
  [host({ BlkioWeight: 5 }), 'Range of blkio weight is from 10 to 1000'],
  [{ Hostname: 'h', ...host({ NetworkMode: 'container:web' }) }, 'conflicting options: hostname and the network mode'],
  [{ Hostname: 'h', ...host({ UTSMode: 'host' }) }, 'conflicting options: hostname and the UTS mode'],
  [host({ NetworkMode: 'container:web', Dns: ['1.1.1.1'] }), 'conflicting options: dns and the network mode'],
  [
    host({ NetworkMode: 'container:web', ExtraHosts: ['a:1.1.1.1'] }),
    'conflicting options: custom host-to-IP mapping and the network mode',
  ],
  [
    host({ NetworkMode: 'container:web', PublishAllPorts: true }),
    'conflicting options: port publishing and the container type network mode',
  ],
  [host({ NetworkMode: 'container:' }), 'invalid network mode: invalid container format container:<name|id>'],
  [
    host({ NetworkMode: 'host', Links: ['a'] }),
    "conflicting options: host type networking can't be used with links. This would result in undefined behavior",
  ],
  [
    mount({ Type: 'bind', Source: '/missing' }),
    'invalid mount config for type "bind": bind source path does not exist: /missing',
  ],
  [
    mount({ Type: 'bind', Source: 'x' }),
    `invalid mount config for type "bind": invalid mount path: 'x' mount path must be absolute`,
  ],
  [mount({ Type: 'bind' }), 'invalid mount config for type "bind": field Source must not be empty'],
  [mount({ Type: 'volume', Target: '' }), 'invalid mount config for type "volume": field Target must not be empty'],
  [mount({ Type: 'tmpfs', Source: 'x' }), 'invalid mount config for type "tmpfs": field Source must not be specified'],
  [mount({ Type: 'npipe' }), 'invalid mount config for type "npipe": mount type unknown'],
  [
    mount({ Type: 'volume', Target: '/' }),
    `invalid mount config for type "volume": invalid specification: destination can't be '/'`,
  ],
  [
    mount({ Type: 'volume', VolumeOptions: { Subpath: 'a' } }),
    'invalid mount config for type "volume": must not set Subpath when using anonymous volumes',
  ],
  [
    mount({ Type: 'volume', Source: 'v', VolumeOptions: { Subpath: '../a' } }),
    'invalid mount config for type "volume": subpath must be a relative path within the volume',
  ],
  [mount({ Type: 'tmpfs', BindOptions: {} }), 'BindOptions must not be specified on mount type "tmpfs"'],
  [host({ Binds: ['/a:/b:xx'] }), 'invalid mode: xx'],
  [host({ Binds: ['/a:ro'] }), "invalid volume specification: '/a:ro'"],
  [host({ Binds: ['/a:/b:ro:z'] }), "invalid volume specification: '/a:/b:ro:z'"],
  [host({ Binds: ['/a:/t', '/b:/t'] }), 'Duplicate mount point: /t'],
  [host({ Binds: ['/a:/t'], Tmpfs: { '/t': '' } }), 'Duplicate mount point: /t'],
  [
    { NetworkingConfig: { EndpointsConfig: { bridge: { Aliases: ['a'] } } } },
    'invalid config for network bridge: invalid endpoint settings:\nnetwork-scoped alias is supported only for containers in user defined networks',
  ],
  [
    { NetworkingConfig: { EndpointsConfig: { mine: { IPAMConfig: { IPv4Address: 'x' } } } } },
    'invalid config for network mine: invalid endpoint settings:\ninvalid IPv4 address: x',
  ],
  [{ Cmd: [] }, 'no command specified'],
];

for (const [request, message] of REFUSED) {
  test(`create is refused: ${message.split('\n').at(-1)}`, () => {
    assert.throws(() => create(request), { message, kind: 'invalid' });
  });
}

test('an empty configuration is refused', () => {
  assert.throws(() => checkRequest({ HostConfig: {} }, context()), {
    message: 'config cannot be empty in order to create a container',
  });
});

test('a plain request gets docker’s defaults', () => {
  const { hostConfig, config, args } = create({ HostConfig: {} });
  assert.equal(config.Hostname, 'abababababab');
  assert.deepEqual(args, ['true']);
  const { NetworkMode, IpcMode, CgroupnsMode, ShmSize, Runtime, RestartPolicy, LogConfig, OomKillDisable, PidsLimit } =
    hostConfig;
  assert.deepEqual(
    { NetworkMode, IpcMode, CgroupnsMode, ShmSize, Runtime, RestartPolicy, LogConfig, OomKillDisable, PidsLimit },
    {
      NetworkMode: 'bridge',
      IpcMode: 'private',
      CgroupnsMode: 'private',
      ShmSize: 67108864,
      Runtime: 'runc',
      RestartPolicy: { Name: 'no', MaximumRetryCount: 0 },
      LogConfig: { Type: 'json-file', Config: { 'max-size': '1m' } },
      OomKillDisable: false,
      PidsLimit: null,
    },
  );
  assert.ok(hostConfig.MaskedPaths?.includes('/proc/kcore'));
  assert.equal(hostConfig.Binds, null);
  assert.deepEqual(hostConfig.ConsoleSize, [0, 0]);
});

test('privileged clears paths, disables labels and shares the cgroup namespace on version 1', () => {
  const { hostConfig } = create(host({ Privileged: true }));
  assert.deepEqual(
    [hostConfig.MaskedPaths, hostConfig.CgroupnsMode, hostConfig.SecurityOpt],
    [null, 'host', ['label=disable']],
  );
  assert.equal(create(host({ Privileged: true }), 51, { version: 2 }).hostConfig.CgroupnsMode, 'private');
});

test('swap is twice the memory; without swap accounting it is unlimited and warned about', () => {
  assert.equal(create(host({ Memory: GB })).hostConfig.MemorySwap, 2 * GB);
  const checked = checkRequest({ Cmd: ['x'], HostConfig: { Memory: GB } }, context(51, { swapLimit: false }));
  assert.equal(checked.hostConfig.MemorySwap, -1);
  assert.deepEqual(checked.warnings, [
    'Your kernel does not support swap limit capabilities or the cgroup is not mounted. Memory limited without swap.',
  ]);
});

test('container modes name the other container by ID', () => {
  assert.equal(create(host({ PidMode: 'container:web' })).hostConfig.PidMode, `container:${'f'.repeat(64)}`);
});

test('old versions lose what they did not know', () => {
  const request = host({ Annotations: { a: 'b' }, ConsoleSize: [1, 2], AutoRemove: true });
  const old = create(request, 24).hostConfig;
  assert.deepEqual(
    [old.Annotations, old.ConsoleSize, old.AutoRemove, old.IpcMode, old.CgroupnsMode],
    [undefined, [0, 0], false, 'shareable', 'host'],
  );
  assert.throws(() => create(mount({ Type: 'image', Source: 'i' }), 47), {
    message: 'Mount type "Image" needs API v1.48 or newer',
  });
  assert.throws(() => create({ NetworkingConfig: { EndpointsConfig: { a: {}, b: {} } } }, 43), {
    message: 'Container cannot be created with multiple network endpoints: a, b',
  });
});

test('a container-wide MAC address moves to the endpoint with a warning', () => {
  const checked = checkRequest({ Cmd: ['x'], MacAddress: '02:00:00:00:00:01' }, context());
  assert.equal(checked.endpoints['bridge']?.MacAddress, '02:00:00:00:00:01');
  assert.equal(checked.versionWarnings.length, 1);
});

test('the image completes what the request leaves open', () => {
  const image = {
    Env: ['A=1', 'B=2'],
    Cmd: ['run'],
    Entrypoint: ['/e'],
    Labels: { l: '1' },
    WorkingDir: '/w',
    User: 'u',
    StopSignal: 'INT',
  };
  const merged = mergeImage({ Env: ['A=9'] }, image);
  assert.deepEqual(
    [merged.Env, merged.Cmd, merged.Entrypoint, merged.Labels, merged.WorkingDir, merged.User, merged.StopSignal],
    [['A=9', 'B=2'], ['run'], ['/e'], { l: '1' }, '/w', 'u', 'INT'],
  );
  assert.equal(mergeImage({ Entrypoint: ['/mine'] }, image).Cmd, undefined);
  assert.deepEqual(mergeImage({ Cmd: ['c'] }, image).Entrypoint, ['/e']);
  assert.equal(mergeImage({ Entrypoint: [''], Cmd: ['c'] }, image).Entrypoint, undefined);
});

test('mounts of all kinds are planned once a destination', () => {
  const { mounts } = create({ Volumes: { '/v': {}, '/b': {} }, HostConfig: { Binds: ['/h:/b:ro', 'name:/n:nocopy'] } });
  assert.deepEqual(
    mounts.map((one) => [one.type, one.source || one.name, one.destination, one.writable, one.copyData]),
    [
      ['bind', '/h', '/b', false, false],
      ['volume', 'name', '/n', true, false],
      ['volume', '', '/v', true, true],
    ],
  );
});

test('below 1.44 read-only binds are not recursive', () => {
  assert.equal(create(host({ Binds: ['/h:/b:ro'] }), 43).mounts[0]?.spec.BindOptions?.ReadOnlyNonRecursive, true);
});

test('mount grammars', () => {
  assert.equal(parseBind('/a:/b:rshared', '').propagation, 'rshared');
  assert.deepEqual(parseVolumesFrom('c:ro'), { container: 'c', writable: false });
  assert.throws(() => parseVolumesFrom('c:nocopy'), { message: 'invalid mode: nocopy' });
  assert.equal(
    tmpfsData({ TmpfsOptions: { SizeBytes: 64 * 2 ** 20, Mode: 0o1777, Options: [['exec']] } }),
    'mode=1777,size=64m,exec',
  );
});

test('names', () => {
  assert.equal(parseContainerName('/web.1'), 'web.1');
  assert.throws(() => parseContainerName('a b'), {
    message: 'Invalid container name (a b), only [a-zA-Z0-9][a-zA-Z0-9_.-] are allowed',
  });
  assert.match(randomName(), /^[a-z]+_[a-z]+$/);
  assert.match(randomName(1), /^[a-z]+_[a-z]+\d$/);
});

test('update merges limits and refuses what contradicts them', () => {
  const where = { host: { cgroup: CGROUP, cpuCount: 2 }, version: context().version };
  const current = { id: 'x', hostConfig: create(host({ Memory: GB, AutoRemove: true })).hostConfig };
  const plan = planUpdate(current, { CpuShares: 512, PidsLimit: -1 }, where);
  assert.equal(plan.hostConfig.CpuShares, 512);
  assert.equal(plan.hostConfig.Memory, GB);
  assert.deepEqual(plan.resources, { cpu: { shares: 512 }, pids: { limit: -1 } });
  const prefix = 'Cannot update container x: ';
  assert.throws(() => planUpdate(current, { Memory: 3 * GB }, where), {
    message: `${prefix}Memory limit should be smaller than already set memoryswap limit, update the memoryswap at the same time`,
  });
  assert.throws(() => planUpdate(current, { RestartPolicy: { Name: 'always' } }, where), {
    message: `${prefix}Restart policy cannot be updated because AutoRemove is enabled for the container`,
  });
  const nano = { id: 'x', hostConfig: { NanoCpus: 1e9 } };
  assert.throws(() => planUpdate(nano, { CpuQuota: 5000 }, where), {
    message: `${prefix}Conflicting options: CPU Quota cannot be updated as NanoCPUs has already been set`,
  });
});
