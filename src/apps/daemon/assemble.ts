/** The only place that builds objects: opens every service of a daemon, in an order that is undone backwards. */
import { createHash } from 'node:crypto';
import { chmodSync, existsSync, mkdirSync, readFileSync, statfsSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import type { Services } from '#engine/services.ts';
import { Paths, type ReloadableSettings, type Settings } from '#engine/settings.ts';
import type { InfoSources } from '#engine/system/info.ts';
import { ENGINE_VERSION } from '#engine/version.ts';
import { FilesystemArchives } from '#services/archive/archives.ts';
import { ContainerStore } from '#services/containers/store.ts';
import { Content } from '#services/content/content.ts';
import { openResolver } from '#services/dns/resolver.ts';
import { Events } from '#services/events/events.ts';
import { RegistryRecords } from '#services/images/registry-records.ts';
import { ImageStore } from '#services/images/store.ts';
import { FileLogDrivers } from '#services/logs/drivers.ts';
import type { BridgeOptions } from '#services/networks/bridge-device.ts';
import type { AddressPool } from '#services/networks/ipam.ts';
import { openNetworks } from '#services/networks/networks.ts';
import { openSnapshotter } from '#services/snapshots/open.ts';
import { FifoProcessStreams } from '#services/streams/process-streams.ts';
import { StoredVolumes } from '#services/volumes/volumes.ts';
import { nowNs } from '#system/clock/clock.ts';
import { Database } from '#system/database/database.ts';
import { socketTransport } from '#system/dns/transport.ts';
import { HttpRegistryClient } from '#system/registry-http/client.ts';
import { openShimLauncher } from '#system/runtime/launcher.ts';
import { newId } from '#types/ids.ts';
import { hostPlatform } from '#types/platform.ts';
import type { DaemonLog } from './daemon-log.ts';
import { machineInfo, specHost } from './machine.ts';

/** What a daemon is built from. */
export interface AssembleOptions {
  readonly dataRoot: string;
  readonly execRoot: string;
  /** `overlay2` or `vfs`; empty: the best that works. */
  readonly storageDriver: string;
  readonly bridge: BridgeOptions;
  /** `--default-address-pool`; empty: the built-in ones. */
  readonly addressPools: readonly AddressPool[];
  readonly cgroupDriver: 'cgroupfs' | 'systemd';
  /** Read at each use, so that a reload takes effect. */
  readonly current: () => ReloadableSettings;
  readonly log: DaemonLog;
}

/** An assembled daemon. Disposing closes its services; containers are not touched. */
export interface Assembled extends AsyncDisposable {
  readonly services: Services;
  readonly info: InfoSources;
  /** Begins the end: no restart, no new start. */
  beginStop(): void;
}

/** File systems by statfs magic, as `docker info` names them. */
const FILESYSTEMS: Readonly<Record<string, string>> = {
  ef53: 'extfs',
  '58465342': 'xfs',
  '9123683e': 'btrfs',
  '1021994': 'tmpfs',
  '2fc12fc1': 'zfs',
  '794c7630': 'overlayfs',
  f2f52010: 'f2fs',
};

/** Opens everything. Throws when another daemon uses the roots or a service cannot work here. */
export async function assemble(options: AssembleOptions): Promise<Assembled> {
  await using undo = new AsyncDisposableStack();
  const { log } = options;
  const paths = new Paths(options.dataRoot, options.execRoot);
  makeDirectories(paths);
  const database = undo.use(new Database(paths.database));
  const settings = settingsOf(options, paths);
  const warn = (message: string): void => log.warn(message);

  const snapshots = await openSnapshotter({ database, dataRoot: paths.dataRoot, driver: options.storageDriver, warn });
  const content = await Content.open(paths.dataRoot);
  const networks = undo.use(
    openNetworks({
      database,
      instance: createHash('sha256').update(`${paths.dataRoot}\0${paths.execRoot}`).digest('hex').slice(0, 8),
      namespaceDirectory: join(paths.execRoot, 'netns'),
      bridge: options.bridge,
      addressPools: options.addressPools,
      warn,
    }),
  );
  const shims = undo.use(
    await openShimLauncher({
      directory: join(paths.execRoot, 'shim'),
      namespace: settings.shimNamespace,
      log: (text) => log.debug(text.trimEnd()),
      warmShims: 1,
    }),
  );
  const stopping = new AbortController();
  const services: Services = {
    archives: new FilesystemArchives(),
    containers: new ContainerStore(database),
    events: new Events(nowNs),
    images: new ImageStore(database, content, snapshots),
    logs: new FileLogDrivers(warn),
    networks,
    resolver: undo.use(openResolver({ transport: socketTransport, warn })),
    registries: new HttpRegistryClient({ options: () => options.current().registry, userAgent: userAgent() }),
    registryRecords: new RegistryRecords(database),
    settings,
    shims,
    snapshots,
    streams: (streamOptions) => new FifoProcessStreams(streamOptions),
    volumes: new StoredVolumes(database, join(paths.dataRoot, 'volumes')),
    stopping: stopping.signal,
    logger: log,
  };
  const kept = undo.move();
  return {
    services,
    info: infoSources(settings, paths),
    beginStop: () => stopping.abort(),
    [Symbol.asyncDispose]: () => kept.disposeAsync(),
  };
}

function makeDirectories(paths: Paths): void {
  mkdirSync(paths.dataRoot, { recursive: true, mode: 0o710 });
  mkdirSync(join(paths.dataRoot, 'containers'), { recursive: true, mode: 0o710 });
  mkdirSync(paths.execRoot, { recursive: true, mode: 0o700 });
  // Roots that were there before too: a host user who could reach a container's root file system could run the
  // set-user-ID programs that the container's root put there, and the mount table tells him the path.
  chmodSync(paths.dataRoot, 0o710);
  chmodSync(paths.execRoot, 0o700);
  for (const name of ['containers', 'netns', 'runtime', 'shim']) {
    mkdirSync(join(paths.execRoot, name), { recursive: true, mode: 0o711 });
  }
}

function settingsOf(options: AssembleOptions, paths: Paths): Settings {
  const machine = machineInfo(options.cgroupDriver);
  return {
    paths,
    daemonId: daemonId(join(paths.dataRoot, 'engine-id')),
    hostName: machine.hostName,
    shimNamespace: 'gantry',
    cgroupDriver: options.cgroupDriver,
    cgroupVersion: machine.cgroup.version,
    machine,
    specHost: specHost({ recursiveReadOnly: true }),
    current: options.current,
  };
}

/** What registries see. Not docker's: some refuse old versions of docker, and ours has other numbers. */
function userAgent(): string {
  return `gantry/${ENGINE_VERSION} os/linux arch/${hostPlatform().architecture}`;
}

/** The daemon's identity, made once a data root. */
function daemonId(file: string): string {
  if (existsSync(file)) {
    const known = readFileSync(file, 'utf8').trim();
    if (known !== '') return known;
  }
  const hex = newId().slice(0, 32);
  const id = hex.replace(/^(.{8})(.{4})(.{4})(.{4})(.{12})$/, '$1-$2-$3-$4-$5');
  writeFileSync(file, id, { mode: 0o600, flush: true });
  return id;
}

function infoSources(settings: Settings, paths: Paths): InfoSources {
  const { specHost: host, machine } = settings;
  const magic = (statfsSync(paths.dataRoot).type >>> 0).toString(16);
  return {
    cgroup: machine.cgroup,
    backingFilesystem: FILESYSTEMS[magic] ?? '<unknown>',
    securityOptions: [
      ...(host.appArmor ? ['name=apparmor'] : []),
      ...(host.seccomp ? ['name=seccomp,profile=builtin'] : []),
      ...(settings.cgroupVersion === 2 ? ['name=cgroupns'] : []),
    ],
    goroutines: () => process.getActiveResourcesInfo().length,
  };
}
