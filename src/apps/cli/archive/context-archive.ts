/**
 * Exported contexts: a tar with meta.json and tls/<endpoint>/<file>. An imported one is hostile: only those names, no
 * way out of the store, and a limited size.
 */
import type { TarEntry } from '#system/tar/contract.ts';
import { readTar } from '#system/tar/reader.ts';
import { TAR_END, tarBlocks } from '#system/tar/writer.ts';
import type { Context, TlsFiles } from '../config/context-store.ts';

/** Compat: docker's own limit. */
const MAX_IMPORT_BYTES = 10 * 1024 * 1024;
const META_FILE = 'meta.json';

function entry(path: string, type: 'file' | 'directory', shape: { mode: number; sizeBytes: number }): TarEntry {
  return {
    path,
    type,
    linkPath: '',
    uid: 0,
    gid: 0,
    userName: '',
    groupName: '',
    modifiedNs: 0n,
    deviceMajor: 0,
    deviceMinor: 0,
    xattrs: new Map(),
    ...shape,
  };
}

function file(path: string, content: Buffer, mode: number): AsyncIterable<Buffer> {
  return tarBlocks(entry(path, 'file', { mode, sizeBytes: content.length }), content.length === 0 ? [] : [content]);
}

/** A context as a tar. */
export async function* packContext(context: Context, tls: TlsFiles): AsyncGenerator<Buffer> {
  yield* file(META_FILE, Buffer.from(JSON.stringify(context)), 0o644);
  yield* tarBlocks(entry('tls', 'directory', { mode: 0o700, sizeBytes: 0 }), []);
  for (const [endpoint, files] of tls) {
    yield* tarBlocks(entry(`tls/${endpoint}`, 'directory', { mode: 0o700, sizeBytes: 0 }), []);
    for (const [name, content] of files) yield* file(`tls/${endpoint}/${name}`, content, 0o600);
  }
  yield TAR_END;
}

function checkName(path: string): void {
  if (path !== META_FILE && !path.startsWith('tls/')) throw new Error(`${path}: unexpected context file`);
  if (path.split('/').some((part) => part === '' || part === '.' || part === '..'))
    throw new Error(`${path}: unexpected path format`);
  if (path.includes('\\')) throw new Error(`${path}: unexpected '\\' in path`);
}

async function* limited(source: AsyncIterable<Buffer>): AsyncGenerator<Buffer> {
  let size = 0;
  for await (const chunk of source) {
    size += chunk.length;
    if (size > MAX_IMPORT_BYTES) throw new Error('read exceeds the defined limit');
    yield chunk;
  }
}

async function contentOf(source: AsyncIterable<Buffer>): Promise<Buffer> {
  const chunks: Buffer[] = [];
  for await (const chunk of source) chunks.push(chunk);
  return Buffer.concat(chunks);
}

/** Reads an exported context; throws docker's texts. */
export async function unpackContext(source: AsyncIterable<Buffer>): Promise<{ context: Context; tls: TlsFiles }> {
  let context: Context | undefined;
  const tls = new Map<string, Map<string, Buffer>>();
  for await (const { entry: header, content } of readTar(limited(source))) {
    if (header.type !== 'file') continue;
    checkName(header.path);
    const data = await contentOf(content as AsyncIterable<Buffer>);
    if (header.path === META_FILE) {
      context = JSON.parse(data.toString()) as Context;
      continue;
    }
    const [, endpoint = '', name = '', ...more] = header.path.split('/');
    if (name === '' || more.length > 0) throw new Error('archive format is invalid');
    const files = tls.get(endpoint) ?? new Map<string, Buffer>();
    tls.set(endpoint, files.set(name, data));
  }
  if (context === undefined) throw new Error('invalid context: no metadata found');
  return { context, tls };
}
