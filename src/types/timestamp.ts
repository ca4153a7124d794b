/**
 * Times as docker's clients write them for `since` and `until`: Unix seconds with an optional fraction, RFC 3339
 * in full or in part (local to UTC here, as the daemon's zone), or a Go duration before now.
 */
import { GantryError } from './errors.ts';

const UNIX = /^(\d{1,19})(?:\.(\d{1,9}))?$/;
const DURATION = /^[+-]?(?:\d+(?:\.\d*)?|\.\d+)(?:ns|us|µs|ms|s|m|h)/;
const DATE = /^\d{4}-\d\d-\d\d(?:T\d\d(?::\d\d(?::\d\d(?:\.(\d{1,9}))?)?)?)?(Z|[+-]\d\d:\d\d)?$/;
const UNIT_NS: Readonly<Record<string, number>> = {
  ns: 1,
  us: 1e3,
  µs: 1e3,
  ms: 1e6,
  s: 1e9,
  m: 60e9,
  h: 3600e9,
};

/** Nanoseconds since the epoch. Throws `invalid` with Go's text. */
export function parseTimestamp(text: string, nowMs: number): bigint {
  const unix = UNIX.exec(text);
  if (unix !== null) return BigInt(unix[1] ?? '0') * 1_000_000_000n + BigInt((unix[2] ?? '').padEnd(9, '0'));
  if (DURATION.test(text)) return BigInt(nowMs) * 1_000_000n - BigInt(Math.round(goDurationNs(text)));
  const date = DATE.exec(text);
  const milliseconds = date === null ? Number.NaN : Date.parse(completeDate(text));
  if (Number.isNaN(milliseconds)) {
    throw new GantryError('invalid', `strconv.ParseInt: parsing "${text}": invalid syntax`);
  }
  const fraction = BigInt((date?.[1] ?? '').padEnd(9, '0'));
  return BigInt(Math.floor(milliseconds / 1000)) * 1_000_000_000n + fraction;
}

function completeDate(text: string): string {
  const zone = /(Z|[+-]\d\d:\d\d)$/.exec(text.slice(10))?.[1] ?? '';
  const bare = zone === '' ? text : text.slice(0, -zone.length);
  const [day, time = '00:00:00'] = bare.split('T');
  const parts = time.split(':');
  while (parts.length < 3) parts.push('00');
  return `${day}T${parts.join(':').replace(/\.\d+$/, '')}${zone === '' ? 'Z' : zone}`;
}

/** Nanoseconds of a Go duration such as `1h30m` or `-1.5s`; NaN when it is none. */
export function goDurationNs(text: string): number {
  const match = /^([+-]?)((?:(?:\d+(?:\.\d*)?|\.\d+)(?:ns|us|µs|ms|s|m|h))+)$/.exec(text);
  if (match === null) return text === '0' ? 0 : Number.NaN;
  let total = 0;
  for (const part of (match[2] ?? '').matchAll(/(\d+(?:\.\d*)?|\.\d+)(ns|us|µs|ms|s|m|h)/g)) {
    total += Number(part[1]) * (UNIT_NS[part[2] ?? ''] ?? Number.NaN);
  }
  return match[1] === '-' ? -total : total;
}
