/** `docker import`: one tar becomes an image of one layer. */
import { encodeImageConfig } from '#services/images/config.ts';
import type { Image } from '#services/images/contract.ts';
import type { ImageStore } from '#services/images/store.ts';
import type { TarCodec } from '#services/images/tar-codec.ts';
import { now } from '#system/clock/clock.ts';
import { networkText } from '#system/registry-http/network-errors.ts';
import { type ErrorKind, GantryError } from '#types/errors.ts';
import { hostPlatform, type Platform } from '#types/platform.ts';
import type { Reference } from '#types/reference.ts';
import { applyChanges } from './changes.ts';
import { importLayer } from './layer.ts';
import { reportProgress, type WriteProgress } from './progress.ts';
import { type EmitEvent, imageAttributes } from './remove.ts';
import { nameImage } from './tag.ts';

export interface ImportContext {
  readonly images: ImageStore;
  readonly tar: TarCodec;
  readonly emit: EmitEvent;
}

export interface ImportOptions {
  /** `-`, or an http(s) URL that is fetched instead of reading `body`. */
  readonly source: string;
  readonly body: AsyncIterable<Buffer>;
  readonly message: string;
  readonly changes: readonly string[];
  readonly platform?: Platform;
  readonly reference?: Reference;
  readonly write: WriteProgress;
  /** Longest wait for a server's answer to begin; for tests. */
  readonly startTimeoutMs?: number;
}

/** Longest wait for a server's answer to begin. */
const DOWNLOAD_START_TIMEOUT_MS = 60_000;

async function openSource(options: ImportOptions, signal?: AbortSignal): Promise<AsyncIterable<Buffer>> {
  if (options.source === '-') return options.body;
  const url = /^https?:\/\//.test(options.source) ? options.source : `http://${options.source}`;
  if (!URL.canParse(url)) throw new GantryError('invalid', `parse "${url}": invalid URI for request`);
  // Only the wait for the answer's head is limited: the body may take its time.
  const starting = new AbortController();
  const timer = setTimeout(
    () => starting.abort(new Error('timeout awaiting response headers')),
    options.startTimeoutMs ?? DOWNLOAD_START_TIMEOUT_MS,
  );
  let response: Response;
  try {
    response = await fetch(url, {
      signal: signal === undefined ? starting.signal : AbortSignal.any([signal, starting.signal]),
    });
  } catch (error) {
    // fetch hides what happened in the cause.
    const cause = error instanceof TypeError && error.cause !== undefined ? error.cause : error;
    throw new GantryError('system', `Get "${url}": ${networkText(cause, new URL(url))}`, { cause: error });
  } finally {
    clearTimeout(timer);
  }
  if (!response.ok || response.body === null) {
    throw await refusal(url, response);
  }
  await options.write({ status: `Downloading from ${url}` });
  const total = Number(response.headers.get('content-length') ?? 0);
  const chunks = async function* (body: AsyncIterable<Uint8Array>): AsyncGenerator<Buffer> {
    for await (const chunk of body) yield Buffer.from(chunk.buffer, chunk.byteOffset, chunk.byteLength);
  };
  return reportProgress(chunks(response.body), { id: '', status: 'Importing', total, write: options.write });
}

/** Bytes of a refusing server's answer that are told. */
const REFUSAL_LIMIT_BYTES = 4096;
const KIND_BY_STATUS: Readonly<Record<number, ErrorKind>> = {
  400: 'invalid',
  401: 'unauthorized',
  403: 'forbidden',
  404: 'notFound',
};

async function refusal(url: string, response: Response): Promise<GantryError> {
  const chunks: Uint8Array[] = [];
  let length = 0;
  for await (const chunk of (response.body ?? []) as AsyncIterable<Uint8Array>) {
    chunks.push(chunk);
    length += chunk.length;
    if (length >= REFUSAL_LIMIT_BYTES) break;
  }
  const body = Buffer.concat(chunks).subarray(0, REFUSAL_LIMIT_BYTES).toString('utf8').trim();
  const text = `failed to GET ${url} with status ${response.status} ${response.statusText}: ${body}`;
  return new GantryError(KIND_BY_STATUS[response.status] ?? 'system', text);
}

/** Imports; the last message is the new ID. */
export async function importImage(
  context: ImportContext,
  options: ImportOptions,
  signal?: AbortSignal,
): Promise<Image> {
  const { images } = context;
  const platform = options.platform ?? hostPlatform();
  if (platform.os !== 'linux') throw new GantryError('invalid', 'operating system is not supported');
  // Changes are checked before any byte is read.
  const config = applyChanges({}, options.changes);
  const source = await openSource(options, signal);
  const created = now();
  using hold = images.hold();
  const layer = await importLayer(source, { images, tar: context.tar, hold, parent: undefined }, signal);
  const bytes = encodeImageConfig({
    ...platform,
    created,
    comment: options.message,
    config,
    diffIds: [layer.diffId],
    history: [{ created, comment: options.message }],
  });
  const image = await images.create(bytes, {});
  if (options.reference !== undefined)
    nameImage(images, image.id, { reference: options.reference, emit: context.emit });
  context.emit('image', 'import', image.id, imageAttributes(image, image.id));
  await options.write({ status: image.id });
  return images.get(image.id) ?? image;
}
