/** `start`: several containers detached, or one attached with `-a`/`-i`. */
import { ExitError } from '../args/usage-error.ts';
import type { Json } from '../connection/api.ts';
import { ApiError } from '../connection/api.ts';
import { type Session, segment } from '../session.ts';
import { attachAndWait } from './attach.ts';

/** `start`. */
export async function startContainers(session: Session): Promise<number> {
  const { flags, args } = session;
  const api = await session.connect();
  const detachKeys = flags.text('detach-keys') || (session.config.detachKeys ?? '');
  const start = (name: string): Promise<Json> =>
    api.json('POST', `/containers/${segment(name)}/start`, {
      query: { detachKeys: detachKeys || undefined, checkpoint: flags.text('checkpoint') || undefined },
    });
  if (flags.bool('attach') || flags.bool('interactive')) {
    if (args.length > 1) throw new ExitError(1, 'you cannot start and attach multiple containers at once\n');
    const details = await api.json('GET', `/containers/${segment(args[0] ?? '')}/json`);
    const config = details['Config'] as Json;
    const id = String(details['Id']);
    return attachAndWait(api, {
      id,
      tty: config['Tty'] === true,
      stdin: flags.bool('interactive') && config['OpenStdin'] === true,
      detachKeys,
      signalProxy: flags.bool('sig-proxy', true),
      condition: (details['HostConfig'] as Json)['AutoRemove'] === true ? 'removed' : 'next-exit',
      onAttached: async () => {
        await start(id);
      },
    });
  }
  const failed: string[] = [];
  for (const name of args) {
    try {
      await start(name);
      session.print(`${name}\n`);
    } catch (error) {
      if (!(error instanceof ApiError)) throw error;
      session.warn(error.message);
      failed.push(name);
    }
  }
  if (failed.length > 0) throw new ExitError(1, `Error: failed to start containers: ${failed.join(', ')}\n`);
  return 0;
}
