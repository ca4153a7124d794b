/**
 * A blob on its way in from an upstream, readable while it grows: one download, any number of readers, each at its own
 * pace from the file. The last bytes are kept back until the digest is known to be right, so that no reader gets a
 * whole blob that is not what it asked for.
 */
import { createHash } from 'node:crypto';
import { open } from 'node:fs/promises';
import { type Digest, digestHex } from '#types/digest.ts';
import { GantryError } from '#types/errors.ts';

/** Bytes kept back until verified. */
const HELD_BACK_BYTES = 1;
const READ_CHUNK_BYTES = 256 * 1024;

/** One blob that is being fetched. */
export class GrowingBlob {
  readonly sizeBytes: number;
  readonly #path: string;
  readonly #place: string;
  readonly #digest: Digest;
  #received = 0;
  #state: 'growing' | 'verified' | 'failed' = 'growing';
  #failure: unknown;
  #change = Promise.withResolvers<void>();

  /** `place` is where the file goes when it is whole. */
  constructor(path: string, options: { place: string; digest: Digest; sizeBytes: number }) {
    const { place, digest, sizeBytes } = options;
    this.#path = path;
    this.#place = place;
    this.#digest = digest;
    this.sizeBytes = sizeBytes;
  }

  /** Takes the bytes in, verifies and syncs them. Readers see its failure too. */
  async fill(source: AsyncIterable<Uint8Array>): Promise<void> {
    try {
      await using file = await open(this.#path, 'r+');
      const hash = createHash(this.#digest.slice(0, this.#digest.indexOf(':')));
      for await (const chunk of source) {
        if (this.#received + chunk.length > this.sizeBytes)
          throw new GantryError('unavailable', 'the upstream sent more bytes than it announced');
        let written = 0;
        while (written < chunk.length) written += (await file.write(chunk, written)).bytesWritten;
        hash.update(chunk);
        this.#received += chunk.length;
        this.#tell();
      }
      if (this.#received !== this.sizeBytes)
        throw new GantryError('unavailable', 'the upstream sent fewer bytes than it announced');
      if (hash.digest('hex') !== digestHex(this.#digest))
        throw new GantryError('unavailable', 'the upstream sent bytes of another digest');
      await file.sync();
      this.#state = 'verified';
    } catch (error) {
      this.#state = 'failed';
      this.#failure = error;
      throw error;
    } finally {
      this.#tell();
    }
  }

  #tell(): void {
    const { resolve } = this.#change;
    this.#change = Promise.withResolvers<void>();
    resolve();
  }

  get #available(): number {
    return this.#state === 'verified'
      ? this.sizeBytes
      : Math.max(0, Math.min(this.#received, this.sizeBytes - HELD_BACK_BYTES));
  }

  /** The bytes from `start` to `end`, both included, as they come. */
  async *read(start: number, end: number): AsyncGenerator<Uint8Array> {
    // The file may have got its place meanwhile.
    const file = await open(this.#path, 'r').catch(() => open(this.#place, 'r'));
    await using _file = file;
    let at = start;
    while (at <= end) {
      const change = this.#change.promise;
      if (this.#state === 'failed') throw this.#failure;
      const available = Math.min(this.#available, end + 1) - at;
      if (available <= 0) {
        await change;
        continue;
      }
      const { bytesRead, buffer } = await file.read(
        Buffer.allocUnsafe(Math.min(available, READ_CHUNK_BYTES)),
        0,
        undefined,
        at,
      );
      if (bytesRead === 0) throw new GantryError('system', 'the blob was cut while it was read');
      at += bytesRead;
      yield buffer.subarray(0, bytesRead);
    }
  }
}
