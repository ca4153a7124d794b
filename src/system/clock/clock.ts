/** Time as docker writes it: RFC 3339 in UTC with nanoseconds, trailing zeros dropped (Go's RFC3339Nano). */

const startWallNs = BigInt(Date.now()) * 1_000_000n;
const startMonotonicNs = process.hrtime.bigint();
/** Wall clocks get stepped; beyond this drift the monotonic offset is taken anew. */
const MAX_DRIFT_NS = 2_000_000n;
let offsetNs = startWallNs - startMonotonicNs;

/** Nanoseconds since the epoch: the wall clock's milliseconds refined by the monotonic clock, never going back within a run unless the wall clock is set. */
export function nowNs(): bigint {
  const monotonic = process.hrtime.bigint();
  const wall = BigInt(Date.now()) * 1_000_000n;
  const refined = monotonic + offsetNs;
  const drift = refined - wall;
  if (drift > MAX_DRIFT_NS || drift < -MAX_DRIFT_NS) {
    offsetNs = wall - monotonic;
    return wall;
  }
  return refined;
}

/** The present time as an RFC3339Nano string. */
export function now(): string {
  return formatNs(nowNs());
}

/** Formats nanoseconds since the epoch as RFC3339Nano in UTC. */
export function formatNs(timeNs: bigint): string {
  const seconds = timeNs / 1_000_000_000n;
  const fraction = timeNs % 1_000_000_000n;
  const base = new Date(Number(seconds) * 1000).toISOString().slice(0, 19);
  if (fraction === 0n) return `${base}Z`;
  return `${base}.${fraction.toString().padStart(9, '0').replace(/0+$/, '')}Z`;
}

const RFC3339 = /^(\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d)(?:\.(\d{1,9})\d*)?(Z|[+-]\d\d:\d\d)$/;

/** Nanoseconds since the epoch of an RFC 3339 time; undefined when it is none. */
export function parseTime(text: string): bigint | undefined {
  const match = RFC3339.exec(text);
  if (match === null) return undefined;
  const milliseconds = Date.parse(`${match[1]}${match[3]}`);
  if (Number.isNaN(milliseconds)) return undefined;
  return BigInt(milliseconds) * 1_000_000n + BigInt((match[2] ?? '').padEnd(9, '0'));
}
