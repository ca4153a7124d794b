/** Attaches a client to a container's streams (`docker attach`, `docker run` in the foreground). */
import type { Duplex } from 'node:stream';
import type { LiveContainer } from '#services/containers/live.ts';
import { GantryError } from '#types/errors.ts';
import type { Services } from '../services.ts';
import { publishContainerEvent } from './events.ts';
import { streamLogs } from './logs.ts';
import { streamsOf } from './output.ts';

export interface AttachRequest {
  readonly stdin: boolean;
  readonly stdout: boolean;
  readonly stderr: boolean;
  /** Replay what was logged so far. */
  readonly logs: boolean;
  /** Go on with live streams. */
  readonly stream: boolean;
  readonly detachKeys: Buffer;
  readonly multiplexed: boolean;
}

/** Checks that the container can be attached to; throws `conflict` for a paused or restarting one. */
export function attachable(services: Pick<Services, 'containers'>, reference: string): LiveContainer {
  const container = services.containers.find(reference);
  const { status } = container.state;
  if (status === 'paused') {
    throw new GantryError('conflict', `container ${reference} is paused, unpause the container before attach`);
  }
  if (status === 'restarting') {
    throw new GantryError('conflict', `container ${reference} is restarting, wait until the container is running`);
  }
  return container;
}

/** Serves the client until the process ends, the client leaves, or types the detach keys. */
export async function attachContainer(
  services: Services,
  container: LiveContainer,
  client: Duplex,
  request: AttachRequest,
  signal: AbortSignal,
): Promise<void> {
  const past = request.logs ? pastOutput(services, container, request, signal) : undefined;
  if (!request.stream) {
    for await (const chunk of past ?? []) {
      if (!client.write(chunk)) await new Promise((resolve) => client.once('drain', resolve));
    }
    client.end();
    return;
  }
  publishContainerEvent(services.events, container.record, 'attach');
  const end = await streamsOf(services, container).attach(client, {
    stdin: request.stdin && container.record.config.OpenStdin === true,
    stdout: request.stdout,
    stderr: request.stderr,
    multiplexed: request.multiplexed,
    // Compat: without a terminal nothing is a detach key.
    detachKeys: container.record.config.Tty === true ? request.detachKeys : Buffer.alloc(0),
    ...(past === undefined ? {} : { preamble: past }),
  });
  if (end === 'detached') publishContainerEvent(services.events, container.record, 'detach');
}

function pastOutput(
  services: Services,
  container: LiveContainer,
  request: AttachRequest,
  signal: AbortSignal,
): AsyncIterable<Buffer> {
  const options = {
    stdout: request.stdout,
    stderr: request.stderr,
    sinceNs: undefined,
    untilNs: undefined,
    tail: undefined,
    follow: false,
    timestamps: false,
    details: false,
  };
  return streamLogs(services, container, options, signal);
}
