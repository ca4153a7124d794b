/** Conditional and partial requests (RFC 9110, 13 and 14): ETags are digests, ranges are of bytes, one at a time. */
import type { Exchange } from '../exchange.ts';

/** Whether If-None-Match names what would be sent. */
export function isUnchanged(exchange: Exchange, digest: string): boolean {
  const tags = exchange.header('if-none-match').split(',');
  return tags.some((tag) => ['*', digest, `"${digest}"`].includes(tag.trim().replace(/^W\//, '')));
}

export type ByteRange =
  | { readonly kind: 'whole' }
  | { readonly kind: 'unsatisfiable' }
  | { readonly kind: 'part'; readonly start: number; readonly end: number };

/** The range asked for. What is no single range of bytes is ignored, as the RFC allows. */
export function byteRange(exchange: Exchange, digest: string, sizeBytes: number): ByteRange {
  const [, first = '', last = ''] = /^bytes=(\d{0,15})-(\d{0,15})$/.exec(exchange.header('range')) ?? [];
  const condition = exchange.header('if-range');
  if ((first === '' && last === '') || (condition !== '' && condition !== `"${digest}"`)) return { kind: 'whole' };
  if (first === '') {
    const length = Math.min(Number(last), sizeBytes);
    return length === 0 ? { kind: 'unsatisfiable' } : { kind: 'part', start: sizeBytes - length, end: sizeBytes - 1 };
  }
  const start = Number(first);
  const end = last === '' ? sizeBytes - 1 : Math.min(Number(last), sizeBytes - 1);
  if (last !== '' && Number(last) < start) return { kind: 'whole' };
  return start >= sizeBytes ? { kind: 'unsatisfiable' } : { kind: 'part', start, end };
}
