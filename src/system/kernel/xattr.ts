/** Extended attributes (xattr(7)): by path, by path without following links, and by descriptor. */
import { nativePath } from './bytes.ts';
import { ERRNO, lastError } from './errno.ts';
import { foreign } from './ffi.ts';
import { libc } from './libc.ts';

/** XATTR_SIZE_MAX: the kernel allows no larger value or list. */
const XATTR_MAX_BYTES = 65536;
const scratch = Buffer.alloc(XATTR_MAX_BYTES);
const EMPTY: readonly string[] = [];

/** An open descriptor, or a path whose last link is not followed. */
export type XattrTarget = number | string;

/** Value of an attribute; undefined when absent or not supported here. */
export function getXattr(target: XattrTarget, name: string): Buffer | undefined {
  const length =
    typeof target === 'number'
      ? libc.fgetxattr(target, name, scratch, BigInt(XATTR_MAX_BYTES))
      : libc.lgetxattr(nativePath(target), name, scratch, BigInt(XATTR_MAX_BYTES));
  if (length < 0n) {
    const errno = foreign().errno();
    if (errno === ERRNO['ENODATA'] || errno === ERRNO['EOPNOTSUPP']) return undefined;
    throw lastError('getxattr', `${target} ${name}`);
  }
  return Buffer.from(scratch.subarray(0, Number(length)));
}

/** Names of all attributes. */
export function listXattrs(target: XattrTarget): readonly string[] {
  const length =
    typeof target === 'number'
      ? libc.flistxattr(target, scratch, BigInt(XATTR_MAX_BYTES))
      : libc.llistxattr(nativePath(target), scratch, BigInt(XATTR_MAX_BYTES));
  if (length < 0n) {
    if (foreign().errno() === ERRNO['EOPNOTSUPP']) return EMPTY;
    throw lastError('listxattr', String(target));
  }
  if (length === 0n) return EMPTY;
  return scratch.toString('utf8', 0, Number(length) - 1).split('\0');
}

/** Sets an attribute. */
export function setXattr(target: XattrTarget, name: string, value: Buffer): void {
  const done =
    typeof target === 'number'
      ? libc.fsetxattr(target, name, value, BigInt(value.length), 0)
      : libc.lsetxattr(nativePath(target), name, value, BigInt(value.length), 0);
  if (done !== 0) throw lastError('setxattr', `${target} ${name}`);
}

/** Removes an attribute; absent is fine. */
export function removeXattr(target: XattrTarget, name: string): void {
  const done =
    typeof target === 'number' ? libc.fremovexattr(target, name) : libc.lremovexattr(nativePath(target), name);
  if (done !== 0 && foreign().errno() !== ERRNO['ENODATA']) throw lastError('removexattr', `${target} ${name}`);
}
