/** `exec`: create an exec, start it attached or detached, and return its exit code. */
import { readEnvironment } from '../args/container-options.ts';
import { ExitError } from '../args/usage-error.ts';
import { ApiError } from '../connection/api.ts';
import { type Session, segment } from '../session.ts';
import { checkTty, Detached, followSize, joinStreams } from '../terminal/streams.ts';
import { startFailureCode } from './run.ts';

/** `exec`. */
export async function execCommand(session: Session): Promise<number> {
  const { flags, args } = session;
  const [container = '', ...command] = args;
  const detach = flags.bool('detach');
  const tty = flags.bool('tty');
  const stdin = flags.bool('interactive') && !detach;
  const detachKeys = flags.text('detach-keys') || (session.config.detachKeys ?? '');
  const environment = readEnvironment(flags);
  const api = await session.connect();
  await api.json('GET', `/containers/${segment(container)}/json`);
  if (!detach) checkTty(stdin, tty);
  const size = tty && process.stdout.isTTY ? { ConsoleSize: [process.stdout.rows, process.stdout.columns] } : {};
  const created = await api.json('POST', `/containers/${segment(container)}/exec`, {
    body: {
      User: flags.text('user'),
      Privileged: flags.bool('privileged'),
      Tty: tty,
      AttachStdin: stdin,
      AttachStdout: !detach,
      AttachStderr: !detach,
      DetachKeys: detachKeys,
      Env: environment,
      WorkingDir: flags.text('workdir'),
      Cmd: command,
      ...size,
    },
  });
  const id = String(created['Id']);
  if (id === '') throw new ExitError(1, 'exec ID empty\n');
  if (detach) {
    await api.json('POST', `/exec/${id}/start`, { body: { Detach: true, Tty: tty } });
    return 0;
  }
  try {
    const connection = await api.hijack(`/exec/${id}/start`, { body: { Detach: false, Tty: tty, ...size } });
    const stopSize = tty && process.stdout.isTTY ? followSize(api, `/exec/${id}/resize`) : () => undefined;
    try {
      await joinStreams(connection, { tty, stdin, detachKeys });
    } finally {
      stopSize();
    }
  } catch (error) {
    if (error instanceof Detached) process.exit(0);
    if (error instanceof ApiError)
      throw new ExitError(
        startFailureCode(error.message) === 125 ? 1 : startFailureCode(error.message),
        `${error.message}\n`,
      );
    throw error;
  }
  return Number((await api.json('GET', `/exec/${id}/json`))['ExitCode'] ?? 0);
}
