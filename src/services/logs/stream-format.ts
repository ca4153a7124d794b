/** Records as the logs operation sends them: timestamps, details, multiplexed frames. */
import { formatNs } from '#system/clock/clock.ts';
import { frameChunk } from '#services/streams/frame.ts';
import type { LogRecord } from './contract.ts';

export interface LogTextOptions {
  readonly timestamps: boolean;
  readonly details: boolean;
  readonly multiplexed: boolean;
}

const FRACTION_DIGITS = 9;
/** Records gathered into one chunk while more are at hand. */
const BATCH_BYTES = 64 * 1024;

/** One record as a chunk of the answer. */
export function encodeLogRecord(record: LogRecord, options: LogTextOptions): Buffer {
  let prefix = options.timestamps ? `${fixedTime(record.timeNs)} ` : '';
  if (options.details) prefix += `${details(record.attributes)} `;
  const text = prefix === '' ? record.line : Buffer.concat([Buffer.from(prefix), record.line]);
  return options.multiplexed ? frameChunk(record.stream, text) : text;
}

/** Chunks of a whole answer; records that come together leave together, none waits for another. */
export async function* encodeLogRecords(
  records: AsyncIterable<LogRecord>,
  options: LogTextOptions,
): AsyncGenerator<Buffer, void, void> {
  let batch: Buffer[] = [];
  let size = 0;
  const source = records[Symbol.asyncIterator]();
  try {
    let next = source.next();
    for (;;) {
      const result = await firstOf(next, batch.length > 0);
      if (result === undefined || result.done === true || size >= BATCH_BYTES) {
        if (batch.length > 0) yield Buffer.concat(batch);
        batch = [];
        size = 0;
      }
      if (result === undefined) continue;
      if (result.done === true) return;
      const chunk = encodeLogRecord(result.value, options);
      batch.push(chunk);
      size += chunk.length;
      next = source.next();
    }
  } finally {
    await source.return?.();
  }
}

/** The record, or undefined when it is not there within this turn of the event loop. */
async function firstOf<T>(next: Promise<T>, hasBatch: boolean): Promise<T | undefined> {
  if (!hasBatch) return await next;
  const { promise, resolve } = Promise.withResolvers<undefined>();
  const timer = setImmediate(resolve, undefined);
  const result = await Promise.race([next, promise]);
  clearImmediate(timer);
  return result;
}

/** Compat: here docker keeps all nine digits, unlike in its files. */
function fixedTime(timeNs: bigint): string {
  const text = formatNs(timeNs).slice(0, -1);
  const [second, fraction = ''] = text.split('.');
  return `${second}.${fraction.padEnd(FRACTION_DIGITS, '0')}Z`;
}

function details(attributes: Readonly<Record<string, string>>): string {
  return Object.keys(attributes)
    .sort()
    .map((key) => `${queryEscape(key)}=${queryEscape(attributes[key] ?? '')}`)
    .join(',');
}

/** Go's url.QueryEscape. */
function queryEscape(text: string): string {
  return encodeURIComponent(text)
    .replace(/[!'()*]/g, (character) => `%${character.charCodeAt(0).toString(16).toUpperCase()}`)
    .replaceAll('%20', '+');
}
