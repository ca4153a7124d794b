/**
 * ttrpc over a unix socket: unary calls in both roles. A message is a 10-byte header (length and stream
 * big-endian, type, flags) and a protobuf Request or Response.
 *
 * Invariant: every call settles: by its response, by its signal, or as `unavailable` when the connection
 * ends. Follows containerd/ttrpc PROTOCOL.md; streams (type 3) are not used by the Task API.
 */
import { connect, type Socket } from 'node:net';
import { type ErrorKind, errorMessage, GantryError } from '#types/errors.ts';
import { RPC_REQUEST, RPC_RESPONSE, type RpcRequest, type RpcResponse, type RpcStatus } from './messages.ts';
import { decode, encode, type FieldTable } from './protobuf.ts';

const HEADER_BYTES = 10;
/** ttrpc's own limit; a longer message means the peer is broken. */
const MAX_MESSAGE_BYTES = 4 * 1024 * 1024;
const TYPE_REQUEST = 1;
const TYPE_RESPONSE = 2;
/** gRPC code → kind and the class text containerd appends to a message. */
const CODES: Readonly<Record<number, readonly [ErrorKind, string]>> = {
  1: ['cancelled', 'context canceled'],
  3: ['invalid', 'invalid argument'],
  4: ['cancelled', 'context deadline exceeded'],
  5: ['notFound', 'not found'],
  6: ['conflict', 'already exists'],
  7: ['forbidden', 'permission denied'],
  8: ['system', 'resource exhausted'],
  9: ['conflict', 'failed precondition'],
  10: ['conflict', 'aborted'],
  11: ['invalid', 'out of range'],
  12: ['notImplemented', 'not implemented'],
  13: ['system', 'internal'],
  14: ['unavailable', 'unavailable'],
  15: ['system', 'data loss'],
  16: ['unauthorized', 'unauthenticated'],
};

/** Turns a failed call's status into an error; the text ends in its class as containerd's clients print it. */
export function statusError(status: RpcStatus): GantryError {
  const [kind, className] = CODES[status.code] ?? (['system', 'unknown'] as const);
  const text = status.message === className || status.message.endsWith(`: ${className}`);
  return new GantryError(kind, text ? status.message : `${status.message}: ${className}`);
}

/** Calls `onMessage` for each whole message in a socket's bytes. */
export class MessageParser {
  readonly #onMessage: (type: number, stream: number, body: Buffer) => void;
  #rest: Buffer = Buffer.alloc(0);

  constructor(onMessage: (type: number, stream: number, body: Buffer) => void) {
    this.#onMessage = onMessage;
  }

  /** Throws when the peer announces a message above the protocol's limit. */
  push(chunk: Buffer): void {
    let data = this.#rest.length === 0 ? chunk : Buffer.concat([this.#rest, chunk]);
    while (data.length >= HEADER_BYTES) {
      const length = data.readUInt32BE(0);
      if (length > MAX_MESSAGE_BYTES) {
        throw new GantryError('system', `message length ${length} exceed maximum message size of ${MAX_MESSAGE_BYTES}`);
      }
      if (data.length < HEADER_BYTES + length) break;
      const body = data.subarray(HEADER_BYTES, HEADER_BYTES + length);
      this.#onMessage(data.readUInt8(8), data.readUInt32BE(4), body);
      data = data.subarray(HEADER_BYTES + length);
    }
    this.#rest = data;
  }
}

/** One framed message. */
export function frameMessage(type: number, stream: number, body: Buffer): Buffer {
  const message = Buffer.allocUnsafe(HEADER_BYTES + body.length);
  message.writeUInt32BE(body.length, 0);
  message.writeUInt32BE(stream, 4);
  message.writeUInt8(type, 8);
  message.writeUInt8(0, 9);
  body.copy(message, HEADER_BYTES);
  return message;
}

interface PendingCall {
  readonly resolve: (payload: Buffer) => void;
  readonly reject: (error: Error) => void;
}

/** The calling side of one connection. */
export class TtrpcClient implements Disposable {
  /** Resolves when the connection has ended, whoever ended it. */
  readonly closed: Promise<void>;
  readonly #socket: Socket;
  readonly #pending = new Map<number, PendingCall>();
  readonly #metadata: RpcRequest['metadata'];
  /** Client streams are odd. */
  #nextStream = 1;
  #ended = false;

  constructor(socket: Socket, metadata: Readonly<Record<string, string>>) {
    this.#socket = socket;
    this.#metadata = Object.entries(metadata).map(([key, value]) => ({ key, value }));
    const parser = new MessageParser((type, stream, body) => this.#receive(type, stream, body));
    const { promise, resolve } = Promise.withResolvers<void>();
    this.closed = promise;
    socket.on('data', (chunk: Buffer) => {
      try {
        parser.push(chunk);
      } catch (error) {
        socket.destroy(error as Error);
      }
    });
    socket.on('error', () => {});
    socket.on('close', () => {
      this.#end();
      resolve();
    });
  }

  /** Calls a unary method; aborting settles the promise, the peer may still do the work. */
  call(service: string, method: string, payload: Buffer, signal?: AbortSignal): Promise<Buffer> {
    if (this.#ended) return Promise.reject(closedError());
    if (signal?.aborted === true) return Promise.reject(cancelledError(signal));
    const stream = this.#nextStream;
    this.#nextStream += 2;
    const { promise, resolve, reject } = Promise.withResolvers<Buffer>();
    const onAbort = (): void => {
      this.#pending.delete(stream);
      reject(cancelledError(signal));
    };
    const settle = (): void => signal?.removeEventListener('abort', onAbort);
    this.#pending.set(stream, {
      resolve: (bytes) => {
        settle();
        resolve(bytes);
      },
      reject: (error) => {
        settle();
        reject(error);
      },
    });
    signal?.addEventListener('abort', onAbort, { once: true });
    const request: RpcRequest = { service, method, payload, metadata: this.#metadata ?? [] };
    this.#socket.write(frameMessage(TYPE_REQUEST, stream, encode(RPC_REQUEST, request)));
    return promise;
  }

  [Symbol.dispose](): void {
    this.#end();
    this.#socket.destroy();
  }

  #receive(type: number, stream: number, body: Buffer): void {
    const call = this.#pending.get(stream);
    if (type !== TYPE_RESPONSE || call === undefined) return;
    this.#pending.delete(stream);
    try {
      const response = decode<RpcResponse>(RPC_RESPONSE, body);
      const { status } = response;
      if (status !== undefined && status.code !== 0) call.reject(statusError(status));
      else call.resolve(response.payload);
    } catch (error) {
      call.reject(error as Error);
    }
  }

  #end(): void {
    this.#ended = true;
    for (const call of this.#pending.values()) call.reject(closedError());
    this.#pending.clear();
  }
}

function closedError(): GantryError {
  return new GantryError('unavailable', 'ttrpc: closed: unavailable');
}

function cancelledError(signal: AbortSignal | undefined): GantryError {
  return new GantryError('cancelled', 'context canceled', { cause: signal?.reason });
}

/** Connects to a unix socket path; `unavailable` when nobody listens. */
export async function connectTtrpc(
  path: string,
  metadata: Readonly<Record<string, string>>,
  signal?: AbortSignal,
): Promise<TtrpcClient> {
  signal?.throwIfAborted();
  const { promise, resolve, reject } = Promise.withResolvers<void>();
  const socket = connect(path);
  const onAbort = (): void => {
    socket.destroy();
    reject(cancelledError(signal));
  };
  signal?.addEventListener('abort', onAbort, { once: true });
  socket.once('connect', resolve);
  socket.once('error', (error) => reject(new GantryError('unavailable', error.message, { cause: error })));
  try {
    await promise;
  } catch (error) {
    socket.destroy();
    throw error;
  } finally {
    signal?.removeEventListener('abort', onAbort);
  }
  return new TtrpcClient(socket, metadata);
}

/** Answers one unary request; the result is the response message's bytes. */
export type TtrpcHandler = (request: RpcRequest) => Buffer | Promise<Buffer>;

/** Serves unary calls on an accepted socket until it closes. */
export function serveTtrpc(socket: Socket, handler: TtrpcHandler): void {
  const answer = async (stream: number, body: Buffer): Promise<void> => {
    const reply = await respond(body, handler);
    if (!socket.destroyed) socket.write(frameMessage(TYPE_RESPONSE, stream, reply));
  };
  const parser = new MessageParser((type, stream, body) => {
    if (type === TYPE_REQUEST) void answer(stream, body);
  });
  socket.on('data', (chunk: Buffer) => {
    try {
      parser.push(chunk);
    } catch {
      socket.destroy();
    }
  });
  socket.on('error', () => socket.destroy());
}

async function respond(body: Buffer, handler: TtrpcHandler): Promise<Buffer> {
  try {
    return encode(RPC_RESPONSE, { payload: await handler(decode<RpcRequest>(RPC_REQUEST, body)) });
  } catch (error) {
    const code = error instanceof GantryError && error.kind === 'notImplemented' ? 12 : 2;
    return encode(RPC_RESPONSE, { status: { code, message: errorMessage(error) } });
  }
}

/** Encodes a request, calls, decodes the response. */
export async function callMessage<T>(
  client: TtrpcClient,
  target: {
    readonly service: string;
    readonly method: string;
    readonly request: FieldTable;
    readonly response: FieldTable;
  },
  value: object,
  signal?: AbortSignal,
): Promise<T> {
  const payload = await client.call(target.service, target.method, encode(target.request, value), signal);
  return decode<T>(target.response, payload);
}
