/**
 * Sockets of families Node does not know (AF_NETLINK, AF_PACKET), and unix ones for others, by raw descriptor. Calls do not wait
 * unless the socket has a receive timeout: the owner sets SO_RCVTIMEO or polls.
 */
import { closeSync } from 'node:fs';
import { ERRNO, lastError } from './errno.ts';
import { foreign } from './ffi.ts';
import { libc } from './libc.ts';

const AF_UNIX = 1;
const SOCK_STREAM = 1;
/** Connections that wait to be accepted. */
const LISTEN_BACKLOG = 128;
export const AF_NETLINK = 16;
export const AF_PACKET = 17;
export const SOCK_DGRAM = 2;
export const SOCK_RAW = 3;
export const SOCK_NONBLOCK = 0o4000;
const SOCK_CLOEXEC = 0o2000000;
export const SOL_SOCKET = 1;
export const SO_SNDBUF = 7;
export const SO_RCVBUF = 8;
export const SO_RCVTIMEO = 20;
export const SOL_NETLINK = 270;
export const MSG_PEEK = 2;
export const MSG_TRUNC = 0x20;
export const MSG_DONTWAIT = 0x40;

/** socket(2), close-on-exec. */
export function openSocket(family: number, type: number, protocol: number): number {
  const fd = libc.socket(family, type | SOCK_CLOEXEC, protocol);
  if (fd < 0) throw lastError('socket', String(family));
  return fd;
}

/** bind(2) to a raw sockaddr. */
export function bindSocket(fd: number, address: Buffer): void {
  if (libc.bind(fd, address, address.length) !== 0) throw lastError('bind', String(fd));
}

/** connect(2); a stream socket that does not block goes on connecting by itself. */
export function connectSocket(fd: number, address: Buffer): void {
  if (libc.connect(fd, address, address.length) === 0) return;
  const error = lastError('connect', String(fd));
  if (error.code !== 'EINPROGRESS') throw error;
}

/** send(2) on a connected socket, without waiting. */
export function sendConnected(fd: number, data: Buffer): void {
  if (libc.sendto(fd, data, BigInt(data.length), MSG_DONTWAIT, null, 0) < 0n) throw lastError('send', String(fd));
}

/** The port an IPv4 or IPv6 socket is bound to. */
export function localPort(fd: number): number {
  const address = Buffer.alloc(28);
  const length = Buffer.alloc(4);
  length.writeUInt32LE(address.length);
  if (libc.getsockname(fd, address, length) !== 0) throw lastError('getsockname', String(fd));
  return address.readUInt16BE(2);
}

/** Index of an interface in this thread's network namespace; 0 when there is none. */
export function interfaceIndex(name: string): number {
  return libc.if_nametoindex(name);
}

/** A listening unix socket at `path`, for another process to accept on. */
export function listenUnix(path: string): number {
  const fd = openSocket(AF_UNIX, SOCK_STREAM, 0);
  try {
    const address = Buffer.from(`\0\0${path}\0`);
    address.writeUInt16LE(AF_UNIX, 0);
    bindSocket(fd, address);
    if (libc.listen(fd, LISTEN_BACKLOG) !== 0) throw lastError('listen', path);
    return fd;
  } catch (error) {
    closeSync(fd);
    throw error;
  }
}

/** sockaddr_nl. */
export function netlinkAddress(portId = 0, groups = 0): Buffer {
  const address = Buffer.alloc(12);
  address.writeUInt16LE(AF_NETLINK, 0);
  address.writeUInt32LE(portId, 4);
  address.writeUInt32LE(groups, 8);
  return address;
}

/** sendto(2); returns the bytes sent. */
export function sendTo(fd: number, data: Buffer, address: Buffer, flags = 0): number {
  const sent = libc.sendto(fd, data, BigInt(data.length), flags, address, address.length);
  if (sent < 0n) throw lastError('sendto', String(fd));
  return Number(sent);
}

/** recv(2) into `buffer`; undefined when nothing is there (EAGAIN). Interrupted calls are repeated. */
export function receive(fd: number, buffer: Buffer, flags = 0): number | undefined {
  for (;;) {
    const length = libc.recv(fd, buffer, BigInt(buffer.length), flags);
    if (length >= 0n) return Number(length);
    const errno = foreign().errno();
    if (errno === ERRNO['EAGAIN']) return undefined;
    if (errno !== ERRNO['EINTR']) throw lastError('recv', String(fd));
  }
}

/** setsockopt(2) with an int. */
export function setSocketInteger(fd: number, level: number, option: number, value: number): void {
  const bytes = Buffer.alloc(4);
  bytes.writeInt32LE(value);
  if (libc.setsockopt(fd, level, option, bytes, 4) !== 0) throw lastError('setsockopt', String(option));
}

/** Bounds how long `receive` waits. */
export function setReceiveTimeout(fd: number, timeoutMs: number): void {
  const bytes = Buffer.alloc(16);
  bytes.writeBigInt64LE(BigInt(Math.floor(timeoutMs / 1000)), 0);
  bytes.writeBigInt64LE(BigInt((timeoutMs % 1000) * 1000), 8);
  if (libc.setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, bytes, 16) !== 0) throw lastError('setsockopt', 'SO_RCVTIMEO');
}

/** The port the kernel gave a bound netlink socket. */
export function netlinkPort(fd: number): number {
  const address = Buffer.alloc(12);
  const length = Buffer.alloc(4);
  length.writeUInt32LE(address.length);
  if (libc.getsockname(fd, address, length) !== 0) throw lastError('getsockname', String(fd));
  return address.readUInt32LE(4);
}

/** close(2) for descriptors made here. */
export function closeSocket(fd: number): void {
  libc.close(fd);
}
