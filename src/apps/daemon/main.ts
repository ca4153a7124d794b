/** gantryd: reads options, assembles the daemon, serves the API until told to stop. */
import { hostname } from 'node:os';
import { watchOutOfMemory } from '#engine/containers/out-of-memory.ts';
import { ENGINE_VERSION } from '#engine/version.ts';
import { detectCgroups } from '#system/cgroup/support.ts';
import { errorMessage } from '#types/errors.ts';
import { apiRoutes } from './api-routes.ts';
import { type Assembled, assemble } from './assemble.ts';
import { DaemonLog, surviveBugs } from './daemon-log.ts';
import { ApiServer } from './http/server.ts';
import { trimWhenIdle } from './idle-memory.ts';
import { type Listener, listen } from './listeners.ts';
import { type DaemonOptions, loadOptions, readInvocation } from './options/daemon-options.ts';
import { helpText } from './options/help.ts';
import type { GivenFlags } from './options/parse-flags.ts';
import { reloadOptions } from './options/reload.ts';
import { writePidfile } from './pidfile.ts';
import { recover, startByPolicy } from './recover.ts';
import { lockRoots } from './root-lock.ts';
import { bridgeOptions, reloadableSettings } from './settings-from-options.ts';
import { stopContainers } from './shutdown.ts';

async function main(): Promise<number> {
  const invocation = readInvocation(process.argv.slice(2), process.env);
  switch (invocation.action) {
    case 'help':
      process.stdout.write(helpText());
      return 0;
    case 'version':
      process.stdout.write(`Gantry version ${ENGINE_VERSION}\n`);
      return 0;
    case 'validate':
      process.stdout.write('configuration OK\n');
      return 0;
    case 'run':
      await serve(invocation.options, invocation.flags);
      return 0;
    default:
      return invocation satisfies never;
  }
}

async function serve(initial: DaemonOptions, flags: GivenFlags): Promise<void> {
  if (process.getuid?.() !== 0) throw new Error('gantryd needs to be started with root privileges');
  let options = initial;
  const log = new DaemonLog(options.debug ? 'debug' : options.logLevel);
  const cgroup = detectCgroups();
  let settings = reloadableSettings(options, cgroup.version);
  log.info('Starting up', { pid: process.pid, root: options.dataRoot });
  await using undo = new AsyncDisposableStack();
  undo.use(writePidfile(options.pidfile));
  undo.use(lockRoots(options));
  const daemon = undo.use(
    await assemble({
      dataRoot: options.dataRoot,
      execRoot: options.execRoot,
      storageDriver: options.storageDriver,
      bridge: bridgeOptions(options),
      addressPools: options.addressPools,
      cgroupDriver: options.cgroupDriver ?? 'cgroupfs',
      current: () => settings,
      log,
    }),
  );
  using _memory = watchOutOfMemory(daemon.services);
  await recover(daemon.services);
  await daemon.services.images.collection.collect();
  const server = new ApiServer({
    routes: apiRoutes(daemon.services, daemon.info),
    engineVersion: ENGINE_VERSION,
    experimental: options.experimental,
    minApiVersion: options.minApiVersion,
    log,
  });
  const stopped = untilStopped(log);
  process.on('SIGHUP', () => {
    try {
      const reload = reloadOptions(options, loadOptions(flags, process.env));
      settings = reloadableSettings(reload.options, cgroup.version);
      options = reload.options;
      log.level = options.debug ? 'debug' : options.logLevel;
      log.info('Reloaded configuration', { changed: reload.changed.join(',') });
      publishReload(daemon, options);
    } catch (error) {
      log.error('Reconfiguration failed', { error: errorMessage(error) });
    }
  });
  if (options.ownRegistry !== undefined) {
    const { startOwnRegistry } = await import('./own-registry.ts');
    const registry = undo.use(await startOwnRegistry({ ...options.ownRegistry, dataRoot: options.dataRoot, log }));
    process.on('SIGHUP', () => registry.reload());
  }
  const listeners = await openListeners(server, options, log);
  undo.use(trimWhenIdle(server));
  log.info('Daemon has completed initialization', { version: ENGINE_VERSION });
  void startByPolicy(daemon.services).catch((error: unknown) => {
    log.error('starting containers by policy failed', { error: errorMessage(error) });
  });
  await stopped;
  daemon.beginStop();
  // New connections are refused at once. Their end is not waited for: an attached client stays until its container has
  // stopped, and a connection nobody answers for must not keep the daemon.
  for (const listener of listeners) void listener[Symbol.asyncDispose]();
  await stopContainers(daemon.services);
  await server.close();
  log.info('Daemon shutdown complete');
}

async function openListeners(server: ApiServer, options: DaemonOptions, log: DaemonLog): Promise<Listener[]> {
  const listeners: Listener[] = [];
  for (const address of options.hosts) {
    const listener = await listen(address, server.createListener(), {
      group: options.group,
      isGroupExplicit: options.isGroupExplicit,
      tls: options.tls,
      warn: (message) => log.warn(message),
    });
    listeners.push(listener);
    log.info('API listen', {
      address: address.protocol === 'unix' ? address.path : `${address.protocol}:${listener.port ?? ''}`,
    });
  }
  return listeners;
}

/** Resolves at the first SIGTERM or SIGINT; the third one gives up on an orderly end. */
function untilStopped(log: DaemonLog): Promise<void> {
  const { promise, resolve } = Promise.withResolvers<void>();
  let count = 0;
  const onSignal = (signal: NodeJS.Signals): void => {
    count += 1;
    log.info(`Processing signal '${signal}'`);
    if (count >= 3) process.exit(1);
    resolve();
  };
  process.on('SIGTERM', onSignal);
  process.on('SIGINT', onSignal);
  // Clients that go away in mid-answer must not end the daemon.
  process.on('SIGPIPE', () => undefined);
  return promise;
}

function publishReload(daemon: Assembled, options: DaemonOptions): void {
  const { services } = daemon;
  services.events.publish('daemon', 'reload', services.settings.daemonId, {
    name: hostname(),
    debug: String(options.debug),
    labels: JSON.stringify(options.labels),
    'live-restore': String(options.liveRestore),
    'insecure-registries': JSON.stringify(options.insecureRegistries),
    'registry-mirrors': JSON.stringify(options.registryMirrors),
    'max-concurrent-downloads': String(options.maxConcurrentDownloads),
    'max-concurrent-uploads': String(options.maxConcurrentUploads),
    'max-download-attempts': String(options.maxDownloadAttempts),
    'shutdown-timeout': String(options.shutdownTimeoutSeconds),
    'default-runtime': options.defaultRuntime,
    'default-shm-size': String(options.defaultShmSizeBytes),
    'default-ipc-mode': options.defaultIpcMode,
  });
}

// A bug must not take running containers' daemon down; it is logged with its stack and the daemon goes on.
surviveBugs();

try {
  process.exitCode = await main();
} catch (error) {
  process.stderr.write(`${errorMessage(error)}\n`);
  process.exitCode = 1;
}
process.exit();
