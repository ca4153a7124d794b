/**
 * A blob's bytes as one stream, whatever happens to the connections it comes over: a broken one is followed by a new
 * request for the rest. The number of attempts without progress is bounded, and so are the bytes.
 */
import { passBytes } from '#system/kernel/buffers.ts';
import type { Digest } from '#types/digest.ts';
import { contentError, RemoteRegistryError, withRequest } from './errors.ts';
import { networkError } from './network-errors.ts';
import { isBroken, type Session } from './session.ts';
import { failed } from './tokens.ts';
import { drop, type HttpAnswer } from './transport.ts';

/** Failures in a row that brought nothing new; after them the caller decides whether and when to go on. */
const FAILURES_LIMIT = 2;
/** Connections one stream may take, however little each of them brings. */
const CONNECTIONS_LIMIT = 50;

export interface Download {
  readonly session: Session;
  readonly url: URL;
  readonly digest: Digest;
  readonly sizeBytes: number;
  readonly offset: number;
}

/** Opens the download; refusals come at once, breaks later are mended while reading. */
export async function openDownload(download: Download, signal: AbortSignal): Promise<AsyncIterable<Buffer>> {
  const first = await request(download, download.offset, signal);
  return read(download, first, signal);
}

/** One request from `offset` on; skips what a registry without ranges sends again. */
async function request(download: Download, offset: number, signal: AbortSignal): Promise<AsyncIterable<Buffer>> {
  const { session, url, sizeBytes } = download;
  const headers: Record<string, string> = { 'accept-encoding': 'identity' };
  if (offset > 0) headers['range'] = `bytes=${offset}-${sizeBytes - 1}`;
  const answer = await session.send({ method: 'GET', url, headers }, signal);
  if (answer.status === 206 && offset > 0) {
    checkRange(answer, offset);
    return pieces(answer, 0);
  }
  if (answer.status === 200) {
    checkLength(answer, sizeBytes);
    return pieces(answer, offset);
  }
  throw await failed(answer);
}

function checkRange(answer: HttpAnswer, offset: number): void {
  const start = /^bytes (\d+)-/.exec(answer.header('content-range'))?.[1];
  if (start !== undefined && Number(start) === offset) return;
  drop(answer.body);
  throw contentError(`expected range starting at ${offset}, got "${answer.header('content-range')}"`);
}

function checkLength(answer: HttpAnswer, sizeBytes: number): void {
  const length = answer.header('content-length');
  if (length === '' || Number(length) === sizeBytes) return;
  drop(answer.body);
  throw contentError(`blob has ${length} bytes, its descriptor says ${sizeBytes}`);
}

async function* pieces(answer: HttpAnswer, skipBytes: number): AsyncGenerator<Buffer> {
  let skip = skipBytes;
  try {
    for await (const chunk of answer.body as AsyncIterable<Buffer>) {
      // The HTTP parser copies what the socket gives: this much is dead already.
      passBytes(chunk.length);
      if (skip >= chunk.length) skip -= chunk.length;
      else {
        yield skip === 0 ? chunk : chunk.subarray(skip);
        skip = 0;
      }
    }
  } finally {
    answer.body.destroy();
  }
}

async function* read(download: Download, first: AsyncIterable<Buffer>, signal: AbortSignal): AsyncGenerator<Buffer> {
  const { sizeBytes, url } = download;
  let offset = download.offset;
  let failures = 0;
  let connections = 0;
  for (let source: AsyncIterable<Buffer> | undefined = first; ; source = undefined) {
    const start = offset;
    connections += 1;
    try {
      for await (const chunk of source ?? (await request(download, offset, signal))) {
        offset += chunk.length;
        if (offset > sizeBytes) throw contentError(`blob ${download.digest} is larger than ${sizeBytes} bytes`);
        yield chunk;
      }
      if (offset === sizeBytes) return;
      throw new RemoteRegistryError('system', 'unexpected EOF', { failure: 'network' });
    } catch (error) {
      signal.throwIfAborted();
      const known =
        error instanceof RemoteRegistryError ? error : withRequest('GET', url.href, networkError(error, url));
      failures = offset > start ? 1 : failures + 1;
      if (failures >= FAILURES_LIMIT || connections >= CONNECTIONS_LIMIT || !isTemporary(known)) throw known;
    }
  }
}

function isTemporary(error: RemoteRegistryError): boolean {
  return isBroken(error) || /connection refused/.test(error.message) || error.status === 429 || error.status >= 500;
}
