/**
 * One HTTP request over node:http or node:https, with limits on every wait: until the answer begins, and between any two
 * pieces of its body. Redirects are the caller's business.
 */
import { type IncomingMessage, request as plainRequest } from 'node:http';
import { request as tlsRequest } from 'node:https';
import { GantryError } from '#types/errors.ts';

interface OutgoingRequest {
  readonly method: 'POST';
  readonly url: URL;
  readonly headers: Readonly<Record<string, string>>;
  readonly body?: string;
  /** Longest silence of the other side. */
  readonly timeoutMs: number;
}

/** Sends it; resolves when the answer's head is there. The caller reads or destroys the answer. */
function send(outgoing: OutgoingRequest, signal?: AbortSignal): Promise<IncomingMessage> {
  const { url, method, headers, body, timeoutMs } = outgoing;
  const { promise, resolve, reject } = Promise.withResolvers<IncomingMessage>();
  const make = url.protocol === 'https:' ? tlsRequest : plainRequest;
  const length = body === undefined ? {} : { 'Content-Length': String(Buffer.byteLength(body)) };
  const request = make(url, { method, headers: { ...headers, ...length }, agent: false, signal, timeout: timeoutMs });
  request.once('response', resolve);
  request.on('error', reject);
  request.on('timeout', () => {
    request.destroy(new GantryError('unavailable', `${url.host} has been silent for ${timeoutMs} ms`));
  });
  request.end(body);
  return promise;
}

/** POSTs a text; its status. The answer's body is not read. */
export async function postText(
  url: string,
  request: { headers: Readonly<Record<string, string>>; body: string; timeoutMs: number },
  signal: AbortSignal,
): Promise<number> {
  const limit = AbortSignal.any([signal, AbortSignal.timeout(request.timeoutMs)]);
  const response = await send({ method: 'POST', url: new URL(url), ...request }, limit);
  response.on('error', () => undefined);
  response.destroy();
  return response.statusCode ?? 0;
}
