import assert from 'node:assert/strict';
import { execFileSync } from 'node:child_process';
import {
  closeSync,
  createReadStream,
  linkSync,
  mkdirSync,
  mkdtempSync,
  openSync,
  readFileSync,
  rmSync,
  statSync,
  symlinkSync,
  truncateSync,
  writeFileSync,
  writeSync,
} from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { test } from 'node:test';
import { gzipSync, zstdCompressSync } from 'node:zlib';
import fc from 'fast-check';
import { decompress } from './compression.ts';
import type { TarEntry, TarEntryType } from './contract.ts';
import { readTar } from './reader.ts';
import { TAR_END, TarWriter, tarBlocks } from './writer.ts';

function entryOf(fields: Partial<TarEntry> & { path: string }): TarEntry {
  return {
    type: 'file',
    linkPath: '',
    mode: 0o644,
    uid: 0,
    gid: 0,
    userName: '',
    groupName: '',
    sizeBytes: 0,
    modifiedNs: 0n,
    deviceMajor: 0,
    deviceMinor: 0,
    xattrs: new Map(),
    ...fields,
  };
}

async function* split(bytes: Buffer, size: number): AsyncGenerator<Buffer> {
  for (let at = 0; at < bytes.length; at += size) yield bytes.subarray(at, at + size);
}

async function collect(source: AsyncIterable<Buffer>): Promise<Buffer> {
  const chunks: Buffer[] = [];
  for await (const chunk of source) chunks.push(Buffer.from(chunk));
  return Buffer.concat(chunks);
}

async function readAll(archive: AsyncIterable<Buffer>): Promise<{ entry: TarEntry; content: Buffer }[]> {
  const entries = [];
  for await (const { entry, content } of readTar(archive)) entries.push({ entry, content: await collect(content) });
  return entries;
}

async function write(files: readonly { entry: TarEntry; content: Buffer }[]): Promise<Buffer> {
  const parts: Buffer[] = [];
  for (const { entry, content } of files) for await (const block of tarBlocks(entry, [content])) parts.push(block);
  return Buffer.concat([...parts, TAR_END]);
}

function temporary(context: { after(work: () => void): void }): string {
  const directory = mkdtempSync(join(tmpdir(), 'gantry-tar-'));
  context.after(() => rmSync(directory, { recursive: true, force: true }));
  return directory;
}

const name = fc
  .string({ unit: 'grapheme', minLength: 1, maxLength: 120 })
  .map((text) => text.replaceAll('\0', '0').replace(/\/+$/, 'x'))
  .filter((text) => text.isWellFormed());
const anyEntry = fc.record({
  path: name,
  type: fc.constantFrom<TarEntryType>('file', 'directory', 'symlink', 'link', 'character', 'block', 'fifo'),
  linkPath: name,
  mode: fc.integer({ min: 0, max: 0o7777 }),
  uid: fc.integer({ min: 0, max: 0xffffffff }),
  gid: fc.integer({ min: 0, max: 0xffffffff }),
  userName: fc.string({ maxLength: 40 }).map((text) => text.replaceAll('\0', '0')),
  groupName: fc.string({ maxLength: 40 }).map((text) => text.replaceAll('\0', '0')),
  modifiedNs: fc.bigInt({ min: -(10n ** 19n), max: 10n ** 20n }),
  deviceMajor: fc.integer({ min: 0, max: 0xfffff }),
  deviceMinor: fc.integer({ min: 0, max: 0xffffffff }),
  xattrs: fc
    .array(fc.tuple(fc.constantFrom('user.a', 'security.capability'), fc.uint8Array({ maxLength: 40 })), {
      maxLength: 2,
    })
    .map((pairs) => new Map(pairs.map(([key, value]) => [key, Buffer.from(value)]))),
  content: fc.uint8Array({ maxLength: 1500 }),
});

test('whatever is written reads back the same, in chunks of any size', async () => {
  await fc.assert(
    fc.asyncProperty(
      fc.array(anyEntry, { maxLength: 5 }),
      fc.integer({ min: 1, max: 2000 }),
      async (records, chunkBytes) => {
        const files = records.map(({ content, ...fields }) => {
          const bytes = Buffer.from(fields.type === 'file' ? content : []);
          const linked = fields.type === 'symlink' || fields.type === 'link';
          return {
            entry: entryOf({ ...fields, linkPath: linked ? fields.linkPath : '', sizeBytes: bytes.length }),
            content: bytes,
          };
        });
        assert.deepEqual(await readAll(split(await write(files), chunkBytes)), files);
      },
    ),
    { numRuns: 150 },
  );
});

test('names that are not UTF-8 keep their bytes', async () => {
  const path = `a${String.fromCharCode(0xdcff)}b`;
  const [file] = await readAll(split(await write([{ entry: entryOf({ path }), content: Buffer.alloc(0) }]), 512));
  assert.equal(file?.entry.path, path);
});

for (const format of ['gnu', 'pax', 'ustar', 'oldgnu']) {
  test(`archives of GNU tar in ${format} format are read, ours are listed by GNU tar`, async (context) => {
    const directory = temporary(context);
    const tree = join(directory, 'tree');
    const deep = join(tree, 'd'.repeat(90), 'e'.repeat(90));
    mkdirSync(deep, { recursive: true });
    writeFileSync(join(deep, 'file'), 'content');
    writeFileSync(join(tree, 'first'), 'x'.repeat(1000));
    linkSync(join(tree, 'first'), join(tree, 'second'));
    symlinkSync('first', join(tree, 'symlink'));
    const archive = execFileSync('tar', ['-C', tree, '--sort=name', `--format=${format}`, '-cf', '-', '.'], {
      maxBuffer: 1 << 26,
    });
    const files = await readAll(split(archive, 700));
    const found = new Map(files.map(({ entry, content }) => [entry.path, { entry, content }]));
    assert.equal(found.get(`./${'d'.repeat(90)}/${'e'.repeat(90)}/file`)?.content.toString(), 'content');
    assert.equal(found.get('./second')?.entry.type, 'link');
    assert.equal(found.get('./second')?.entry.linkPath, './first');
    assert.equal(found.get('./symlink')?.entry.linkPath, 'first');
    assert.equal(found.get('./first')?.entry.modifiedNs !== 0n, true);
    const listed = execFileSync('tar', ['-tf', '-'], { input: await write(files) })
      .toString()
      .trim()
      .split('\n');
    assert.deepEqual(
      listed,
      files.map(({ entry }) => entry.path + (entry.type === 'directory' ? '/' : '')),
    );
  });
}

for (const [format, version] of [
  ['gnu', '0.0'],
  ['pax', '0.0'],
  ['pax', '0.1'],
  ['pax', '1.0'],
] as const) {
  test(`sparse files in ${format} ${version} read as their whole content and as fragments`, async (context) => {
    const directory = temporary(context);
    const path = join(directory, 'sparse');
    const fd = openSync(path, 'w');
    for (let index = 0; index < 30; index += 1) writeSync(fd, `piece${index}`, index * 100_000);
    closeSync(fd);
    truncateSync(path, 5_000_000);
    const archive = execFileSync(
      'tar',
      ['-C', directory, `--format=${format}`, '--sparse', `--sparse-version=${version}`, '-cf', '-', 'sparse'],
      { maxBuffer: 1 << 26 },
    );
    assert.ok(archive.length < 1_000_000);
    const [file] = await readAll(split(archive, 4000));
    assert.equal(file?.entry.path, 'sparse');
    assert.equal(file?.entry.sizeBytes, statSync(path).size);
    assert.ok(file?.content.equals(readFileSync(path)));
    for await (const { sparse } of readTar(split(archive, 4000))) assert.ok((sparse?.fragments.length ?? 0) >= 30);
  });
}

test('truncated and corrupt archives are refused wherever they break', async () => {
  const archive = await write([
    { entry: entryOf({ path: 'a'.repeat(300), sizeBytes: 1000 }), content: Buffer.alloc(1000, 1) },
  ]);
  for (let length = 1; length < archive.length - 1024; length += 97) {
    if (length % 512 !== 0 || length > 512)
      await assert.rejects(readAll(split(archive.subarray(0, length), 512)), /EOF|header/, String(length));
  }
  for (const at of [0, 100, 124, 148, 300]) {
    const broken = Buffer.from(archive);
    broken[at] = (broken[at] ?? 0) ^ 0x15;
    await assert.rejects(readAll(split(broken, 512)), { message: 'archive/tar: invalid tar header' });
  }
  const huge = Buffer.from(archive);
  await assert.rejects(readAll(split(Buffer.concat([huge.subarray(0, 512), Buffer.alloc(100, 7)]), 512)));
});

test('an archive that stops within the padding of its last file is whole', async () => {
  const archive = await write([{ entry: entryOf({ path: 'a', sizeBytes: 28 }), content: Buffer.alloc(28, 1) }]);
  await readAll(split(archive.subarray(0, 512 + 28), 512));
  await readAll(split(archive.subarray(0, 512 + 100), 512));
  await assert.rejects(readAll(split(archive.subarray(0, 512 + 27), 512)), /EOF/);
});

test('extended headers are bounded', async () => {
  const value = Buffer.alloc(1 << 20, 97);
  const archive = await write([
    { entry: entryOf({ path: 'a', xattrs: new Map([['user.big', value]]) }), content: Buffer.alloc(0) },
  ]);
  await assert.rejects(readAll(split(archive, 65536)), { message: 'archive/tar: header field too long' });
});

test('the writer waits for its reader and refuses wrong lengths', async () => {
  const writer = new TarWriter();
  const content = Buffer.alloc(1 << 20, 5);
  let added = 0;
  const writing = (async () => {
    for (let index = 0; index < 8; index += 1) {
      await writer.add(entryOf({ path: `f${index}`, sizeBytes: content.length }), split(content, 65536));
      added += 1;
    }
    await writer.finish();
  })();
  await new Promise((resolve) => setTimeout(resolve, 20));
  assert.ok(added <= 1, 'nobody reads yet');
  assert.equal((await readAll(writer.readable)).length, 8);
  await writing;
  await assert.rejects(
    new TarWriter().add(entryOf({ path: 'f', sizeBytes: 3 }), [Buffer.from('ab')]),
    /missed writing 1 bytes/,
  );
  await assert.rejects(
    new TarWriter().add(entryOf({ path: 'f', sizeBytes: 1 }), [Buffer.from('ab')]),
    /write too long/,
  );
});

test('compressed archives are recognised, also in several members and tiny chunks', async () => {
  const text = Buffer.from('some text '.repeat(1000));
  const xz = execFileSync('xz', ['-c'], { input: text });
  for (const packed of [text, gzipSync(text), zstdCompressSync(text), xz]) {
    assert.ok((await collect(decompress(split(packed, 3)))).equals(text));
  }
  assert.ok(
    (await collect(decompress(split(Buffer.concat([gzipSync(text), gzipSync(text)]), 100)))).equals(
      Buffer.concat([text, text]),
    ),
  );
  assert.equal((await collect(decompress(split(Buffer.alloc(0), 1)))).length, 0);
  await assert.rejects(collect(decompress(split(gzipSync(text).subarray(0, 30), 5))));
  await assert.rejects(collect(decompress(split(xz.subarray(0, 60), 5))));
  await assert.rejects(
    collect(
      decompress(
        (async function* () {
          yield gzipSync(text).subarray(0, 20);
          throw new Error('connection lost');
        })(),
      ),
    ),
    /connection lost/,
  );
});

test('leaving early closes the source', async (context) => {
  const path = join(temporary(context), 'archive');
  writeFileSync(
    path,
    await write([{ entry: entryOf({ path: 'a', sizeBytes: 200_000 }), content: Buffer.alloc(200_000) }]),
  );
  const stream = createReadStream(path);
  for await (const { entry } of readTar(stream)) {
    assert.equal(entry.path, 'a');
    break;
  }
  assert.equal(stream.destroyed, true);
});

test('global headers count as extended headers: an endless row of them is refused', async () => {
  const header = (type: string): Buffer => {
    const block = Buffer.alloc(512);
    block.write('x', 0);
    block.write('0000644\0', 100);
    block.write('00000000000\0', 124);
    block.write('00000000000\0', 136);
    block.write(type, 156);
    block.write('ustar\x0000', 257);
    block.fill(' ', 148, 156);
    block.write(
      `${block
        .reduce((sum, byte) => sum + byte, 0)
        .toString(8)
        .padStart(6, '0')}\0 `,
      148,
    );
    return block;
  };
  const archive = (globals: number, rest: Buffer[]): AsyncIterable<Buffer> =>
    split(Buffer.concat([...Array.from({ length: globals }, () => header('g')), ...rest, TAR_END]), 512);
  assert.equal((await readAll(archive(16, [header('0')]))).length, 1);
  assert.equal((await readAll(archive(1, []))).length, 0);
  await assert.rejects(readAll(archive(17, [header('0')])), /invalid tar header/);
});
