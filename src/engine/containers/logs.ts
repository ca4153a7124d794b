/** `docker logs` and the past output of an attach: records of the log driver as chunks of docker's stream. */
import type { LiveContainer } from '#services/containers/live.ts';
import type { LogReadOptions } from '#services/logs/contract.ts';
import { encodeLogRecords } from '#services/logs/stream-format.ts';
import { GantryError } from '#types/errors.ts';
import type { Services } from '../services.ts';
import { logInfo } from './output.ts';

export interface LogsOptions extends LogReadOptions {
  readonly timestamps: boolean;
  readonly details: boolean;
}

/** Checks what can be checked before the answer begins; throws docker's messages. */
export function readableLogs(
  services: Pick<Services, 'containers'>,
  reference: string,
  options: LogsOptions,
): LiveContainer {
  if (!options.stdout && !options.stderr) {
    throw new GantryError('invalid', 'Bad parameters: you must choose at least one stream');
  }
  const container = services.containers.find(reference);
  const { status } = container.state;
  if (status === 'removing' || status === 'dead') {
    throw new GantryError('conflict', 'can not get logs from container which is dead or marked for removal');
  }
  return container;
}

/** Chunks of the log, framed unless the container has a terminal. */
export async function* streamLogs(
  services: Pick<Services, 'logs' | 'settings'>,
  container: LiveContainer,
  options: LogsOptions,
  signal: AbortSignal,
): AsyncGenerator<Buffer> {
  const { record } = container;
  // A container that does not run will not log any more: following it ends with what is there.
  const follow = options.follow && container.task !== undefined;
  const multiplexed = record.config.Tty !== true;
  const encoding = { multiplexed, timestamps: options.timestamps, details: options.details };
  for await (const batch of services.logs.readBatches(logInfo(services, record), { ...options, follow }, signal)) {
    yield encodeLogRecords(batch, encoding);
  }
}
