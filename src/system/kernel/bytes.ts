/**
 * File names are bytes, strings are not: bytes that are not UTF-8 become lone surrogates U+DC80–U+DCFF
 * (as in Python's surrogateescape), so every name survives the way through a string unchanged.
 */
import { isUtf8 } from 'node:buffer';
import { constants } from 'node:os';
import { KernelError } from './errno.ts';

/** Bytes → string, losing nothing. */
export function decodeBytes(bytes: Buffer): string {
  if (isUtf8(bytes)) return bytes.toString('utf8');
  let text = '';
  let at = 0;
  while (at < bytes.length) {
    let length = Math.min(4, bytes.length - at);
    while (length > 0 && !isOneCharacter(bytes, at, length)) length -= 1;
    if (length === 0) {
      text += String.fromCharCode(0xdc00 + (bytes[at] ?? 0));
      at += 1;
    } else {
      text += bytes.toString('utf8', at, at + length);
      at += length;
    }
  }
  return text;
}

function isOneCharacter(bytes: Buffer, at: number, length: number): boolean {
  const first = bytes[at] ?? 0;
  const wanted = first < 0x80 ? 1 : first < 0xe0 ? 2 : first < 0xf0 ? 3 : 4;
  return wanted === length && isUtf8(bytes.subarray(at, at + length));
}

/** String → bytes, the inverse of `decodeBytes`. */
export function encodeBytes(text: string): Buffer {
  if (text.isWellFormed()) return Buffer.from(text, 'utf8');
  const parts: Buffer[] = [];
  for (const character of text) {
    const code = character.charCodeAt(0);
    const escaped = character.length === 1 && code >= 0xdc80 && code <= 0xdcff;
    parts.push(escaped ? Buffer.from([code - 0xdc00]) : Buffer.from(character, 'utf8'));
  }
  return Buffer.concat(parts);
}

const NUL = Buffer.from([0]);

/** A path as a native string argument; refuses NUL, at which the kernel would cut it short. */
export function nativePath(path: string): string | Buffer {
  if (path.includes('\0')) throw new KernelError(constants.errno.EINVAL, 'path', JSON.stringify(path));
  return path.isWellFormed() ? path : Buffer.concat([encodeBytes(path), NUL]);
}

/** A path as an argument of `node:fs`. */
export function fsPath(path: string): string | Buffer {
  return path.isWellFormed() ? path : encodeBytes(path);
}
