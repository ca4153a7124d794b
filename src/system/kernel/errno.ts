/**
 * Failed system calls as errors: name, number, system call and operand, with the text Go programs print
 * (`mount /a:/b: no such file or directory`), because docker's messages contain it.
 */
import { constants } from 'node:os';
import { foreign, openLibrary } from './ffi.ts';

const NAMES: ReadonlyMap<number, string> = new Map(
  // EAGAIN and EWOULDBLOCK, EDEADLK … share numbers; the first name listed is the usual one.
  Object.entries(constants.errno)
    .reverse()
    .map(([name, number]) => [number, name]),
);

/** Numbers by name, for comparing with `errno`. */
export const ERRNO: Readonly<Record<string, number>> = constants.errno;

/** Name of an errno number: 2 is `ENOENT`. */
export function errnoName(errno: number): string {
  if (errno === constants.errno.EAGAIN) return 'EAGAIN';
  if (errno === constants.errno.EOPNOTSUPP) return 'ENOTSUP';
  return NAMES.get(errno) ?? `E${errno}`;
}

const texts = new Map<number, string>();
let strerror: ((errno: number) => string | null) | undefined;

/** Go's text of an errno: libc's text with a lower-case first letter. */
export function errnoText(errno: number): string {
  let text = texts.get(errno);
  if (text !== undefined) return text;
  strerror ??= openLibrary('libc.so.6', { strerror: { returns: 'string', arguments: ['i32'] } }).calls.strerror;
  text = strerror(errno) ?? `errno ${errno}`;
  if (/^[A-Z][a-z]/.test(text)) text = text[0]?.toLowerCase() + text.slice(1);
  texts.set(errno, text);
  return text;
}

/** A system call that failed. */
export class KernelError extends Error {
  override readonly name = 'KernelError';
  /** `ENOENT` … */
  readonly code: string;
  readonly errno: number;
  readonly syscall: string;
  /** What the call was about: a path, `source:target`, … */
  readonly operand: string;

  constructor(errno: number, syscall: string, operand: string) {
    super(`${operand === '' ? syscall : `${syscall} ${operand}`}: ${errnoText(errno)}`);
    this.code = errnoName(errno);
    this.errno = errno;
    this.syscall = syscall;
    this.operand = operand;
  }
}

/** The error of the native call made just before on this thread. */
export function lastError(syscall: string, operand: string): KernelError {
  return new KernelError(foreign().errno(), syscall, operand);
}

/** Whether a thrown value is a system error (ours or Node's) with one of these names. */
export function hasCode(error: unknown, ...codes: readonly string[]): boolean {
  return error instanceof Error && 'code' in error && typeof error.code === 'string' && codes.includes(error.code);
}
