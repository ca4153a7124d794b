/** `run`: create, attach, start, then either detach or follow the container to its exit code. */
import { ExitError, FLAG_ERROR_CODE, runError } from '../args/usage-error.ts';
import { type Api, ApiError, type Hijacked, type Json } from '../connection/api.ts';
import type { Session } from '../session.ts';
import { checkTty, Detached, followSize, joinStreams, proxySignals } from '../terminal/streams.ts';
import { createContainer } from './create.ts';

interface Attachment {
  readonly stdin: boolean;
  readonly stdout: boolean;
  readonly stderr: boolean;
}

function wanted(session: Session): Attachment {
  const { flags } = session;
  const given = flags.list('attach').map((stream) => stream.toLowerCase());
  if (given.length > 0)
    return { stdin: given.includes('stdin'), stdout: given.includes('stdout'), stderr: given.includes('stderr') };
  return { stdin: flags.bool('interactive'), stdout: true, stderr: true };
}

/** Compat: the code tells a missing command (127) and one that cannot run (126) from other failures (125). */
export function startFailureCode(message: string): number {
  if (/executable file not found|no such file or directory|system cannot find the file/.test(message)) return 127;
  if (/permission denied|is a directory|exec format error/.test(message)) return 126;
  return FLAG_ERROR_CODE;
}

/** Waits for the exit in the background; started before the container so that the exit is not missed. */
export function waitForExit(api: Api, id: string, condition: 'next-exit' | 'removed'): Promise<number> {
  const exit = api.json('POST', `/containers/${id}/wait`, { query: { condition } }).then((answer) => {
    const failure = (answer['Error'] as Json | null)?.['Message'];
    if (typeof failure === 'string' && failure !== '') throw new ApiError(500, failure);
    return Number(answer['StatusCode']);
  });
  exit.catch(() => undefined);
  return exit;
}

async function discard(api: Api, id: string, remove: boolean): Promise<void> {
  if (!remove) return;
  await api.json('DELETE', `/containers/${id}`, { query: { force: true, v: true } }).catch(() => undefined);
}

async function start(session: Session, api: Api, id: string): Promise<void> {
  try {
    await api.json('POST', `/containers/${id}/start`);
  } catch (error) {
    if (!(error instanceof ApiError)) throw error;
    // Compat: the daemon removes an auto-remove container that failed to start only once it ran.
    await discard(api, id, session.flags.bool('rm') && !api.atLeast('1.30'));
    throw runError(session.command, error.message, startFailureCode(error.message));
  }
}

async function runAttached(session: Session, api: Api, id: string): Promise<number> {
  const { flags } = session;
  const attach = wanted(session);
  const tty = flags.bool('tty');
  const detachKeys = flags.text('detach-keys') || (session.config.detachKeys ?? '');
  const stopProxy = !tty && flags.bool('sig-proxy', true) ? proxySignals(api, id) : () => undefined;
  const connection: Hijacked | undefined =
    attach.stdin || attach.stdout || attach.stderr
      ? await api.hijack(`/containers/${id}/attach`, {
          query: {
            stream: 1,
            ...(attach.stdin ? { stdin: 1 } : {}),
            ...(attach.stdout ? { stdout: 1 } : {}),
            ...(attach.stderr ? { stderr: 1 } : {}),
            detachKeys: detachKeys || undefined,
          },
        })
      : undefined;
  const exit = waitForExit(api, id, flags.bool('rm') ? 'removed' : 'next-exit');
  const joined =
    connection === undefined ? Promise.resolve() : joinStreams(connection, { tty, stdin: attach.stdin, detachKeys });
  joined.catch(() => undefined);
  let stopSize: () => void = () => undefined;
  try {
    await start(session, api, id);
    if (tty && process.stdout.isTTY) stopSize = followSize(api, `/containers/${id}/resize`);
    await joined;
    return await exit;
  } catch (error) {
    if (error instanceof Detached) process.exit(0);
    if (error instanceof ExitError) {
      connection?.duplex.destroy();
      process.stderr.write(error.message);
      process.exit(error.code);
    }
    throw error;
  } finally {
    stopSize();
    stopProxy();
  }
}

/** `run`. */
export async function runContainer(session: Session): Promise<number> {
  const { flags } = session;
  if (flags.bool('detach') && flags.has('attach'))
    throw new ExitError(1, 'conflicting options: cannot specify both --attach and --detach\n');
  if (!flags.bool('detach')) checkTty(wanted(session).stdin, flags.bool('tty'));
  const api = await session.connect();
  const id = await createContainer(session, api, 'run');
  if (!flags.bool('detach')) return runAttached(session, api, id);
  await start(session, api, id);
  session.print(`${id}\n`);
  return 0;
}
