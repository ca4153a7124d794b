/**
 * A minimal WebSocket server end (RFC 6455): the handshake and a duplex of unframed bytes.
 *
 * Payload is passed on as it arrives, so a frame of any length needs no buffer; control frames are bounded by
 * the protocol (125 bytes). Anything that breaks the protocol closes the connection.
 */
import { createHash } from 'node:crypto';
import type { IncomingMessage } from 'node:http';
import { Duplex } from 'node:stream';
import { GantryError } from '#types/errors.ts';

const ACCEPT_SUFFIX = '258EAFA5-E914-47DA-95CA-C5AB0DC85B11';
const MAX_CONTROL_BYTES = 125;
/** Largest frame header: 2 bytes, 8 of length, 4 of mask. */
const MAX_HEADER_BYTES = 14;

const OPCODE = { continuation: 0, text: 1, binary: 2, close: 8, ping: 9, pong: 10 } as const;

/** What outgoing frames are marked as. */
export type FrameType = 'text' | 'binary';

/** The answer's head for a valid handshake; throws `invalid` otherwise. */
export function acceptHandshake(request: IncomingMessage): string {
  const key = request.headers['sec-websocket-key'];
  const isUpgrade = request.headers.upgrade?.toLowerCase() === 'websocket';
  if (!isUpgrade || key === undefined || Buffer.from(key, 'base64').length !== 16) {
    throw new GantryError('invalid', 'not websocket protocol');
  }
  if (request.headers['sec-websocket-version'] !== '13') {
    throw new GantryError('invalid', 'missing or bad WebSocket Version');
  }
  const accept = createHash('sha1').update(`${key}${ACCEPT_SUFFIX}`).digest('base64');
  return `HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Accept: ${accept}\r\n\r\n`;
}

function frame(opcode: number, payload: Buffer): Buffer {
  const { length } = payload;
  let head: Buffer;
  if (length < 126) head = Buffer.from([0x80 | opcode, length]);
  else if (length < 65536) {
    head = Buffer.from([0x80 | opcode, 126, 0, 0]);
    head.writeUInt16BE(length, 2);
  } else {
    head = Buffer.alloc(10);
    head[0] = 0x80 | opcode;
    head[1] = 127;
    head.writeUInt32BE(length, 6);
  }
  return Buffer.concat([head, payload]);
}

interface FrameState {
  readonly opcode: number;
  remaining: number;
  readonly mask: Buffer;
  offset: number;
}

class WebSocketDuplex extends Duplex {
  readonly #socket: Duplex;
  readonly #opcode: number;
  #pending: Buffer = Buffer.alloc(0);
  #frame: FrameState | undefined;
  #control: Buffer[] = [];
  #isInputEnded = false;
  #isCloseSent = false;

  constructor(socket: Duplex, type: FrameType) {
    super({ allowHalfOpen: true });
    this.#socket = socket;
    this.#opcode = OPCODE[type];
    socket.on('data', (chunk: Buffer) => this.#receive(chunk));
    socket.on('end', () => this.#endInput());
    socket.on('error', (error) => this.destroy(error));
    socket.on('close', () => this.destroy());
  }

  override _read(): void {
    this.#socket.resume();
  }

  override _write(chunk: Buffer, _encoding: BufferEncoding, callback: (error?: Error | null) => void): void {
    this.#socket.write(frame(this.#opcode, chunk), callback);
  }

  override _final(callback: (error?: Error | null) => void): void {
    this.#sendClose(1000);
    this.#socket.end(callback);
  }

  override _destroy(error: Error | null, callback: (error?: Error | null) => void): void {
    this.#socket.destroy();
    callback(error);
  }

  #endInput(): void {
    if (this.#isInputEnded) return;
    this.#isInputEnded = true;
    this.push(null);
  }

  #sendClose(code: number): void {
    if (this.#isCloseSent) return;
    this.#isCloseSent = true;
    if (this.#socket.writable) this.#socket.write(frame(OPCODE.close, Buffer.from([code >> 8, code & 0xff])));
  }

  #fail(): void {
    this.#sendClose(1002);
    this.destroy();
  }

  #receive(chunk: Buffer): void {
    this.#pending = this.#pending.length === 0 ? chunk : Buffer.concat([this.#pending, chunk]);
    while (!this.destroyed && !this.#isInputEnded) {
      if (this.#frame === undefined && !this.#readHead()) return;
      if (!this.#readPayload()) return;
    }
  }

  /** Whether a whole head was there. */
  #readHead(): boolean {
    const bytes = this.#pending;
    if (bytes.length < 2) return false;
    const [first = 0, second = 0] = bytes;
    const opcode = first & 0x0f;
    const short = second & 0x7f;
    const isControl = opcode >= 8;
    const isKnown = opcode <= OPCODE.binary || (opcode >= OPCODE.close && opcode <= OPCODE.pong);
    const isBroken = (first & 0x70) !== 0 || (second & 0x80) === 0 || !isKnown;
    if (isBroken || (isControl && (short > MAX_CONTROL_BYTES || (first & 0x80) === 0))) {
      this.#fail();
      return false;
    }
    const extended = short === 126 ? 2 : short === 127 ? 8 : 0;
    const size = 2 + extended + 4;
    if (size > MAX_HEADER_BYTES || bytes.length < size) return false;
    const length = extended === 0 ? short : extended === 2 ? bytes.readUInt16BE(2) : Number(bytes.readBigUInt64BE(2));
    if (!Number.isSafeInteger(length)) {
      this.#fail();
      return false;
    }
    this.#frame = { opcode, remaining: length, mask: bytes.subarray(size - 4, size), offset: 0 };
    this.#pending = bytes.subarray(size);
    return true;
  }

  /** Whether the current frame is complete. */
  #readPayload(): boolean {
    const state = this.#frame;
    if (state === undefined) return false;
    const part = Buffer.from(this.#pending.subarray(0, state.remaining));
    this.#pending = this.#pending.subarray(part.length);
    for (let index = 0; index < part.length; index++) {
      part[index] = (part[index] ?? 0) ^ (state.mask[(state.offset + index) & 3] ?? 0);
    }
    state.offset += part.length;
    state.remaining -= part.length;
    const isWhole = state.remaining === 0;
    if (state.opcode >= 8) this.#control.push(part);
    else if (part.length > 0 && !this.push(part)) this.#socket.pause();
    if (!isWhole) return false;
    this.#frame = undefined;
    if (state.opcode >= 8) this.#handleControl(state.opcode);
    return true;
  }

  #handleControl(opcode: number): void {
    const payload = Buffer.concat(this.#control);
    this.#control = [];
    if (opcode === OPCODE.close) {
      this.#sendClose(1000);
      this.#endInput();
    } else if (opcode === OPCODE.ping && !this.#isCloseSent && this.#socket.writable) {
      this.#socket.write(frame(OPCODE.pong, payload));
    }
  }
}

/** A duplex of unframed bytes over a socket whose handshake was answered. */
export function webSocketDuplex(socket: Duplex, type: FrameType): Duplex {
  return new WebSocketDuplex(socket, type);
}
