/** `events`: the daemon's events as lines, JSON or a template. */
import { ExitError } from '../args/usage-error.ts';
import { type Json, jsonLines } from '../connection/api.ts';
import { eventTime } from '../format/dates.ts';
import { filtersOf, type Session } from '../session.ts';
import { Template } from '../template/execute.ts';
import { goJson, StructView } from '../template/values.ts';
import { timestampOf } from './logs.ts';

/** The line of an event. */
export function eventLine(event: Json): string {
  const actor = (event['Actor'] as Json | undefined) ?? {};
  const attributes = Object.entries((actor['Attributes'] as Json | undefined) ?? {}).sort(([a], [b]) =>
    a < b ? -1 : 1,
  );
  const shown =
    attributes.length === 0 ? '' : ` (${attributes.map(([key, value]) => `${key}=${String(value)}`).join(', ')})`;
  return `${eventTime(Number(event['time'] ?? 0), Number(String(event['timeNano'] ?? 0).slice(-9)))} ${String(event['Type'])} ${String(event['Action'])} ${String(actor['ID'])}${shown}\n`;
}

/** An event with its attributes by name, as Go writes maps. */
function sorted(event: Json): Json {
  const actor = event['Actor'] as Json | undefined;
  if (actor === undefined) return event;
  const attributes = Object.entries((actor['Attributes'] as Json | undefined) ?? {}).sort(([a], [b]) =>
    a < b ? -1 : 1,
  );
  return { ...event, Actor: { ...actor, Attributes: Object.fromEntries(attributes) } };
}

/** An event as templates see it. */
function templateView(event: Json): StructView {
  const actor = (event['Actor'] as Json | undefined) ?? {};
  return new StructView(
    '*events.Message',
    {
      Status: () => event['status'] ?? '',
      ID: () => event['id'] ?? '',
      From: () => event['from'] ?? '',
      Type: () => event['Type'] ?? '',
      Action: () => event['Action'] ?? '',
      Actor: () => ({ ID: actor['ID'] ?? '', Attributes: actor['Attributes'] ?? {} }),
      Scope: () => event['scope'] ?? '',
      Time: () => event['time'] ?? 0,
      TimeNano: () => event['timeNano'] ?? 0,
    },
    { json: sorted(event) },
  );
}

/** `events`. */
export async function eventsCommand(session: Session): Promise<number> {
  const { flags } = session;
  const format = flags.text('format');
  const now = Date.now();
  let template: Template | undefined;
  if (format !== '' && format !== 'json') {
    try {
      template = new Template(format);
      template.execute(templateView({}));
    } catch (error) {
      throw new ExitError(64, `Error parsing format: ${(error as Error).message}\n`);
    }
  }
  const api = await session.connect();
  const response = await api.open('GET', '/events', {
    query: {
      since: timestampOf(flags.text('since'), now),
      until: timestampOf(flags.text('until'), now),
      filters: filtersOf(flags.list('filter')),
    },
  });
  for await (const event of jsonLines(response)) {
    if (format === 'json') session.print(`${goJson(sorted(event), { escapeHtml: false })}\n`);
    else if (template !== undefined) session.print(`${template.execute(templateView(event))}\n`);
    else session.print(eventLine(event));
  }
  return 0;
}
