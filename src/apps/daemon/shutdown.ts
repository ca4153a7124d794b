/** The end of a daemon: containers are stopped (or left alone with live-restore), then services close. */
import { detachRun } from '#engine/containers/exit.ts';
import { stopRunning } from '#engine/containers/stop.ts';
import type { Services } from '#engine/services.ts';
import { isAlive } from '#services/containers/container.ts';
import type { LiveContainer } from '#services/containers/live.ts';
import { errorMessage } from '#types/errors.ts';

/** Stops all containers, each with its own timeout, bounded by the daemon's; what still runs then is left behind. */
export async function stopContainers(services: Services): Promise<void> {
  const running = services.containers.all().filter((container) => isAlive(container.state));
  for (const container of services.containers.all()) container.pendingRestart?.abort();
  if (services.settings.current().liveRestore) {
    await Promise.all(running.map(detachRun));
    return;
  }
  const limit = shutdownLimitMs(services, running);
  const stops = running.map((container) =>
    stopRunning(services, container, { signal: '', timeoutSeconds: undefined }).catch((error: unknown) => {
      services.logger.error('failed to stop container', { container: container.id, error: errorMessage(error) });
    }),
  );
  await Promise.race([Promise.all(stops), new Promise((resolve) => setTimeout(resolve, limit).unref())]);
}

// Compat: the longest stop timeout of a container counts when it exceeds the daemon's own.
function shutdownLimitMs(services: Services, running: readonly LiveContainer[]): number {
  const own = services.settings.current().shutdownTimeoutSeconds;
  if (own < 0) return 2 ** 31 - 1;
  const longest = Math.max(own, ...running.map((container) => container.record.config.StopTimeout ?? 0));
  return (longest + 5) * 1000;
}
