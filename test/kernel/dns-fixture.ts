/** For the resolver's tests: namespaces with nothing but loopback, clients and servers inside them or on the host. */
import { createSocket, type RemoteInfo, type Socket as UdpSocket } from 'node:dgram';
import { once } from 'node:events';
import { mkdtempSync, readdirSync, rmSync } from 'node:fs';
import { createServer, isIPv6, Socket } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import type { ResolverView, Upstream } from '#services/dns/contract.ts';
import { dnsQuery, type QueryOptions, type ReadMessage, readDns } from '#services/dns/fake-messages.ts';
import { internetAddress } from '#system/dns/exchange.ts';
import { FrameReader, frame } from '#system/dns/frames.ts';
import { createNetworkNamespace, inNetworkNamespace, removeNetworkNamespace } from '#system/kernel/namespaces.ts';
import {
  bindSocket,
  closeSocket,
  connectSocket,
  localPort,
  openSocket,
  SOCK_DGRAM,
  SOCK_NONBLOCK,
} from '#system/kernel/socket.ts';
import { AF_INET, AF_INET6, setLink } from '#system/netlink/route.ts';
import { NetlinkSocket } from '#system/netlink/socket.ts';

const SOCK_STREAM = 1;
const ANSWER_TIMEOUT_MS = 15_000;

/** A network namespace with its loopback up. */
export class TestNamespace implements Disposable {
  readonly #directory: string = mkdtempSync(join(tmpdir(), 'gantry-dns-'));
  readonly path: string = join(this.#directory, 'ns');

  constructor() {
    createNetworkNamespace(this.path);
    using netlink = NetlinkSocket.open(this.path);
    netlink.request(setLink(1, { up: true }));
  }

  [Symbol.dispose](): void {
    removeNetworkNamespace(this.path);
    rmSync(this.#directory, { recursive: true, force: true });
  }
}

function inside<T>(path: string | undefined, work: () => T): T {
  return path === undefined ? work() : inNetworkNamespace(path, work);
}

/** Binds a socket in a namespace (undefined: here) and hands its descriptor over. */
export function boundSocket(path: string | undefined, type: 'udp' | 'tcp', address: string, port: number): number {
  return inside(path, () => {
    const family = isIPv6(address) ? AF_INET6 : AF_INET;
    const fd = openSocket(family, (type === 'udp' ? SOCK_DGRAM : SOCK_STREAM) | SOCK_NONBLOCK, 0);
    try {
      bindSocket(fd, internetAddress(address, port));
      return fd;
    } catch (error) {
      closeSocket(fd);
      throw error;
    }
  });
}

/** A UDP client that checks where answers come from. */
export class TestClient implements Disposable {
  readonly #socket: UdpSocket = createSocket('udp4');
  readonly #waiting = new Map<number, (reply: Buffer) => void>();
  /** Answers that came from anywhere but 127.0.0.11:53. */
  readonly strangers: string[] = [];
  #id = 0;

  constructor(path: string) {
    this.#socket.on('message', (message: Buffer, from: RemoteInfo) => {
      if (from.address !== '127.0.0.11' || from.port !== 53) this.strangers.push(`${from.address}:${from.port}`);
      this.#waiting.get(message.readUInt16BE(0))?.(message);
    });
    this.#socket.bind({ fd: boundSocket(path, 'udp', '127.0.0.1', 0) });
  }

  /** Sends bytes as they are; no answer is expected. */
  send(message: Buffer): void {
    this.#socket.send(message, 53, '127.0.0.11');
  }

  /** The answer to a question. */
  async ask(name: string, options: QueryOptions = {}): Promise<ReadMessage> {
    this.#id = (this.#id + 1) & 0xffff;
    return readDns(await this.exchange(dnsQuery(name, { ...options, id: this.#id })));
  }

  /** The answer to a message, told by its ID. */
  exchange(message: Buffer): Promise<Buffer> {
    const id = message.readUInt16BE(0);
    return new Promise((resolve, reject) => {
      const settle = (reply: Buffer): void => {
        clearTimeout(timer);
        this.#waiting.delete(id);
        resolve(reply);
      };
      const timer = setTimeout(() => {
        this.#waiting.delete(id);
        reject(new Error('no answer'));
      }, ANSWER_TIMEOUT_MS).unref();
      this.#waiting.set(id, settle);
      this.send(message);
    });
  }

  [Symbol.dispose](): void {
    this.#socket.close();
  }
}

/** A TCP connection to 127.0.0.11:53 inside a namespace. */
export function connectInside(path: string): Socket {
  const fd = inside(path, () => {
    const made = openSocket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK, 0);
    connectSocket(made, internetAddress('127.0.0.11', 53));
    return made;
  });
  return new Socket({ fd, readable: true, writable: true });
}

/** Sends queries on one connection at once; the answers as they come, until the server has closed. */
export async function askByTcp(path: string, queries: readonly Buffer[]): Promise<ReadMessage[]> {
  const socket = connectInside(path);
  const reader = new FrameReader();
  const answers: ReadMessage[] = [];
  socket.setTimeout(ANSWER_TIMEOUT_MS, () => socket.destroy(new Error('no answer')));
  socket.on('data', (chunk: Buffer) => {
    reader.push(chunk);
    for (let reply = reader.next(); reply !== undefined; reply = reader.next()) answers.push(readDns(reply));
  });
  socket.end(Buffer.concat(queries.map(frame)));
  await once(socket, 'close');
  return answers;
}

/** A port that is free for both protocols. */
function boundPair(path: string | undefined): { udpFd: number; tcpFd: number; port: number } {
  for (let attempt = 1; ; attempt += 1) {
    const udpFd = boundSocket(path, 'udp', '127.0.0.1', 0);
    const port = localPort(udpFd);
    try {
      return { udpFd, tcpFd: boundSocket(path, 'tcp', '127.0.0.1', port), port };
    } catch (error) {
      closeSocket(udpFd);
      if (attempt === 20) throw error;
    }
  }
}

/** What a server does with a query; undefined: nothing. */
export type Answering = (query: Buffer, protocol: 'udp' | 'tcp') => Buffer | readonly Buffer[] | undefined;

/** A DNS server on both protocols, in a namespace or on the host. */
export class TestServer implements AsyncDisposable {
  readonly queries: { bytes: Buffer; protocol: 'udp' | 'tcp'; port: number }[] = [];
  readonly port: number;
  readonly #udp: UdpSocket = createSocket('udp4');
  readonly #tcp: ReturnType<typeof createServer>;
  readonly #path: string | undefined;

  constructor(path: string | undefined, answer: Answering) {
    this.#path = path;
    const { udpFd, tcpFd, port } = boundPair(path);
    this.port = port;
    this.#udp.on('message', (bytes: Buffer, from: RemoteInfo) => {
      this.queries.push({ bytes, protocol: 'udp', port: from.port });
      const replies = answer(bytes, 'udp') ?? [];
      for (const reply of Buffer.isBuffer(replies) ? [replies] : replies)
        this.#udp.send(reply, from.port, from.address);
    });
    this.#udp.bind({ fd: udpFd });
    this.#tcp = createServer((socket) => {
      const reader = new FrameReader();
      socket.on('error', () => undefined);
      socket.on('data', (chunk: Buffer) => {
        reader.push(chunk);
        for (let bytes = reader.next(); bytes !== undefined; bytes = reader.next()) {
          this.queries.push({ bytes, protocol: 'tcp', port: socket.remotePort ?? 0 });
          const replies = answer(bytes, 'tcp') ?? [];
          for (const reply of Buffer.isBuffer(replies) ? [replies] : replies) socket.write(frame(reply));
        }
      });
    });
    this.#tcp.listen({ fd: tcpFd });
  }

  get upstream(): Upstream {
    return { address: '127.0.0.1', port: this.port, fromHost: this.#path === undefined };
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.#udp.close();
    await new Promise((resolve) => this.#tcp.close(resolve));
  }
}

/** A view of one network with these containers: name → address. */
export function viewOf(containers: Record<string, string>, upstreams: readonly Upstream[] = []): ResolverView {
  const endpoints = Object.entries(containers).map(([name, ipv4]) => ({ names: [name], ipv4, ipv6: '' }));
  return { networks: [{ name: 'net', endpoints, links: new Map() }], upstreams, external: true, ndotsSet: false };
}

/** Open descriptors of this process. */
export function descriptorCount(): number {
  return readdirSync('/proc/self/fd').length;
}
