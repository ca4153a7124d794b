/** `attach`: joins this terminal to a running container and returns its exit code. */
import { ExitError } from '../args/usage-error.ts';
import type { Api, Json } from '../connection/api.ts';
import { type Session, segment } from '../session.ts';
import { checkTty, Detached, followSize, joinStreams, proxySignals } from '../terminal/streams.ts';
import { waitForExit } from './run.ts';

/** How to attach to a container that runs or is about to. */
export interface AttachRequest {
  readonly id: string;
  readonly tty: boolean;
  readonly stdin: boolean;
  readonly detachKeys: string;
  readonly signalProxy: boolean;
  /** Called once the streams are joined; `start -a` starts the container here. */
  readonly onAttached?: () => Promise<void>;
  readonly condition?: 'next-exit' | 'removed';
}

/** Attaches and waits for the exit code. */
export async function attachAndWait(api: Api, request: AttachRequest): Promise<number> {
  const { id, tty, stdin, detachKeys } = request;
  const stopProxy = request.signalProxy && !tty ? proxySignals(api, id) : () => undefined;
  const query = {
    stream: 1,
    stdout: 1,
    stderr: 1,
    ...(stdin ? { stdin: 1 } : {}),
    detachKeys: detachKeys || undefined,
  };
  const connection = await api.hijack(`/containers/${id}/attach`, { query });
  const exit = waitForExit(api, id, request.condition ?? 'next-exit');
  const joined = joinStreams(connection, { tty, stdin, detachKeys });
  joined.catch(() => undefined);
  let stopSize: () => void = () => undefined;
  try {
    await request.onAttached?.();
    if (tty && process.stdout.isTTY) stopSize = followSize(api, `/containers/${id}/resize`);
    await joined;
    return await exit;
  } catch (error) {
    connection.duplex.destroy();
    if (error instanceof Detached) {
      process.stderr.write('read escape sequence\n');
      // The wait for the container's exit is still under way and would keep this process.
      process.exit(1);
    }
    throw error;
  } finally {
    stopSize();
    stopProxy();
  }
}

/** `attach`. */
export async function attachCommand(session: Session): Promise<number> {
  const { flags, args } = session;
  const api = await session.connect();
  const details = await api.json('GET', `/containers/${segment(args[0] ?? '')}/json`);
  const state = details['State'] as Json;
  if (state['Running'] !== true) throw new ExitError(1, 'cannot attach to a stopped container, start it first\n');
  if (state['Paused'] === true) throw new ExitError(1, 'cannot attach to a paused container, unpause it first\n');
  if (state['Restarting'] === true)
    throw new ExitError(1, 'cannot attach to a restarting container, wait until it is running\n');
  const config = details['Config'] as Json;
  const stdin = !flags.bool('no-stdin') && config['OpenStdin'] === true;
  checkTty(stdin, config['Tty'] === true);
  return attachAndWait(api, {
    id: String(details['Id']),
    tty: config['Tty'] === true,
    stdin,
    detachKeys: flags.text('detach-keys') || (session.config.detachKeys ?? ''),
    signalProxy: flags.bool('sig-proxy', true),
  });
}
