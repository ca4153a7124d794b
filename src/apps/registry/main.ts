/** The registry's program: `serve`, `gc` and `fsck` on a root directory. */
import { closeSync, writeSync } from 'node:fs';
import { setTimeout as delay } from 'node:timers/promises';
import { ExitError } from '#apps/cli/args/usage-error.ts';
import { DaemonLog, surviveBugs } from '#apps/daemon/daemon-log.ts';
import { collectGarbage } from '#engine/registry/collect.ts';
import { checkRegistry } from '#services/registry/check.ts';
import type { Collected } from '#services/registry/collector.ts';
import { errorMessage, GantryError } from '#types/errors.ts';
import { type AssembledRegistry, assembleRegistry, openStore, readTls } from './assemble.ts';
import { RegistryMetrics } from './metrics.ts';
import { humanSize } from './pages/html.ts';
import { RegistryServer } from './server.ts';
import { parseWords, readSettings } from './settings.ts';

const NS_PER_MS = 1e6;
const DEFAULT_GRACE_NS = 3_600_000 * NS_PER_MS;
const DEFAULT_ROOT = '/var/lib/gantry-registry';
/** How long the end waits for webhooks to take what has happened. */
const DRAIN_MS = 3_000;
/** Findings were made. */
const FINDINGS_CODE = 1;

async function main([verb = '', ...words]: readonly string[]): Promise<number> {
  switch (verb) {
    case 'serve':
      await serve(words);
      return 0;
    case 'gc':
      return await collect(words);
    case 'fsck':
      return await check(words);
    default:
      throw new GantryError('invalid', `unknown command: gantry registry ${verb}`);
  }
}

async function serve(words: readonly string[]): Promise<void> {
  const settings = readSettings(parseWords('serve', words));
  const log = new DaemonLog(settings.logLevel);
  const stopped = new AbortController();
  await using registry = assembleRegistry(settings, (message) => log.warn(message));
  const metrics = new RegistryMetrics(registry.services);
  const { externalUrl } = settings;
  const server = new RegistryServer({ services: registry.services, metrics, log, externalUrl, tls: readTls(settings) });
  const port = await server.listen(settings.host, settings.port);
  if (settings.auth === 'none' && !['127.0.0.1', '::1', 'localhost'].includes(settings.host)) {
    log.warn('Everyone who reaches this address may pull and push: there is no --htpasswd');
  }
  log.info('Registry listens', {
    address: `${settings.host}:${port}`,
    tls: String(settings.tls !== undefined),
    root: settings.root,
  });
  tellParent();
  const collector = collectPeriodically(registry, { intervalMs: settings.gc.intervalMs, metrics, log }, stopped.signal);
  process.on('SIGHUP', () => reload(registry, server, log));
  await untilStopped(log);
  stopped.abort();
  await server.close();
  await registry.services.notifier.drain(DRAIN_MS);
  await collector;
  log.info('Registry stopped');
}

/** A daemon that started this process waits for a word on descriptor 3. */
function tellParent(): void {
  if (!hasParent()) return;
  writeSync(3, 'ready\n');
  closeSync(3);
}

/** Whether a daemon started this process and holds its standard input for as long as it lives. */
function hasParent(): boolean {
  return process.env['GANTRY_REGISTRY_PARENT'] === 'stdin';
}

function reload(registry: AssembledRegistry, server: RegistryServer, log: DaemonLog): void {
  try {
    const tls = registry.reload();
    if (tls !== undefined) server.tls = tls;
    log.info('Reloaded users, rights and certificate');
  } catch (error) {
    log.error('Reload failed', { error: errorMessage(error) });
  }
}

/** Resolves at SIGTERM or SIGINT, or when the process that started it (a daemon holding its standard input) is gone. */
function untilStopped(log: DaemonLog): Promise<void> {
  const { promise, resolve } = Promise.withResolvers<void>();
  for (const signal of ['SIGTERM', 'SIGINT'] as const) {
    process.on(signal, () => {
      log.info(`Processing signal '${signal}'`);
      resolve();
    });
  }
  process.on('SIGPIPE', () => undefined);
  if (hasParent()) {
    process.stdin.resume();
    process.stdin.once('close', resolve);
  }
  return promise;
}

async function collectPeriodically(
  registry: AssembledRegistry,
  options: { intervalMs: number; metrics: RegistryMetrics; log: DaemonLog },
  signal: AbortSignal,
): Promise<void> {
  const { intervalMs, metrics, log } = options;
  if (intervalMs === 0) return;
  while (!signal.aborted) {
    await delay(intervalMs, undefined, { signal }).catch(() => undefined);
    if (signal.aborted) return;
    try {
      const collected = await registry.collect(signal);
      if (collected === undefined) continue;
      metrics.recordCollection(collected);
      log.info('Garbage collected', { ...collected });
    } catch (error) {
      if (!signal.aborted) log.error('Garbage collection failed', { error: errorMessage(error) });
    }
  }
}

async function collect(words: readonly string[]): Promise<number> {
  const flags = parseWords('gc', words);
  const root = flags.text('root', DEFAULT_ROOT);
  const graceMs = flags.number('gc-grace', DEFAULT_GRACE_NS) / NS_PER_MS;
  const untagged = flags.number('delete-untagged-after') / NS_PER_MS;
  using store = openStore(root, graceMs);
  const collected = await collectGarbage(root, store, {
    graceMs,
    now: Date.now,
    untaggedAfterMs: untagged === 0 ? undefined : untagged,
  });
  if (collected === undefined) throw new GantryError('conflict', `another collection is going on in ${root}`);
  process.stdout.write(describe(collected));
  return 0;
}

function describe({ manifests, links, blobs, freedBytes }: Collected): string {
  return `Deleted manifests: ${manifests}\nDeleted links: ${links}\nDeleted blobs: ${blobs}\n\nTotal reclaimed space: ${humanSize(freedBytes).replace(' ', '')}\n`;
}

async function check(words: readonly string[]): Promise<number> {
  const flags = parseWords('fsck', words);
  using store = openStore(flags.text('root', DEFAULT_ROOT), 0);
  let count = 0;
  for await (const { kind, object, text } of checkRegistry(store, { isDeep: flags.bool('deep') })) {
    count += 1;
    process.stdout.write(`${kind}: ${object}: ${text}\n`);
  }
  const { blobCount, blobBytes } = store.totals();
  process.stdout.write(`${blobCount} blobs, ${humanSize(blobBytes)}: ${count === 0 ? 'clean' : `${count} findings`}\n`);
  return count === 0 ? 0 : FINDINGS_CODE;
}

// A bug must not end a registry that serves; it is logged with its stack.
surviveBugs();

try {
  process.exitCode = await main(process.argv.slice(2));
} catch (error) {
  process.stderr.write(`${errorMessage(error).trimEnd()}\n`);
  process.exitCode = error instanceof ExitError ? error.code : 1;
}
process.exit();
