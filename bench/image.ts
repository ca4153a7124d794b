/**
 * The image of the image rows: eight layers, 15,000 files, about 300 MB, as a docker-archive. Made from a seed, so
 * every run and both engines get the same bytes; files look like programs and text (gzip halves them).
 */
import { createHash } from 'node:crypto';
import { closeSync, openSync, writeSync } from 'node:fs';
import { tarCodec } from '#services/images/tar-codec.ts';
import { makeEntry } from '#system/tar/entry.ts';
import { TAR_END, tarPadding } from '#system/tar/writer.ts';

const LAYERS = 8;
const FILES = 15_000;
const TOTAL_BYTES = 300_000_000;
const FILES_PER_DIRECTORY = 40;
/** Of each file, this much is noise that does not compress. */
const NOISE = 0.35;

function numbersFrom(seed: number): () => number {
  let state = seed >>> 0;
  return () => {
    state = (state + 0x6d2b79f5) >>> 0;
    let mixed = Math.imul(state ^ (state >>> 15), 1 | state);
    mixed = (mixed + Math.imul(mixed ^ (mixed >>> 7), 61 | mixed)) ^ mixed;
    return ((mixed ^ (mixed >>> 14)) >>> 0) / 4_294_967_296;
  };
}

/** A pool that files are cut from: noise and words by turns. */
function pool(random: () => number): Buffer {
  const parts: Buffer[] = [];
  for (let count = 0; count < 2048; count += 1) {
    const noisy = random() < NOISE;
    const piece = Buffer.alloc(2048);
    if (noisy) for (let at = 0; at < piece.length; at += 4) piece.writeUInt32LE(Math.floor(random() * 2 ** 32), at);
    else
      for (let at = 0; at < piece.length; at += 8)
        piece.write(`w${Math.floor(random() * 4096).toString(16)} a b c `, at);
    parts.push(piece);
  }
  return Buffer.concat(parts);
}

/** Few large files and many small ones: sizes whose sum is about the wanted total. */
function fileSizes(random: () => number): number[] {
  const weights = Array.from({ length: FILES }, () => Math.exp(3 * random() ** 2 + 2 * random()));
  const sum = weights.reduce((total, weight) => total + weight, 0);
  return weights.map((weight) => Math.floor((weight / sum) * TOTAL_BYTES));
}

function* layerTar(layer: number, sizes: readonly number[], bytes: Buffer): Generator<Buffer> {
  const modifiedNs = 1_700_000_000_000_000_000n;
  for (let index = 0; index < sizes.length; index += 1) {
    const directory = `usr/lib/part${layer}/d${Math.floor(index / FILES_PER_DIRECTORY)}`;
    if (index % FILES_PER_DIRECTORY === 0) yield tarCodec.header(makeEntry(directory, 'directory', { modifiedNs }));
    const sizeBytes = sizes[index] ?? 0;
    const mode = index % 7 === 0 ? 0o755 : 0o644;
    yield tarCodec.header(makeEntry(`${directory}/f${index}`, 'file', { sizeBytes, modifiedNs, mode }));
    let at = (index * 7919 * (layer + 1)) % bytes.length;
    for (let rest = sizeBytes; rest > 0; ) {
      const piece = bytes.subarray(at, at + Math.min(rest, bytes.length - at));
      yield piece;
      rest -= piece.length;
      at = 0;
    }
    yield tarPadding(sizeBytes);
  }
  yield TAR_END;
}

function writeAll(fd: number, bytes: Buffer): void {
  for (let at = 0; at < bytes.length; ) at += writeSync(fd, bytes, at);
}

/** Writes the archive of an image named `reference`. */
export function writeBenchImage(path: string, reference: string, seed = 1): void {
  const random = numbersFrom(seed);
  const bytes = pool(random);
  const sizes = fileSizes(random);
  const fd = openSync(path, 'w');
  const diffIds: string[] = [];
  try {
    for (let layer = 0; layer < LAYERS; layer += 1) {
      const mine = sizes.filter((_, index) => index % LAYERS === layer);
      let sizeBytes = 0;
      const hash = createHash('sha256');
      for (const chunk of layerTar(layer, mine, bytes)) {
        sizeBytes += chunk.length;
        hash.update(chunk);
      }
      writeAll(fd, tarCodec.header(makeEntry(`layer${layer}.tar`, 'file', { sizeBytes })));
      for (const chunk of layerTar(layer, mine, bytes)) writeAll(fd, chunk);
      writeAll(fd, tarPadding(sizeBytes));
      diffIds.push(`sha256:${hash.digest('hex')}`);
    }
    const config = JSON.stringify({
      architecture: process.arch === 'arm64' ? 'arm64' : 'amd64',
      os: 'linux',
      created: '2024-01-01T00:00:00Z',
      config: { Cmd: ['true'] },
      rootfs: { type: 'layers', diff_ids: diffIds },
      history: diffIds.map((_, index) => ({ created: '2024-01-01T00:00:00Z', created_by: `layer ${index}` })),
    });
    const manifest = [
      { Config: 'config.json', RepoTags: [reference], Layers: diffIds.map((_, at) => `layer${at}.tar`) },
    ];
    for (const [name, text] of [
      ['config.json', config],
      ['manifest.json', JSON.stringify(manifest)],
    ] as const) {
      const content = Buffer.from(text);
      writeAll(fd, tarCodec.header(makeEntry(name, 'file', { sizeBytes: content.length })));
      writeAll(fd, Buffer.concat([content, tarPadding(content.length)]));
    }
    writeAll(fd, TAR_END);
  } finally {
    closeSync(fd);
  }
}
