/**
 * Draws docker's JSON progress messages: one line a layer that is redrawn on a terminal, plain lines
 * otherwise. An `error` message ends it with that text.
 */
import type { Writable } from 'node:stream';
import { ExitError } from '../args/usage-error.ts';
import type { Json } from '../connection/api.ts';
import { eventTime } from '../format/dates.ts';
import { formatGoDuration, humanSize } from '../text/go-text.ts';

const BAR_WIDTH = 50;
/** Narrower terminals get no bar. */
const MIN_BAR_COLUMNS = 110;
const MIN_TIME_COLUMNS = 50;
const DEFAULT_COLUMNS = 200;
const ERASE_LINE = '\x1b[2K';

/** `progressDetail` of a message. */
export interface ProgressDetail {
  readonly current?: number;
  readonly total?: number;
  /** Unix seconds; with it the time left is estimated. */
  readonly start?: number;
  readonly hidecounts?: boolean;
  readonly units?: string;
}

function counts(detail: ProgressDetail): string {
  const { current = 0, total = 0, units = '' } = detail;
  if (detail.hidecounts === true) return '';
  const size = humanSize(current).padStart(8);
  if (current > total) return units === '' ? size : `${current} ${units}`;
  return units === '' ? `${size}/${humanSize(total)}` : `${current}/${total} ${units}`;
}

function timeLeft(detail: ProgressDetail, columns: number, nowMs: number): string {
  const { current = 0, total = 0, start = 0 } = detail;
  if (columns <= MIN_TIME_COLUMNS || current <= 0 || start <= 0 || barLength(detail) >= BAR_WIDTH) return '';
  const eachMs = (nowMs - start * 1000) / current;
  return ` ${formatGoDuration(Math.round(((total - current) * eachMs) / 1000) * 1e9)}`;
}

function barLength({ current = 0, total = 0 }: ProgressDetail): number {
  return Math.min(BAR_WIDTH, Math.trunc(Math.trunc((current / total) * 100) / 2));
}

/** `[====>    ]  1.2MB/3.4MB` as wide as the terminal allows. */
export function progressBar(detail: ProgressDetail, columns: number, nowMs: number = Date.now()): string {
  const { current = 0, total = 0, units = '' } = detail;
  if (current <= 0 && total <= 0) return '';
  if (total <= 0) return units === '' ? humanSize(current).padStart(8) : `${current} ${units}`;
  const filled = barLength(detail);
  const bar = columns > MIN_BAR_COLUMNS ? `[${'='.repeat(filled)}>${' '.repeat(BAR_WIDTH - filled)}] ` : '';
  return bar + counts(detail) + timeLeft(detail, columns, nowMs);
}

/** Where progress is drawn. */
export type ProgressOutput = Writable & { isTTY?: boolean; columns?: number };

class ProgressScreen {
  readonly #output: ProgressOutput;
  readonly #isTty: boolean;
  readonly #lines = new Map<string, number>();

  constructor(output: ProgressOutput) {
    this.#output = output;
    this.#isTty = output.isTTY === true;
  }

  show(message: Json): void {
    const id = typeof message['id'] === 'string' ? message['id'] : '';
    const detail = message['progressDetail'] as ProgressDetail | undefined;
    const isProgress = id !== '' && (detail !== undefined || Boolean(message['progress']));
    let before = '';
    let up = 0;
    if (isProgress) {
      if (!this.#lines.has(id)) {
        this.#lines.set(id, this.#lines.size);
        before = '\n';
      }
      up = this.#lines.size - (this.#lines.get(id) ?? 0);
      before += `\x1b[${up}A`;
    } else {
      // What has no line of its own moves the lines above out of reach.
      this.#lines.clear();
    }
    const text = this.#text(message, id, detail);
    if (!this.#isTty) this.#output.write(text);
    else this.#output.write(before + text + (id !== '' && up > 0 ? `\x1b[${up}B` : ''));
  }

  #text(message: Json, id: string, detail: ProgressDetail | undefined): string {
    const bar = detail === undefined ? '' : progressBar(detail, this.#output.columns ?? DEFAULT_COLUMNS);
    const stream = typeof message['stream'] === 'string' ? message['stream'] : '';
    let end = '';
    let text = '';
    if (this.#isTty && stream === '' && detail !== undefined) {
      end = '\r';
      text = `${ERASE_LINE}\r`;
      // Compat: progress is not repeated into files.
    } else if (bar !== '') return '';
    const { time, timeNano, from, progress } = message;
    if (timeNano || time) text += `${eventTime(Number(time ?? 0), Number(String(timeNano ?? 0).slice(-9)))} `;
    if (id !== '') text += `${id}: `;
    if (from) text += `(from ${String(from)}) `;
    const status = typeof message['status'] === 'string' ? message['status'] : '';
    if (detail !== undefined && this.#isTty) return `${text}${status} ${bar}${end}`;
    if (progress) return `${text}${status} ${String(progress)}${end}`;
    return stream === '' ? `${text}${status}${end}\n` : `${text}${stream}${end}`;
  }
}

/** How a stream of messages is read. */
export interface ProgressOptions {
  /** Receives the `aux` objects. */
  readonly onAux?: (aux: Json) => void;
  /** Ends with the code of the error message, as `build` does, instead of 1. */
  readonly exitCodes?: boolean;
}

/** Draws until the messages end. */
export async function renderProgress(
  messages: AsyncIterable<Json>,
  output: ProgressOutput,
  options: ProgressOptions = {},
): Promise<void> {
  const screen = new ProgressScreen(output);
  for await (const message of messages) {
    if (message['aux'] !== undefined && message['aux'] !== null) {
      options.onAux?.(message['aux'] as Json);
      continue;
    }
    const detail = message['errorDetail'] as Json | undefined;
    if (detail !== undefined || message['error'] !== undefined) {
      const code = options.exitCodes === true ? Number(detail?.['code'] ?? 0) : 1;
      throw new ExitError(code > 0 && code < 256 ? code : 1, `${String(detail?.['message'] ?? message['error'])}\n`);
    }
    screen.show(message);
  }
}
