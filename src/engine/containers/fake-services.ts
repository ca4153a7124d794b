/**
 * Services in memory for tests of the container life cycle: a fake runtime, and snapshots, networks, volumes and
 * logs that only write down what was asked of them. `steps` has every acquisition and release in order.
 */
import { mkdirSync, mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import type { Duplex } from 'node:stream';
import { type ContainerRecord, NEVER_STARTED } from '#services/containers/container.ts';
import type { LiveContainer } from '#services/containers/live.ts';
import { ContainerStore } from '#services/containers/store.ts';
import { type EngineEvent, Events } from '#services/events/events.ts';
import type { AttachEnd, ProcessStreams } from '#services/streams/contract.ts';
import { nowNs } from '#system/clock/clock.ts';
import { Database } from '#system/database/database.ts';
import { type FakeBehaviour, type FakeShim, FakeShimLauncher } from '#system/runtime/fake.ts';
import { parseDigest } from '#types/digest.ts';
import { newId } from '#types/ids.ts';
import type { Services } from '../services.ts';
import { Paths, type Settings } from '../settings.ts';

/** A daemon's services without a daemon. */
export interface FakeServices extends AsyncDisposable {
  readonly services: Services;
  readonly launcher: FakeShimLauncher;
  /** What was mounted, joined, opened and released, in order. */
  readonly steps: string[];
  /** Names of steps that throw. */
  readonly failing: Set<string>;
  readonly seen: EngineEvent[];
  /** Actions of container events so far. */
  actions(): string[];
  /** A stopped container. */
  add(change?: Partial<ContainerRecord>): LiveContainer;
  shim(container: LiveContainer): FakeShim;
  beginStop(): void;
}

/** Makes them in a directory of their own. */
export function fakeServices(behaviour: FakeBehaviour = {}): FakeServices {
  const directory = mkdtempSync(join(tmpdir(), 'engine-'));
  const database = new Database(join(directory, 'state.db'));
  const launcher = new FakeShimLauncher(behaviour);
  const steps: string[] = [];
  const failing = new Set<string>();
  const stopping = new AbortController();
  const step = (name: string): void => {
    steps.push(name);
    if (failing.has(name)) throw new Error(`${name} failed`);
  };
  const events = new Events(nowNs);
  const seen: EngineEvent[] = [];
  events.subscribe((event) => seen.push(event));
  const services = {
    archives: undefined,
    containers: new ContainerStore(database),
    events,
    images: undefined,
    logs: { open: async () => void step('log open') },
    networks: networksOf(step),
    resolver: undefined,
    settings: settingsOf(new Paths(join(directory, 'data'), join(directory, 'exec'))),
    shims: launcher,
    snapshots: {
      mount: async (_key: string, target: string) => {
        step('snapshot mount');
        mkdirSync(target, { recursive: true });
      },
      unmount: async () => step('snapshot unmount'),
      remove: async () => step('snapshot remove'),
    },
    streams: () => streamsOf(step),
    volumes: {
      mount: async (name: string) => {
        step(`volume mount ${name}`);
        return `/volumes/${name}`;
      },
      unmount: async (name: string) => step(`volume unmount ${name}`),
      release: () => undefined,
      isAnonymous: () => false,
    },
    stopping: stopping.signal,
    logger: { debug: () => undefined, info: () => undefined, warn: () => undefined, error: () => undefined },
  } as unknown as Services;
  return {
    services,
    launcher,
    steps,
    failing,
    seen,
    actions: () => seen.filter((event) => event.Type === 'container').map((event) => event.Action),
    add: (change = {}) => services.containers.add(recordOf(change)),
    shim: (container) => launcher.shims.get(container.record.shimAddress) as FakeShim,
    beginStop: () => stopping.abort(),
    [Symbol.asyncDispose]: async () => {
      stopping.abort();
      for (const container of services.containers.all()) {
        container.pendingRestart?.abort();
        container.healthMonitor?.abort();
      }
      database[Symbol.dispose]();
      rmSync(directory, { recursive: true, force: true });
    },
  };
}

function networksOf(step: (name: string) => void): object {
  return {
    createSandbox: async () => {
      step('sandbox create');
      return { id: newId(), path: '/sandbox' };
    },
    removeSandbox: async () => step('sandbox remove'),
    connect: async () => ({ networkId: 'none', networkName: 'none', ipAddress: '', ipv6Address: '', ports: [] }),
    endpoints: () => [],
    find: (name: string) => ({ id: name, name, driver: 'null', scope: 'local' }),
    describe: (name: string) => ({ id: name, name, driver: 'null', scope: 'local', givenSubnets: [] }),
    rename: () => undefined,
    hostGateway: () => [],
    resolvConf: () => '',
  };
}

function streamsOf(step: (name: string) => void): ProcessStreams {
  const over = Promise.withResolvers<AttachEnd>();
  const stdio = { stdin: '', stdout: 'out', stderr: 'err', terminal: false };
  return {
    open: async () => {
      step('streams open');
      return stdio;
    },
    reopen: async () => stdio,
    connected: () => undefined,
    attach: (_client: Duplex) => over.promise,
    finish: async () => {
      step('streams finish');
      over.resolve('process-ended');
    },
    [Symbol.asyncDispose]: async () => undefined,
  };
}

function settingsOf(paths: Paths): Settings {
  const current = {
    debug: false,
    liveRestore: false,
    shutdownTimeoutSeconds: 15,
    runtimes: { runc: { path: undefined, args: [], shim: 'io.containerd.runc.v2' } },
    defaults: { ulimits: [], dns: [], dnsOptions: [], dnsSearch: [], seccompProfile: 'unconfined', initPath: '' },
  };
  return {
    paths,
    shimNamespace: 'test',
    cgroupDriver: 'cgroupfs',
    cgroupVersion: 1,
    specHost: {
      architecture: 'amd64',
      kernelRelease: '6.1',
      capabilities: [],
      appArmor: false,
      seccomp: false,
      recursiveReadOnly: true,
      sysctls: [],
    },
    current: () => current,
  } as unknown as Settings;
}

function recordOf(change: Partial<ContainerRecord>): ContainerRecord {
  const id = newId();
  const { hostConfig, ...rest } = change;
  return {
    id,
    name: `name-${id.slice(0, 8)}`,
    createdAt: '2026-01-01T00:00:00Z',
    imageReference: 'busybox',
    imageId: parseDigest(`sha256:${'a'.repeat(64)}`),
    layer: undefined,
    platform: { os: 'linux', architecture: 'amd64' },
    config: { Hostname: 'box', Cmd: ['sh'], Labels: { purpose: 'test' } },
    hostConfig: { NetworkMode: 'none', Runtime: 'runc', ...hostConfig },
    args: ['sh'],
    mounts: [],
    networks: {},
    state: NEVER_STARTED,
    restartCount: 0,
    hasBeenManuallyStopped: false,
    hasBeenStartedBefore: false,
    shimAddress: '',
    sandbox: undefined,
    ...rest,
  };
}
