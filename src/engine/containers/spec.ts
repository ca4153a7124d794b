/** From a container's record to what the runtime is told: gathers what the pure spec builder needs. */
import { closeSync, mkdirSync, readFileSync, realpathSync } from 'node:fs';
import { join } from 'node:path';
import type { ContainerRecord } from '#services/containers/container.ts';
import { isAlive } from '#services/containers/container.ts';
import type { LiveContainer } from '#services/containers/live.ts';
import { buildSpec, execProcess } from '#services/spec/build-spec.ts';
import type { ContainerMount } from '#services/spec/mounts.ts';
import { checkPropagation } from '#services/spec/propagation.ts';
import { type ResolvedUser, resolveUser } from '#services/spec/user.ts';
import { MS_NODEV, MS_NOEXEC, MS_NOSUID, mount } from '#system/kernel/mount.ts';
import { openRoot, readFileInRoot } from '#system/kernel/path.ts';
import { errorMessage, GantryError } from '#types/errors.ts';
import type { OciProcess, OciSpec } from '#types/oci.ts';
import type { ExecConfig, Mount, MountPoint } from '#wire/engine.ts';
import type { Services } from '../services.ts';
import { findRuntime } from '../settings.ts';
import { shmPath } from './bundle.ts';
import { tmpfsData } from './create/mount-specs.ts';
import { initBinary } from './init-binary.ts';
import type { ContainerNetwork } from './sandbox.ts';

/** The spec of a run, and the runtime's own options. */
export interface RunSpec {
  readonly spec: OciSpec;
  readonly runtime: { readonly binaryName?: string };
}

/** What was made ready for a run. */
export interface ReadyParts {
  readonly network: ContainerNetwork;
  /** Volume name → where its content lies. */
  readonly volumes: ReadonlyMap<string, string>;
  /** Destination → what was mounted for it in the bundle. */
  readonly prepared: ReadonlyMap<string, string>;
}

/** Builds the spec of the coming run. */
export function specFor(services: Services, record: ContainerRecord, ready: ReadyParts): RunSpec {
  const { network } = ready;
  const { settings } = services;
  const { defaults, runtimes } = settings.current();
  const rootfs = settings.paths.rootfs(record.id);
  const binaryName = findRuntime({ runtimes }, record.hostConfig.Runtime ?? '')?.path;
  // First: its donors are what everything else joins.
  const namespaces = {
    network: network.namespacePath,
    pid: joinedNamespace(services, record.hostConfig.PidMode, 'pid'),
    ipc: joinedNamespace(services, record.hostConfig.IpcMode, 'ipc'),
  };
  const spec = buildSpec({
    id: record.id,
    config: { ...record.config, Hostname: network.hostname },
    hostConfig: record.hostConfig,
    args: record.args,
    rootfs,
    user: userIn(rootfs, record.config.User ?? '', record.hostConfig.GroupAdd ?? []),
    mounts: [...networkFiles(network, record), ...sharedMemory(services, record), ...userMounts(record, ready)],
    namespaces,
    linkedEnv: network.linkEnvironment,
    host: settings.specHost,
    defaults: {
      ulimits: defaults.ulimits,
      cgroupDriver: settings.cgroupDriver,
      cgroupParent: defaults.cgroupParent,
      noNewPrivileges: defaults.noNewPrivileges,
      seccompProfile: defaults.seccompProfile,
      init: defaults.init,
      initPath: initBinary(defaults.initPath),
    },
  });
  return { spec, runtime: binaryName === undefined ? {} : { binaryName } };
}

/** Resolves a user inside a root file system. */
function userIn(rootfs: string, user: string, groups: readonly string[]): ResolvedUser {
  const root = openRoot(rootfs);
  try {
    return resolveUser(user, groups, (path, maxBytes) => readFileInRoot(root, path, maxBytes));
  } finally {
    closeSync(root);
  }
}

/** The three name files, unless the user mounts something of his own there. */
function networkFiles(network: ContainerNetwork, record: ContainerRecord): ContainerMount[] {
  const taken = new Set(record.mounts.map((point) => point.Destination));
  const files: [string, string][] = [
    [network.resolvConfPath, '/etc/resolv.conf'],
    [network.hostnamePath, '/etc/hostname'],
    [network.hostsPath, '/etc/hosts'],
  ];
  return files
    .filter(([, destination]) => !taken.has(destination))
    .map(([source, destination]) => ({
      source,
      destination,
      writable: record.hostConfig.ReadonlyRootfs !== true,
      propagation: 'rprivate',
    }));
}

/** /dev/shm where it is shared: the host's, a donor's, or one made for others to join. Private ones are the spec's own tmpfs. */
function sharedMemory(services: Services, record: ContainerRecord): ContainerMount[] {
  const mode = record.hostConfig.IpcMode ?? '';
  if (record.mounts.some((point) => point.Destination === '/dev/shm')) return [];
  if ('/dev/shm' in (record.hostConfig.Tmpfs ?? {})) return [];
  if (mode === 'host') return [shmBind('/dev/shm')];
  if (mode === 'shareable') return [shmBind(makeShm(services, record))];
  if (!mode.startsWith('container:')) return [];
  const donor = services.containers.find(mode.slice('container:'.length));
  return [shmBind(shmPath(services.settings.paths, donor.id))];
}

function shmBind(source: string): ContainerMount {
  return { source, destination: '/dev/shm', writable: true, propagation: 'rprivate' };
}

function makeShm(services: Services, record: ContainerRecord): string {
  const path = shmPath(services.settings.paths, record.id);
  mkdirSync(path, { recursive: true, mode: 0o700 });
  mount('shm', path, {
    type: 'tmpfs',
    flags: MS_NOSUID | MS_NODEV | MS_NOEXEC,
    data: `mode=1777,size=${record.hostConfig.ShmSize ?? 0}`,
  });
  return path;
}

function userMounts(record: ContainerRecord, ready: ReadyParts): ContainerMount[] {
  const specified = new Map((record.hostConfig.Mounts ?? []).map((one) => [one.Target ?? '', one]));
  const mounts = record.mounts
    .filter(({ Type }) => Type === 'bind' || Type === 'volume' || Type === 'image')
    .map((point): ContainerMount => {
      const nonRecursiveReadOnly = point.Type === 'bind' && record.nonRecursiveReadOnly === true;
      const options = bindOptions(specified.get(point.Destination ?? ''), nonRecursiveReadOnly);
      return {
        source: sourceOf(point, ready),
        destination: point.Destination ?? '',
        writable: point.RW !== false,
        propagation: point.Propagation || 'rprivate',
        ...options,
      };
    });
  for (const { source, propagation } of mounts) requirePropagation(source, propagation);
  return [...mounts, ...tmpfsMounts(record)];
}

function sourceOf(point: MountPoint, { volumes, prepared }: ReadyParts): string {
  const made =
    prepared.get(point.Destination ?? '') ?? (point.Type === 'volume' ? volumes.get(point.Name ?? '') : undefined);
  return made ?? point.Source ?? '';
}

/** Throws when the mount that `source` lies on cannot propagate so. */
function requirePropagation(source: string, propagation: string): void {
  if (!/^r?(shared|slave)$/.test(propagation)) return;
  checkPropagation(readFileSync('/proc/self/mountinfo', 'utf8'), realpathSync(source), propagation);
}

function bindOptions(wanted: Mount | undefined, nonRecursiveReadOnly: boolean): Partial<ContainerMount> {
  const options = wanted?.BindOptions;
  return {
    nonRecursive: options?.NonRecursive === true,
    readOnlyNonRecursive: nonRecursiveReadOnly || options?.ReadOnlyNonRecursive === true,
    readOnlyForceRecursive: options?.ReadOnlyForceRecursive === true,
  };
}

function tmpfsMounts(record: ContainerRecord): ContainerMount[] {
  const flags = Object.entries(record.hostConfig.Tmpfs ?? {}).map(([destination, tmpfsOptions]) =>
    tmpfs(destination, tmpfsOptions),
  );
  const specified = (record.hostConfig.Mounts ?? [])
    .filter((one) => one.Type === 'tmpfs')
    .map((one) => tmpfs(one.Target ?? '', tmpfsData(one)));
  return [...flags, ...specified];
}

function tmpfs(destination: string, tmpfsOptions: string): ContainerMount {
  return { source: 'tmpfs', destination, writable: true, propagation: '', tmpfsOptions };
}

/** The namespace of another container for `container:` modes; undefined otherwise. */
function joinedNamespace(services: Services, mode: string | undefined, kind: 'pid' | 'ipc'): string | undefined {
  if (!mode?.startsWith('container:')) return undefined;
  const reference = mode.slice('container:'.length);
  const failed = `failed to join ${kind.toUpperCase()} namespace`;
  if (reference === '') throw new GantryError('invalid', `${failed}: invalid name or ID supplied: ""`);
  const donor = services.containers.find(reference);
  const { state } = donor;
  if (!isAlive(state)) {
    // Compat: a conflict for IPC, a 500 for PID.
    throw new GantryError(kind === 'ipc' ? 'conflict' : 'system', `${failed}: container ${donor.id} is not running`);
  }
  if (kind === 'ipc' && donor.record.hostConfig.IpcMode !== 'shareable' && donor.record.hostConfig.IpcMode !== 'host') {
    throw new GantryError(
      'invalid',
      `${failed}: container ${donor.id}: non-shareable IPC (hint: use IpcMode:shareable for the donor container)`,
    );
  }
  return `/proc/${state.pid}/ns/${kind}`;
}

/** Throws `invalid` for a user the container does not know: an exec is refused for it when it is created. */
export function checkExecUser({ state, record }: LiveContainer, exec: ExecConfig): void {
  if (!exec.User || !isAlive(state)) return;
  try {
    userIn(`/proc/${state.pid}/root`, exec.User, record.hostConfig.GroupAdd ?? []);
  } catch (error) {
    throw new GantryError('invalid', errorMessage(error), { cause: error });
  }
}

/** The OCI process of an exec in a running container. */
export function execProcessFor(services: Services, container: LiveContainer, exec: ExecConfig): OciProcess {
  const { state, record } = container;
  if (!isAlive(state)) throw new GantryError('conflict', `container ${container.id} is not running`);
  const user = exec.User || record.config.User || '';
  return execProcess({
    exec,
    spec: startedSpec(services, container),
    user: userIn(`/proc/${state.pid}/root`, user, record.hostConfig.GroupAdd ?? []),
    available: services.settings.specHost.capabilities,
  });
}

/** The spec the container was started with: remembered for the run, read from the bundle after a restart of the daemon. */
function startedSpec(services: Services, container: LiveContainer): OciSpec {
  const { task } = container;
  const path = join(services.settings.paths.bundle(container.id), 'config.json');
  if (task === undefined) return parseSpec(readFileSync(path, 'utf8'));
  task.process ??= parseSpec(readFileSync(path, 'utf8')).process;
  return { ociVersion: '', process: task.process } as OciSpec;
}

/** Reads a spec back. Numbers beyond 2^53 (an unlimited rlimit) keep their text, and so their value when written again. */
export function parseSpec(text: string): OciSpec {
  const raw = JSON as unknown as { rawJSON(text: string): unknown };
  return JSON.parse(text, (_key: string, value: unknown, context?: { source?: string }) =>
    typeof value === 'number' && !Number.isSafeInteger(value) && context?.source !== undefined
      ? raw.rawJSON(context.source)
      : value,
  ) as OciSpec;
}
