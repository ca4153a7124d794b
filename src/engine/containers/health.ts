/**
 * Health checks: probes a running container by exec and keeps the status `docker ps` and `inspect` show.
 *
 * Compat: defaults, the start period (failures do not count until it is over or a probe succeeds), the start
 * interval and the five-entry log are dockerd's.
 */
import { setTimeout as sleep } from 'node:timers/promises';
import type { HealthRecord, LiveContainer } from '#services/containers/live.ts';
import { now, nowNs } from '#system/clock/clock.ts';
import { errorMessage } from '#types/errors.ts';
import type { HealthConfig } from '#wire/engine.ts';
import { runProbe } from '../exec/probe.ts';
import type { Services } from '../services.ts';
import { publishContainerEvent } from './events.ts';

const NS_PER_MS = 1_000_000;
const DEFAULT_INTERVAL_MS = 30_000;
const DEFAULT_TIMEOUT_MS = 30_000;
const DEFAULT_START_INTERVAL_MS = 5_000;
const DEFAULT_RETRIES = 3;
/** Probe results kept for inspect. */
const LOG_LIMIT = 5;
/** Bytes of output kept of one probe. */
export const PROBE_OUTPUT_LIMIT_BYTES = 4096;

interface HealthPlan {
  readonly command: readonly string[];
  readonly intervalMs: number;
  readonly timeoutMs: number;
  readonly startPeriodMs: number;
  readonly startIntervalMs: number;
  readonly retries: number;
}

/** The effective plan; undefined when there is no health check. Exported for tests. */
export function healthPlan(health: HealthConfig | undefined, shell: readonly string[]): HealthPlan | undefined {
  const [kind, ...rest] = health?.Test ?? [];
  if (kind === undefined || kind === 'NONE') return undefined;
  const command = kind === 'CMD-SHELL' ? [...shell, rest[0] ?? ''] : rest;
  const ms = (value: number | undefined, fallback: number): number =>
    value === undefined || value === 0 ? fallback : value / NS_PER_MS;
  return {
    command,
    intervalMs: ms(health?.Interval, DEFAULT_INTERVAL_MS),
    timeoutMs: ms(health?.Timeout, DEFAULT_TIMEOUT_MS),
    startPeriodMs: ms(health?.StartPeriod, 0),
    startIntervalMs: ms(health?.StartInterval, DEFAULT_START_INTERVAL_MS),
    retries: health?.Retries || DEFAULT_RETRIES,
  };
}

/** Begins probing after a start; replaces what an earlier run left. */
export function startHealthMonitor(services: Services, container: LiveContainer): void {
  const { config } = container.record;
  const plan = healthPlan(config.Healthcheck ?? undefined, config.Shell?.length ? config.Shell : ['/bin/sh', '-c']);
  container.healthMonitor?.abort();
  container.health = undefined;
  if (plan === undefined) return;
  const monitor = new AbortController();
  container.healthMonitor = monitor;
  container.health = { status: 'starting', failingStreak: 0, log: [] };
  void probeForever(services, container, plan, monitor.signal).catch((error: unknown) => {
    if (!monitor.signal.aborted) {
      services.logger.error('health monitor failed', { container: container.id, error: errorMessage(error) });
    }
  });
}

async function probeForever(
  services: Services,
  container: LiveContainer,
  plan: HealthPlan,
  signal: AbortSignal,
): Promise<void> {
  const startedNs = nowNs();
  for (;;) {
    const health = container.health;
    if (health === undefined) return;
    const starting = health.status === 'starting' && elapsedMs(startedNs) < plan.startPeriodMs;
    await sleep(starting ? plan.startIntervalMs : plan.intervalMs, undefined, { signal });
    if (container.state.status !== 'running') continue;
    const start = now();
    const result = await runProbe(services, container, plan.command, plan.timeoutMs, signal);
    if (signal.aborted) return;
    record(
      services,
      container,
      health,
      plan,
      {
        Start: start,
        End: now(),
        ExitCode: result.exitCode,
        Output: result.output,
      },
      elapsedMs(startedNs),
    );
  }
}

function elapsedMs(startedNs: bigint): number {
  return Number((nowNs() - startedNs) / BigInt(NS_PER_MS));
}

function record(
  services: Services,
  container: LiveContainer,
  health: HealthRecord,
  plan: HealthPlan,
  entry: HealthRecord['log'][number],
  sinceStartMs: number,
): void {
  health.log.push(entry);
  if (health.log.length > LOG_LIMIT) health.log.shift();
  const before = health.status;
  if (entry.ExitCode === 0) {
    health.failingStreak = 0;
    health.status = 'healthy';
  } else if (!(before === 'starting' && sinceStartMs < plan.startPeriodMs)) {
    health.failingStreak += 1;
    if (health.failingStreak >= plan.retries) health.status = 'unhealthy';
  }
  if (health.status !== before) {
    publishContainerEvent(services.events, container.record, `health_status: ${health.status}`);
  }
}
