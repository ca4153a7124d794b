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
import type { ExecConfig, Mount } from '#wire/engine.ts';
import type { Services } from '../services.ts';
import { shmPath } from './bundle.ts';
import { tmpfsData } from './create/mount-specs.ts';
import { initBinary } from './init-binary.ts';
import type { ContainerNetwork } from './sandbox.ts';

/** The spec of a run, and the runtime's own options. */
export interface RunSpec {
  readonly spec: OciSpec;
  readonly runtime: { readonly binaryName?: string };
}

/** Builds the spec of the coming run. `volumes` maps volume names to where their content lies. */
export function specFor(
  services: Services,
  record: ContainerRecord,
  network: ContainerNetwork,
  volumes: ReadonlyMap<string, string>,
): RunSpec {
  const { settings } = services;
  const { defaults, runtimes } = settings.current();
  const rootfs = settings.paths.rootfs(record.id);
  const binaryName = runtimes[record.hostConfig.Runtime ?? '']?.path;
  const spec = buildSpec({
    id: record.id,
    config: { ...record.config, Hostname: network.hostname },
    hostConfig: record.hostConfig,
    args: record.args,
    rootfs,
    user: userIn(rootfs, record.config.User ?? '', record.hostConfig.GroupAdd ?? []),
    mounts: [...networkFiles(network, record), ...sharedMemory(services, record), ...userMounts(record, volumes)],
    namespaces: {
      network: network.namespacePath,
      pid: joinedNamespace(services, record.hostConfig.PidMode, 'pid'),
      ipc: joinedNamespace(services, record.hostConfig.IpcMode, 'ipc'),
    },
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

function userMounts(record: ContainerRecord, volumes: ReadonlyMap<string, string>): ContainerMount[] {
  const specified = new Map((record.hostConfig.Mounts ?? []).map((one) => [one.Target ?? '', one]));
  const mounts = record.mounts
    .filter((point) => point.Type === 'bind' || point.Type === 'volume')
    .map((point): ContainerMount => {
      const nonRecursiveReadOnly = point.Type === 'bind' && record.nonRecursiveReadOnly === true;
      const options = bindOptions(specified.get(point.Destination ?? ''), nonRecursiveReadOnly);
      return {
        source: point.Type === 'volume' ? (volumes.get(point.Name ?? '') ?? point.Source ?? '') : (point.Source ?? ''),
        destination: point.Destination ?? '',
        writable: point.RW !== false,
        propagation: point.Propagation || 'rprivate',
        ...options,
      };
    });
  for (const { source, propagation } of mounts) requirePropagation(source, propagation);
  return [...mounts, ...tmpfsMounts(record)];
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
  const donor = findJoinable(services, reference, kind);
  const { state } = donor;
  if (!isAlive(state)) {
    throw new GantryError(
      'conflict',
      `joining ${kind.toUpperCase()} namespace of container: cannot join ${kind.toUpperCase()} of a non running container: container ${donor.record.name} is ${state.status}`,
    );
  }
  if (kind === 'ipc' && donor.record.hostConfig.IpcMode !== 'shareable' && donor.record.hostConfig.IpcMode !== 'host') {
    throw new GantryError(
      'system',
      `container ${donor.id}: non-shareable IPC (hint: use IpcMode:shareable for the donor container)`,
    );
  }
  return `/proc/${state.pid}/ns/${kind}`;
}

function findJoinable(services: Services, reference: string, kind: 'pid' | 'ipc'): LiveContainer {
  try {
    return services.containers.find(reference);
  } catch (error) {
    throw new GantryError('notFound', `joining ${kind.toUpperCase()} namespace of container: ${errorMessage(error)}`, {
      cause: error,
    });
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
