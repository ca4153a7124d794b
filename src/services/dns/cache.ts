/**
 * Responses kept for as long as their TTLs allow, within a fixed number of entries and bytes; the one unused
 * for longest gives way. A scope keeps apart what different servers or networks may answer differently.
 */
import type { Response } from './message.ts';

const ENTRIES_MAX = 4096;
const BYTES_MAX = 4 * 1024 * 1024;
/** Larger responses are rare and would push out many others. */
const ENTRY_BYTES_MAX = 8192;
/** What the bookkeeping of an entry costs beside its key and bytes, about. */
const ENTRY_OVERHEAD_BYTES = 200;
/** Longer TTLs are cut: a wrong answer must not outlive the mistake by days. */
const POSITIVE_SECONDS_MAX = 3600;
/** RFC 2308 allows hours; docker keeps nothing, so what comes into being must be seen soon. */
const NEGATIVE_SECONDS_MAX = 60;

/** A response as it was received. */
export interface KeptResponse {
  readonly bytes: Buffer;
  readonly storedMs: number;
}

interface Entry extends KeptResponse {
  readonly untilMs: number;
  readonly sizeBytes: number;
}

/** A bounded store of responses. */
export class ResponseCache {
  readonly #entries = new Map<string, Entry>();
  readonly #now: () => number;
  #sizeBytes = 0;

  /** `now` gives monotonic milliseconds. */
  constructor(now: () => number) {
    this.#now = now;
  }

  get size(): number {
    return this.#entries.size;
  }

  get sizeBytes(): number {
    return this.#sizeBytes;
  }

  get(scope: string, question: string): KeptResponse | undefined {
    const key = keyOf(scope, question);
    const entry = this.#entries.get(key);
    if (entry === undefined) return undefined;
    this.#drop(key, entry);
    if (entry.untilMs <= this.#now()) return undefined;
    this.#put(key, entry);
    return entry;
  }

  keep(scope: string, question: string, response: Pick<Response, 'bytes' | 'keepSeconds' | 'negative'>): void {
    const seconds = Math.min(response.keepSeconds, response.negative ? NEGATIVE_SECONDS_MAX : POSITIVE_SECONDS_MAX);
    if (seconds <= 0 || response.bytes.length > ENTRY_BYTES_MAX) return;
    const key = keyOf(scope, question);
    const known = this.#entries.get(key);
    if (known !== undefined) this.#drop(key, known);
    const storedMs = this.#now();
    // A copy: the bytes may be a small part of a large receive buffer.
    const bytes = Buffer.from(response.bytes);
    const sizeBytes = bytes.length + key.length + ENTRY_OVERHEAD_BYTES;
    this.#put(key, { bytes, storedMs, untilMs: storedMs + seconds * 1000, sizeBytes });
    for (const [oldest, entry] of this.#entries) {
      if (this.#entries.size <= ENTRIES_MAX && this.#sizeBytes <= BYTES_MAX) break;
      this.#drop(oldest, entry);
    }
  }

  /** Forgets everything of the scopes that start so. */
  forget(scopePrefix: string): void {
    for (const [key, entry] of this.#entries) if (key.startsWith(scopePrefix)) this.#drop(key, entry);
  }

  #put(key: string, entry: Entry): void {
    this.#entries.set(key, entry);
    this.#sizeBytes += entry.sizeBytes;
  }

  #drop(key: string, entry: Entry): void {
    this.#entries.delete(key);
    this.#sizeBytes -= entry.sizeBytes;
  }
}

/** Scopes hold no tab. */
function keyOf(scope: string, question: string): string {
  return `${scope}\t${question}`;
}
