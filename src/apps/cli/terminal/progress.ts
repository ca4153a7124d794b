/**
 * Draws docker's JSON progress messages: one line a layer that is redrawn on a terminal, plain lines
 * otherwise. An `error` message ends it with that text.
 */
import type { Writable } from 'node:stream';
import { ExitError } from '../args/usage-error.ts';
import type { Json } from '../connection/api.ts';
import { humanSize } from '../text/go-text.ts';

const BAR_WIDTH = 50;

/** `[====>    ]  1.2MB/3.4MB` as wide as the terminal allows. */
export function progressBar(current: number, total: number, columns: number): string {
  if (current <= 0 && total <= 0) return '';
  if (total <= 0 || current > total) return humanSize(current).padStart(8);
  const filled = Math.min(BAR_WIDTH, Math.floor((current / total) * BAR_WIDTH));
  const bar = columns > 110 ? `[${'='.repeat(filled)}>${' '.repeat(BAR_WIDTH - filled)}] ` : '';
  const numbers = `${humanSize(current).padStart(8)}/${humanSize(total)}`;
  return bar + numbers;
}

/** Draws until the messages end. `onAux` receives the `aux` objects. */
export async function renderProgress(
  messages: AsyncIterable<Json>,
  output: Writable & { isTTY?: boolean; columns?: number },
  onAux?: (aux: Json) => void,
): Promise<void> {
  const lines = new Map<string, number>();
  const isTty = output.isTTY === true;
  for await (const message of messages) {
    if (message['aux'] !== undefined) {
      onAux?.(message['aux'] as Json);
      continue;
    }
    const detail = message['errorDetail'] as Json | undefined;
    if (message['error'] !== undefined || detail !== undefined) {
      const code = Number(detail?.['code'] ?? 0);
      throw new ExitError(code > 0 && code < 256 ? code : 1, `${String(detail?.['message'] ?? message['error'])}\n`);
    }
    if (message['stream'] !== undefined) output.write(String(message['stream']));
    else draw(message, { output, lines, isTty });
  }
}

function draw(
  message: Json,
  screen: { output: Writable & { columns?: number }; lines: Map<string, number>; isTty: boolean },
): void {
  const { output, lines, isTty } = screen;
  const id = message['id'] === undefined ? '' : String(message['id']);
  const detail = (message['progressDetail'] ?? {}) as Json;
  const bar = progressBar(Number(detail['current'] ?? 0), Number(detail['total'] ?? 0), output.columns ?? 200);
  // Compat: progress is not repeated into files.
  if (!isTty && bar !== '') return;
  const text = `${id === '' ? '' : `${id}: `}${String(message['status'] ?? '')}${bar === '' ? '' : ` ${bar}`}`;
  if (!isTty || id === '') {
    if (id === '') lines.clear();
    output.write(`${text}\n`);
    return;
  }
  const known = lines.get(id);
  if (known === undefined) {
    lines.set(id, lines.size);
    output.write(`${text}\n`);
    return;
  }
  const up = lines.size - known;
  output.write(`\x1b[${up}A\x1b[2K\r${text}\r\x1b[${up}B`);
}
