/**
 * Escapes log bytes into JSON text exactly as dockerd's encoder does (Go's encoding/json with HTML escapes).
 *
 * Text goes through string operations, which are fastest where little has to be escaped; binary output through
 * a byte loop with runs, so that a process that writes zeros costs no more than one that writes lines.
 */
import { isUtf8 } from 'node:buffer';

// biome-ignore lint/suspicious/noControlCharactersInRegex: control characters are what is looked for.
const SPECIAL = /[\x00-\x09\x0b-\x1f"\\<>&]/g;
const NON_ASCII = /[\x80-\xff]/;
/** U+2028 and U+2029 in UTF-8, seen as Latin-1. */
const SEPARATORS = /\xe2\x80([\xa8\xa9])/g;

function escapeSpecial(character: string): string {
  if (character === '"' || character === '\\') return `\\${character}`;
  if (character === '\r') return '\\r';
  return `\\u00${character.charCodeAt(0).toString(16).padStart(2, '0')}`;
}

/** Escapes bytes as Go's encoder does; line feeds stay as they are. The result is Latin-1 for UTF-8 bytes. */
export function escapeBytes(bytes: Buffer): string {
  let text = bytes.toString('latin1');
  if (NON_ASCII.test(text)) {
    // The replacement below puts in a backslash, so invalid bytes become a private mark until escapes are done.
    if (!isUtf8(bytes)) return escapeInvalid(bytes);
    text = text.replace(SPECIAL, escapeSpecial);
    return text.replace(SEPARATORS, (_match: string, last: string) => (last === '\xa8' ? '\\u2028' : '\\u2029'));
  }
  return text.replace(SPECIAL, escapeSpecial);
}

/** Each byte that belongs to no valid sequence is written as \ufffd. */
function escapeInvalid(bytes: Buffer): string {
  let out = '';
  let valid = 0;
  let position = 0;
  while (position < bytes.length) {
    const length = sequenceLength(bytes, position);
    if (length > 0) {
      position += length;
      continue;
    }
    out += `${escapeBytes(bytes.subarray(valid, position))}\\ufffd`;
    position += 1;
    valid = position;
  }
  return out + escapeBytes(bytes.subarray(valid, position));
}

/** Length of the valid UTF-8 sequence at `position`, 0 when there is none. */
function sequenceLength(bytes: Buffer, position: number): number {
  const first = bytes[position] as number;
  if (first < 0x80) return 1;
  const length = first >= 0xf0 ? 4 : first >= 0xe0 ? 3 : first >= 0xc2 ? 2 : 0;
  if (length === 0 || position + length > bytes.length) return 0;
  return isUtf8(bytes.subarray(position, position + length)) ? length : 0;
}

/** Bytes looked at to tell binary output from text. */
const SAMPLE_BYTES = 128;
/** A run of one byte at least this long is filled in at once. */
const RUN_BYTES = 8;
const ESCAPE_MAX_BYTES = 6;

/** The escape of each ASCII byte that has one. */
const ESCAPES: readonly (Buffer | undefined)[] = Array.from({ length: 128 }, (_, byte) => {
  const character = String.fromCharCode(byte);
  if (byte === 10) return Buffer.from('\\n');
  return character.search(SPECIAL) < 0 ? undefined : Buffer.from(escapeSpecial(character));
});

/** Whether most of the first bytes need escapes and none is beyond ASCII. */
export function isBinary(bytes: Buffer): boolean {
  const sample = Math.min(bytes.length, SAMPLE_BYTES);
  let escapes = 0;
  for (let index = 0; index < sample; index += 1) {
    if (ESCAPES[bytes[index] as number] !== undefined) escapes += 1;
  }
  return escapes * 4 > sample && !NON_ASCII.test(bytes.toString('latin1'));
}

/** Escapes ASCII bytes that mostly need it. */
export function escapeBinary(bytes: Buffer): Buffer {
  const out = Buffer.allocUnsafe(bytes.length * ESCAPE_MAX_BYTES);
  let length = 0;
  for (let index = 0; index < bytes.length; ) {
    const byte = bytes[index] as number;
    const escaped = ESCAPES[byte];
    if (escaped === undefined) {
      out[length] = byte;
      length += 1;
      index += 1;
      continue;
    }
    let end = index + 1;
    while (end < bytes.length && bytes[end] === byte) end += 1;
    if (end - index >= RUN_BYTES) {
      out.fill(escaped, length, length + (end - index) * escaped.length);
      length += (end - index) * escaped.length;
    } else {
      for (; index < end; index += 1) {
        for (let at = 0; at < escaped.length; at += 1) out[length + at] = escaped[at] as number;
        length += escaped.length;
      }
    }
    index = end;
  }
  return out.subarray(0, length);
}
