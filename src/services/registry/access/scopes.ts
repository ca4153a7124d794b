/** Scopes of the token protocol: `type:name:action,action` (Docker Registry v2 token scope grammar). */
import { DistributionError } from '#types/distribution-error.ts';

/** Scopes in one request for a token. */
const MAX_SCOPES = 100;

/** One resource and what is asked or granted on it. */
export interface Scope {
  readonly type: string;
  readonly name: string;
  readonly actions: readonly string[];
}

/** Reads scopes, each value possibly holding several divided by blanks. */
export function parseScopes(values: readonly string[]): Scope[] {
  const words = values.flatMap((value) => value.split(' ')).filter((word) => word !== '');
  if (words.length > MAX_SCOPES) throw new DistributionError('UNSUPPORTED', { message: 'too many scopes' });
  return words.flatMap((word) => {
    const first = word.indexOf(':');
    const last = word.lastIndexOf(':');
    if (first < 0 || last === first) return [];
    // A class such as `repository(plugin)` grants nothing more here.
    const type = word.slice(0, first).replace(/\([a-z0-9]+\)$/, '');
    return [
      {
        type,
        name: word.slice(first + 1, last),
        actions: word
          .slice(last + 1)
          .split(',')
          .filter((action) => action !== ''),
      },
    ];
  });
}

/** Whether `granted` holds `action` on a resource. */
export function grants(granted: readonly Scope[], type: string, name: string, action: string): boolean {
  return granted.some(
    (scope) =>
      scope.type === type && scope.name === name && (scope.actions.includes(action) || scope.actions.includes('*')),
  );
}
