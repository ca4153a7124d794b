/**
 * What `build` sends: a directory, a tar or a lone Dockerfile from stdin or a URL, and a Dockerfile that comes from
 * elsewhere. The daemon gets one tar and the Dockerfile's name in it.
 */
import { randomBytes } from 'node:crypto';
import type { Readable } from 'node:stream';
import { detectCompression } from '#system/tar/compression.ts';
import { ExitError } from '../args/usage-error.ts';
import { ignoreRules, packPath, packText } from './pack.ts';

const fs = process.getBuiltinModule('node:fs');
const nodePath = process.getBuiltinModule('node:path');

/** A Dockerfile is text written by people. */
const MAX_DOCKERFILE_BYTES = 16 * 1024 * 1024;
/** Enough to tell an archive from a text. */
const HEAD_BYTES = 1024;
const TAR_MAGIC_OFFSET = 257;

/** A context ready to be sent. */
export interface BuildContext {
  readonly tar: AsyncIterable<Buffer>;
  /** The Dockerfile inside it; empty lets the daemon choose. */
  readonly dockerfile: string;
}

function refuse(text: string): ExitError {
  return new ExitError(1, `${text}\n`);
}

async function readAll(source: AsyncIterable<Buffer>): Promise<Buffer> {
  const chunks: Buffer[] = [];
  let size = 0;
  for await (const chunk of source) {
    size += chunk.length;
    if (size > MAX_DOCKERFILE_BYTES) throw refuse('the Dockerfile is too long');
    chunks.push(chunk);
  }
  return Buffer.concat(chunks);
}

function isArchive(head: Buffer): boolean {
  return (
    detectCompression(head) !== 'none' || head.toString('latin1', TAR_MAGIC_OFFSET, TAR_MAGIC_OFFSET + 5) === 'ustar'
  );
}

/** Reads ahead; the bytes read come first again in the result. */
async function peek(source: AsyncIterable<Buffer>): Promise<{ head: Buffer; whole: AsyncIterable<Buffer> }> {
  const iterator = source[Symbol.asyncIterator]();
  let head: Buffer = Buffer.alloc(0);
  let next = await iterator.next();
  while (next.done !== true) {
    head = Buffer.concat([head, next.value]);
    if (head.length >= HEAD_BYTES) break;
    next = await iterator.next();
  }
  async function* whole(): AsyncGenerator<Buffer> {
    yield head;
    for (let more = await iterator.next(); more.done !== true; more = await iterator.next()) yield more.value;
  }
  return { head, whole: whole() };
}

/** An archive, or a Dockerfile that becomes one. */
export async function contextFromStream(source: AsyncIterable<Buffer>, dockerfile: string): Promise<BuildContext> {
  const { head, whole } = await peek(source);
  if (isArchive(head)) return { tar: whole, dockerfile };
  if (dockerfile === '-') throw new Error('build context is not an archive');
  if (dockerfile !== '') throw new Error('ambiguous Dockerfile source: both stdin and flag correspond to Dockerfiles');
  const text = await readAll(whole);
  return { tar: packNothingBut('Dockerfile', text), dockerfile: 'Dockerfile' };
}

async function* packNothingBut(name: string, text: Buffer): AsyncGenerator<Buffer> {
  const { TAR_END } = await import('#system/tar/writer.ts');
  yield* packText(name, text, Math.floor(Date.now() / 1000));
  yield TAR_END;
}

/** A context from an http or https URL. */
export async function contextFromUrl(url: string, dockerfile: string): Promise<BuildContext> {
  let response: Response;
  try {
    response = await fetch(url);
  } catch (error) {
    const cause = (error as Error).cause as Error | undefined;
    throw new Error(`unable to download remote context ${url}: Get "${url}": ${cause?.message ?? String(error)}`);
  }
  if (!response.ok || response.body === null)
    throw new Error(
      `unable to download remote context ${url}: failed to GET ${url} with status ${response.status} ${response.statusText}: ${(await response.text()).slice(0, HEAD_BYTES).trim()}`,
    );
  const { Readable } = process.getBuiltinModule('node:stream');
  const body: Readable = Readable.fromWeb(response.body as import('node:stream/web').ReadableStream);
  return contextFromStream(body as AsyncIterable<Buffer>, dockerfile);
}

function readIgnoreFile(context: string): string {
  const path = `${context}/.dockerignore`;
  return fs.existsSync(path) ? fs.readFileSync(path, 'utf8') : '';
}

/** The Dockerfile's path from the context; `../…` when it lies outside. */
function dockerfileIn(context: string, given: string): string {
  let path = given === '' ? nodePath.join(context, 'Dockerfile') : nodePath.resolve(given);
  if (given === '' && !fs.existsSync(path) && fs.existsSync(nodePath.join(context, 'dockerfile')))
    path = nodePath.join(context, 'dockerfile');
  let real: string;
  try {
    real = fs.realpathSync(path);
  } catch {
    throw refuse(
      `unable to prepare context: unable to evaluate symlinks in Dockerfile path: lstat ${path}: no such file or directory`,
    );
  }
  return nodePath.relative(context, real);
}

function realDirectory(path: string): string {
  try {
    const real = fs.realpathSync(path);
    if (fs.statSync(real).isDirectory()) return real;
    throw refuse(`unable to prepare context: context must be a directory: ${real}`);
  } catch (error) {
    if (error instanceof ExitError) throw error;
    throw refuse(`unable to prepare context: path ${JSON.stringify(path)} not found`);
  }
}

/** A directory, and the Dockerfile from stdin (`-`) or from outside of it. */
export async function contextFromDirectory(
  directory: string,
  given: string,
  stdin: AsyncIterable<Buffer>,
): Promise<BuildContext> {
  const root = realDirectory(directory);
  const inside = given === '-' ? '-' : dockerfileIn(root, given);
  const isOutside = inside === '-' || inside.startsWith('../');
  const rules = ignoreRules(readIgnoreFile(root));
  if (!isOutside) {
    // Compat: the Dockerfile and the ignore file are sent even when they are ignored.
    const excludes: typeof rules = (path, isDirectory) =>
      path === inside || path === '.dockerignore' ? 'keep' : rules(path, isDirectory);
    return { tar: packPath(root, '', { excludes }), dockerfile: inside };
  }
  const text = inside === '-' ? await readAll(stdin) : fs.readFileSync(given);
  // A name no file of the context has; an ignore file keeps it out of COPY.
  const name = `.dockerfile.${randomBytes(10).toString('hex')}`;
  const ignored = readIgnoreFile(root);
  const seconds = Math.floor(Date.now() / 1000);
  async function* added(): AsyncGenerator<Buffer> {
    yield* packText(name, text, seconds);
    yield* packText('.dockerignore', Buffer.from(`${ignored}\n.dockerignore\n${name}\n`), seconds);
  }
  const excludes: typeof rules = (path, isDirectory) => (path === '.dockerignore' ? 'skip' : rules(path, isDirectory));
  return { tar: packPath(root, '', { excludes, added: added() }), dockerfile: name };
}
