/** The tar and compression functions that images and builds ask for, and writing whole archives with them. */
import { decompress } from '#system/tar/compression.ts';
import type { TarEntry, TarReadEntry } from '#system/tar/contract.ts';
import { readTar } from '#system/tar/reader.ts';
import { TAR_END, tarHeader, tarPadding } from '#system/tar/writer.ts';

export interface TarCodec {
  /** Reads an uncompressed archive; fails on a truncated or malformed one. */
  read(source: AsyncIterable<Buffer>): AsyncIterable<TarReadEntry>;
  /** The header blocks of an entry (PAX records first where needed); content and padding follow. */
  header(entry: TarEntry): Buffer;
  /** Recognises gzip, zstd, bzip2 and xz by their first bytes and undoes them; plain data passes. */
  decompress(source: AsyncIterable<Buffer>, signal?: AbortSignal): AsyncIterable<Buffer>;
}

/** The engine's own codec. */
export const tarCodec: TarCodec = { read: readTar, header: tarHeader, decompress };

/** An entry to write: its bytes are read only when its turn comes. */
export interface TarPiece {
  readonly entry: TarEntry;
  readonly content?: () => AsyncIterable<Buffer>;
}

/** Writes pieces as one archive; a content of another length than announced is an error. */
export async function* writeArchive(
  codec: TarCodec,
  pieces: Iterable<TarPiece> | AsyncIterable<TarPiece>,
): AsyncGenerator<Buffer> {
  for await (const { entry, content } of pieces) {
    yield codec.header(entry);
    if (content === undefined) continue;
    let written = 0;
    for await (const chunk of content()) {
      written += chunk.length;
      yield chunk;
    }
    if (written !== entry.sizeBytes)
      throw new Error(`archive/tar: ${entry.path} has ${written} bytes instead of ${entry.sizeBytes}`);
    const padding = tarPadding(written);
    if (padding.length > 0) yield padding;
  }
  yield TAR_END;
}
