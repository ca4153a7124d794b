/**
 * One question to one server over a socket of its own, so that each has a random source port the kernel chose.
 * Sockets are connected: only the server's own datagrams arrive, and a port that is closed is noticed at once.
 */
import { createSocket } from 'node:dgram';
import { isIPv6, Socket } from 'node:net';
import { ERRNO, KernelError } from '#system/kernel/errno.ts';
import { inNetworkNamespace } from '#system/kernel/namespaces.ts';
import {
  closeSocket,
  connectSocket,
  interfaceIndex,
  openSocket,
  SOCK_DGRAM,
  SOCK_NONBLOCK,
  sendConnected,
} from '#system/kernel/socket.ts';
import { AF_INET, AF_INET6, addressBytes } from '#system/netlink/route.ts';
import type { Exchange, Server } from './contract.ts';
import { FrameReader, frame } from './frames.ts';

const SOCK_STREAM = 1;
/** Messages that are not the answer and are skipped; a server that sends more is not listened to. */
const STRANGE_MESSAGES_MAX = 16;

/** sockaddr_in or sockaddr_in6; a zone is looked up in this thread's namespace. */
export function internetAddress(address: string, port: number): Buffer {
  const [host = '', zone = ''] = address.split('%');
  const ipv6 = isIPv6(host);
  const bytes = Buffer.alloc(ipv6 ? 28 : 16);
  bytes.writeUInt16LE(ipv6 ? AF_INET6 : AF_INET, 0);
  bytes.writeUInt16BE(port, 2);
  addressBytes(host).copy(bytes, ipv6 ? 8 : 4);
  if (ipv6 && zone !== '') {
    const index = /^\d+$/.test(zone) ? Number(zone) : interfaceIndex(zone);
    if (index === 0) throw new KernelError(ERRNO['ENODEV'] ?? 19, 'if_nametoindex', zone);
    bytes.writeUInt32LE(index, 24);
  }
  return bytes;
}

/** A connected (or connecting) socket that does not block, made in the server's namespace. */
function openConnected(server: Server, type: number): number {
  const open = (): number => {
    const address = internetAddress(server.address, server.port);
    const fd = openSocket(address.readUInt16LE(0), type | SOCK_NONBLOCK, 0);
    try {
      connectSocket(fd, address);
      return fd;
    } catch (error) {
      closeSocket(fd);
      throw error;
    }
  };
  return server.namespacePath === undefined ? open() : inNetworkNamespace(server.namespacePath, open);
}

/** Asks; see the contract. */
export function ask(exchange: Exchange, signal: AbortSignal): Promise<Buffer> {
  return new Promise((resolve, reject) => {
    signal.throwIfAborted();
    let strange = 0;
    let close: (() => void) | undefined;
    const end = (error: Error | undefined, answer?: Buffer): void => {
      clearTimeout(timer);
      signal.removeEventListener('abort', abandon);
      close?.();
      close = undefined;
      if (answer === undefined) reject(error ?? new Error('the server closed the connection'));
      else resolve(answer);
    };
    const take = (bytes: Buffer): void => {
      if (close === undefined) return;
      if (exchange.accept(bytes)) {
        end(undefined, bytes);
        return;
      }
      strange += 1;
      if (strange >= STRANGE_MESSAGES_MAX) end(new Error('the server sends something else'));
    };
    const abandon = (): void => end(signal.reason instanceof Error ? signal.reason : new Error('abandoned'));
    const timer = setTimeout(() => end(new Error('the server is silent')), exchange.timeoutMs);
    signal.addEventListener('abort', abandon);
    try {
      close = exchange.protocol === 'udp' ? askDatagram(exchange, take, end) : askStream(exchange, take, end);
    } catch (error) {
      end(error as Error);
    }
  });
}

type Take = (bytes: Buffer) => void;
type End = (error: Error | undefined) => void;

function askDatagram({ server, message }: Exchange, take: Take, end: End): () => void {
  const fd = openConnected(server, SOCK_DGRAM);
  let socket: ReturnType<typeof createSocket>;
  try {
    sendConnected(fd, message);
    socket = createSocket(isIPv6(server.address.replace(/%.*/, '')) ? 'udp6' : 'udp4');
    socket.on('message', take);
    socket.on('error', end);
    socket.bind({ fd });
  } catch (error) {
    closeSocket(fd);
    throw error;
  }
  return () => void socket.close();
}

function askStream({ server, message }: Exchange, take: Take, end: End): () => void {
  const fd = openConnected(server, SOCK_STREAM);
  const socket = new Socket({ fd, readable: true, writable: true });
  const reader = new FrameReader();
  socket.on('error', end);
  socket.on('close', () => end(undefined));
  socket.on('data', (chunk: Buffer) => {
    reader.push(chunk);
    for (let answer = reader.next(); answer !== undefined; answer = reader.next()) take(answer);
  });
  socket.write(frame(message));
  return () => void socket.destroy();
}
