/**
 * The one error class of the engine: a closed set of kinds, the cause kept.
 *
 * Kinds are mapped to HTTP statuses in exactly one table (apps/daemon/http/errors.ts);
 * messages are what docker's clients print, so they are part of the interface.
 */

/** What went wrong, from the caller's point of view. */
export type ErrorKind =
  | 'invalid'
  | 'unauthorized'
  | 'forbidden'
  | 'notFound'
  | 'conflict'
  | 'tooManyRequests'
  | 'notModified'
  | 'system'
  | 'cancelled'
  | 'notImplemented'
  | 'unavailable';

/** An error with a kind. `message` reaches the user verbatim. */
export class GantryError extends Error {
  override readonly name = 'GantryError';
  readonly kind: ErrorKind;

  constructor(kind: ErrorKind, message: string, options?: { cause?: unknown }) {
    super(message, options);
    this.kind = kind;
  }
}

/** The kind of any thrown value; foreign errors count as `system`. */
export function errorKind(error: unknown): ErrorKind {
  if (error instanceof GantryError) return error.kind;
  if (error instanceof Error && error.name === 'AbortError') return 'cancelled';
  return 'system';
}

/** The text of any thrown value. */
export function errorMessage(error: unknown): string {
  return error instanceof Error ? error.message : String(error);
}

/** Wraps `cause` keeping its kind: `prefix: message of cause`. */
export function wrapError(prefix: string, cause: unknown): GantryError {
  return new GantryError(errorKind(cause), `${prefix}: ${errorMessage(cause)}`, { cause });
}
