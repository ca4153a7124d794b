/** The one table from error kinds to HTTP statuses, and the two forms an error answer has. */
import { type ErrorKind, errorKind, errorMessage } from '#types/errors.ts';

const STATUS_BY_KIND: Readonly<Record<ErrorKind, number>> = {
  invalid: 400,
  unauthorized: 401,
  forbidden: 403,
  notFound: 404,
  conflict: 409,
  tooManyRequests: 429,
  notModified: 304,
  system: 500,
  cancelled: 500,
  notImplemented: 501,
  unavailable: 503,
};

/** The status of any thrown value. */
export function statusOf(error: unknown): number {
  return STATUS_BY_KIND[errorKind(error)];
}

/** The body of an error answer. */
export interface ErrorBody {
  readonly contentType: string;
  readonly text: string;
}

/** Compat: clients older than API 1.24 expect plain text. */
export function errorBody(error: unknown, isPlain: boolean): ErrorBody {
  const message = errorMessage(error);
  if (isPlain) return { contentType: 'text/plain; charset=utf-8', text: `${message}\n` };
  return { contentType: 'application/json', text: `${JSON.stringify({ message })}\n` };
}
