/**
 * One GET over a unix socket for short answers, HTTP/1.0 by hand: loading node:http takes longer than asking.
 * Only a 200 whose body ends with the connection or has the stated length counts; anything else is undefined,
 * and the caller asks again properly.
 */
import type { Socket } from 'node:net';

/** A longer answer is not one of those this is for. */
const MAX_ANSWER_BYTES = 1024 * 1024;

/** The body of a 200, else undefined. Rejects as a connection does. */
export async function getOnce(
  socketPath: string,
  path: string,
  headers: Readonly<Record<string, string>>,
): Promise<string | undefined> {
  const socket = process.getBuiltinModule('node:net').connect(socketPath);
  const lines = Object.entries(headers).map(([name, value]) => `${name}: ${value}\r\n`);
  socket.write(`GET ${path} HTTP/1.0\r\n${lines.join('')}\r\n`);
  return bodyOf(await readToEnd(socket));
}

function readToEnd(socket: Socket): Promise<Buffer> {
  const { promise, resolve, reject } = Promise.withResolvers<Buffer>();
  const chunks: Buffer[] = [];
  let size = 0;
  socket.on('data', (chunk: Buffer) => {
    chunks.push(chunk);
    size += chunk.length;
    if (size > MAX_ANSWER_BYTES) socket.destroy();
  });
  socket.on('error', reject);
  socket.on('close', () => resolve(Buffer.concat(chunks)));
  return promise;
}

/** Takes an answer apart; exported for its tests. */
export function bodyOf(answer: Buffer): string | undefined {
  const end = answer.indexOf('\r\n\r\n');
  if (end < 0) return undefined;
  const head = answer.toString('latin1', 0, end);
  if (!/^HTTP\/1\.[01] 200[ \r]/.test(`${head}\r`) || /\r\ntransfer-encoding:/i.test(head)) return undefined;
  const body = answer.subarray(end + 4);
  const length = /\r\ncontent-length: *(\d+)/i.exec(head)?.[1];
  return length !== undefined && Number(length) !== body.length ? undefined : body.toString('utf8');
}
