/** The `until` filter of prune calls and image lists: a duration before now, a time, or a Unix timestamp. */

import { GantryError } from '#types/errors.ts';
import { parseTimestamp } from '#types/timestamp.ts';

/** Milliseconds since the epoch; undefined when the filter is absent. */
export function parseUntilFilter(filters: ReadonlyMap<string, readonly string[]>): number | undefined {
  const values = filters.get('until');
  if (values === undefined || values.length === 0) return undefined;
  if (values.length > 1) throw new GantryError('invalid', 'more than one until filter specified');
  const [text = ''] = values;
  try {
    return Number(parseTimestamp(text, Date.now()) / 1_000_000n);
  } catch (error) {
    throw new GantryError('invalid', `failed to parse value as time or duration: ${JSON.stringify(text)}`, {
      cause: error,
    });
  }
}
