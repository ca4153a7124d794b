/** Times of log entries, with the second's part remembered: neighbouring entries mostly share it. */
import { formatNs, nowNs, parseTime } from '#system/clock/clock.ts';
import type { EntryTime } from './line-splitter.ts';

const SECOND_CHARACTERS = 19;

let secondText = '';
let secondNs = 0n;

/** Nanoseconds of an RFC3339Nano text; undefined when it is none. */
export function parseEntryTime(text: string): bigint | undefined {
  if (!text.endsWith('Z')) return parseTime(text);
  const second = text.slice(0, SECOND_CHARACTERS);
  if (second !== secondText) {
    const parsed = parseTime(`${second}Z`);
    if (parsed === undefined) return undefined;
    secondText = second;
    secondNs = parsed;
  }
  if (text.length === SECOND_CHARACTERS + 1) return secondNs;
  const digits = text.slice(SECOND_CHARACTERS + 1, -1);
  if (text[SECOND_CHARACTERS] !== '.' || !/^\d{1,9}$/.test(digits)) return undefined;
  return secondNs + BigInt(Number(digits.padEnd(9, '0')));
}

/** The present time for an entry. */
export function entryTimeNow(): EntryTime {
  const ns = nowNs();
  return { ns, text: formatNs(ns) };
}
