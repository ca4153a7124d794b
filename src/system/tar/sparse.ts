/** GNU sparse files: old GNU header maps, PAX 0.0, 0.1 and 1.0 (GNU tar manual, "Storing Sparse Files"). */
import { setImmediate } from 'node:timers/promises';
import type { TarFragment } from './contract.ts';
import { BLOCK_BYTES, invalidHeader, numberField } from './header.ts';
import { paxInteger } from './pax.ts';
import type { ByteSource } from './source.ts';

/** More fragments than this in one file is taken for an attack on memory. */
const FRAGMENTS_MAX = 1_000_000;
const ZEROS = Buffer.alloc(1 << 20);
/** The event loop gets a turn after this many chunks of zeros. */
const HOLE_CHUNKS_PER_TURN = 64;

export interface SparseMap {
  readonly sizeBytes: number;
  readonly fragments: readonly TarFragment[];
}

function checked(sizeBytes: number, fragments: TarFragment[]): SparseMap {
  let end = 0;
  for (const { offset, length } of fragments) {
    if (offset < end || length < 0 || offset + length > sizeBytes) throw invalidHeader();
    end = offset + length;
  }
  return { sizeBytes, fragments: fragments.filter(({ length }) => length > 0) };
}

/** Old GNU: four fragments in the header, twenty-one in each extension block. */
export async function readOldGnuMap(block: Buffer, source: ByteSource): Promise<SparseMap> {
  const fragments: TarFragment[] = [];
  const sizeBytes = numberField(block, 483, 12);
  let [table, count, start, more] = [block, 4, 386, block[482] !== 0];
  for (;;) {
    for (let index = 0; index < count; index += 1) {
      const at = start + index * 24;
      if (table[at] === 0) break;
      fragments.push({ offset: numberField(table, at, 12), length: numberField(table, at + 12, 12) });
    }
    if (!more) return checked(sizeBytes, fragments);
    if (fragments.length > FRAGMENTS_MAX) throw invalidHeader();
    const next = await source.read(BLOCK_BYTES);
    if (next === undefined) throw invalidHeader();
    [table, count, start, more] = [next, 21, 0, next[504] !== 0];
  }
}

/** PAX 0.0 (repeated offset and numbytes) and 0.1 (one list). Undefined when the records hold no map. */
export function paxMap(records: readonly (readonly [string, Buffer])[]): SparseMap | undefined {
  let sizeBytes: number | undefined;
  const numbers: number[] = [];
  for (const [key, value] of records) {
    if (key === 'GNU.sparse.size' || key === 'GNU.sparse.realsize') sizeBytes = paxInteger(value);
    else if (key === 'GNU.sparse.offset' || key === 'GNU.sparse.numbytes') numbers.push(paxInteger(value));
    else if (key === 'GNU.sparse.map')
      numbers.push(
        ...value
          .toString('latin1')
          .split(',')
          .map((text) => paxInteger(Buffer.from(text))),
      );
  }
  return sizeBytes === undefined ? undefined : checked(sizeBytes, pairs(numbers));
}

function pairs(numbers: readonly number[]): TarFragment[] {
  if (numbers.length % 2 !== 0) throw invalidHeader();
  const fragments: TarFragment[] = [];
  for (let index = 0; index < numbers.length; index += 2) {
    fragments.push({ offset: numbers[index] as number, length: numbers[index + 1] as number });
  }
  return fragments;
}

/** PAX 1.0: the map stands before the data, decimal lines padded to a block. Also says how long it is. */
export async function readPax1Map(sizeBytes: number, source: ByteSource): Promise<SparseMap & { mapBytes: number }> {
  let text = '';
  let mapBytes = 0;
  const wanted = (): number => {
    const first = /^([0-9]{1,10})\n/.exec(text);
    if (first === null && text.length > BLOCK_BYTES) throw invalidHeader();
    return first === null ? 1 : 1 + 2 * Number(first[1]);
  };
  let lines = 0;
  while (lines < wanted()) {
    if (wanted() > 2 * FRAGMENTS_MAX) throw invalidHeader();
    const block = await source.read(BLOCK_BYTES);
    if (block === undefined) throw invalidHeader();
    mapBytes += BLOCK_BYTES;
    const piece = block.toString('latin1');
    for (let at = piece.indexOf('\n'); at >= 0; at = piece.indexOf('\n', at + 1)) lines += 1;
    text += piece;
  }
  const numbers = text
    .split('\n')
    .slice(1, wanted())
    .map((line) => paxInteger(Buffer.from(line)));
  return { ...checked(sizeBytes, pairs(numbers)), mapBytes };
}

async function* zeros(length: number): AsyncGenerator<Buffer> {
  let turn = 0;
  for (let rest = length; rest > 0; rest -= ZEROS.length) {
    turn += 1;
    if (turn % HOLE_CHUNKS_PER_TURN === 0) await setImmediate();
    yield rest < ZEROS.length ? ZEROS.subarray(0, rest) : ZEROS;
  }
}

/** The whole file: data with its holes as zeros. */
export async function* expand(map: SparseMap, data: AsyncIterable<Buffer>): AsyncGenerator<Buffer> {
  let at = 0;
  let index = 0;
  let left = map.fragments[0]?.length ?? 0;
  for await (const chunk of data) {
    let rest = chunk;
    while (rest.length > 0) {
      const fragment = map.fragments[index];
      if (fragment === undefined) throw invalidHeader();
      if (at < fragment.offset) yield* zeros(fragment.offset - at);
      const piece = rest.subarray(0, left);
      yield piece;
      rest = rest.subarray(piece.length);
      left -= piece.length;
      at = fragment.offset + fragment.length - left;
      if (left > 0) continue;
      index += 1;
      left = map.fragments[index]?.length ?? 0;
    }
  }
  if (at < map.sizeBytes) yield* zeros(map.sizeBytes - at);
}
