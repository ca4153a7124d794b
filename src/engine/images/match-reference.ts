/** The `reference` filter: Go's path.Match over the familiar string, or over the familiar name alone. */
import { compileGoPattern } from '#services/build/go-match.ts';
import { familiarName, parseReference } from '#types/reference.ts';

/** Whether `pattern` matches a familiar reference. */
export function matchesReference(pattern: string, familiar: string): boolean {
  const match = compileGoPattern(pattern);
  return match(familiar) || match(familiarName(parseReference(familiar)));
}
