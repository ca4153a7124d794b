/** `logs`: the stored output of a container, split to stdout and stderr. */
import { demultiplex } from '#client/streams.ts';
import { ExitError } from '../args/usage-error.ts';
import type { Json } from '../connection/api.ts';
import { type Session, segment } from '../session.ts';
import { copyOutput } from '../terminal/streams.ts';
import { parseGoDuration } from '../text/go-text.ts';

/** A point in time for the API: seconds since 1970 from a time stamp, a date or an age. */
export function timestampOf(text: string, nowMs: number, prefix = ''): string | undefined {
  if (text === '') return undefined;
  if (/^\d+(\.\d+)?$/.test(text)) return text;
  try {
    return ((nowMs - parseGoDuration(text) / 1e6) / 1000).toFixed(9);
  } catch {
    const local = /^\d{4}-\d{2}-\d{2}$/.test(text) ? `${text}T00:00:00` : text;
    const time = Date.parse(local);
    if (Number.isNaN(time)) throw new ExitError(1, `${prefix}failed to parse value as time or duration: "${text}"\n`);
    const fraction = /\.(\d+)/.exec(local)?.[1] ?? '';
    return `${Math.floor(time / 1000)}.${fraction.padEnd(9, '0').slice(0, 9)}`;
  }
}

/** `logs`. */
export async function logsCommand(session: Session): Promise<number> {
  const { flags, args } = session;
  const api = await session.connect();
  const now = Date.now();
  const details = await api.json('GET', `/containers/${segment(args[0] ?? '')}/json`);
  const since = timestampOf(flags.text('since'), now, 'invalid value for "since": ');
  const until = timestampOf(flags.text('until'), now, 'invalid value for "until": ');
  const response = await api.open('GET', `/containers/${String(details['Id'])}/logs`, {
    query: {
      stdout: 1,
      stderr: 1,
      since,
      until,
      timestamps: flags.bool('timestamps') || undefined,
      follow: flags.bool('follow') || undefined,
      details: flags.bool('details') || undefined,
      tail: flags.text('tail', 'all'),
    },
  });
  if ((details['Config'] as Json)['Tty'] === true) {
    for await (const chunk of response)
      if (!process.stdout.write(chunk as Buffer))
        await new Promise<void>((resolve) => process.stdout.once('drain', resolve));
  } else await copyOutput(demultiplex(response as AsyncIterable<Buffer>));
  return 0;
}
