/**
 * Netlink messages and attributes as bytes (netlink(7)). Pure. Decoding never reads outside the buffer:
 * a length that does not fit ends in a NetlinkFormatError. All supported hosts are little-endian.
 */

export const NLMSG_ERROR = 2;
export const NLMSG_DONE = 3;
export const NLM_F_REQUEST = 1;
export const NLM_F_MULTI = 2;
export const NLM_F_ACK = 4;
export const NLM_F_DUMP = 0x300;
export const NLM_F_DUMP_INTR = 0x10;
export const NLM_F_EXCL = 0x200;
export const NLM_F_REPLACE = 0x100;
export const NLM_F_CREATE = 0x400;
const HEADER_BYTES = 16;
const ATTRIBUTE_HEADER_BYTES = 4;
/** Top bits of an attribute type are flags (nested, network byte order). */
const ATTRIBUTE_TYPE_MASK = 0x3fff;

/** Bytes that are not a netlink message. */
export class NetlinkFormatError extends Error {
  override readonly name = 'NetlinkFormatError';
}

/** One message without its header's length. */
export interface Message {
  readonly type: number;
  readonly flags: number;
  readonly sequence: number;
  readonly payload: Buffer;
}

/** An attribute to encode: a value, or nested attributes. */
export type Attribute = readonly [type: number, value: Buffer | readonly Attribute[]];

function aligned(length: number): number {
  return (length + 3) & ~3;
}

/** Encodes attributes, each padded to four bytes. */
export function encodeAttributes(attributes: readonly Attribute[]): Buffer {
  return Buffer.concat(
    attributes.map(([type, value]) => {
      const body = Buffer.isBuffer(value) ? value : encodeAttributes(value as readonly Attribute[]);
      const bytes = Buffer.alloc(aligned(ATTRIBUTE_HEADER_BYTES + body.length));
      bytes.writeUInt16LE(ATTRIBUTE_HEADER_BYTES + body.length, 0);
      bytes.writeUInt16LE(type, 2);
      body.copy(bytes, ATTRIBUTE_HEADER_BYTES);
      return bytes;
    }),
  );
}

/** Encodes one message; `body` is its family header, padded. */
export function encodeMessage(
  header: { type: number; flags: number; sequence: number },
  body: Buffer,
  attributes: readonly Attribute[] = [],
): Buffer {
  const tail = encodeAttributes(attributes);
  const offset = HEADER_BYTES + aligned(body.length);
  const bytes = Buffer.alloc(offset + tail.length);
  bytes.writeUInt32LE(bytes.length, 0);
  bytes.writeUInt16LE(header.type, 4);
  bytes.writeUInt16LE(header.flags, 6);
  bytes.writeUInt32LE(header.sequence, 8);
  body.copy(bytes, HEADER_BYTES);
  tail.copy(bytes, offset);
  return bytes;
}

/** Splits a datagram into its messages. */
export function decodeMessages(datagram: Buffer): Message[] {
  const messages: Message[] = [];
  let offset = 0;
  while (offset < datagram.length) {
    if (datagram.length - offset < HEADER_BYTES) throw new NetlinkFormatError('truncated message header');
    const length = datagram.readUInt32LE(offset);
    if (length < HEADER_BYTES || length > datagram.length - offset) throw new NetlinkFormatError('bad message length');
    messages.push({
      type: datagram.readUInt16LE(offset + 4),
      flags: datagram.readUInt16LE(offset + 6),
      sequence: datagram.readUInt32LE(offset + 8),
      payload: datagram.subarray(offset + HEADER_BYTES, offset + length),
    });
    offset += aligned(length);
  }
  return messages;
}

/** Attributes by type; the last of a repeated type wins. Values are views of `bytes`. */
export function decodeAttributes(bytes: Buffer): Map<number, Buffer> {
  const attributes = new Map<number, Buffer>();
  let offset = 0;
  while (bytes.length - offset >= ATTRIBUTE_HEADER_BYTES) {
    const length = bytes.readUInt16LE(offset);
    if (length < ATTRIBUTE_HEADER_BYTES || length > bytes.length - offset) {
      throw new NetlinkFormatError('bad attribute length');
    }
    const type = bytes.readUInt16LE(offset + 2) & ATTRIBUTE_TYPE_MASK;
    attributes.set(type, bytes.subarray(offset + ATTRIBUTE_HEADER_BYTES, offset + length));
    offset += aligned(length);
  }
  return attributes;
}

/** A 32-bit number as an attribute value. */
export function u32(value: number): Buffer {
  const bytes = Buffer.alloc(4);
  bytes.writeUInt32LE(value >>> 0);
  return bytes;
}

/** NUL-terminated text as an attribute value. */
export function text(value: string): Buffer {
  return Buffer.from(`${value}\0`);
}

/** Reads text up to its NUL. */
export function readText(value: Buffer | undefined): string {
  if (value === undefined) return '';
  const end = value.indexOf(0);
  return value.toString('utf8', 0, end < 0 ? value.length : end);
}

/** Reads a 32-bit number; undefined when absent or short. */
export function readU32(value: Buffer | undefined): number | undefined {
  return value === undefined || value.length < 4 ? undefined : value.readUInt32LE(0);
}
