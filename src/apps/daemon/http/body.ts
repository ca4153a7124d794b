/** Request bodies: dockerd's Content-Type rules, a size limit and the Go-like decoder. */
import type { IncomingMessage } from 'node:http';
import { GantryError } from '#types/errors.ts';
import { DecodeError, decodeJson, MAX_JSON_BODY_BYTES } from '#wire/decode.ts';

const TOKEN = "[!#$%&'*+.^_`|~0-9A-Za-z-]+";
const MEDIA_TYPE = new RegExp(`^(${TOKEN})/(${TOKEN})$`);

/** Whether the request announces a body. */
export function hasBody(request: IncomingMessage): boolean {
  const length = request.headers['content-length'];
  return request.headers['transfer-encoding'] !== undefined || (length !== undefined && Number(length) !== 0);
}

/** Why Go's mime.ParseMediaType refuses a header, or undefined. */
function mediaTypeProblem(mediaType: string): string | undefined {
  if (mediaType === '') return 'mime: no media type';
  if (MEDIA_TYPE.test(mediaType)) return undefined;
  const slash = mediaType.indexOf('/');
  if (slash < 0) return new RegExp(`^${TOKEN}$`).test(mediaType) ? undefined : 'mime: expected slash after first token';
  if (!new RegExp(`^${TOKEN}/`).test(mediaType)) return 'mime: expected slash after first token';
  if (slash === mediaType.length - 1) return 'mime: expected token after slash';
  return 'mime: unexpected content after media subtype';
}

/** Throws `invalid` unless the request's Content-Type is JSON; none is needed without a body. */
export function checkForJson(request: IncomingMessage): void {
  const header = request.headers['content-type'] ?? '';
  if (header === '' && !hasBody(request)) return;
  const mediaType = (header.split(';')[0] ?? '').trim().toLowerCase();
  const problem = mediaTypeProblem(mediaType);
  if (problem !== undefined) {
    throw new GantryError('invalid', `malformed Content-Type header (${header}): ${problem}`);
  }
  if (mediaType !== 'application/json') {
    throw new GantryError('invalid', `unsupported Content-Type header (${header}): must be 'application/json'`);
  }
}

/**
 * The bytes of a streamed body. A reader that stops early does not destroy the request, because its socket still has
 * to carry the answer; what was not read is thrown away.
 */
export async function* bodyBytes(request: IncomingMessage): AsyncGenerator<Buffer> {
  try {
    yield* request.iterator({ destroyOnReturn: false }) as AsyncIterable<Buffer>;
  } finally {
    request.resume();
  }
}

/** How much of a too large body is still read, so that the client gets to see the answer. */
const MAX_DISCARDED_BYTES = 4 * MAX_JSON_BODY_BYTES;

async function readText(request: IncomingMessage): Promise<string> {
  const chunks: Buffer[] = [];
  let sizeBytes = 0;
  // The request is not destroyed on a failure: its socket carries the answer.
  for await (const chunk of request.iterator({ destroyOnReturn: false }) as AsyncIterable<Buffer>) {
    sizeBytes += chunk.length;
    if (sizeBytes <= MAX_JSON_BODY_BYTES) chunks.push(chunk);
    else chunks.length = 0;
    if (sizeBytes > MAX_DISCARDED_BYTES) break;
  }
  if (sizeBytes > MAX_JSON_BODY_BYTES) throw new GantryError('invalid', 'invalid JSON: http: request body too large');
  return Buffer.concat(chunks).toString('utf8');
}

/** Reads and decodes a JSON body by definition; undefined when the request has no body. */
export async function readOptionalBody<T>(request: IncomingMessage, schema: string): Promise<T | undefined> {
  checkForJson(request);
  if (!hasBody(request)) return undefined;
  return await readBody<T>(request, schema);
}

/** Reads and decodes a JSON body; an empty one is refused with dockerd's text. */
export async function readBody<T>(request: IncomingMessage, schema: string): Promise<T> {
  checkForJson(request);
  const text = hasBody(request) ? await readText(request) : '';
  try {
    const value = decodeJson<T>(text, schema);
    if (value !== undefined) return value;
  } catch (error) {
    if (error instanceof DecodeError) throw new GantryError('invalid', error.message);
    throw error;
  }
  throw new GantryError('invalid', 'invalid JSON: got EOF while reading request body');
}
