/** What docker makes of a failed start: exit code 126, 127 or 128, and the kind of the error, read off the runtime's text. */
import { errorKind, errorMessage, GantryError } from '#types/errors.ts';

/** Start failures of a kind of their own keep it; runtime failures are classed by their text. */
export function explainStartFailure(cause: unknown): { error: GantryError; exitCode: number } {
  const message = errorMessage(cause);
  const kind = errorKind(cause);
  const lower = message.toLowerCase();
  const notFound =
    lower.includes('executable file not found') ||
    lower.includes('no such file or directory') ||
    lower.includes('system cannot find the file specified');
  if (message.includes('failed to create task') || message.includes('failed to start task')) {
    if (notFound) return { error: new GantryError('invalid', message, { cause }), exitCode: 127 };
    if (lower.includes('permission denied') || lower.includes('is a directory')) {
      const text =
        lower.includes('is a directory') && !lower.includes('permission denied')
          ? `${message}: permission denied`
          : message;
      return { error: new GantryError('invalid', text, { cause }), exitCode: 126 };
    }
    if (lower.includes('not a directory')) {
      const hint =
        'Are you trying to mount a directory onto a file (or vice-versa)? Check if the specified host path exists and is the expected type';
      return { error: new GantryError('invalid', `${message}: ${hint}`, { cause }), exitCode: 127 };
    }
  }
  return { error: new GantryError(kind, message, { cause }), exitCode: 128 };
}
