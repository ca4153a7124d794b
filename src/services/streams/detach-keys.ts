/**
 * The key sequence that detaches a client: its text form and the scanner that finds it in typed input.
 *
 * Invariant: bytes that could be the start of the sequence are held back, and given on when they turn out
 * not to be; nothing else is delayed or changed.
 */
import { GantryError } from '#types/errors.ts';

/** ctrl-p, ctrl-q. */
export const DEFAULT_DETACH_KEYS: Buffer = Buffer.from([16, 17]);

const CONTROL_CODES = '@abcdefghijklmnopqrstuvwxyz[\\]^_';
const DELETE_CODE = 127;

/** Parses docker's form: single characters, `ctrl-X` and `DEL`, separated by commas; empty text is docker's default. */
export function parseDetachKeys(text: string): Buffer {
  if (text === '') return DEFAULT_DETACH_KEYS;
  return Buffer.from(text.split(',').map((key) => keyCode(key, text)));
}

function keyCode(key: string, text: string): number {
  const bytes = Buffer.from(key);
  if (bytes.length === 1) return bytes[0] as number;
  if (key === 'DEL') return DELETE_CODE;
  const code = key.length === 6 && key.startsWith('ctrl-') ? CONTROL_CODES.indexOf(key[5] as string) : -1;
  if (code < 0) throw new GantryError('invalid', `Invalid detach keys (${text}) provided`);
  return code;
}

/** Scans input chunk by chunk. */
export class DetachScanner {
  readonly #keys: Buffer;
  #matched = 0;

  constructor(keys: Buffer) {
    this.#keys = keys;
  }

  /** What to pass on of `chunk`, and whether the sequence is complete (then nothing after it counts). */
  push(chunk: Buffer): { readonly data: Buffer; readonly detached: boolean } {
    const keys = this.#keys;
    if (keys.length === 0) return { data: chunk, detached: false };
    const held = this.#matched;
    for (let index = 0; index < chunk.length; index += 1) {
      if (chunk[index] === keys[this.#matched]) {
        this.#matched += 1;
        if (this.#matched === keys.length) return { data: this.#passed(chunk, held, index + 1), detached: true };
        continue;
      }
      // Compat: the byte that breaks a partial match is not tried as the start of a new one.
      this.#matched = 0;
    }
    return { data: this.#passed(chunk, held, chunk.length), detached: false };
  }

  /** The held bytes and the chunk up to `end`, without the bytes matched so far. */
  #passed(chunk: Buffer, held: number, end: number): Buffer {
    const length = held + end - this.#matched;
    if (held === 0) return chunk.subarray(0, length);
    return Buffer.concat([this.#keys.subarray(0, held), chunk.subarray(0, end)]).subarray(0, length);
  }
}
