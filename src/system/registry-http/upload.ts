/**
 * Uploading a blob (distribution-spec "Pushing blobs"): small ones in one request, others as one stream that is
 * continued where it broke off when the size is known, and begun again otherwise.
 */
import { createHash } from 'node:crypto';
import { Readable } from 'node:stream';
import { setTimeout as delay } from 'node:timers/promises';
import type { Digest } from '#types/digest.ts';
import type { BlobUpload, UploadedBlob } from './contract.ts';
import { contentError, RemoteRegistryError } from './errors.ts';
import { isBroken, type Session } from './session.ts';
import { failed } from './tokens.ts';
import { drop, type HttpAnswer } from './transport.ts';

/** Up to this a blob is sent in one request, and held in memory for that. */
const WHOLE_LIMIT_BYTES = 1024 * 1024;
/** Attempts of one blob, as docker's. */
const ATTEMPTS_LIMIT = 5;
const PAUSE_MS = 500;

interface Progress {
  /** Where the upload goes on; undefined before it has begun. */
  location: URL | undefined;
  /** Bytes the registry has. */
  offset: number;
}

/** Uploads to the repository whose upload URL is `start`. */
export async function uploadBlob(
  session: Session,
  start: URL,
  blob: BlobUpload,
  signal: AbortSignal,
): Promise<UploadedBlob> {
  const progress: Progress = { location: undefined, offset: 0 };
  for (let attempt = 1; ; attempt += 1) {
    try {
      progress.location ??= await begin(session, start, signal);
      if (blob.digest !== undefined && blob.sizeBytes !== undefined && blob.sizeBytes <= WHOLE_LIMIT_BYTES) {
        return await sendWhole(session, progress.location, { ...blob, digest: blob.digest }, signal);
      }
      const sent = await sendStream(session, { ...progress, location: progress.location }, blob, signal);
      await commit(session, sent.location, sent.digest, signal);
      return { digest: sent.digest, sizeBytes: sent.sizeBytes };
    } catch (error) {
      signal.throwIfAborted();
      if (attempt >= ATTEMPTS_LIMIT || !mayGoOn(error, progress.location !== undefined)) throw error;
      const pauseMs = PAUSE_MS * 2 ** (attempt - 1);
      blob.onRetry?.(pauseMs);
      await delay(pauseMs, undefined, { signal });
      Object.assign(progress, await resumePoint(session, progress, blob, signal));
    }
  }
}

/** Broken connections, failing servers, a token that ended in the meantime, and an offset the registry disputes. */
function mayGoOn(error: unknown, hasBegun: boolean): boolean {
  if (!(error instanceof RemoteRegistryError)) return false;
  if (isBroken(error)) return true;
  return hasBegun && (error.status >= 500 || [401, 404, 416].includes(error.status));
}

async function begin(session: Session, start: URL, signal: AbortSignal): Promise<URL> {
  const answer = await session.expect(
    { method: 'POST', url: start, headers: { 'content-length': '0' }, isRepeatable: true },
    signal,
  );
  drop(answer.body);
  return locationOf(answer);
}

/** Where an upload goes on, from an answer. */
export function locationOf(answer: HttpAnswer): URL {
  const location = answer.header('location');
  if (location === '' || !URL.canParse(location, answer.url.href)) {
    throw contentError('registry gave no location for an upload');
  }
  return new URL(location, answer.url.href);
}

function withDigest(location: URL, digest: Digest): URL {
  // Not through searchParams: it would rewrite what the registry may have signed.
  return new URL(`${location.href}${location.search === '' ? '?' : '&'}digest=${encodeURIComponent(digest)}`);
}

async function sendWhole(
  session: Session,
  location: URL,
  blob: BlobUpload & { digest: Digest },
  signal: AbortSignal,
): Promise<UploadedBlob> {
  const chunks: Buffer[] = [];
  for await (const chunk of blob.open()) chunks.push(chunk);
  const body = Buffer.concat(chunks);
  const headers = { 'content-type': 'application/octet-stream', 'content-length': String(body.length) };
  const answer = await session.expect({ method: 'PUT', url: withDigest(location, blob.digest), headers, body }, signal);
  drop(answer.body);
  blob.onProgress?.(body.length);
  return { digest: blob.digest, sizeBytes: body.length };
}

interface Sent extends UploadedBlob {
  readonly location: URL;
}

async function sendStream(
  session: Session,
  from: { location: URL; offset: number },
  blob: BlobUpload,
  signal: AbortSignal,
): Promise<Sent> {
  const hash = createHash('sha256');
  let sizeBytes = 0;
  let broken: unknown;
  const bytes = async function* (): AsyncGenerator<Buffer> {
    let isReading = true;
    try {
      for await (const chunk of blob.open()) {
        hash.update(chunk);
        const skip = Math.min(chunk.length, Math.max(0, from.offset - sizeBytes));
        sizeBytes += chunk.length;
        blob.onProgress?.(sizeBytes);
        isReading = false;
        if (skip < chunk.length) yield skip === 0 ? chunk : chunk.subarray(skip);
        isReading = true;
      }
    } catch (error) {
      // A request that breaks throws into the generator, too; that is not the source's failure.
      if (isReading) broken = error;
      throw error;
    }
  };
  const headers: Record<string, string> = { 'content-type': 'application/octet-stream' };
  if (blob.sizeBytes !== undefined) {
    headers['content-length'] = String(blob.sizeBytes - from.offset);
    if (from.offset > 0) headers['content-range'] = `${from.offset}-${blob.sizeBytes - 1}`;
  }
  const body = Readable.from(bytes(), { objectMode: false, highWaterMark: 256 * 1024 });
  try {
    const answer = await session.send({ method: 'PATCH', url: from.location, headers, body }, signal);
    if (answer.status < 200 || answer.status >= 300) throw await failed(answer);
    drop(answer.body);
    const digest = `sha256:${hash.digest('hex')}` as Digest;
    if (blob.digest !== undefined && blob.digest !== digest) {
      throw contentError(`blob ${blob.digest} has other content: ${digest}`);
    }
    return { location: locationOf(answer), digest, sizeBytes };
  } catch (error) {
    // Our own side failed, not the way to the registry.
    throw broken === undefined ? error : broken;
  } finally {
    body.destroy();
  }
}

async function commit(session: Session, location: URL, digest: Digest, signal: AbortSignal): Promise<void> {
  const headers = { 'content-length': '0' };
  const answer = await session.expect({ method: 'PUT', url: withDigest(location, digest), headers }, signal);
  drop(answer.body);
}

/** What the registry has of a broken upload. */
async function resumePoint(
  session: Session,
  progress: Progress,
  blob: BlobUpload,
  signal: AbortSignal,
): Promise<Progress> {
  const anew: Progress = { location: undefined, offset: 0 };
  // Compressed meanwhile: the end of the range could not be told, and registries want it.
  if (progress.location === undefined || blob.sizeBytes === undefined) return anew;
  const answer = await session
    .send({ method: 'GET', url: progress.location, headers: {} }, signal)
    .catch(() => undefined);
  if (answer === undefined) return anew;
  drop(answer.body);
  const end = /^(?:bytes=)?0-(\d+)$/.exec(answer.header('range'))?.[1];
  // `0-0` is said of nothing and of one byte alike.
  if (answer.status !== 204 || end === undefined || end === '0') return anew;
  const offset = Number(end) + 1;
  return offset >= blob.sizeBytes ? anew : { location: locationOf(answer), offset };
}
