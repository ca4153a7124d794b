/** Identifiers: 64 lower-case hex digits, branded so that a name is never taken for an ID. */
import { randomBytes } from 'node:crypto';

/** A full container, exec or network ID. */
export type Id = string & { readonly __brand: 'Id' };

const FULL_ID = /^[0-9a-f]{64}$/;

/** A new random ID. Like docker, never one whose short form is all digits (it would be a valid number as a hostname). */
export function newId(): Id {
  for (;;) {
    const id = randomBytes(32).toString('hex');
    if (!/^[0-9]+$/.test(id.slice(0, 12))) return id as Id;
  }
}

/** Whether `text` is a full ID. */
export function isId(text: string): text is Id {
  return FULL_ID.test(text);
}

/** The twelve digits docker shows. */
export function shortId(id: string): string {
  return id.slice(0, 12);
}
