/** `docker stats`: samples of a container's resource use, about one a second. */
import { setTimeout as sleep } from 'node:timers/promises';
import { isAlive } from '#services/containers/container.ts';
import type { LiveContainer } from '#services/containers/live.ts';
import { readCgroupStatistics } from '#system/cgroup/statistics.ts';
import { now } from '#system/clock/clock.ts';
import type { ContainerStatsResponse } from '#wire/engine.ts';
import type { Services } from '../services.ts';
import { type StatsSample, statsResponse, systemCpuUsageNs } from './stats-response.ts';

const INTERVAL_MS = 1000;

/** Samples until the container is removed or `signal` aborts; one sample with `stream: false`. */
export async function* containerStats(
  services: Services,
  reference: string,
  options: { readonly stream: boolean; readonly oneShot: boolean },
  signal: AbortSignal,
): AsyncGenerator<ContainerStatsResponse> {
  const container = services.containers.find(reference);
  let previous: StatsSample | undefined;
  if (!options.stream && !options.oneShot && isAlive(container.state)) {
    previous = takeSample(services, container);
    await pause(signal);
  }
  do {
    const sample = takeSample(services, container);
    yield statsResponse(sample, previous);
    previous = sample;
    if (options.stream) await pause(signal);
  } while (options.stream && !signal.aborted && services.containers.get(container.id) === container);
}

function pause(signal: AbortSignal): Promise<unknown> {
  return sleep(INTERVAL_MS, undefined, { signal }).catch(() => undefined);
}

function takeSample(services: Services, container: LiveContainer): StatsSample {
  const { record, state } = container;
  const base = { id: record.id, name: `/${record.name}`, read: now() };
  if (!isAlive(state)) return { ...base, cgroup: undefined, systemCpuNs: 0, networks: undefined };
  return {
    ...base,
    cgroup: readCgroupStatistics(state.pid),
    systemCpuNs: systemCpuUsageNs(),
    networks: !record.sandbox?.path ? undefined : services.networks.statistics(record.sandbox),
  };
}
