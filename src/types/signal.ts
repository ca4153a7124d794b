/** Linux signals by name and number, as docker's `--signal` and `--stop-signal` accept them. */
import { constants } from 'node:os';
import { GantryError } from './errors.ts';

export const SIGKILL = 9;
export const SIGTERM = 15;

/** Highest real-time signal of Linux. */
const SIGRTMAX = 64;
const SIGRTMIN = 34;

/**
 * Parses `KILL`, `SIGKILL`, `9`, `RTMIN+3`. Throws `invalid`: `invalid signal: {text}`.
 * Compat: any number but 0 is one, even where the kernel has no such signal; who sends it asks `isSupportedSignal`.
 */
export function parseSignal(text: string): number {
  const number = /^[+-]?\d{1,9}$/.test(text) ? Number(text) : signalNumber(text.toUpperCase().replace(/^SIG/, ''));
  if (number === undefined || number === 0) throw new GantryError('invalid', `invalid signal: ${text}`);
  return number;
}

/** Whether Linux has a signal of this number. */
export function isSupportedSignal(signal: number): boolean {
  return signal >= 1 && signal <= SIGRTMAX;
}

function signalNumber(name: string): number | undefined {
  const realtime = /^RT(MIN|MAX)(?:([+-])(\d{1,2}))?$/.exec(name);
  if (realtime !== null) {
    const offset = Number(`${realtime[2] ?? '+'}${realtime[3] ?? '0'}`);
    const value = (realtime[1] === 'MIN' ? SIGRTMIN : SIGRTMAX) + offset;
    return value >= SIGRTMIN && value <= SIGRTMAX ? value : undefined;
  }
  if (name === 'CLD') return 17;
  return (constants.signals as Readonly<Record<string, number | undefined>>)[`SIG${name}`];
}
