/**
 * One published port as a socket of this process: it reserves the port against other programs and forwards
 * what address translation cannot (IPv6 to an IPv4 container, or no firewall at all). Closing it ends its
 * connections. Nothing here blocks the event loop; every table has a limit.
 */
import { createSocket, type RemoteInfo, type Socket as UdpSocket } from 'node:dgram';
import { connect, createServer, isIPv6, type Socket } from 'node:net';
import { ERRNO, errnoText, KernelError } from '#system/kernel/errno.ts';
import { bindSocket, closeSocket, openSocket } from '#system/kernel/socket.ts';
import { addressBytes } from '#system/netlink/route.ts';
import type { PublishedPort } from './contract.ts';

/** Connections forwarded at a time per port; more are refused (each holds two descriptors). */
const TCP_CONNECTIONS_MAX = 4096;
/** UDP clients remembered per port; the one silent for longest gives way. */
const UDP_SESSIONS_MAX = 1024;
/** A UDP client silent for this long is forgotten, as docker-proxy does. */
const UDP_SESSION_IDLE_MS = 90_000;

export interface Target {
  readonly address: string;
  readonly port: number;
}

/** A held port. */
export interface HostPort {
  close(): Promise<void>;
}

/** Binds the port; rejects with the system's error (`code` EADDRINUSE …). Without `target` connections are refused. */
export function openHostPort(port: PublishedPort, target: Target | undefined): Promise<HostPort> {
  switch (port.protocol) {
    case 'tcp':
      return openTcp(port, target);
    case 'udp':
      return openUdp(port, target);
    case 'sctp':
      return new Promise((resolve) => resolve(reserveSctp(port)));
    default:
      port.protocol satisfies never;
      throw new TypeError('unknown protocol');
  }
}

function openTcp(port: PublishedPort, target: Target | undefined): Promise<HostPort> {
  const open = new Set<Socket>();
  const server = createServer({ allowHalfOpen: true }, (client) => {
    if (target === undefined) return void client.resetAndDestroy();
    const upstream = connect({ host: target.address, port: target.port, allowHalfOpen: true });
    join(client, upstream, open);
  });
  server.maxConnections = TCP_CONNECTIONS_MAX;
  return new Promise((resolve, reject) => {
    server.once('error', reject);
    server.listen(
      { host: port.hostAddress, port: port.hostPort, ipv6Only: isIPv6(port.hostAddress), exclusive: true },
      () => {
        server.off('error', reject);
        // An accept that fails (descriptors exhausted) loses that connection only.
        server.on('error', () => undefined);
        resolve({
          close: () =>
            new Promise((closed) => {
              server.close(() => closed());
              for (const socket of open) socket.destroy();
            }),
        });
      },
    );
  });
}

/** Pipes both ways; the end of one direction is passed on alone, an error ends both. */
function join(client: Socket, upstream: Socket, open: Set<Socket>): void {
  for (const [socket, other] of [
    [client, upstream],
    [upstream, client],
  ] as const) {
    open.add(socket);
    socket.setNoDelay(true);
    socket.once('error', () => other.destroy());
    socket.once('close', () => {
      open.delete(socket);
      if (!other.readableEnded) other.destroy();
    });
    socket.pipe(other);
  }
}

interface Session {
  readonly socket: UdpSocket;
  readonly idle: NodeJS.Timeout;
}

function openUdp(port: PublishedPort, target: Target | undefined): Promise<HostPort> {
  const ipv6 = isIPv6(port.hostAddress);
  const front = createSocket({ type: ipv6 ? 'udp6' : 'udp4', ipv6Only: ipv6 });
  const sessions = new Map<string, Session>();
  const forget = (key: string): void => {
    const session = sessions.get(key);
    if (session === undefined) return;
    sessions.delete(key);
    clearTimeout(session.idle);
    session.socket.close();
  };
  const sessionOf = (client: RemoteInfo): Session => {
    const key = `${client.address}/${client.port}`;
    const known = sessions.get(key);
    if (known !== undefined) {
      known.idle.refresh();
      // Kept in order of use, so that the first is the one to give way.
      sessions.delete(key);
      sessions.set(key, known);
      return known;
    }
    if (sessions.size >= UDP_SESSIONS_MAX) forget(sessions.keys().next().value ?? '');
    const socket = createSocket(target !== undefined && isIPv6(target.address) ? 'udp6' : 'udp4');
    const session = { socket, idle: setTimeout(forget, UDP_SESSION_IDLE_MS, key).unref() };
    socket.on('message', (data) => front.send(data, client.port, client.address));
    socket.on('error', () => forget(key));
    sessions.set(key, session);
    return session;
  };
  return new Promise((resolve, reject) => {
    front.once('error', reject);
    front.bind({ address: port.hostAddress, port: port.hostPort, exclusive: true }, () => {
      front.off('error', reject);
      front.on('error', () => undefined);
      front.on('message', (data, client) => {
        if (target !== undefined) sessionOf(client).socket.send(data, target.port, target.address);
      });
      resolve({
        close: () =>
          new Promise((closed) => {
            for (const key of [...sessions.keys()]) forget(key);
            front.close(() => closed());
          }),
      });
    });
  });
}

const AF_INET = 2;
const AF_INET6 = 10;
const SOCK_STREAM = 1;
const IPPROTO_SCTP = 132;

/** SCTP is only reserved; translation does the rest. */
function reserveSctp(port: PublishedPort): HostPort {
  const ipv6 = isIPv6(port.hostAddress);
  let fd: number;
  try {
    fd = openSocket(ipv6 ? AF_INET6 : AF_INET, SOCK_STREAM, IPPROTO_SCTP);
  } catch (error) {
    if (!(error instanceof KernelError) || error.errno !== ERRNO['EPROTONOSUPPORT']) throw error;
    throw new Error(`sctp: ${errnoText(error.errno)} (this kernel has no SCTP)`, { cause: error });
  }
  const address = Buffer.alloc(ipv6 ? 28 : 16);
  address.writeUInt16LE(ipv6 ? AF_INET6 : AF_INET, 0);
  address.writeUInt16BE(port.hostPort, 2);
  addressBytes(port.hostAddress).copy(address, ipv6 ? 8 : 4);
  try {
    bindSocket(fd, address);
  } catch (error) {
    closeSocket(fd);
    throw error;
  }
  return { close: () => new Promise((resolve) => resolve(closeSocket(fd))) };
}
