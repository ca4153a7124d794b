/**
 * The listening side: one UDP and one TCP socket on the same free port of 127.0.0.11 inside a namespace, made
 * there in one stretch and then served by this process's event loop like any other.
 */
import { createSocket, type Socket as UdpSocket } from 'node:dgram';
import { createServer, type Server, type Socket } from 'node:net';
import { hasCode } from '#system/kernel/errno.ts';
import { inNetworkNamespace } from '#system/kernel/namespaces.ts';
import {
  bindSocket,
  closeSocket,
  localPort,
  openSocket,
  SOCK_DGRAM,
  SOCK_NONBLOCK,
  SOL_SOCKET,
  setSocketInteger,
} from '#system/kernel/socket.ts';
import { AF_INET } from '#system/netlink/route.ts';
import type { Listener, MessageHandler } from './contract.ts';
import { internetAddress } from './exchange.ts';
import { FrameReader, frame } from './frames.ts';
import { LISTEN_ADDRESS, Redirect } from './redirect.ts';

const SOCK_STREAM = 1;
const SO_REUSEADDR = 2;
/** A port free for UDP may be taken for TCP; then another is tried. */
const PORT_ATTEMPTS_MAX = 16;
/** TCP clients of one container at a time; more are turned away. */
const CONNECTIONS_MAX = 64;
/** Queries of one connection being answered at a time; more are read when these are done. */
const PIPELINED_MAX = 16;
/** A connection on which nothing happens for so long is closed. */
const IDLE_TIMEOUT_MS = 8000;

interface Pair {
  readonly udpFd: number;
  readonly tcpFd: number;
  readonly port: number;
}

/** Listens; see the contract. */
export async function listen(namespacePath: string, handler: MessageHandler): Promise<Listener> {
  const pair = inNetworkNamespace(namespacePath, openRedirected);
  let udp: UdpSocket;
  try {
    udp = serveDatagrams(pair.udpFd, handler);
  } catch (error) {
    closeSocket(pair.udpFd);
    closeSocket(pair.tcpFd);
    throw error;
  }
  const clients = new Set<Socket>();
  const tcp = serveStreams(pair.tcpFd, handler, clients);
  return {
    port: pair.port,
    async [Symbol.asyncDispose]() {
      const closed = Promise.all([
        new Promise<void>((resolve) => void udp.close(resolve)),
        new Promise<void>((resolve) => void tcp.close(() => resolve())),
      ]);
      for (const client of clients) client.destroy();
      await closed;
    },
  };
}

/** Inside the namespace: sockets with port 53 redirected to them. Whole rules of an earlier daemon are left alone. */
function openRedirected(): Pair {
  using redirect = new Redirect();
  const present = redirect.present();
  const former = present?.port === undefined ? undefined : tryOpenPair(present.port);
  if (former !== undefined) return former;
  const pair = openPair(0);
  try {
    if (present === undefined) redirect.create(pair.port);
    else redirect.replace(pair.port);
    return pair;
  } catch (error) {
    closePair(pair);
    throw error;
  }
}

function openPair(port: number): Pair {
  for (let attempt = 1; ; attempt += 1) {
    const udpFd = openBound(SOCK_DGRAM, port);
    try {
      const chosen = localPort(udpFd);
      return { udpFd, tcpFd: openBound(SOCK_STREAM, chosen), port: chosen };
    } catch (error) {
      closeSocket(udpFd);
      if (attempt === PORT_ATTEMPTS_MAX || port !== 0 || !hasCode(error, 'EADDRINUSE')) throw error;
    }
  }
}

function tryOpenPair(port: number): Pair | undefined {
  try {
    return openPair(port);
  } catch (error) {
    if (hasCode(error, 'EADDRINUSE')) return undefined;
    throw error;
  }
}

function closePair({ udpFd, tcpFd }: Pair): void {
  closeSocket(udpFd);
  closeSocket(tcpFd);
}

function openBound(type: number, port: number): number {
  const fd = openSocket(AF_INET, type | SOCK_NONBLOCK, 0);
  try {
    // So that a new daemon gets the port whose connections are still dying; not for UDP, which would share it.
    if (type === SOCK_STREAM) setSocketInteger(fd, SOL_SOCKET, SO_REUSEADDR, 1);
    bindSocket(fd, internetAddress(LISTEN_ADDRESS, port));
    return fd;
  } catch (error) {
    closeSocket(fd);
    throw error;
  }
}

function serveDatagrams(fd: number, handler: MessageHandler): UdpSocket {
  const socket = createSocket('udp4');
  // A reply that cannot be sent is the client's loss, as on any network.
  socket.on('error', () => undefined);
  let open = true;
  socket.on('close', () => {
    open = false;
  });
  socket.on('message', (message, { port, address }) => {
    let answered = false;
    handler(message, 'udp', (reply) => {
      if (answered || !open) return;
      answered = true;
      socket.send(reply, port, address, () => undefined);
    });
  });
  socket.bind({ fd });
  return socket;
}

function serveStreams(fd: number, handler: MessageHandler, clients: Set<Socket>): Server {
  const server = createServer({ allowHalfOpen: true }, (client) => {
    clients.add(client);
    client.once('close', () => clients.delete(client));
    serveStream(client, handler);
  });
  server.maxConnections = CONNECTIONS_MAX;
  // An accept that fails (descriptors exhausted) loses that connection only.
  server.on('error', () => undefined);
  server.listen({ fd });
  return server;
}

/** Queries are taken from the connection as turns are free; bytes are read only when no whole query is left. */
function serveStream(client: Socket, handler: MessageHandler): void {
  const reader = new FrameReader();
  let underWay = 0;
  let ended = false;
  const goOn = (): void => {
    while (underWay < PIPELINED_MAX) {
      const message = reader.next();
      if (message === undefined) {
        if (ended && underWay === 0) client.end();
        else client.resume();
        return;
      }
      underWay += 1;
      answer(message);
    }
    client.pause();
  };
  const answer = (message: Buffer): void => {
    let answered = false;
    handler(message, 'tcp', (reply) => {
      if (answered || client.destroyed) return;
      answered = true;
      // The turn ends when the client has taken the reply, so a client that does not read is not read from.
      client.write(frame(reply), () => {
        underWay -= 1;
        goOn();
      });
    });
  };
  client.setTimeout(IDLE_TIMEOUT_MS, () => client.destroy());
  client.on('error', () => client.destroy());
  client.on('data', (chunk: Buffer) => {
    reader.push(chunk);
    goOn();
  });
  client.on('end', () => {
    ended = true;
    goOn();
  });
}
