/** Records as the logs operation sends them: timestamps, details, multiplexed frames. */

import { formatNs } from '#system/clock/clock.ts';
import { frameChunk } from '#types/stream-frame.ts';
import type { LogRecord } from './contract.ts';

export interface LogTextOptions {
  readonly timestamps: boolean;
  readonly details: boolean;
  readonly multiplexed: boolean;
}

const FRACTION_DIGITS = 9;

/** One record as a chunk of the answer. */
export function encodeLogRecord(record: LogRecord, options: LogTextOptions): Buffer {
  let prefix = options.timestamps ? `${fixedTime(record.timeNs)} ` : '';
  if (options.details) prefix += `${details(record.attributes)} `;
  const text = prefix === '' ? record.line : Buffer.concat([Buffer.from(prefix), record.line]);
  return options.multiplexed ? frameChunk(record.stream, text) : text;
}

/** Records that are at hand together, as one chunk. */
export function encodeLogRecords(records: readonly LogRecord[], options: LogTextOptions): Buffer {
  return Buffer.concat(records.map((record) => encodeLogRecord(record, options)));
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
