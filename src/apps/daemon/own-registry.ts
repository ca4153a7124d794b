/**
 * The registry a daemon serves: a process of its own, so that what comes from the network is not decoded in the daemon
 * that is root over all containers, started again when it fails. It holds the reading end of a pipe of the daemon's and
 * ends when that closes, however the daemon ends.
 */
import { type ChildProcess, spawn } from 'node:child_process';
import { once } from 'node:events';
import { existsSync } from 'node:fs';
import { join } from 'node:path';
import type { Readable } from 'node:stream';
import { fileURLToPath } from 'node:url';
import { GantryError } from '#types/errors.ts';
import type { DaemonLog } from './daemon-log.ts';

const FIRST_PAUSE_MS = 1_000;
const MAX_PAUSE_MS = 60_000;
/** One that ran this long failed for a new reason. */
const STEADY_MS = 60_000;
/** How long an orderly end may take: longer than the registry gives its answers under way. */
const STOP_TIMEOUT_MS = 15_000;

export interface OwnRegistryOptions {
  readonly listen: string;
  /** Empty: none. */
  readonly configFile: string;
  readonly dataRoot: string;
  readonly log: DaemonLog;
}

/** A served registry. Disposing ends it in order. */
export interface OwnRegistry extends AsyncDisposable {
  /** Users, rights and certificate are read again. */
  reload(): void;
}

function programFile(): string {
  const source = fileURLToPath(new URL('../registry/main.ts', import.meta.url));
  return existsSync(source) ? source : join(process.argv[1] ?? '', '../registry.mjs');
}

function launch({ listen, configFile, dataRoot }: OwnRegistryOptions): ChildProcess {
  const config = configFile === '' ? [] : ['--config', configFile];
  return spawn(
    process.execPath,
    [
      '--disable-warning=ExperimentalWarning',
      '--max-semi-space-size=1',
      '--',
      programFile(),
      'serve',
      '--root',
      join(dataRoot, 'registry'),
      '--listen',
      listen,
      ...config,
    ],
    { stdio: ['pipe', 'inherit', 'inherit', 'pipe'], env: { ...process.env, GANTRY_REGISTRY_PARENT: 'stdin' } },
  );
}

/** Resolves with whether it came to listen. */
async function isReady(child: ChildProcess): Promise<boolean> {
  const { promise, resolve } = Promise.withResolvers<boolean>();
  const signal = child.stdio[3] as Readable;
  signal.once('data', () => resolve(true));
  signal.on('error', () => resolve(false));
  child.once('error', () => resolve(false));
  child.once('close', () => resolve(false));
  return await promise;
}

/** Starts the registry and waits until it listens. Throws when it cannot. */
export async function startOwnRegistry(options: OwnRegistryOptions): Promise<OwnRegistry> {
  const { log } = options;
  let child = launch(options);
  if (!(await isReady(child))) {
    throw new GantryError('invalid', 'the registry of --registry-listen did not start: its error is above');
  }
  let isStopping = false;
  let pauseMs = FIRST_PAUSE_MS;
  let timer: NodeJS.Timeout | undefined;
  const watch = (): void => {
    const begun = performance.now();
    child.once('error', () => undefined);
    child.once('close', (code, signal) => {
      if (isStopping) return;
      if (performance.now() - begun > STEADY_MS) pauseMs = FIRST_PAUSE_MS;
      log.error('the registry ended; it is started again', { code: String(code ?? signal), afterMs: pauseMs });
      timer = setTimeout(() => {
        child = launch(options);
        watch();
      }, pauseMs).unref();
      pauseMs = Math.min(pauseMs * 2, MAX_PAUSE_MS);
    });
  };
  watch();
  return {
    reload: () => void child.kill('SIGHUP'),
    [Symbol.asyncDispose]: async () => {
      isStopping = true;
      clearTimeout(timer);
      if (child.exitCode !== null || child.signalCode !== null) return;
      const ended = once(child, 'close');
      child.kill('SIGTERM');
      const limit = setTimeout(() => child.kill('SIGKILL'), STOP_TIMEOUT_MS);
      await ended;
      clearTimeout(limit);
    },
  };
}
