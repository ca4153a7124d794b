/** A container's streams and its log: made when first needed (an attach may come before the start), opened for each run. */
import type { ContainerRecord } from '#services/containers/container.ts';
import { labelsOf } from '#services/containers/container.ts';
import type { LiveContainer } from '#services/containers/live.ts';
import type { LogInfo, LogWriter } from '#services/logs/contract.ts';
import type { ProcessStreams } from '#services/streams/contract.ts';
import { errorMessage, GantryError } from '#types/errors.ts';
import type { Services } from '../services.ts';

/** The streams of the present or next run. */
export function streamsOf(services: Pick<Services, 'streams'>, container: LiveContainer): ProcessStreams {
  const { config } = container.record;
  container.streams ??= services.streams({
    terminal: config.Tty ?? false,
    openStdin: config.OpenStdin ?? false,
    stdinOnce: config.StdinOnce ?? false,
    closeStdin: async () => {
      await container.task?.shim.closeStdin(container.id);
    },
  });
  return container.streams;
}

/** What the log driver of a container needs. */
export function logInfo(services: Pick<Services, 'settings'>, record: ContainerRecord): LogInfo {
  const { LogConfig } = record.hostConfig;
  return {
    containerId: record.id,
    containerName: record.name,
    imageId: record.imageId,
    imageName: record.imageReference,
    labels: labelsOf(record),
    env: record.config.Env ?? [],
    directory: services.settings.paths.container(record.id),
    driver: LogConfig?.Type ?? '',
    options: LogConfig?.Config ?? {},
  };
}

/** Opens the log for a new run. */
export async function openLog(
  services: Pick<Services, 'logs' | 'settings'>,
  record: ContainerRecord,
): Promise<LogWriter | undefined> {
  try {
    return await services.logs.open(logInfo(services, record));
  } catch (error) {
    // Compat: a bad option is only found now, and is a 500.
    const message = `failed to create task for container: failed to initialize logging driver: ${errorMessage(error)}`;
    throw new GantryError('system', message, { cause: error });
  }
}
